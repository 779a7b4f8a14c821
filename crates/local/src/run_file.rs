//! `run.json` in the state folder: what runs where. Written by the supervisor, read by the commands for people.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// File name in the state folder.
pub const FILE: &str = "run.json";

/// A running mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunFile {
    pub name: String,
    /// Process id of the supervisor.
    pub pid: u32,
    pub version: String,
    /// Which proxy runs: `mizzen` or `envoy`.
    pub proxy: String,
    /// Files and folders that are watched.
    pub config: Vec<PathBuf>,
    pub control: ControlAddresses,
    pub gateway: Option<Instance>,
    /// Port of a Gateway server → port that is opened.
    #[serde(default)]
    pub gateway_ports: BTreeMap<u16, u16>,
    pub workloads: Vec<Instance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlAddresses {
    pub xds: SocketAddr,
    pub secure_xds: SocketAddr,
    pub debug: SocketAddr,
    pub log: PathBuf,
}

/// One proxy, and the application behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Name of the Deployment.
    pub workload: String,
    pub pod: String,
    pub namespace: String,
    /// Node id in xDS.
    pub node: String,
    /// What the proxy says of itself to the control plane.
    pub metadata: serde_json::Value,
    /// For people: where it is reached.
    pub address: String,
    pub admin: SocketAddr,
    pub health: SocketAddr,
    pub stats: SocketAddr,
    /// SPIFFE identity.
    pub identity: String,
    pub state: String,
    pub bootstrap: PathBuf,
    /// Folder of the logs.
    pub logs: PathBuf,
    /// Process that holds its network namespace, where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<u32>,
}

impl RunFile {
    /// Reads `run.json` of a state folder. `None` when there is none, or one that this version cannot read.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(folder.join(FILE)).ok()?).ok()
    }

    /// Whether its supervisor lives.
    pub fn is_alive(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    }
}

/// All meshes that run below `root` (see [`crate::state::root`]), by name.
pub fn running(root: &Path) -> Vec<RunFile> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut found: Vec<RunFile> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| RunFile::read(&entry.path()))
        .filter(RunFile::is_alive)
        .collect();
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found
}
