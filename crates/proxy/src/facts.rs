//! What is known of a finished exchange or connection: the input of metrics and access log.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, Version};
use mizzen_balance::Host;
use mizzen_identity::Peer;
use mizzen_snapshot::Listener;
use mizzen_snapshot::cluster::Cluster;
use mizzen_snapshot::header::Facts as TemplateFacts;
use mizzen_snapshot::http::HttpHandler;
use mizzen_snapshot::listener::TcpHandler;
use mizzen_snapshot::route::{RequestView, Route, VirtualHost};

use crate::peer::Peer as PeerWorkload;
use crate::refusal::Flag;
use crate::upstream::connect::ConnectionFacts;

/// The client's side of a connection; shared by its exchanges.
#[derive(Debug)]
pub struct Downstream {
    pub listener: Arc<Listener>,
    /// Number of the connection in this process.
    pub id: u64,
    /// Peer address of the socket.
    pub peer: SocketAddr,
    /// Our address, or the one the client dialled before it was redirected to us.
    pub local: SocketAddr,
    pub tls: Option<DownstreamTls>,
    pub filter_chain: String,
}

#[derive(Debug)]
pub struct DownstreamTls {
    /// `TLSv1.3`, …
    pub version: &'static str,
    pub cipher: String,
    pub server_name: Option<String>,
    pub alpn: Option<String>,
    /// The verified client certificate.
    pub peer: Option<Arc<Peer>>,
    /// Its DER form and chain.
    pub chain: Vec<Vec<u8>>,
}

impl Downstream {
    /// First URI SAN of the verified client certificate: its SPIFFE identity in a mesh.
    pub fn peer_uri(&self) -> Option<&str> {
        self.tls.as_ref()?.peer.as_ref()?.uris.first().map(|uri| uri.as_ref())
    }
}

/// One HTTP request and what became of it. It grows with the exchange: first the request alone, as it came; then as it
/// is sent; at last what came back. Whatever breaks it off, what is known by then is recorded.
#[derive(Debug)]
pub struct HttpFacts {
    pub downstream: Arc<Downstream>,
    pub handler: Arc<HttpHandler>,
    pub started: Instant,
    pub started_at: SystemTime,
    pub method: Method,
    /// Path with query, after rewriting (as Envoy logs it); the authority for CONNECT.
    pub path: String,
    pub authority: String,
    pub scheme: &'static str,
    pub version: Version,
    /// Headers as sent to the upstream, without `host`.
    pub request_headers: HeaderMap,
    /// The protocol that the client wants to switch to.
    pub upgrade: Option<String>,
    pub is_grpc: bool,
    pub response_headers: HeaderMap,
    pub response_trailers: Option<HeaderMap>,
    /// 0 when no response was sent.
    pub status: u16,
    pub flags: Vec<Flag>,
    /// Envoy's response code details, for instance `via_upstream`.
    pub details: &'static str,
    /// In words, with names and numbers, what went wrong; absent when nothing did.
    pub cause: Option<String>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// Until the whole request was received; until its first byte went upstream; until response headers came.
    pub request_received: Option<Duration>,
    pub upstream_sent: Option<Duration>,
    pub upstream_responded: Option<Duration>,
    /// The client's address as far as forwarded headers may be believed.
    pub remote: SocketAddr,
    /// The client's workload, as it described itself.
    pub peer: Option<Arc<PeerWorkload>>,
    pub route: Option<Arc<Route>>,
    /// Name of a route that was found and could not be followed.
    pub unfollowed: Option<String>,
    pub virtual_host: Option<Arc<VirtualHost>>,
    pub cluster: Option<Arc<Cluster>>,
    pub upstream: Option<Arc<Host>>,
    pub upstream_peer: Option<SocketAddr>,
    pub upstream_local: Option<SocketAddr>,
    /// The connection of the last try, as soon as there is one: what is known of an upstream that never answered.
    pub upstream_connection: RefCell<Option<Rc<ConnectionFacts>>>,
    /// The verified certificate of the upstream: mTLS when ours was sent too.
    pub upstream_identity: Option<Arc<Peer>>,
    pub upstream_tls: bool,
    /// The upstream's workload, as it described itself.
    pub upstream_workload: Option<Arc<PeerWorkload>>,
    /// Why the upstream could not be spoken to, in words.
    pub upstream_failure: Option<String>,
    pub attempts: u32,
}

/// One opaque connection and what became of it.
#[derive(Debug)]
pub struct TcpFacts {
    pub downstream: Arc<Downstream>,
    pub handler: Arc<TcpHandler>,
    pub started: Instant,
    pub started_at: SystemTime,
    pub flags: Vec<Flag>,
    pub details: &'static str,
    pub cause: Option<String>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub duration: Duration,
    pub cluster: Option<Arc<Cluster>>,
    pub upstream: Option<Arc<Host>>,
    pub upstream_peer: Option<SocketAddr>,
    pub upstream_local: Option<SocketAddr>,
    pub upstream_identity: Option<Arc<Peer>>,
    pub upstream_tls: bool,
    /// The workloads at both ends, as they described themselves.
    pub client_workload: Option<Arc<PeerWorkload>>,
    pub upstream_workload: Option<Arc<PeerWorkload>>,
}

impl HttpFacts {
    /// What routing asks.
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            authority: &self.authority,
            scheme: self.scheme,
            path_and_query: &self.path,
            headers: &self.request_headers,
            client_ip: Some(self.remote.ip()),
        }
    }

    /// Takes over what is known of the upstream's connection.
    pub fn connected(&mut self, connection: &ConnectionFacts) {
        self.upstream_peer = connection.peer;
        self.upstream_local = connection.local;
        self.upstream_tls = connection.tls;
        self.upstream_identity.clone_from(&connection.identity);
    }

    /// As [`connected`](Self::connected), for an exchange that ends without an answer of the upstream.
    pub fn connected_at_least(&mut self) {
        if let (Some(connection), None) = (self.upstream_connection.take(), self.upstream_peer) {
            self.connected(&connection);
        }
    }

    /// What header templates may ask for.
    pub fn for_templates<'a>(&'a self, response: Option<&'a HeaderMap>) -> TemplateFacts<'a> {
        let downstream = &self.downstream;
        let tls = downstream.tls.as_ref();
        TemplateFacts {
            request: Some(self.view()),
            response,
            downstream_remote: Some(self.remote),
            downstream_direct_remote: Some(downstream.peer),
            downstream_local: Some(downstream.local),
            peer_uri_san: downstream.peer_uri(),
            peer_subject: tls.and_then(|tls| Some(tls.peer.as_ref()?.subject.as_str())),
            tls_version: tls.map(|tls| tls.version),
            server_name: tls.and_then(|tls| tls.server_name.as_deref()),
            protocol: Some(protocol_name(self.version)),
            upstream_host: self.upstream_peer,
            upstream_cluster: self.cluster.as_ref().map(|cluster| cluster.policy.name.as_str()),
            route_name: self.route.as_ref().map(|route| route.name.as_str()),
            response_code: None,
            response_flags: None,
            hostname: None,
        }
    }
}

pub fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
