//! Which mesh a command asks: the flags, and the runtime it asks with.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use mizzen_cli::cluster::{WantedCluster, has_kubeconfig};
use mizzen_cli::target::{Mesh, Wanted};

use super::local;
use crate::terminal;

#[derive(Debug, Args)]
pub(crate) struct MeshFlags {
    /// Name of the run of `demo` or `up` [default: the only one that runs]
    #[arg(long)]
    name: Option<String>,
    /// Debug address of a control plane that runs by itself
    #[arg(long, value_name = "ADDRESS", conflicts_with = "name")]
    control: Option<SocketAddr>,
    /// A mesh in the cluster of this kubeconfig [default: kubectl's, where no `demo` or `up` runs]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "control"])]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "control"])]
    context: Option<String>,
    /// Namespace of the control plane in the cluster
    #[arg(
        short = 'i',
        long = "istio-namespace",
        visible_alias = "istioNamespace",
        value_name = "NAMESPACE",
        default_value = "istio-system"
    )]
    istio_namespace: String,
}

impl MeshFlags {
    pub(crate) async fn find(&self) -> anyhow::Result<Mesh> {
        let only_cluster = self.kubeconfig.is_some() || self.context.is_some();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let variable = std::env::var_os("KUBECONFIG").filter(|files| !files.is_empty());
        let somewhere = only_cluster || has_kubeconfig(variable.as_deref(), home.as_deref());
        let cluster = somewhere.then(|| WantedCluster {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            root_namespace: self.istio_namespace.clone(),
        });
        let wanted = Wanted { name: self.name.clone(), control: self.control, cluster, only_cluster };
        let mesh = Mesh::find(&wanted, &local::state_root()).await?;
        if let Mesh::Run(run) = &mesh
            && self.name.is_none()
            && variable.is_some()
        {
            // Whoever works with a cluster may have forgotten what runs here.
            let name = &run.name;
            terminal::warning(&format!(
                "this is the mesh `{name}` of this machine (--name {name}), not the cluster of KUBECONFIG (--context NAME)"
            ));
        }
        Ok(mesh)
    }
}

/// Runs a command that asks over the network.
pub(crate) fn block_on<T>(ask: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask)
}
