//! Clusters: where traffic goes, and how it is spoken to.
//!
//! Source: Envoy `config.cluster.v3.Cluster`, `config.endpoint.v3.ClusterLoadAssignment`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mizzen_types::{ClusterName, Locality, Origin};

use crate::tls::ClientTls;

/// A cluster with its endpoints. Policy and endpoints are parts of their own, so that a change of endpoints leaves the
/// policy (and all connections) alone.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub policy: Arc<ClusterPolicy>,
    pub endpoints: Arc<EndpointSet>,
}

#[derive(Debug)]
pub struct ClusterPolicy {
    pub name: ClusterName,
    pub discovery: Discovery,
    pub connect_timeout: Duration,
    pub balance: Balance,
    /// Localities share requests by their weights (Envoy: `locality_weighted_lb_config`).
    pub locality_weighted: bool,
    pub limits: Limits,
    pub outliers: Option<OutlierDetection>,
    pub http: UpstreamHttp,
    /// Which TLS an endpoint is spoken to with: the first whose labels are in the endpoint's metadata.
    pub transports: Vec<TransportMatch>,
    /// For endpoints that none of `transports` matches.
    pub default_transport: Option<Arc<ClientTls>>,
    /// Connections begin with who the client is (PROXY protocol), before TLS.
    pub proxy_protocol: Option<ProxyVersion>,
    pub max_requests_per_connection: Option<u32>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Local address to dial from (Istio inbound: `127.0.0.6` and `::6`).
    /// One of each family at most.
    pub bind_source: Vec<std::net::IpAddr>,
    /// Share of healthy endpoints below which health is ignored, in percent.
    pub panic_threshold: u32,
    /// Close connections to an endpoint as soon as it is ejected or removed.
    pub close_on_host_failure: bool,
    /// The resource that asked for this policy, as far as the cluster's metadata tells.
    pub origin: Option<Origin>,
    /// The services that it stands for, for metrics: host, name, namespace.
    pub services: Vec<ServiceMeta>,
    /// It is outside of the mesh, or asked for it: it is not told who we are.
    pub stranger: bool,
    /// The ALPN by which an endpoint agrees that on TCP both ends first say who they are.
    pub peer_exchange: Option<String>,
    /// Fingerprint of the resource it was compiled from.
    pub fingerprint: u64,
}

impl ClusterPolicy {
    /// Plaintext, without limits, and everything else at Envoy's default.
    pub fn plain(name: ClusterName, discovery: Discovery) -> Self {
        Self {
            name,
            discovery,
            connect_timeout: Duration::from_secs(5),
            balance: Balance::RoundRobin { slow_start: None },
            locality_weighted: false,
            limits: Limits::default(),
            outliers: None,
            http: UpstreamHttp {
                version: UpstreamVersion::Http1,
                idle_timeout: Some(Duration::from_secs(3600)),
                max_connection_duration: None,
                max_concurrent_streams: None,
                http2_keepalive: None,
            },
            transports: Vec::new(),
            default_transport: None,
            proxy_protocol: None,
            max_requests_per_connection: None,
            tcp_keepalive: None,
            bind_source: Vec::new(),
            panic_threshold: 50,
            close_on_host_failure: false,
            origin: None,
            services: Vec::new(),
            stranger: false,
            peer_exchange: None,
            fingerprint: 0,
        }
    }

    /// How this endpoint is spoken to: the first transport whose labels the endpoint has, else the default. `None` is
    /// plaintext.
    pub fn transport(&self, endpoint: &Endpoint) -> Option<&Arc<ClientTls>> {
        let fits = |transport: &&TransportMatch| {
            transport.labels.iter().all(|label| endpoint.transport_labels.contains(label))
        };
        match self.transports.iter().find(fits) {
            Some(transport) => transport.tls.as_ref(),
            None => self.default_transport.as_ref(),
        }
    }

    /// The subset in a name such as `outbound|9080|v2|reviews.default.svc.cluster.local`.
    pub fn subset(&self) -> Option<&str> {
        let mut parts = self.name.as_str().split('|');
        let subset = parts.nth(2).filter(|subset| !subset.is_empty());
        parts.next().and(subset)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceMeta {
    pub host: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// Endpoints are in the cluster itself.
    Static,
    /// Endpoints come by EDS under this name.
    Eds {
        service_name: Arc<str>,
    },
    StrictDns {
        refresh: Duration,
    },
    LogicalDns {
        refresh: Duration,
    },
    /// The destination that the client dialled; a header may override it.
    OriginalDst {
        port_override: Option<u16>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Balance {
    RoundRobin {
        slow_start: Option<SlowStart>,
    },
    LeastRequest {
        choices: u32,
        slow_start: Option<SlowStart>,
    },
    Random,
    RingHash {
        minimum: u64,
        maximum: u64,
    },
    Maglev {
        table_size: u64,
    },
    /// By the destination that the client dialled.
    ClusterProvided,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin { .. } => "round robin",
            Self::LeastRequest { .. } => "least request",
            Self::Random => "random",
            Self::RingHash { .. } => "ring hash",
            Self::Maglev { .. } => "maglev",
            Self::ClusterProvided => "original destination",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    pub aggression: f64,
    pub minimum_percent: f64,
}

/// Circuit breakers. `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub max_connections: Option<u32>,
    pub max_pending_requests: Option<u32>,
    pub max_requests: Option<u32>,
    pub max_retries: Option<u32>,
    pub retry_budget: Option<RetryBudget>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries as a share of active requests, in hundredths of a percent.
    pub basis_points: u32,
    pub minimum: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    /// 0 switches the trigger off.
    pub consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub split_local_origin: bool,
    pub consecutive_local_origin_failure: u32,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_percent: u32,
    pub enforcing_consecutive_5xx: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    /// One endpoint may be ejected even where `max_ejection_percent` allows none.
    pub always_eject_one_host: bool,
}

/// Which HTTP is spoken to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHttp {
    pub version: UpstreamVersion,
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_concurrent_streams: Option<u32>,
    pub http2_keepalive: Option<(Duration, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamVersion {
    Http1,
    Http2,
    /// The same as the client speaks to us.
    Downstream,
    /// What TLS ALPN says.
    Alpn,
}

#[derive(Debug, Clone)]
pub struct TransportMatch {
    pub name: String,
    /// Pairs that the endpoint's `envoy.transport_socket_match` metadata must hold.
    pub labels: Vec<(String, String)>,
    /// `None`: plaintext.
    pub tls: Option<Arc<ClientTls>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

#[derive(Debug, Clone, Default)]
pub struct EndpointSet {
    /// By priority, lowest first; then by locality.
    pub localities: Vec<LocalityEndpoints>,
    /// In percent; Envoy's default is 140.
    pub overprovisioning: u32,
}

impl EndpointSet {
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.localities.iter().flat_map(|locality| &locality.endpoints)
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

#[derive(Debug, Clone)]
pub struct LocalityEndpoints {
    pub locality: Locality,
    pub priority: u32,
    /// `None`: localities are not weighted.
    pub weight: Option<u32>,
    pub endpoints: Vec<Arc<Endpoint>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: EndpointAddress,
    pub weight: u32,
    pub health: Health,
    /// `envoy.transport_socket_match`.
    pub transport_labels: Vec<(String, String)>,
    /// Host name, for DNS clusters and `auto_host_rewrite`.
    pub hostname: Option<String>,
    /// Workload, namespace, canonical service, revision, cluster (Istio's endpoint metadata), for metrics.
    pub workload: Option<EndpointWorkload>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    Socket(SocketAddr),
    /// To be resolved by DNS.
    Name {
        host: String,
        port: u16,
    },
    Pipe(PathBuf),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Pipe(path) => path.display().fmt(f),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    Healthy,
    Unhealthy,
    Degraded,
    Draining,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct EndpointWorkload {
    pub workload: String,
    pub namespace: String,
    pub canonical_service: String,
    pub canonical_revision: String,
    pub cluster: String,
}
