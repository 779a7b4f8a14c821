//! VirtualService: which requests go where (reference: features 1.1).

use std::time::Duration;

use indexmap::IndexMap;
use mizzen_types::{Labels, Percent};
use schemars::JsonSchema;
use serde::Deserialize;

use super::StringMatch;
use crate::wire::{self, schema};

/// Decides where requests to some hosts go: the first rule that matches wins.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualService {
    /// Short Kubernetes names, full names, `*.domain` or addresses; empty in a delegate.
    pub hosts: Vec<String>,
    /// `ns/name`, `name`, `./name` or `mesh`; empty means `mesh`.
    pub gateways: Vec<String>,
    /// Rules for HTTP and gRPC requests, in order; the first that matches wins.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS connections that are passed on unopened, by server name.
    pub tls: Vec<TlsRoute>,
    /// Rules for connections of any other protocol.
    pub tcp: Vec<TcpRoute>,
    /// `.`, `*`, `~` or namespaces; empty means the mesh's default.
    pub export_to: Vec<String>,
}

/// One rule of `http`: the first that matches wins.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-also-fields" = { "mirror_percent": "mirrorPercent" }))]
pub struct HttpRoute {
    /// Shows in access logs and statistics.
    pub name: String,
    /// Alternatives; empty matches every request.
    pub r#match: Vec<HttpMatchRequest>,
    /// Destinations among which requests are split by weight.
    pub route: Vec<HttpRouteDestination>,
    /// Answers with a redirect in place of a destination's answer.
    pub redirect: Option<HttpRedirect>,
    /// Answers at once with a fixed response.
    pub direct_response: Option<HttpDirectResponse>,
    /// Goes on with the rules of another VirtualService, which has no hosts of its own.
    pub delegate: Option<Delegate>,
    /// Changes path or host before the request is sent on.
    pub rewrite: Option<HttpRewrite>,
    /// Of the whole exchange, retries included; absent and zero mean none.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub timeout: Option<Duration>,
    /// When and how often a failed try is repeated; absent means the mesh's default.
    pub retries: Option<HttpRetry>,
    /// Delays or aborts some requests, to see how callers cope.
    pub fault: Option<HttpFaultInjection>,
    /// Gets a copy of each request; its answers are thrown away.
    pub mirror: Option<Destination>,
    /// The share of requests that is mirrored; absent means all.
    #[serde(deserialize_with = "wire::opt_percent")]
    #[schemars(with = "schema::Share")]
    pub mirror_percentage: Option<Percent>,
    /// Deprecated form of `mirrorPercentage`.
    #[serde(alias = "mirror_percent", deserialize_with = "wire::opt_bare_percent")]
    #[schemars(with = "schema::BarePercent")]
    pub mirror_percent: Option<Percent>,
    /// Several places that get copies; not together with `mirror`.
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Which origins a browser may call from.
    pub cors_policy: Option<CorsPolicy>,
    /// Headers that are set, added or removed.
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
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatchRequest {
    /// Appended to the rule's name in access logs.
    pub name: String,
    /// The path, without the query.
    pub uri: Option<StringMatch>,
    /// Compares `uri` without regard to case, where it is exact or a prefix.
    pub ignore_uri_case: bool,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// The method, such as `GET`.
    pub method: Option<StringMatch>,
    /// The host that is asked for, with its port if it was written.
    pub authority: Option<StringMatch>,
    /// Conditions by header name in lower case; all have to hold.
    pub headers: IndexMap<String, StringMatch>,
    /// Conditions by header name of which none may hold.
    pub without_headers: IndexMap<String, StringMatch>,
    /// Conditions by query parameter; all have to hold.
    pub query_params: IndexMap<String, StringMatch>,
    /// Port of the listener that took the request; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    /// Labels of the workload that calls.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub source_labels: Labels,
    /// Namespace of the workload that calls.
    pub source_namespace: String,
    /// Gateways (or `mesh`) that this condition is for; replaces the VirtualService's own list.
    pub gateways: Vec<String>,
    /// Prefix of statistics for requests of this condition.
    pub stat_prefix: String,
}

/// A destination and its share of the requests.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct HttpRouteDestination {
    /// Where the requests go.
    pub destination: Destination,
    /// Share among the destinations of the rule; a lone destination gets all.
    #[serde(deserialize_with = "wire::int")]
    pub weight: i32,
    /// Headers that are set, added or removed for this destination.
    pub headers: Option<Headers>,
}

/// A service, or one subset of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["host"]))]
pub struct Destination {
    /// Name of the service: short (of the same namespace), full, or a host of a ServiceEntry.
    pub host: String,
    /// Name of a subset that a DestinationRule of this host defines.
    pub subset: String,
    /// Port of the service; may be absent when it has only one.
    pub port: Option<PortSelector>,
}

impl Destination {
    /// The port that is named, if one is.
    pub fn port_number(&self) -> Option<u16> {
        self.port.as_ref().map(|port| port.number).filter(|number| *number != 0)
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// The port's number.
    #[serde(deserialize_with = "wire::int")]
    pub number: u16,
}

/// Operations on the headers of request and response.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Headers {
    /// On the request before it is sent on.
    pub request: Option<HeaderOperations>,
    /// On the response before it is sent back.
    pub response: Option<HeaderOperations>,
}

/// Headers to set, add and remove.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderOperations {
    /// Replaces the values of these headers.
    pub set: IndexMap<String, String>,
    /// Appends values to these headers.
    pub add: IndexMap<String, String>,
    /// Removes these headers.
    pub remove: Vec<String>,
}

/// A redirect; what is not given stays as it was in the request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    /// The new path; not together with `prefixRewrite`.
    pub uri: String,
    /// Replaces only the prefix that matched.
    pub prefix_rewrite: String,
    /// The new host.
    pub authority: String,
    /// The new port.
    #[serde(deserialize_with = "wire::opt_int")]
    pub port: Option<u16>,
    /// How the port is found when none is given.
    pub derive_port: Option<RedirectPortSelection>,
    /// The new scheme, `http` or `https`.
    pub scheme: String,
    /// Status of the answer: 301 (when absent), 302, 303, 307 or 308.
    #[serde(deserialize_with = "wire::int")]
    pub redirect_code: u16,
}

impl HttpRedirect {
    /// The status of the answer; 301 unless said otherwise.
    pub fn code(&self) -> u16 {
        if self.redirect_code == 0 { 301 } else { self.redirect_code }
    }
}

/// Where the port of a redirect comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RedirectPortSelection {
    FromProtocolDefault,
    FromRequestPort,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["status"]))]
pub struct HttpDirectResponse {
    /// Status of the answer.
    #[serde(deserialize_with = "wire::int")]
    pub status: u16,
    /// Body of the answer; absent means empty.
    pub body: Option<HttpBody>,
}

/// A body, less than 1 MiB.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpBody {
    /// The body as text.
    pub string: Option<String>,
    /// The body in base64.
    #[serde(deserialize_with = "wire::opt_bytes")]
    #[schemars(with = "schema::Base64")]
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

/// Names another VirtualService.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Delegate {
    /// Name of the VirtualService.
    pub name: String,
    /// Its namespace; empty means the namespace of this one.
    pub namespace: String,
}

/// What is changed before the request is sent on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    /// Replaces the path, or the prefix that matched.
    pub uri: String,
    /// Replaces the host.
    pub authority: String,
    /// Replaces the parts of the path that an expression finds.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// An expression and what takes the place of what it finds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegexRewrite {
    /// The expression, in RE2's syntax.
    pub r#match: String,
    /// What is put there; `\1` is the first group.
    pub rewrite: String,
}

/// When and how often a failed try is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// Zero or absent disables retries (reference: semantics 35).
    #[serde(deserialize_with = "wire::int")]
    pub attempts: i32,
    /// How long one try may take; absent means as long as the rule's `timeout`.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub per_try_timeout: Option<Duration>,
    /// Conditions and status codes that call for another try, separated by commas.
    pub retry_on: String,
    /// Whether tries may go to other localities.
    pub retry_remote_localities: Option<bool>,
    /// Whether a try avoids endpoints that failed before; absent means yes.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Pause before the first repetition; absent means 25ms.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
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

/// Faults that are put in for some requests.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFaultInjection {
    /// Holds requests back before they are sent on.
    pub delay: Option<FaultDelay>,
    /// Answers in place of the destination.
    pub abort: Option<FaultAbort>,
}

/// Holds requests back.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultDelay {
    /// For how long.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub fixed_delay: Option<Duration>,
    /// Refused by validation, as in Istio.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub exponential_delay: Option<Duration>,
    /// Absent means never.
    #[serde(deserialize_with = "wire::opt_percent")]
    #[schemars(with = "schema::Share")]
    pub percentage: Option<Percent>,
    /// Deprecated form of `percentage`.
    #[serde(deserialize_with = "wire::opt_bare_percent")]
    #[schemars(with = "schema::BarePercent")]
    pub percent: Option<Percent>,
}

impl FaultDelay {
    /// The share of requests that are delayed; none when it is not written (reference: semantics 45).
    pub fn share(&self) -> Percent {
        self.percentage.or(self.percent).unwrap_or(Percent::NEVER)
    }
}

/// Answers in place of the destination.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultAbort {
    /// Status of the answer.
    #[serde(deserialize_with = "wire::opt_int")]
    pub http_status: Option<u16>,
    /// Name of a gRPC status, for instance `UNAVAILABLE`.
    pub grpc_status: Option<String>,
    /// Refused by validation, as in Istio.
    pub http2_error: Option<String>,
    /// Absent means never.
    #[serde(deserialize_with = "wire::opt_percent")]
    #[schemars(with = "schema::Share")]
    pub percentage: Option<Percent>,
}

impl FaultAbort {
    /// The share of requests that are aborted; none when it is not written (reference: semantics 45).
    pub fn share(&self) -> Percent {
        self.percentage.unwrap_or(Percent::NEVER)
    }
}

/// A place that gets copies of requests.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct HttpMirrorPolicy {
    /// Where the copies go.
    pub destination: Option<Destination>,
    /// Absent means all.
    #[serde(deserialize_with = "wire::opt_percent")]
    #[schemars(with = "schema::Share")]
    pub percentage: Option<Percent>,
}

/// Which calls from other origins a browser may make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Deprecated: exact origins.
    pub allow_origin: Vec<String>,
    /// Origins that may call.
    pub allow_origins: Vec<StringMatch>,
    /// Methods that may be used.
    pub allow_methods: Vec<String>,
    /// Request headers that may be sent.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a browser may remember the answer; sent in whole seconds.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub max_age: Option<Duration>,
    /// Whether cookies and the like may be sent.
    pub allow_credentials: Option<bool>,
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What happens to a preflight request from an origin that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schemars(extend("x-also" = ["UNSPECIFIED"]))]
pub enum UnmatchedPreflights {
    #[default]
    #[serde(alias = "UNSPECIFIED")]
    Forward,
    Ignore,
}

/// Sends TLS connections on without opening them.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRoute {
    /// Alternatives, of which one has to match.
    pub r#match: Vec<TlsMatchAttributes>,
    /// Destinations among which connections are split by weight.
    pub route: Vec<RouteDestination>,
}

/// All given fields have to match.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["sniHosts"]))]
pub struct TlsMatchAttributes {
    /// Server names (SNI) in the client's greeting; each must be covered by the VirtualService's hosts.
    pub sni_hosts: Vec<String>,
    /// Addresses or ranges that the client connected to.
    pub destination_subnets: Vec<String>,
    /// Port that the client connected to; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    /// Labels of the workload that calls.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub source_labels: Labels,
    /// Gateways (or `mesh`) that this condition is for; replaces the VirtualService's own list.
    pub gateways: Vec<String>,
    /// Namespace of the workload that calls.
    pub source_namespace: String,
}

/// Sends connections on.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRoute {
    /// Alternatives; empty matches every connection.
    pub r#match: Vec<L4MatchAttributes>,
    /// Destinations among which connections are split by weight.
    pub route: Vec<RouteDestination>,
}

/// All given fields have to match.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct L4MatchAttributes {
    /// Addresses or ranges that the client connected to.
    pub destination_subnets: Vec<String>,
    /// Port that the client connected to; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    /// Ignored by Istio.
    pub source_subnet: String,
    /// Labels of the workload that calls.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub source_labels: Labels,
    /// Gateways (or `mesh`) that this condition is for; replaces the VirtualService's own list.
    pub gateways: Vec<String>,
    /// Namespace of the workload that calls.
    pub source_namespace: String,
}

/// A destination and its share of the connections.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["destination"]))]
pub struct RouteDestination {
    /// Where the connections go.
    pub destination: Destination,
    /// Share among the destinations of the rule; a lone destination gets all.
    #[serde(deserialize_with = "wire::int")]
    pub weight: i32,
}
