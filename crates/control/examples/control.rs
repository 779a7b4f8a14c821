//! Runs a control plane by itself: `cargo run -p mizzen-control --example control -- FOLDER…`.

use std::path::PathBuf;

use mizzen_control::{ControlConfig, run};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let config = ControlConfig { config: args.iter().map(PathBuf::from).collect(), ..ControlConfig::default() };
    let shutdown = async { drop(tokio::signal::ctrl_c().await) };
    let ready = |bound| println!("{bound:?}");
    if let Err(error) = run(config, shutdown, ready).await {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
