//! Which mesh a command asks: the flags, and the runtime it asks with.

use std::net::SocketAddr;

use clap::Args;
use mizzen_cli::target::{Mesh, Wanted};

use super::local;

#[derive(Debug, Args)]
pub(crate) struct MeshFlags {
    /// Name of the run of `demo` or `up` [default: the only one that runs]
    #[arg(long)]
    name: Option<String>,
    /// Debug address of a control plane that runs by itself
    #[arg(long, value_name = "ADDRESS", conflicts_with = "name")]
    control: Option<SocketAddr>,
}

impl MeshFlags {
    pub(crate) fn find(&self) -> anyhow::Result<Mesh> {
        Mesh::find(&Wanted { name: self.name.clone(), control: self.control }, &local::state_root())
    }
}

/// Runs a command that asks over the network.
pub(crate) fn block_on<T>(ask: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask)
}
