//! ServiceEntry: a service that Kubernetes does not know (reference: features 1.4).

use schemars::JsonSchema;
use serde::Deserialize;

use super::WorkloadEntry;
use crate::selector::LabelsSelector;
use crate::wire;

/// Adds a service that Kubernetes does not know: outside of the cluster, or made of WorkloadEntries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["hosts"]))]
pub struct ServiceEntry {
    /// Names of the service; `*.domain` covers all names below.
    pub hosts: Vec<String>,
    /// Addresses or ranges by which the service is reached; where there is none, one is given to it.
    pub addresses: Vec<String>,
    /// Ports of the service.
    pub ports: Vec<ServicePort>,
    /// Whether the service is part of the mesh.
    pub location: ServiceEntryLocation,
    /// How endpoints are found.
    pub resolution: ServiceEntryResolution,
    /// The endpoints; not together with `workloadSelector`.
    pub endpoints: Vec<WorkloadEntry>,
    /// Labels of WorkloadEntries and pods of the namespace that are the endpoints.
    pub workload_selector: Option<LabelsSelector>,
    /// `.`, `*`, `~` or namespaces that see the service; empty means the mesh's default.
    pub export_to: Vec<String>,
    /// Names of which the certificate of an endpoint must have one.
    pub subject_alt_names: Vec<String>,
    /// `status.addresses`: what a control plane gave to hosts without an address. No field of `spec`.
    #[serde(skip)]
    pub given: Vec<GivenAddress>,
}

/// An address that a control plane gave to a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GivenAddress {
    pub value: String,
    /// As the entry writes it.
    pub host: String,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["number", "name"]))]
pub struct ServicePort {
    /// The port's number.
    #[serde(deserialize_with = "wire::int")]
    pub number: u16,
    /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.
    pub protocol: String,
    /// Name of the port.
    pub name: String,
    /// Zero means the same as `number`.
    #[serde(deserialize_with = "wire::int")]
    pub target_port: u16,
}

/// Whether a service is part of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceEntryLocation {
    #[default]
    MeshExternal,
    MeshInternal,
}

/// How endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceEntryResolution {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}
