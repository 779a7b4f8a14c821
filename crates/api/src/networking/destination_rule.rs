//! DestinationRule: how a destination is spoken to (reference: features 1.2).

use std::collections::BTreeMap;
use std::time::Duration;

use mizzen_types::Labels;
use schemars::JsonSchema;
use serde::Deserialize;

use super::PortSelector;
use crate::selector::WorkloadSelector;
use crate::wire::{self, schema};

/// Says how a service is spoken to: load balancing, limits, TLS, and the subsets that routes can name.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["host"]))]
pub struct DestinationRule {
    /// The service: short name, full name, `*.domain`, or a host of a ServiceEntry.
    pub host: String,
    /// Policy for all subsets that have none of their own.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named groups of endpoints, told apart by labels.
    pub subsets: Vec<Subset>,
    /// `.`, `*`, `~` or namespaces; empty means the mesh's default.
    pub export_to: Vec<String>,
    /// Only workloads of this namespace with these labels obey the rule, as clients.
    pub workload_selector: Option<WorkloadSelector>,
}

/// A named group of endpoints.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct Subset {
    /// The name that routes use.
    pub name: String,
    /// Labels that the endpoints must have.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub labels: Labels,
    /// Overrides the rule's policy, block by block.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How connections and requests to a destination are made.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// Which endpoint gets a request.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits of connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When an endpoint that fails is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the destination; absent means mutual TLS where the endpoint is in the mesh.
    pub tls: Option<ClientTlsSettings>,
    /// Policies for single ports; what they hold replaces the blocks above as a whole.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Sends TCP connections through another proxy.
    pub tunnel: Option<TunnelSettings>,
    /// Tells the destination the client's address by the PROXY protocol; not together with `tunnel`.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limits retries to a share of the requests under way, in place of `maxRetries`.
    pub retry_budget: Option<RetryBudget>,
}

/// Replaces, for one port, the four blocks as a whole (reference: semantics 110).
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The port that this is for.
    pub port: Option<PortSelector>,
    /// Which endpoint gets a request.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits of connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When an endpoint that fails is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the destination.
    pub tls: Option<ClientTlsSettings>,
}

/// Which endpoint gets a request.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerSettings {
    /// A rule that needs no settings; not together with `consistentHash`.
    pub simple: Option<SimpleLb>,
    /// The same header, cookie, address or parameter leads to the same endpoint.
    pub consistent_hash: Option<ConsistentHashLb>,
    /// Prefers or weighs endpoints by region, zone and subzone.
    pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
    /// Keeps traffic in the caller's zone as far as the endpoints' numbers allow.
    pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
    /// Gives new endpoints their share little by little.
    pub warmup: Option<WarmupConfiguration>,
    /// Deprecated form of `warmup.duration`.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub warmup_duration_secs: Option<Duration>,
    /// In the schema, read by nobody yet.
    pub backend_utilization: Option<BackendUtilization>,
}

/// Weights endpoints by the load that they report.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendUtilization {
    /// How much errors lower an endpoint's weight, in percent.
    #[serde(deserialize_with = "wire::opt_number")]
    pub error_utilization_penalty_percent: Option<f64>,
    /// Reported metrics that utilization is computed from.
    pub metric_names_for_computing_utilization: Vec<String>,
    /// How old a report may be.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub weight_expiration_period: Option<Duration>,
    /// How long an endpoint has to report before its weight counts.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub weight_stabilization_period: Option<Duration>,
    /// How often weights are computed.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub weight_update_period: Option<Duration>,
}

/// Rule by which an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schemars(extend("x-also" = ["LEAST_CONN"]))]
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

/// What is hashed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHashLb {
    /// Hashes this request header.
    pub http_header_name: Option<String>,
    /// Hashes a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// Hashes the client's address.
    pub use_source_ip: Option<bool>,
    /// Hashes this query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Hashes onto a ring (the default).
    pub ring_hash: Option<RingHash>,
    /// Hashes with Maglev's table.
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

/// A cookie that is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct HttpCookie {
    /// Name of the cookie.
    pub name: String,
    /// Path of a cookie that the proxy makes.
    pub path: String,
    /// The proxy makes the cookie when this is given; zero means a session cookie.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub ttl: Option<Duration>,
    /// More attributes of a cookie that the proxy makes.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute such as `SameSite`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct CookieAttribute {
    /// Name of the attribute.
    pub name: String,
    /// Value of the attribute; may be empty.
    pub value: String,
}

/// Settings of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// How many points the ring has at least; absent means 1024.
    #[serde(deserialize_with = "wire::int")]
    pub minimum_ring_size: u64,
}

/// Settings of Maglev's table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MagLev {
    /// A prime number.
    #[serde(deserialize_with = "wire::int")]
    pub table_size: u64,
}

/// How localities count; only one of `distribute`, `failover` and `failoverPriority`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLoadBalancerSetting {
    /// Switches it on or off; absent means as the mesh says.
    pub enabled: Option<bool>,
    /// Shares by locality of caller and endpoint.
    pub distribute: Vec<LocalityDistribute>,
    /// Where the traffic of a region goes when its endpoints fail.
    pub failover: Vec<LocalityFailover>,
    /// Labels by which endpoints are ranked: the more that agree with the caller's, in this order, the nearer.
    pub failover_priority: Vec<String>,
}

/// The shares for callers of one locality.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityDistribute {
    /// Locality of the caller: `region/zone/subzone`, where `*` may end it.
    pub from: String,
    /// Share in percent by locality of the endpoint; they add up to 100.
    #[serde(deserialize_with = "wire::int_map")]
    pub to: BTreeMap<String, u32>,
}

/// Where one region's traffic goes when its endpoints fail.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityFailover {
    /// The region whose endpoints fail.
    pub from: String,
    /// The region that takes over.
    pub to: String,
}

/// Keeps traffic in the caller's zone; not together with `localityLbSetting`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareLoadBalancerSetting {
    /// Switches it on or off.
    pub enabled: Option<bool>,
    /// Where the traffic of a region goes when its endpoints fail.
    pub failover: Vec<LocalityFailover>,
    /// Labels by which endpoints are ranked.
    pub failover_priority: Vec<String>,
    /// With fewer endpoints than this, zones do not count; absent means 6.
    #[serde(deserialize_with = "wire::opt_int")]
    pub min_cluster_size: Option<u64>,
}

/// Gives new endpoints their share little by little.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["duration"]))]
pub struct WarmupConfiguration {
    /// For how long an endpoint counts as new.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub duration: Option<Duration>,
    /// Share that it begins with, in percent; absent means 10.
    #[serde(deserialize_with = "wire::opt_number")]
    pub minimum_percent: Option<f64>,
    /// 1 (when absent) is a straight line; larger rises faster at first.
    #[serde(deserialize_with = "wire::opt_number")]
    pub aggression: Option<f64>,
}

/// Limits of connections and requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPoolSettings {
    /// Limits of connections, whatever they carry.
    pub tcp: Option<TcpSettings>,
    /// Limits of HTTP requests.
    pub http: Option<HttpSettings>,
}

/// Zero means unset (reference: semantics 115).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSettings {
    /// How many connections to the destination there may be.
    #[serde(deserialize_with = "wire::int")]
    pub max_connections: i32,
    /// How long connecting may take; absent means as the mesh says, 10s.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub connect_timeout: Option<Duration>,
    /// Probes of idle connections by the kernel.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How old a connection may become.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub max_connection_duration: Option<Duration>,
    /// How long a connection may be idle; absent means 1h.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub idle_timeout: Option<Duration>,
}

/// Probes of idle connections by the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// How many unanswered probes end the connection.
    #[serde(deserialize_with = "wire::int")]
    pub probes: u32,
    /// How long a connection is idle before the first probe.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub time: Option<Duration>,
    /// Time between probes.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub interval: Option<Duration>,
}

/// Zero means unset (reference: semantics 115).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpSettings {
    /// How many requests may wait for a connection.
    #[serde(deserialize_with = "wire::int")]
    pub http1_max_pending_requests: i32,
    /// How many requests may be under way, with HTTP/1 too.
    #[serde(deserialize_with = "wire::int")]
    pub http2_max_requests: i32,
    /// After this many requests a connection is closed; 1 means no keep-alive, zero no limit.
    #[serde(deserialize_with = "wire::int")]
    pub max_requests_per_connection: i32,
    /// How many retries may be under way.
    #[serde(deserialize_with = "wire::int")]
    pub max_retries: i32,
    /// How long a connection may be without a request; absent means 1h.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub idle_timeout: Option<Duration>,
    /// Whether requests that came by HTTP/1.1 are sent on by HTTP/2.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Sends on by the protocol that the client used.
    pub use_client_protocol: bool,
    /// How many requests one HTTP/2 connection may carry at a time.
    #[serde(deserialize_with = "wire::int")]
    pub max_concurrent_streams: i32,
    /// PING frames on HTTP/2 connections.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// PING frames on HTTP/2 connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2KeepAlive {
    /// Time between PINGs.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub interval: Option<Duration>,
    /// How long an answer may take before the connection is closed.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub timeout: Option<Duration>,
}

/// Whether HTTP/1.1 becomes HTTP/2 on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    #[default]
    Default,
    DoNotUpgrade,
    Upgrade,
}

/// When an endpoint that fails is left out for a while.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Absent means 5, zero switches it off.
    #[serde(rename = "consecutive5xxErrors", deserialize_with = "wire::opt_int")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Deprecated: means `consecutiveGatewayErrors`.
    #[serde(deserialize_with = "wire::int")]
    pub consecutive_errors: i32,
    /// How many 502, 503 and 504 in a row leave an endpoint out; absent or zero means they are not counted alone.
    #[serde(deserialize_with = "wire::opt_int")]
    pub consecutive_gateway_errors: Option<u32>,
    /// Counts failed connections and timeouts apart from bad answers.
    pub split_external_local_origin_errors: bool,
    /// How many of these in a row leave an endpoint out; absent means 5.
    #[serde(deserialize_with = "wire::opt_int")]
    pub consecutive_local_origin_failures: Option<u32>,
    /// Time between looks at the counts; absent means 10s.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub interval: Option<Duration>,
    /// For how long an endpoint is left out the first time; absent means 30s.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub base_ejection_time: Option<Duration>,
    /// How much of the endpoints may be left out at a time, in percent; absent or zero means 10.
    #[serde(deserialize_with = "wire::int")]
    pub max_ejection_percent: i32,
    /// With fewer healthy endpoints than this, in percent, none is left out.
    #[serde(deserialize_with = "wire::int")]
    pub min_health_percent: i32,
    /// Status codes that count as errors, in place of 5xx.
    pub outlier_detection_http_error_codes: Vec<String>,
}

impl OutlierDetection {
    pub const DEFAULT_CONSECUTIVE_5XX_ERRORS: u32 = 5;
    pub const DEFAULT_CONSECUTIVE_LOCAL_ORIGIN_FAILURES: u32 = 5;
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
    pub const DEFAULT_BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
    pub const DEFAULT_MAX_EJECTION_PERCENT: u32 = 10;
}

/// TLS towards a destination.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTlsSettings {
    /// Whether TLS is used, and with whose certificate.
    pub mode: ClientTlsMode,
    /// File with the client's certificate, for `MUTUAL`.
    pub client_certificate: String,
    /// File with the client's key, for `MUTUAL`.
    pub private_key: String,
    /// File with the roots that the server's certificate is checked against; empty means the system's.
    pub ca_certificates: String,
    /// Secret with certificate, key and roots, in place of files.
    pub credential_name: String,
    /// Names of which the server's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// Server name that is asked for; empty means the host of the request.
    pub sni: String,
    /// Does not check the server's certificate.
    pub insecure_skip_verify: Option<bool>,
    /// File with revoked certificates.
    pub ca_crl: String,
}

/// Whether TLS is used, and with whose certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

/// A proxy that connections are sent through.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["targetHost", "targetPort"]))]
pub struct TunnelSettings {
    /// Method that asks the proxy: `CONNECT` (also when empty) or `POST`.
    pub protocol: String,
    /// Host that the proxy is asked to connect to.
    pub target_host: String,
    /// Port that the proxy is asked to connect to.
    #[serde(deserialize_with = "wire::int")]
    pub target_port: u16,
}

/// The PROXY protocol towards a destination.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// Version of the header.
    pub version: ProxyProtocolVersion,
}

/// Version of the PROXY protocol's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
pub enum ProxyProtocolVersion {
    #[default]
    V1,
    V2,
}

/// Limits retries to a share of the requests under way.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// The share, in percent; absent means 20.
    #[serde(deserialize_with = "wire::opt_bare_percent")]
    #[schemars(with = "schema::BarePercent")]
    pub percent: Option<mizzen_types::Percent>,
    /// This many retries are always allowed; absent means 3.
    #[serde(deserialize_with = "wire::int")]
    pub min_retry_concurrency: u32,
    /// Time over which requests are counted; absent means those under way now.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub budget_interval: Option<Duration>,
}
