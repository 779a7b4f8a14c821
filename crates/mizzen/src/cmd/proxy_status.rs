//! `mizzen proxy-status`: who is connected, and what each has acknowledged or refused.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use mizzen_cli::status;

use super::Output;
use super::mesh::{MeshFlags, block_on};
use crate::terminal;

/// Who is connected to the control plane, and what each proxy has acknowledged or refused.
///
/// For each type of configuration: SYNCED (acknowledged), STALE (sent, no answer yet), NACK (refused; the reason follows
/// the table), NOT SENT (nothing to send), IGNORED (never asked for); and how long it has been so.
#[derive(Debug, Args)]
#[command(
    alias = "ps",
    after_help = "Examples:
  mizzen proxy-status
  mizzen proxy-status reviews                      only proxies whose name begins so
  mizzen proxy-status -o json | jq '.[].proxy'
  mizzen proxy-status --control 127.0.0.1:15014    of a control plane that runs by itself
  mizzen proxy-status --kubeconfig ~/.kube/config  of a cluster

Exit status: 0 all that was sent is acknowledged, 1 something is refused or waits, or the mesh cannot be asked."
)]
pub(crate) struct ProxyStatus {
    /// Only proxies whose name begins with this
    proxy: Option<String>,
    #[command(flatten)]
    mesh: MeshFlags,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl ProxyStatus {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let status = block_on(async { status::fetch(&self.mesh.find().await?).await })?;
        match self.output {
            Output::Table => terminal::print(&status::render(&status, self.proxy.as_deref(), SystemTime::now())),
            Output::Json => terminal::print_json(&status),
        }
        Ok(if status::all_synced(&status) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
