//! Runs a proxy from a bootstrap file and nothing around it, for measuring: `serve BOOTSTRAP [THREADS]`.

use mizzen_proxy::{Limits, ProxyConfig, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("usage: serve BOOTSTRAP [THREADS]")?;
    let config = ProxyConfig {
        bootstrap: std::fs::read_to_string(&name)?,
        bootstrap_name: name,
        concurrency: arguments.next().map_or(Ok(1), |threads| threads.parse())?,
        identity: None,
        state_dir: None,
        health_address: None,
        stats_address: None,
        drain_time: std::time::Duration::from_millis(200),
        ending: mizzen_proxy::Ending::AtOnce,
        limits: Limits::default(),
    };
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shutdown = async move {
        end.recv().await;
    };
    run::run(config, None, |started| println!("{started:?}"), shutdown).await?;
    Ok(())
}
