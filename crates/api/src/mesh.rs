//! MeshConfig: what holds for the whole mesh (reference: features 2.1).
//!
//! Read from the key `mesh` of the ConfigMap `istio`. Fields that nothing reads yet are kept in `rest`, so that they can
//! be named to the user.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::networking::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpRetry, LocalityLoadBalancerSetting, OutlierDetection, TcpKeepalive,
};
use crate::wire;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    #[serde(deserialize_with = "wire::int")]
    pub proxy_listen_port: u16,
    #[serde(deserialize_with = "wire::int")]
    pub proxy_inbound_listen_port: u16,
    /// Port of the explicit HTTP proxy listener; zero means none.
    #[serde(deserialize_with = "wire::int")]
    pub proxy_http_port: u16,
    #[serde(deserialize_with = "wire::duration")]
    pub connect_timeout: Duration,
    /// How long a listener waits for the first bytes; zero means for ever.
    #[serde(deserialize_with = "wire::duration")]
    pub protocol_detection_timeout: Duration,
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Empty means no log.
    pub access_log_file: String,
    pub access_log_format: String,
    pub access_log_encoding: AccessLogEncoding,
    pub default_config: ProxyConfig,
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    pub inbound_traffic_policy: InboundTrafficPolicy,
    pub enable_auto_mtls: bool,
    pub enable_tracing: bool,
    pub enable_prometheus_merge: bool,
    pub trust_domain: String,
    pub trust_domain_aliases: Vec<String>,
    pub default_service_export_to: Vec<String>,
    pub default_virtual_service_export_to: Vec<String>,
    pub default_destination_rule_export_to: Vec<String>,
    /// Policies of this namespace hold for the whole mesh.
    pub root_namespace: String,
    pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
    #[serde(deserialize_with = "wire::duration")]
    pub dns_refresh_rate: Duration,
    pub h2_upgrade_policy: H2UpgradePolicy,
    pub path_normalization: PathNormalization,
    pub default_http_retry_policy: Option<HttpRetry>,
    pub default_inbound_http_retry_policy: Option<HttpRetry>,
    pub default_traffic_policy: Option<DefaultTrafficPolicy>,
    /// All other fields, by name.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let everywhere = || vec!["*".to_owned()];
        Self {
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            proxy_http_port: 0,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::ZERO,
            tcp_keepalive: None,
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::Text,
            default_config: ProxyConfig::default(),
            outbound_traffic_policy: OutboundTrafficPolicy { mode: OutboundTrafficPolicyMode::AllowAny },
            inbound_traffic_policy: InboundTrafficPolicy::default(),
            enable_auto_mtls: true,
            enable_tracing: true,
            enable_prometheus_merge: true,
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            default_service_export_to: everywhere(),
            default_virtual_service_export_to: everywhere(),
            default_destination_rule_export_to: everywhere(),
            root_namespace: "istio-system".to_owned(),
            locality_lb_setting: None,
            dns_refresh_rate: Duration::from_secs(60),
            h2_upgrade_policy: H2UpgradePolicy::DoNotUpgrade,
            path_normalization: PathNormalization::default(),
            default_http_retry_policy: None,
            default_inbound_http_retry_policy: None,
            default_traffic_policy: None,
            rest: Map::new(),
        }
    }
}

/// The part of the proxies' own settings that anything reads (reference: features 2.2).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    pub discovery_address: String,
    #[serde(deserialize_with = "wire::opt_int")]
    pub concurrency: Option<u32>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub drain_duration: Option<Duration>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub termination_drain_duration: Option<Duration>,
    pub hold_application_until_proxy_starts: Option<bool>,
    /// All other fields, by name.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

/// Present without a mode it means `REGISTRY_ONLY`, as protobuf has it; an absent block means `ALLOW_ANY`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    pub mode: OutboundTrafficPolicyMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficPolicyMode {
    #[default]
    RegistryOnly,
    AllowAny,
    AllowAnyDynamicDns,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InboundTrafficPolicy {
    pub mode: InboundTrafficPolicyMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundTrafficPolicyMode {
    #[default]
    Passthrough,
    Localhost,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathNormalization {
    pub normalization: NormalizationType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NormalizationType {
    /// Means `BASE`.
    #[default]
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultTrafficPolicy {
    pub connection_pool: Option<ConnectionPoolSettings>,
    pub outlier_detection: Option<OutlierDetection>,
}
