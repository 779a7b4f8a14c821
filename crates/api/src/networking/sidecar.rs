//! Sidecar: what one workload's proxy sees of the mesh (reference: features 1.6).

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ConnectionPoolSettings, Destination, Port, ServerTlsSettings};
use crate::selector::LabelsSelector;

/// Limits what the proxies of some workloads see of the mesh, and which ports they open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// Workloads whose labels match; absent means all of the namespace.
    pub workload_selector: Option<LabelsSelector>,
    /// Ports that the proxy takes traffic for, in place of those of the workload's services.
    pub ingress: Vec<IstioIngressListener>,
    /// Hosts that the workload may call.
    pub egress: Vec<IstioEgressListener>,
    /// Limits of connections to the workload.
    pub inbound_connection_pool: Option<ConnectionPoolSettings>,
    /// What happens to traffic for unknown hosts.
    pub outbound_traffic_policy: Option<SidecarOutboundTrafficPolicy>,
}

/// A port that the proxy takes traffic for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct IstioIngressListener {
    /// The port.
    pub port: Option<Port>,
    /// Address that is listened on; empty means the pod's.
    pub bind: String,
    /// How traffic gets to the proxy.
    pub capture_mode: CaptureMode,
    /// Where the application is: `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`; empty means the same port.
    pub default_endpoint: String,
    /// TLS on this port.
    pub tls: Option<ServerTlsSettings>,
    /// Limits of connections to this port.
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// Hosts that the workload may call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["hosts"]))]
pub struct IstioEgressListener {
    /// Port of the listener; absent means every port.
    pub port: Option<Port>,
    /// Address that is listened on.
    pub bind: String,
    /// How traffic gets to the proxy.
    pub capture_mode: CaptureMode,
    /// `namespace/dns`; namespace may be `*`, `.` or `~`.
    pub hosts: Vec<String>,
}

/// How traffic gets to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaptureMode {
    #[default]
    Default,
    Iptables,
    None,
}

/// Present without a mode it means `REGISTRY_ONLY` (reference: semantics 103).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarOutboundTrafficPolicy {
    /// `REGISTRY_ONLY` refuses unknown hosts, `ALLOW_ANY` lets traffic to them pass.
    pub mode: SidecarOutboundTrafficPolicyMode,
    /// Service that traffic to unknown hosts is sent to.
    pub egress_proxy: Option<Destination>,
}

/// What happens to traffic for unknown hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SidecarOutboundTrafficPolicyMode {
    #[default]
    RegistryOnly,
    AllowAny,
}
