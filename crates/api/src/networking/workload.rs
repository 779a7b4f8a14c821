//! WorkloadEntry and WorkloadGroup: workloads that are no pods (reference: features 1.5).

use std::collections::BTreeMap;

use mizzen_types::Labels;
use serde::Deserialize;

use crate::wire;

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// Address, DNS name or `unix://` path.
    pub address: String,
    /// Numbers by name of the service's port.
    #[serde(deserialize_with = "wire::int_map")]
    pub ports: BTreeMap<String, u16>,
    #[serde(deserialize_with = "wire::labels")]
    pub labels: Labels,
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Zero means 1.
    #[serde(deserialize_with = "wire::int")]
    pub weight: u32,
    pub service_account: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadGroup {
    pub metadata: WorkloadGroupMetadata,
    pub template: Option<WorkloadEntry>,
    pub probe: Option<ReadinessProbe>,
}

/// Stamped on entries that are registered automatically.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadGroupMetadata {
    #[serde(deserialize_with = "wire::labels")]
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
}

/// A health check; durations are seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessProbe {
    #[serde(deserialize_with = "wire::int")]
    pub initial_delay_seconds: u32,
    #[serde(deserialize_with = "wire::int")]
    pub timeout_seconds: u32,
    #[serde(deserialize_with = "wire::int")]
    pub period_seconds: u32,
    #[serde(deserialize_with = "wire::int")]
    pub success_threshold: u32,
    #[serde(deserialize_with = "wire::int")]
    pub failure_threshold: u32,
    pub http_get: Option<ProbeHttpGet>,
    pub tcp_socket: Option<ProbeTcpSocket>,
    pub exec: Option<ProbeExec>,
    pub grpc: Option<ProbeGrpc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeHttpGet {
    pub path: String,
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    pub host: String,
    pub scheme: String,
    pub http_headers: Vec<ProbeHttpHeader>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeHttpHeader {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeTcpSocket {
    pub host: String,
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeExec {
    pub command: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeGrpc {
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    pub service: String,
}
