//! What the outside says: flags, variables, files of the pod, addresses of its interfaces. Gathered by the program.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// What kind of proxy this is; the first part of its node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Sidecar,
    Router,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// Everything that decides about node, bootstrap and addresses.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub role: Role,
    /// `--domain`.
    pub domain: Option<String>,
    /// `--serviceCluster`.
    pub service_cluster: Option<String>,
    /// `--concurrency`; 0 is one thread for each processor.
    pub concurrency: Option<u32>,
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// Text of `/etc/istio/pod/labels` and `annotations`, as the downward API writes them.
    pub labels: Option<String>,
    pub annotations: Option<String>,
    /// Text of the mesh configuration file, where one is mounted.
    pub mesh: Option<String>,
    /// Where the files of the pod lie: `/`.
    pub root: PathBuf,
    /// Addresses of this machine's interfaces.
    pub addresses: Vec<IpAddr>,
    pub hostname: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Our own version.
    pub version: String,
}

impl Inputs {
    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}
