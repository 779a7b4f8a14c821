//! Listeners, and the choice of a filter chain for an accepted connection.
//!
//! Source: Envoy `config.listener.v3.Listener` and `FilterChainMatch`.

mod choose;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mizzen_types::{ClusterName, ListenerName, Origin, Percent};

use crate::http::HttpHandler;
use crate::tls::ServerTls;

#[derive(Debug)]
pub struct Listener {
    pub name: ListenerName,
    pub address: ListenAddress,
    /// False for a listener that only receives connections handed over by one with `use_original_dst`.
    pub bind: bool,
    /// It takes connections for addresses that are not this machine's, which the kernel leads to it (TPROXY).
    pub transparent: bool,
    /// The connection's original destination picks another listener, when one has that address.
    pub use_original_dst: bool,
    pub direction: Direction,
    pub inspect: Inspect,
    pub chains: Vec<Arc<FilterChain>>,
    pub default_chain: Option<Arc<FilterChain>>,
    /// How long existing connections may go on once the listener is removed or replaced.
    pub drain: Drain,
    /// Upper limit of connections open at once; absent means the process-wide limit alone.
    pub max_connections: Option<u32>,
    /// The resource that asked for it, as far as the listener's metadata tells.
    pub origin: Option<Origin>,
    /// Where connections are logged that no filter chain matches.
    pub unmatched: Option<Arc<Unmatched>>,
    /// What was asked for and is passed over, in words: nothing that decides on traffic.
    pub notes: Vec<String>,
    /// Fingerprint of the resource it was compiled from: equal fingerprints behave equally.
    pub fingerprint: u64,
}

/// Connections that were closed because no filter chain matches.
#[derive(Debug)]
pub struct Unmatched {
    pub access_log: Vec<AccessLog>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
    Unspecified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    Default,
    ModifyOnly,
}

/// What has to be found out before a chain can be chosen (Envoy: listener filters).
#[derive(Debug, Clone, Default)]
pub struct Inspect {
    /// Read the destination that the client dialled from the kernel.
    pub original_dst: bool,
    /// Servers that are called at their original destination shall see the client's own address. Packets to them get
    /// this mark, if it is not 0.
    pub original_src: Option<u32>,
    /// Look for a TLS ClientHello: transport protocol, server name, ALPN.
    pub tls: bool,
    /// Look for HTTP/1.x or the HTTP/2 preface.
    pub http: bool,
    /// Expect a PROXY protocol header.
    pub proxy_protocol: bool,
    /// How long to wait for the first bytes; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// After the timeout: choose a chain with what is known (true), or close (false).
    pub continue_on_timeout: bool,
    /// Destination ports for which nobody looks for TLS, or for HTTP (Envoy: `filter_disabled`): their protocol is
    /// known, and a server that speaks first would be waited for in vain.
    pub ports_without_tls: Vec<RangeInclusive<u16>>,
    pub ports_without_http: Vec<RangeInclusive<u16>>,
}

impl Inspect {
    /// Whether to look for TLS on connections to this destination port.
    pub fn tls_on(&self, port: u16) -> bool {
        self.tls && !self.ports_without_tls.iter().any(|range| range.contains(&port))
    }

    /// Whether to look for HTTP on connections to this destination port.
    pub fn http_on(&self, port: u16) -> bool {
        self.http && !self.ports_without_http.iter().any(|range| range.contains(&port))
    }
}

#[derive(Debug)]
pub struct FilterChain {
    pub name: String,
    pub matches: ChainMatch,
    /// Terminate TLS with this; `None` means plaintext.
    pub tls: Option<Arc<ServerTls>>,
    pub handler: Handler,
    /// How long the TLS handshake may take.
    pub handshake_timeout: Option<Duration>,
}

#[derive(Debug, Clone)]
pub enum Handler {
    Http(Arc<HttpHandler>),
    Tcp(Arc<TcpHandler>),
}

/// Opaque bytes to a cluster (Envoy: `tcp_proxy`).
#[derive(Debug)]
pub struct TcpHandler {
    pub stat_prefix: String,
    /// At least one; weights are relative and their sum is positive.
    pub clusters: Vec<(ClusterName, u32)>,
    pub idle_timeout: Option<Duration>,
    pub access_log: Vec<AccessLog>,
    pub max_connect_attempts: u32,
    /// Choose by the client's address (consistent hash by source IP).
    pub hash_source_ip: bool,
    /// The ALPN by which a client agrees that both ends first say who they are (Istio: `istio.metadata_exchange`).
    pub peer_exchange: Option<String>,
}

/// Conditions of a filter chain; an empty list means "any". The most specific chain wins, compared field by field in
/// Envoy's order: destination port, destination address, server name, transport, application protocol,
/// direct source address, source type, source address, source port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainMatch {
    pub destination_port: Option<u16>,
    pub destination: Vec<IpNet>,
    /// Lower case; `*.suffix` allowed.
    pub server_names: Vec<String>,
    pub transport: Option<Transport>,
    pub application_protocols: Vec<String>,
    pub direct_source: Vec<IpNet>,
    pub source: Vec<IpNet>,
    pub source_ports: Vec<u16>,
    pub same_ip_or_loopback: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    RawBuffer,
    Tls,
}

/// What is known of an accepted connection when its chain is chosen.
#[derive(Debug, Clone)]
pub struct ConnectionFacts<'a> {
    /// The address that the client dialled: original destination where it was captured, else the local address.
    pub destination: SocketAddr,
    pub source: SocketAddr,
    pub direct_source: IpAddr,
    pub transport: Transport,
    pub server_name: Option<&'a str>,
    /// From the ClientHello, or `http/1.1`, `http/1.0`, `h2c` by inspection.
    pub application_protocols: &'a [&'a str],
}

/// Where and how finished exchanges are written down.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub sink: LogSink,
    pub format: LogFormat,
    /// Only log this share, or only failures; all when empty.
    pub filters: Vec<LogFilter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogSink {
    Stdout,
    Stderr,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// Envoy's command operators, `%START_TIME%` and so on. `None` is Envoy's default format.
    Text(Option<String>),
    /// Keys and format strings, written as one JSON object a line.
    Json(Vec<(String, String)>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum LogFilter {
    /// Only when no route matched (response flag NR).
    ResponseFlags(Vec<String>),
    Share(Percent),
    StatusAtLeast(u16),
}
