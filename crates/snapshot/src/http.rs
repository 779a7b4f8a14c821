//! How a filter chain treats HTTP (Envoy: `HttpConnectionManager`).

use std::sync::Arc;
use std::time::Duration;

use mizzen_types::RouteTableName;

use crate::listener::AccessLog;
use crate::route::RouteTable;

#[derive(Debug)]
pub struct HttpHandler {
    pub stat_prefix: String,
    pub codec: Codec,
    pub routes: RouteSource,
    pub server_header: ServerHeader,
    pub client_certificate: ForwardClientCert,
    /// The peer's address is the client's (true at the edge: append to `x-forwarded-for`, strip internal headers).
    pub use_remote_address: bool,
    pub trusted_hops: u32,
    pub skip_xff_append: bool,
    pub normalize_path: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
    /// Remove the port from the host before routing and forwarding.
    pub strip_port: bool,
    pub upgrades: Vec<String>,
    pub stream_idle_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    pub request_headers_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub max_request_headers_kb: u32,
    pub max_headers: u32,
    pub underscores: Underscores,
    pub http2: Http2Limits,
    pub accept_http10: bool,
    /// The `fault`, `cors` filters are in the chain: routes may use them.
    pub fault: bool,
    pub cors: bool,
    /// Istio's `istio.alpn` filter is in the chain: mesh ALPN follows the client's HTTP version.
    pub istio_alpn: bool,
    /// Istio's `istio.stats` is in the chain or the proxy's own default says so: record Istio's standard metrics.
    pub istio_stats: bool,
    /// Istio's `istio.metadata_exchange`.
    pub peers: PeerExchange,
    pub access_log: Vec<AccessLog>,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub suppress_envoy_headers: bool,
    pub normalize_host_case: bool,
}

impl HttpHandler {
    /// A handler with these routes and everything else at Envoy's default.
    pub fn plain(routes: RouteSource) -> Self {
        Self {
            stat_prefix: String::new(),
            codec: Codec::Auto,
            routes,
            server_header: ServerHeader::Overwrite("envoy".to_owned()),
            client_certificate: ForwardClientCert::Sanitize,
            use_remote_address: false,
            trusted_hops: 0,
            skip_xff_append: false,
            normalize_path: false,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::Keep,
            strip_port: false,
            upgrades: Vec::new(),
            stream_idle_timeout: Some(Duration::from_secs(300)),
            request_timeout: None,
            request_headers_timeout: None,
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_request_headers_kb: 60,
            max_headers: 100,
            underscores: Underscores::Allow,
            http2: Http2Limits::default(),
            accept_http10: false,
            fault: false,
            cors: false,
            istio_alpn: false,
            istio_stats: false,
            peers: PeerExchange::default(),
            access_log: Vec::new(),
            generate_request_id: true,
            preserve_external_request_id: false,
            suppress_envoy_headers: false,
            normalize_host_case: false,
        }
    }
}

/// Which peers tell each other in headers who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerExchange {
    pub downstream: PeerHeaders,
    pub upstream: PeerHeaders,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerHeaders {
    /// Read what that side says of itself, and let it go no further.
    pub discover: bool,
    /// Tell that side who we are.
    pub propagate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Auto,
    Http1,
    Http2,
}

#[derive(Debug, Clone)]
pub enum RouteSource {
    Inline(Arc<RouteTable>),
    Named(RouteTableName),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerHeader {
    Overwrite(String),
    AppendIfAbsent(String),
    PassThrough,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardClientCert {
    Sanitize,
    ForwardOnly,
    /// Which details of the verified peer are added.
    AppendForward(ClientCertDetails),
    SanitizeSet(ClientCertDetails),
    AlwaysForwardOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub dns: bool,
    pub uri: bool,
    pub cert: bool,
    pub chain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlashes {
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underscores {
    Allow,
    Reject,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    pub max_concurrent_streams: u32,
    pub initial_stream_window: u32,
    pub initial_connection_window: u32,
}

impl Default for Http2Limits {
    /// Sizes that bound what one client can make us hold, and let a single stream fill a fast local link.
    fn default() -> Self {
        Self { max_concurrent_streams: 100, initial_stream_window: 256 * 1024, initial_connection_window: 1024 * 1024 }
    }
}
