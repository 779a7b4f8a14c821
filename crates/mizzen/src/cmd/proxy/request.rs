//! `mizzen proxy request`: a request to the proxy of this pod; the hooks of its container make it.

use std::process::ExitCode;

use clap::Args;
use mizzen_agent::request;

use crate::terminal;

/// Send a request to the proxy of this pod, and print the answer.
///
/// Injection has a native sidecar's container call `request --debug-port 15020 POST drain` before it ends. Without a port the
/// proxy's admin interface is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen proxy request GET config_dump
  mizzen proxy request --debug-port 15020 POST drain
  mizzen proxy request --debug-port 15020 POST quitquitquit

Exit status: 0 the answer was 200, 1 it was not, or there was none (the reason is on stderr).")]
pub(crate) struct Request {
    /// GET, POST …
    #[arg(value_name = "METHOD")]
    method: String,
    /// Path, with or without its slash
    #[arg(value_name = "PATH")]
    path: String,
    /// What to send
    #[arg(value_name = "BODY", default_value = "")]
    body: String,
    /// Port on this machine
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    debug_port: u16,
}

impl Request {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(request::request(self.debug_port, &self.method, &self.path, self.body))?;
        terminal::print(&String::from_utf8_lossy(&answer.body));
        Ok(ExitCode::SUCCESS)
    }
}
