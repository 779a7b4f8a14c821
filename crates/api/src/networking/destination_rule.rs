//! DestinationRule: how a destination is spoken to (reference: features 1.2).

use std::collections::BTreeMap;
use std::time::Duration;

use mizzen_types::Labels;
use serde::Deserialize;

use super::PortSelector;
use crate::selector::WorkloadSelector;
use crate::wire;

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    pub host: String,
    pub traffic_policy: Option<TrafficPolicy>,
    pub subsets: Vec<Subset>,
    /// `.`, `*`, `~` or namespaces; empty means the mesh's default.
    pub export_to: Vec<String>,
    pub workload_selector: Option<WorkloadSelector>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    pub name: String,
    #[serde(deserialize_with = "wire::labels")]
    pub labels: Labels,
    pub traffic_policy: Option<TrafficPolicy>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    pub load_balancer: Option<LoadBalancerSettings>,
    pub connection_pool: Option<ConnectionPoolSettings>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTlsSettings>,
    pub port_level_settings: Vec<PortTrafficPolicy>,
    pub tunnel: Option<TunnelSettings>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub retry_budget: Option<RetryBudget>,
}

/// Replaces, for one port, the four blocks as a whole (reference: semantics 110).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    pub port: Option<PortSelector>,
    pub load_balancer: Option<LoadBalancerSettings>,
    pub connection_pool: Option<ConnectionPoolSettings>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTlsSettings>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerSettings {
    pub simple: Option<SimpleLb>,
    pub consistent_hash: Option<ConsistentHashLb>,
    pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
    pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
    pub warmup: Option<WarmupConfiguration>,
    /// Deprecated form of `warmup.duration`.
    #[serde(deserialize_with = "wire::opt_duration")]
    pub warmup_duration_secs: Option<Duration>,
    /// In the schema, read by nobody yet.
    pub backend_utilization: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// Means least request.
    #[default]
    Unspecified,
    Random,
    Passthrough,
    RoundRobin,
    #[serde(alias = "LEAST_CONN")]
    LeastRequest,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHashLb {
    pub http_header_name: Option<String>,
    pub http_cookie: Option<HttpCookie>,
    pub use_source_ip: Option<bool>,
    pub http_query_parameter_name: Option<String>,
    pub ring_hash: Option<RingHash>,
    pub maglev: Option<MagLev>,
    /// Deprecated form of `ringHash.minimumRingSize`.
    #[serde(deserialize_with = "wire::opt_int")]
    pub minimum_ring_size: Option<u64>,
}

impl ConsistentHashLb {
    pub const DEFAULT_MINIMUM_RING_SIZE: u64 = 1024;
    pub const DEFAULT_TABLE_SIZE: u64 = 65_537;
    /// The largest table Envoy takes.
    pub const MAX_TABLE_SIZE: u64 = 5_000_011;
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCookie {
    pub name: String,
    pub path: String,
    /// The proxy makes the cookie when this is given; zero means a session cookie.
    #[serde(deserialize_with = "wire::opt_duration")]
    pub ttl: Option<Duration>,
    pub attributes: Vec<CookieAttribute>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieAttribute {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    #[serde(deserialize_with = "wire::int")]
    pub minimum_ring_size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MagLev {
    /// A prime number.
    #[serde(deserialize_with = "wire::int")]
    pub table_size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLoadBalancerSetting {
    pub enabled: Option<bool>,
    pub distribute: Vec<LocalityDistribute>,
    pub failover: Vec<LocalityFailover>,
    pub failover_priority: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityDistribute {
    pub from: String,
    #[serde(deserialize_with = "wire::int_map")]
    pub to: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityFailover {
    pub from: String,
    pub to: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareLoadBalancerSetting {
    pub enabled: Option<bool>,
    pub failover: Vec<LocalityFailover>,
    pub failover_priority: Vec<String>,
    #[serde(deserialize_with = "wire::opt_int")]
    pub min_cluster_size: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WarmupConfiguration {
    #[serde(deserialize_with = "wire::opt_duration")]
    pub duration: Option<Duration>,
    #[serde(deserialize_with = "wire::opt_number")]
    pub minimum_percent: Option<f64>,
    #[serde(deserialize_with = "wire::opt_number")]
    pub aggression: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPoolSettings {
    pub tcp: Option<TcpSettings>,
    pub http: Option<HttpSettings>,
}

/// Zero means unset (reference: semantics 115).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSettings {
    #[serde(deserialize_with = "wire::int")]
    pub max_connections: i32,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub connect_timeout: Option<Duration>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub max_connection_duration: Option<Duration>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub idle_timeout: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    #[serde(deserialize_with = "wire::int")]
    pub probes: u32,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub time: Option<Duration>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub interval: Option<Duration>,
}

/// Zero means unset (reference: semantics 115).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpSettings {
    #[serde(deserialize_with = "wire::int")]
    pub http1_max_pending_requests: i32,
    #[serde(deserialize_with = "wire::int")]
    pub http2_max_requests: i32,
    /// 1 means no keep-alive.
    #[serde(deserialize_with = "wire::int")]
    pub max_requests_per_connection: i32,
    #[serde(deserialize_with = "wire::int")]
    pub max_retries: i32,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub idle_timeout: Option<Duration>,
    pub h2_upgrade_policy: H2UpgradePolicy,
    pub use_client_protocol: bool,
    #[serde(deserialize_with = "wire::int")]
    pub max_concurrent_streams: i32,
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    #[serde(deserialize_with = "wire::opt_duration")]
    pub interval: Option<Duration>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    #[default]
    Default,
    DoNotUpgrade,
    Upgrade,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Absent means 5, zero switches it off.
    #[serde(rename = "consecutive5xxErrors", deserialize_with = "wire::opt_int")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Deprecated: means `consecutiveGatewayErrors`.
    #[serde(deserialize_with = "wire::int")]
    pub consecutive_errors: i32,
    #[serde(deserialize_with = "wire::opt_int")]
    pub consecutive_gateway_errors: Option<u32>,
    pub split_external_local_origin_errors: bool,
    #[serde(deserialize_with = "wire::opt_int")]
    pub consecutive_local_origin_failures: Option<u32>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub interval: Option<Duration>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub base_ejection_time: Option<Duration>,
    /// Zero means unset, so 10.
    #[serde(deserialize_with = "wire::int")]
    pub max_ejection_percent: i32,
    #[serde(deserialize_with = "wire::int")]
    pub min_health_percent: i32,
    pub outlier_detection_http_error_codes: Vec<String>,
}

impl OutlierDetection {
    pub const DEFAULT_CONSECUTIVE_5XX_ERRORS: u32 = 5;
    pub const DEFAULT_CONSECUTIVE_LOCAL_ORIGIN_FAILURES: u32 = 5;
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
    pub const DEFAULT_BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
    pub const DEFAULT_MAX_EJECTION_PERCENT: u32 = 10;
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTlsSettings {
    pub mode: ClientTlsMode,
    pub client_certificate: String,
    pub private_key: String,
    pub ca_certificates: String,
    pub credential_name: String,
    pub subject_alt_names: Vec<String>,
    pub sni: String,
    pub insecure_skip_verify: Option<bool>,
    pub ca_crl: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TunnelSettings {
    /// `CONNECT` (also when empty) or `POST`.
    pub protocol: String,
    pub target_host: String,
    #[serde(deserialize_with = "wire::int")]
    pub target_port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    pub version: ProxyProtocolVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
pub enum ProxyProtocolVersion {
    #[default]
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    #[serde(deserialize_with = "wire::opt_bare_percent")]
    pub percent: Option<mizzen_types::Percent>,
    #[serde(deserialize_with = "wire::int")]
    pub min_retry_concurrency: u32,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub budget_interval: Option<Duration>,
}
