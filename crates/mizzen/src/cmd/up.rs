//! `mizzen up`: the user's own manifests as a mesh of local processes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::local::{self, LocalFlags};

/// Run your own manifests as a service mesh on this machine.
///
/// Reads Kubernetes Deployments, Services, ServiceAccounts and Namespaces and Istio's resources, and runs one local
/// process for every replica, each with a proxy. All files are followed: a changed Deployment is replaced, a changed
/// rule is in force within a second.
#[derive(Debug, Args)]
#[command(after_help = "What runs in the place of an image:
  1. the annotation on the Deployment         mizzen.dev/command: ./server --port $PORT
  2. the map in mizzen.yaml beside the files  images: {\"docker.io/me/app:*\": ./server --port $PORT}
  3. for Istio's Bookinfo images, the built-in application
The application listens on $HOST:$PORT and sends requests through $http_proxy; one that cannot be told its port says so
with the annotation mizzen.dev/app-port: \"8000\".
With --capture netns it listens on its container's port and calls others by their names, as in a cluster.

Examples:
  mizzen up ./manifests
  mizzen up bookinfo.yaml bookinfo-gateway.yaml virtual-service-all-v1.yaml
  mizzen up ./manifests --name shop --gateway-port 9000
  mizzen up ./manifests --capture netns                programs as they are; see `mizzen exec`
  mizzen up ./manifests --proxy envoy")]
pub(crate) struct Up {
    /// Manifests, or folders with manifests (*.yaml, *.yml, *.json)
    #[arg(required = true, value_name = "FILE-OR-FOLDER")]
    paths: Vec<PathBuf>,
    /// Name of this mesh, for several side by side
    #[arg(long, default_value = "up")]
    name: String,
    #[command(flatten)]
    flags: LocalFlags,
}

impl Up {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        local::run(&self.flags, &self.name, self.paths, Vec::new())
    }
}
