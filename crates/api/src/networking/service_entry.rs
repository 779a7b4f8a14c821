//! ServiceEntry: a service that Kubernetes does not know (reference: features 1.4).

use serde::Deserialize;

use super::WorkloadEntry;
use crate::selector::LabelsSelector;
use crate::wire;

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntry {
    pub hosts: Vec<String>,
    pub addresses: Vec<String>,
    pub ports: Vec<ServicePort>,
    pub location: ServiceEntryLocation,
    pub resolution: ServiceEntryResolution,
    pub endpoints: Vec<WorkloadEntry>,
    pub workload_selector: Option<LabelsSelector>,
    pub export_to: Vec<String>,
    pub subject_alt_names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    #[serde(deserialize_with = "wire::int")]
    pub number: u16,
    pub protocol: String,
    pub name: String,
    /// Zero means the same as `number`.
    #[serde(deserialize_with = "wire::int")]
    pub target_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceEntryLocation {
    #[default]
    MeshExternal,
    MeshInternal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceEntryResolution {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}
