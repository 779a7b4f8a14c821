//! `mizzen proxy wait`: what holds an application back until its proxy is ready.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mizzen_agent::wait;

/// Wait until the proxy of this pod is ready.
///
/// Injection calls this after the start of the proxy's container, so that the application starts after it
/// (`holdApplicationUntilProxyStarts`).
#[derive(Debug, Args)]
#[command(
    rename_all = "camelCase",
    after_help = "Examples:
  mizzen proxy wait
  mizzen proxy wait --timeoutSeconds 20

Exit status: 0 it is ready, 1 it was not in time (the reason is on stderr)."
)]
pub(crate) struct Wait {
    /// Where it is asked
    #[arg(long, value_name = "URL", default_value = "http://localhost:15021/healthz/ready")]
    url: String,
    /// How long to wait for one answer
    #[arg(long, value_name = "N", default_value_t = 500)]
    request_timeout_millis: u64,
    /// Time between questions
    #[arg(long, value_name = "N", default_value_t = 500)]
    period_millis: u64,
    /// How long to wait in all
    #[arg(long, value_name = "N", default_value_t = 60)]
    timeout_seconds: u64,
}

impl Wait {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let patience = wait::Patience {
            request: Duration::from_millis(self.request_timeout_millis),
            period: Duration::from_millis(self.period_millis),
            whole: Duration::from_secs(self.timeout_seconds),
        };
        runtime.block_on(wait::until_ready(&self.url, patience))?;
        Ok(ExitCode::SUCCESS)
    }
}
