//! What `mizzen demo` and `mizzen up` are told.

use std::path::PathBuf;

use mizzen_types::TrustDomain;

use crate::ProxyKind;
use crate::capture::Capture;
use crate::console::ConsoleSettings;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the run; several with different names live side by side.
    pub name: String,
    /// Our own binary, which is also the control plane, the proxies and Bookinfo.
    pub mizzen: PathBuf,
    /// The folder in which runs have their state folders, see [`crate::state::root`].
    pub state_root: PathBuf,
    /// Files and folders with the user's configuration.
    pub config: Vec<PathBuf>,
    /// Where port 80 of the gateway is offered, on 127.0.0.1.
    pub gateway_port: u16,
    pub proxy: ProxyKind,
    /// The Envoy binary, for [`ProxyKind::Envoy`].
    pub envoy: Option<PathBuf>,
    pub capture: Capture,
    pub trust_domain: TrustDomain,
    pub version: &'static str,
    pub console: ConsoleSettings,
    /// Said above the table: what the demo has written, for instance.
    pub introduction: Vec<String>,
}

/// Where port 80 is offered when nothing is said: ports below 1024 need privilege, and a fixed rule is easier to follow
/// than one that depends on who runs it.
pub const DEFAULT_GATEWAY_PORT: u16 = 8080;
