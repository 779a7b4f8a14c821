//! Pods and what makes them.

use mizzen_types::Labels;
use serde::Deserialize;

use std::collections::BTreeMap;

use crate::selector::WorkloadSelector;
use crate::wire::{self, IntOrString};

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    /// Empty means `default`; see [`PodSpec::service_account`].
    pub service_account_name: String,
    pub node_name: String,
    pub hostname: String,
    pub subdomain: String,
    pub host_network: bool,
}

impl PodSpec {
    pub fn service_account(&self) -> &str {
        if self.service_account_name.is_empty() { "default" } else { &self.service_account_name }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<EnvVar>,
    pub ports: Vec<ContainerPort>,
    pub readiness_probe: Option<Probe>,
    pub liveness_probe: Option<Probe>,
    pub startup_probe: Option<Probe>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    pub name: String,
    pub value: String,
    /// Present when the value comes from somewhere else.
    pub value_from: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: String,
    #[serde(deserialize_with = "wire::int")]
    pub container_port: u16,
    pub protocol: String,
}

/// Exactly one of the four ways; Kubernetes' defaults are given by the methods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    pub http_get: Option<HttpGetAction>,
    pub tcp_socket: Option<TcpSocketAction>,
    pub grpc: Option<GrpcAction>,
    pub exec: Option<ExecAction>,
    #[serde(deserialize_with = "wire::int")]
    pub initial_delay_seconds: u32,
    #[serde(deserialize_with = "wire::opt_int")]
    pub timeout_seconds: Option<u32>,
    #[serde(deserialize_with = "wire::opt_int")]
    pub period_seconds: Option<u32>,
    #[serde(deserialize_with = "wire::opt_int")]
    pub success_threshold: Option<u32>,
    #[serde(deserialize_with = "wire::opt_int")]
    pub failure_threshold: Option<u32>,
}

impl Probe {
    /// 1 unless said otherwise.
    pub fn timeout_seconds(&self) -> u32 {
        self.timeout_seconds.unwrap_or(1).max(1)
    }

    /// 10 unless said otherwise.
    pub fn period_seconds(&self) -> u32 {
        self.period_seconds.unwrap_or(10).max(1)
    }

    /// 1 unless said otherwise.
    pub fn success_threshold(&self) -> u32 {
        self.success_threshold.unwrap_or(1).max(1)
    }

    /// 3 unless said otherwise.
    pub fn failure_threshold(&self) -> u32 {
        self.failure_threshold.unwrap_or(3).max(1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGetAction {
    pub path: String,
    pub port: IntOrString,
    pub host: String,
    /// `HTTP` (also when empty) or `HTTPS`.
    pub scheme: String,
    pub http_headers: Vec<HttpHeader>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpHeader {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSocketAction {
    pub port: IntOrString,
    pub host: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcAction {
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    pub service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecAction {
    pub command: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    pub conditions: Vec<PodCondition>,
}

impl PodStatus {
    /// Whether the condition `Ready` is true.
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodIp {
    pub ip: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    pub r#type: String,
    pub status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deployment {
    pub spec: DeploymentSpec,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSpec {
    /// Absent means 1.
    #[serde(deserialize_with = "wire::opt_int")]
    pub replicas: Option<u32>,
    pub selector: WorkloadSelector,
    pub template: PodTemplate,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    pub metadata: TemplateMeta,
    pub spec: PodSpec,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateMeta {
    #[serde(deserialize_with = "wire::labels")]
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
}
