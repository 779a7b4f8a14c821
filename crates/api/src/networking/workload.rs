//! WorkloadEntry and WorkloadGroup: workloads that are no pods (reference: features 1.5).

use std::collections::BTreeMap;

use mizzen_types::Labels;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::wire::{self, schema};

/// A workload that is no pod, such as a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntry {
    /// Address, DNS name or `unix://` path.
    pub address: String,
    /// Numbers by name of the service's port.
    #[serde(deserialize_with = "wire::int_map")]
    pub ports: BTreeMap<String, u16>,
    /// Labels of the workload, by which services and policies select it.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub labels: Labels,
    /// Network in which the address is good.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Zero means 1.
    #[serde(deserialize_with = "wire::int")]
    pub weight: u32,
    /// Service account that the workload proves to be.
    pub service_account: String,
}

/// What virtual machines of one kind have in common, so that they can register themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["template"]))]
pub struct WorkloadGroup {
    /// Labels and annotations of the entries that are made.
    pub metadata: WorkloadGroupMetadata,
    /// What the entries that are made hold.
    pub template: Option<WorkloadEntry>,
    /// How the machine's agent finds out whether the workload is well.
    pub probe: Option<ReadinessProbe>,
}

/// Stamped on entries that are registered automatically.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadGroupMetadata {
    /// Labels of the entries.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub labels: Labels,
    /// Annotations of the entries.
    pub annotations: BTreeMap<String, String>,
}

/// A health check; durations are seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessProbe {
    /// Time before the first check.
    #[serde(deserialize_with = "wire::int")]
    pub initial_delay_seconds: u32,
    /// How long a check may take; absent means 1.
    #[serde(deserialize_with = "wire::int")]
    pub timeout_seconds: u32,
    /// Time between checks; absent means 10.
    #[serde(deserialize_with = "wire::int")]
    pub period_seconds: u32,
    /// How many good checks in a row make it well; absent means 1.
    #[serde(deserialize_with = "wire::int")]
    pub success_threshold: u32,
    /// How many bad checks in a row make it unwell; absent means 3.
    #[serde(deserialize_with = "wire::int")]
    pub failure_threshold: u32,
    /// Asks by HTTP; a status from 200 to 399 is good.
    pub http_get: Option<ProbeHttpGet>,
    /// Connects.
    pub tcp_socket: Option<ProbeTcpSocket>,
    /// Runs a command; exit status 0 is good.
    pub exec: Option<ProbeExec>,
    /// Asks gRPC's health service.
    pub grpc: Option<ProbeGrpc>,
}

/// A check by HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct ProbeHttpGet {
    /// Path that is asked for.
    pub path: String,
    /// Port that is asked.
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    /// Host that is asked; empty means localhost.
    pub host: String,
    /// `HTTP` or `HTTPS`.
    pub scheme: String,
    /// Headers of the request.
    pub http_headers: Vec<ProbeHttpHeader>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeHttpHeader {
    /// Name of the header.
    pub name: String,
    /// Value of the header.
    pub value: String,
}

/// A check by connecting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port"]))]
pub struct ProbeTcpSocket {
    /// Host to connect to; empty means localhost.
    pub host: String,
    /// Port to connect to.
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
}

/// A check by a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["command"]))]
pub struct ProbeExec {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// A check by gRPC's health service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeGrpc {
    /// Port that is asked.
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    /// Name of the service that is asked about.
    pub service: String,
}
