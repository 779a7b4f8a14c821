//! VirtualService: which requests go where (reference: features 1.1).

use std::time::Duration;

use indexmap::IndexMap;
use mizzen_types::{Labels, Percent};
use serde::Deserialize;

use super::StringMatch;
use crate::wire;

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// Short Kubernetes names, full names, `*.domain` or addresses; empty in a delegate.
    pub hosts: Vec<String>,
    /// `ns/name`, `name`, `./name` or `mesh`; empty means `mesh`.
    pub gateways: Vec<String>,
    pub http: Vec<HttpRoute>,
    pub tls: Vec<TlsRoute>,
    pub tcp: Vec<TcpRoute>,
    /// `.`, `*`, `~` or namespaces; empty means the mesh's default.
    pub export_to: Vec<String>,
}

/// One rule of `http`: the first that matches wins.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    pub name: String,
    /// Alternatives; empty matches every request.
    pub r#match: Vec<HttpMatchRequest>,
    pub route: Vec<HttpRouteDestination>,
    pub redirect: Option<HttpRedirect>,
    pub direct_response: Option<HttpDirectResponse>,
    pub delegate: Option<Delegate>,
    pub rewrite: Option<HttpRewrite>,
    /// Of the whole exchange, retries included; absent and zero mean none.
    #[serde(deserialize_with = "wire::opt_duration")]
    pub timeout: Option<Duration>,
    pub retries: Option<HttpRetry>,
    pub fault: Option<HttpFaultInjection>,
    pub mirror: Option<Destination>,
    /// Absent means all.
    #[serde(deserialize_with = "wire::opt_percent")]
    pub mirror_percentage: Option<Percent>,
    /// Deprecated form of `mirrorPercentage`.
    #[serde(alias = "mirror_percent", deserialize_with = "wire::opt_bare_percent")]
    pub mirror_percent: Option<Percent>,
    pub mirrors: Vec<HttpMirrorPolicy>,
    pub cors_policy: Option<CorsPolicy>,
    pub headers: Option<Headers>,
}

impl HttpRoute {
    /// All mirrors with their shares, from whichever of the fields they are written in.
    pub fn all_mirrors(&self) -> Vec<(&Destination, Percent)> {
        if let Some(destination) = &self.mirror {
            let share = self.mirror_percentage.or(self.mirror_percent).unwrap_or(Percent::ALWAYS);
            return vec![(destination, share)];
        }
        let with_share = |mirror: &'_ HttpMirrorPolicy| mirror.percentage.unwrap_or(Percent::ALWAYS);
        self.mirrors.iter().filter_map(|m| m.destination.as_ref().map(|d| (d, with_share(m)))).collect()
    }
}

/// All given fields have to match.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatchRequest {
    pub name: String,
    pub uri: Option<StringMatch>,
    pub ignore_uri_case: bool,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    pub headers: IndexMap<String, StringMatch>,
    pub without_headers: IndexMap<String, StringMatch>,
    pub query_params: IndexMap<String, StringMatch>,
    /// Of the listener; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    #[serde(deserialize_with = "wire::labels")]
    pub source_labels: Labels,
    pub source_namespace: String,
    /// Replaces the VirtualService's own list.
    pub gateways: Vec<String>,
    pub stat_prefix: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteDestination {
    pub destination: Destination,
    #[serde(deserialize_with = "wire::int")]
    pub weight: i32,
    pub headers: Option<Headers>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    pub host: String,
    pub subset: String,
    pub port: Option<PortSelector>,
}

impl Destination {
    /// The port that is named, if one is.
    pub fn port_number(&self) -> Option<u16> {
        self.port.as_ref().map(|port| port.number).filter(|number| *number != 0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    #[serde(deserialize_with = "wire::int")]
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    pub request: Option<HeaderOperations>,
    pub response: Option<HeaderOperations>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Replaces.
    pub set: IndexMap<String, String>,
    /// Appends.
    pub add: IndexMap<String, String>,
    pub remove: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    pub uri: String,
    pub prefix_rewrite: String,
    pub authority: String,
    #[serde(deserialize_with = "wire::opt_int")]
    pub port: Option<u16>,
    pub derive_port: Option<RedirectPortSelection>,
    pub scheme: String,
    /// 301 when absent or zero; see [`HttpRedirect::code`].
    #[serde(deserialize_with = "wire::int")]
    pub redirect_code: u16,
}

impl HttpRedirect {
    /// The status of the answer; 301 unless said otherwise.
    pub fn code(&self) -> u16 {
        if self.redirect_code == 0 { 301 } else { self.redirect_code }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPortSelection {
    FromProtocolDefault,
    FromRequestPort,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpDirectResponse {
    #[serde(deserialize_with = "wire::int")]
    pub status: u16,
    pub body: Option<HttpBody>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpBody {
    pub string: Option<String>,
    #[serde(deserialize_with = "wire::opt_bytes")]
    pub bytes: Option<Vec<u8>>,
}

impl HttpBody {
    pub fn as_bytes(&self) -> &[u8] {
        match (&self.string, &self.bytes) {
            (Some(text), _) => text.as_bytes(),
            (None, Some(bytes)) => bytes,
            (None, None) => b"",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delegate {
    pub name: String,
    /// Empty means the namespace of the root.
    pub namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    pub uri: String,
    pub authority: String,
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    pub r#match: String,
    pub rewrite: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// Zero or absent disables retries (reference: semantics 35).
    #[serde(deserialize_with = "wire::int")]
    pub attempts: i32,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub per_try_timeout: Option<Duration>,
    pub retry_on: String,
    pub retry_remote_localities: Option<bool>,
    pub retry_ignore_previous_hosts: Option<bool>,
    #[serde(deserialize_with = "wire::opt_duration")]
    pub backoff: Option<Duration>,
}

impl HttpRetry {
    /// What is retried when nobody says anything (reference: semantics 32).
    pub const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
    /// How often, when nobody says anything.
    pub const DEFAULT_ATTEMPTS: u32 = 2;
    /// First pause between attempts.
    pub const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultInjection {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultDelay {
    #[serde(deserialize_with = "wire::opt_duration")]
    pub fixed_delay: Option<Duration>,
    /// Refused by validation, as in Istio.
    #[serde(deserialize_with = "wire::opt_duration")]
    pub exponential_delay: Option<Duration>,
    /// Absent means never.
    #[serde(deserialize_with = "wire::opt_percent")]
    pub percentage: Option<Percent>,
    /// Deprecated form of `percentage`.
    #[serde(deserialize_with = "wire::opt_bare_percent")]
    pub percent: Option<Percent>,
}

impl FaultDelay {
    /// The share of requests that are delayed; none when it is not written (reference: semantics 45).
    pub fn share(&self) -> Percent {
        self.percentage.or(self.percent).unwrap_or(Percent::NEVER)
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultAbort {
    #[serde(deserialize_with = "wire::opt_int")]
    pub http_status: Option<u16>,
    /// Name of a gRPC status, for instance `UNAVAILABLE`.
    pub grpc_status: Option<String>,
    /// Refused by validation, as in Istio.
    pub http2_error: Option<String>,
    /// Absent means never.
    #[serde(deserialize_with = "wire::opt_percent")]
    pub percentage: Option<Percent>,
}

impl FaultAbort {
    /// The share of requests that are aborted; none when it is not written (reference: semantics 45).
    pub fn share(&self) -> Percent {
        self.percentage.unwrap_or(Percent::NEVER)
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMirrorPolicy {
    pub destination: Option<Destination>,
    /// Absent means all.
    #[serde(deserialize_with = "wire::opt_percent")]
    pub percentage: Option<Percent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Deprecated: exact origins.
    pub allow_origin: Vec<String>,
    pub allow_origins: Vec<StringMatch>,
    pub allow_methods: Vec<String>,
    pub allow_headers: Vec<String>,
    pub expose_headers: Vec<String>,
    /// Sent in whole seconds.
    #[serde(deserialize_with = "wire::opt_duration")]
    pub max_age: Option<Duration>,
    pub allow_credentials: Option<bool>,
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What happens to a preflight request from an origin that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    #[default]
    #[serde(alias = "UNSPECIFIED")]
    Forward,
    Ignore,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    pub r#match: Vec<TlsMatchAttributes>,
    pub route: Vec<RouteDestination>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsMatchAttributes {
    pub sni_hosts: Vec<String>,
    pub destination_subnets: Vec<String>,
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    #[serde(deserialize_with = "wire::labels")]
    pub source_labels: Labels,
    pub gateways: Vec<String>,
    pub source_namespace: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    pub r#match: Vec<L4MatchAttributes>,
    pub route: Vec<RouteDestination>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4MatchAttributes {
    pub destination_subnets: Vec<String>,
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    /// Ignored by Istio.
    pub source_subnet: String,
    #[serde(deserialize_with = "wire::labels")]
    pub source_labels: Labels,
    pub gateways: Vec<String>,
    pub source_namespace: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteDestination {
    pub destination: Destination,
    #[serde(deserialize_with = "wire::int")]
    pub weight: i32,
}
