//! Which mesh is asked, and which of its proxies.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use mizzen_local::run_file::{self, Instance, RunFile};

use crate::cluster::{Cluster, WantedCluster};

/// How the user names a mesh.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A run of `demo` or `up`.
    pub name: Option<String>,
    /// Debug address of a control plane, for one that runs by itself.
    pub control: Option<SocketAddr>,
    /// A cluster; asked for where nothing runs on this machine.
    pub cluster: Option<WantedCluster>,
    /// Nothing on this machine is meant.
    pub only_cluster: bool,
}

/// A mesh that can be asked.
#[derive(Debug, Clone)]
pub enum Mesh {
    /// Of `demo` or `up`: we know everything about it.
    Run(Box<RunFile>),
    /// Only a control plane.
    Control(SocketAddr),
    /// In a Kubernetes cluster.
    Cluster(Box<Cluster>),
}

impl Mesh {
    /// Finds the mesh that `wanted` means; without a name, the only one that runs. `root` has the state folders.
    ///
    /// # Errors
    /// None or several are meant, or the cluster does not answer.
    pub async fn find(wanted: &Wanted, root: &Path) -> Result<Self> {
        if let Some(control) = wanted.control {
            return Ok(Self::Control(control));
        }
        let mut running = run_file::running(root);
        if let Some(cluster) = &wanted.cluster
            && (wanted.only_cluster || (wanted.name.is_none() && running.is_empty()))
        {
            return Ok(Self::Cluster(Box::new(Cluster::find(cluster).await?)));
        }
        let names = running.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(", ");
        match &wanted.name {
            Some(name) => match running.iter().position(|run| run.name == *name) {
                Some(at) => Ok(Self::Run(Box::new(running.swap_remove(at)))),
                None if running.is_empty() => bail!("no mesh runs; start one with `mizzen demo` or `mizzen up`"),
                None => bail!("no mesh named `{name}` runs; there is {names}"),
            },
            None => match running.len() {
                1 => Ok(Self::Run(Box::new(running.swap_remove(0)))),
                0 => bail!(
                    "no mesh runs; start one with `mizzen demo` or `mizzen up`, name a control plane: --control 127.0.0.1:15014, or a cluster: --kubeconfig FILE"
                ),
                _ => bail!("several meshes run; name one: --name {}", names.replace(", ", " | ")),
            },
        }
    }

    /// Debug HTTP of the control plane.
    pub fn debug(&self) -> SocketAddr {
        match self {
            Self::Run(run) => run.control.debug,
            Self::Cluster(cluster) => cluster.run.control.debug,
            Self::Control(address) => *address,
        }
    }

    /// Debug HTTP of all replicas of the control plane.
    pub fn debug_of_all(&self) -> Vec<SocketAddr> {
        match self {
            Self::Cluster(cluster) => cluster.controls.clone(),
            other => vec![other.debug()],
        }
    }

    /// The admin port of one of its proxies.
    ///
    /// # Errors
    /// No port can be opened to reach it by.
    pub async fn admin(&self, instance: &Instance) -> Result<SocketAddr> {
        match self {
            Self::Cluster(cluster) => cluster.admin(instance).await,
            Self::Run(_) | Self::Control(_) => Ok(instance.admin),
        }
    }

    /// Plaintext xDS of the control plane. By itself, a control plane has it four ports below its debug port.
    pub fn xds(&self) -> SocketAddr {
        match self {
            Self::Run(run) => run.control.xds,
            Self::Cluster(cluster) => cluster.run.control.xds,
            Self::Control(address) => SocketAddr::new(address.ip(), address.port().wrapping_sub(4)),
        }
    }

    /// The run, where there is one.
    pub fn run(&self) -> Result<&RunFile> {
        match self {
            Self::Run(run) => Ok(run),
            Self::Cluster(cluster) => Ok(&cluster.run),
            Self::Control(address) => {
                bail!(
                    "the control plane at {address} was not started by `mizzen demo` or `mizzen up`, so nothing says where the admin ports of its proxies are; use --admin ADDRESS"
                )
            }
        }
    }
}

/// All proxies of a run, the gateway first.
pub fn instances(run: &RunFile) -> impl Iterator<Item = &Instance> {
    run.gateway.iter().chain(&run.workloads)
}

/// The proxy that `name` means: a pod, a Deployment, or the beginning of one, each with `.NAMESPACE` if wanted.
///
/// # Errors
/// There is none; the message names those that there are.
pub fn instance<'r>(run: &'r RunFile, name: &str) -> Result<&'r Instance> {
    // As kubectl writes it: `deploy/productpage-v1`.
    let name = ["deployment/", "deploy/", "pod/"].iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name);
    let tests: [fn(&Instance, &str) -> bool; 4] = [
        |instance, name| instance.pod == name || format!("{}.{}", instance.pod, instance.namespace) == name,
        |instance, name| instance.workload == name || format!("{}.{}", instance.workload, instance.namespace) == name,
        |instance, name| instance.metadata["LABELS"]["app"] == *name,
        |instance, name| instance.pod.starts_with(name),
    ];
    // The first test that anything passes decides; several replicas of one Deployment are all as good.
    let found = tests.into_iter().find_map(|test| instances(run).find(|instance| test(instance, name)));
    found.with_context(|| {
        let known: Vec<&str> = instances(run).map(|instance| instance.pod.as_str()).collect();
        format!("there is no proxy `{name}`; there are {}", known.join(", "))
    })
}
