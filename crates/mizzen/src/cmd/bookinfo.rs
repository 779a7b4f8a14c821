//! `mizzen bookinfo`: one service of the demo application.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mizzen_bookinfo::{Config, Service};

use crate::{logging, signals};

/// Run one service of the Bookinfo application.
///
/// `mizzen demo` and `mizzen up` do this for you. The environment is that of Istio's images: SERVICE_VERSION,
/// ENABLE_RATINGS, STAR_COLOR, DETAILS_HOSTNAME and so on, and http_proxy for calls to other services.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen bookinfo details --port 9080
  http_proxy=http://127.0.0.1:15002 mizzen bookinfo reviews --service-version v3 --port 9081")]
pub(crate) struct Bookinfo {
    #[arg(value_parser = ["productpage", "details", "reviews", "ratings"], env = "BOOKINFO_SERVICE")]
    service: String,
    /// What the image says; the variable SERVICE_VERSION wins
    #[arg(long, default_value = "v1")]
    service_version: String,
    /// Port to listen on [default: PORT, else 9080]
    #[arg(long)]
    port: Option<u16>,
    /// Address to listen on [default: HOST, else 0.0.0.0]
    #[arg(long)]
    host: Option<String>,
    /// Seconds to go on serving after SIGTERM: in a cluster callers hear of the end a little later
    #[arg(long, default_value_t = 0, env = "BOOKINFO_LINGER", value_name = "SECONDS")]
    linger: u64,
    #[arg(long, default_value = "warn", env = "MIZZEN_LOG")]
    log_level: String,
}

impl Bookinfo {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        logging::start(&self.log_level)?;
        let service: Service = self.service.parse()?;
        let mut config = Config::from_environment(service, &self.service_version, |name| std::env::var(name).ok())?;
        config.port = self.port.unwrap_or(config.port);
        config.host = self.host.unwrap_or(config.host);
        // One thread is enough for a demo, and costs the least memory.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let asked = signals::end()?;
            let shutdown = async move {
                asked.await;
                tokio::time::sleep(Duration::from_secs(self.linger)).await;
            };
            mizzen_bookinfo::run(config, shutdown).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
