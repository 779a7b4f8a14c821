//! Route tables: virtual hosts, routes, and the action that a route asks for.
//!
//! Source: Envoy `config.route.v3.RouteConfiguration`; how Istio's rules become these is in `mizzen-translate`.

mod conditions;
mod cors;
mod fault;
mod hash;
mod hosts;
mod retry;
mod rewrite;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, uri::Scheme};
use mizzen_types::{ClusterName, Origin, Percent, RouteTableName};

use crate::header::{HeaderEdits, HeaderKey, HeaderMatch};
use crate::matcher::StringMatch;

pub use conditions::Mismatch;
pub use cors::{CorsDecision, CorsGrant};
pub use fault::{FaultDecision, FaultDraws};
pub use retry::{Outcome, Reset};

#[derive(Debug)]
pub struct RouteTable {
    pub name: RouteTableName,
    pub hosts: Vec<Arc<VirtualHost>>,
    pub domains: DomainIndex,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// The port in the authority is not compared with domains.
    pub ignore_port_in_host: bool,
    pub max_direct_response_bytes: u32,
}

/// Domains to index into [`RouteTable::hosts`]: exact first, then the longest suffix (`*.a.b`), then the longest
/// prefix (`a.*`), then `*`.
#[derive(Debug, Default)]
pub struct DomainIndex {
    pub exact: HashMap<Box<str>, usize>,
    /// Without the star, longest first.
    pub suffixes: Vec<(Box<str>, usize)>,
    pub prefixes: Vec<(Box<str>, usize)>,
    pub any: Option<usize>,
}

impl RouteTable {
    /// A table of these hosts with everything else at its default. A domain of two hosts is the first one's.
    pub fn new(name: RouteTableName, hosts: Vec<Arc<VirtualHost>>) -> Self {
        let mut domains = DomainIndex::default();
        for (index, host) in hosts.iter().enumerate() {
            for domain in &host.domains {
                domains.insert(domain, index);
            }
        }
        Self {
            name,
            hosts,
            domains,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            ignore_port_in_host: false,
            max_direct_response_bytes: 4096,
        }
    }
}

#[derive(Debug, Default)]
pub struct VirtualHost {
    pub name: String,
    pub domains: Vec<String>,
    pub routes: Vec<Arc<Route>>,
    pub require_tls: bool,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub retry: Option<Arc<RetryPolicy>>,
    pub cors: Option<Arc<Cors>>,
    pub fault: Option<Arc<Fault>>,
    pub include_attempt_count: bool,
    /// The resource that asked for this host, as far as its metadata tells.
    pub origin: Option<Origin>,
}

#[derive(Debug)]
pub struct Route {
    pub name: String,
    pub matches: RouteMatch,
    pub action: Action,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub fault: Option<Arc<Fault>>,
    pub cors: Option<Arc<Cors>>,
    /// The resource that asked for this route, as far as the route's metadata tells.
    pub origin: Option<Origin>,
    /// The field of that resource whose conditions `matches` holds; absent when only `origin` is known.
    pub match_field: Option<String>,
    /// For traces: Envoy's `decorator.operation`.
    pub operation: Option<String>,
}

#[derive(Debug, Clone)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
    /// Only gRPC requests (content type `application/grpc`).
    pub grpc: bool,
    /// Only this share of requests.
    pub share: Option<Percent>,
}

#[derive(Debug, Clone)]
pub enum PathMatch {
    Exact {
        path: Box<str>,
        ignore_case: bool,
    },
    Prefix {
        prefix: Box<str>,
        ignore_case: bool,
    },
    /// Prefix of whole segments (`/foo` matches `/foo` and `/foo/bar`, not `/foobar`).
    SegmentPrefix {
        prefix: Box<str>,
        ignore_case: bool,
    },
    /// Whole path without the query.
    Regex(regex::bytes::Regex),
    /// CONNECT requests, whatever their path.
    Connect,
}

#[derive(Debug, Clone)]
pub struct QueryMatch {
    pub name: String,
    /// `None`: the parameter must be present.
    pub value: Option<StringMatch>,
}

#[derive(Debug)]
pub enum Action {
    Forward(Box<Forward>),
    Redirect(Box<Redirect>),
    Respond(Box<DirectResponse>),
}

#[derive(Debug)]
pub struct Forward {
    pub target: Target,
    /// Status for a cluster that does not exist: 503 by default (Envoy: `cluster_not_found_response_code`).
    pub missing_cluster_status: StatusCode,
    pub rewrite_path: Option<PathRewrite>,
    pub rewrite_host: Option<HostRewrite>,
    /// Whole exchange including retries; `None` is unlimited.
    pub timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    /// Upper bound of a `grpc-timeout` header; `Some(0)` means no bound, `None` means the header is not honoured.
    pub grpc_timeout_max: Option<Duration>,
    pub retry: Option<Arc<RetryPolicy>>,
    pub mirrors: Vec<Mirror>,
    pub hash: Vec<HashPolicy>,
    /// Upgrades switched on or off for this route, over those of the handler.
    pub upgrades: Vec<(String, bool)>,
    pub append_x_forwarded_host: bool,
}

impl Forward {
    /// To one cluster, with everything else at Envoy's default but the timeout, which is unlimited.
    pub fn to_cluster(cluster: impl Into<ClusterName>) -> Self {
        Self {
            target: Target::Cluster(cluster.into()),
            missing_cluster_status: StatusCode::SERVICE_UNAVAILABLE,
            rewrite_path: None,
            rewrite_host: None,
            timeout: None,
            idle_timeout: None,
            grpc_timeout_max: None,
            retry: None,
            mirrors: Vec::new(),
            hash: Vec::new(),
            upgrades: Vec::new(),
            append_x_forwarded_host: false,
        }
    }
}

#[derive(Debug)]
pub enum Target {
    Cluster(ClusterName),
    Weighted {
        clusters: Vec<WeightedCluster>,
        total: u32,
    },
    /// The cluster is named by a request header.
    ClusterHeader(HeaderKey),
}

#[derive(Debug)]
pub struct WeightedCluster {
    pub cluster: ClusterName,
    pub weight: u32,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub rewrite_host: Option<HostRewrite>,
}

#[derive(Debug, Clone)]
pub enum PathRewrite {
    /// Replace what matched (prefix, or the whole path of an exact or regex match) with this; the query stays.
    Matched(Box<str>),
    /// Replace every occurrence in the path; the query stays. The substitution is in the syntax of the `regex` crate
    /// (`${1}`, `$$`).
    Regex { pattern: regex::Regex, substitution: String },
    /// The whole path. A query in it replaces the request's.
    Full(Box<str>),
}

#[derive(Debug, Clone)]
pub enum HostRewrite {
    Literal(http::HeaderValue),
    /// The host name of the chosen endpoint.
    Endpoint,
    Header(http::HeaderName),
}

#[derive(Debug)]
pub struct Redirect {
    pub status: StatusCode,
    pub scheme: Option<Scheme>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathRewrite>,
    pub strip_query: bool,
}

#[derive(Debug)]
pub struct DirectResponse {
    pub status: StatusCode,
    pub body: bytes_body::Body,
}

/// The body of a direct response; shared, never copied for a request.
pub mod bytes_body {
    pub type Body = std::sync::Arc<[u8]>;
}

#[derive(Debug, Clone)]
pub struct Mirror {
    pub cluster: ClusterName,
    pub share: Percent,
    /// Append `-shadow` to the host.
    pub shadow_host: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    pub on: RetryOn,
    /// How many times after the first try.
    pub retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub statuses: Vec<u16>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// Avoid endpoints that were tried already, trying this many picks.
    pub avoid_previous_hosts: bool,
    pub host_selection_attempts: u32,
    /// After so many tries among the endpoints of a priority, the next go to others; 0: never (Envoy:
    /// `previous_priorities`).
    pub leave_priorities_after: u32,
}

/// Conditions under which a try is repeated (Envoy: `x-envoy-retry-on`, `x-envoy-retry-grpc-on`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    pub server_error: bool,
    pub gateway_error: bool,
    pub reset: bool,
    pub reset_before_request: bool,
    pub connect_failure: bool,
    pub refused_stream: bool,
    pub retriable_4xx: bool,
    pub retriable_status_codes: bool,
    pub envoy_ratelimited: bool,
    pub http3_post_connect_failure: bool,
    pub grpc_cancelled: bool,
    pub grpc_deadline_exceeded: bool,
    pub grpc_internal: bool,
    pub grpc_resource_exhausted: bool,
    pub grpc_unavailable: bool,
}

#[derive(Debug, Clone)]
pub struct HashPolicy {
    pub on: HashOn,
    /// Stop at this policy if it gave a hash.
    pub terminal: bool,
}

#[derive(Debug, Clone)]
pub enum HashOn {
    Header(HeaderKey),
    /// Set by us with this lifetime when the client has none (zero: as long as the browser runs); without lifetime
    /// only read.
    Cookie {
        name: String,
        ttl: Option<Duration>,
        path: Option<String>,
        attributes: Vec<(String, String)>,
    },
    SourceIp,
    QueryParameter(String),
}

/// Faults to inject (Envoy: `envoy.filters.http.fault`).
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub delay: Option<(Duration, Percent)>,
    pub abort: Option<(Abort, Percent)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    Http(StatusCode),
    Grpc(i32),
}

/// Cross-origin sharing (Envoy: `envoy.filters.http.cors`).
#[derive(Debug, Clone)]
pub struct Cors {
    pub origins: Vec<StringMatch>,
    pub methods: Option<String>,
    pub headers: Option<String>,
    pub expose_headers: Option<String>,
    pub max_age: Option<String>,
    pub credentials: bool,
    /// A preflight of another origin goes to the service (true, Istio's default) or is answered here.
    pub forward_unmatched_preflights: bool,
}

/// What a request is asked by routing. Everything is borrowed; nothing is copied to decide.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    pub method: &'a http::Method,
    /// Host with port as the client sent it.
    pub authority: &'a str,
    pub scheme: &'a str,
    /// Path with query, normalised.
    pub path_and_query: &'a str,
    pub headers: &'a http::HeaderMap,
    /// The client's certificate-less address, for hashing.
    pub client_ip: Option<std::net::IpAddr>,
}

impl<'a> RequestView<'a> {
    /// The path alone, without query and fragment.
    pub fn path(&self) -> &'a str {
        self.path_and_query.split(['?', '#']).next().unwrap_or_default()
    }

    pub fn query(&self) -> Option<&'a str> {
        self.path_and_query.split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default())
    }

    /// The first value of a query parameter, as it stands in the URL (not decoded).
    pub fn query_parameter(&self, name: &str) -> Option<&'a str> {
        self.query()?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }
}
