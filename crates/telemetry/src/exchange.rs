//! [`Exchange`]: one finished request or connection, and [`record`], which tells everybody who wants to know.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::log::Logger;
use crate::metrics::{HttpSample, TcpSample, Traffic};
use crate::stats::{ClusterStat, Group, HttpStat, TcpStat};

/// One HTTP exchange, or one opaque connection, when it is over. Borrowed from whoever carried it out.
#[derive(Debug, Clone)]
pub struct Exchange<'a> {
    pub kind: Kind,
    pub started_at: SystemTime,
    /// From the first byte received to the last byte sent.
    pub duration: Duration,
    /// Since the start: the whole request was received; its first byte went upstream; response headers came.
    pub request_received: Option<Duration>,
    pub upstream_sent: Option<Duration>,
    pub upstream_responded: Option<Duration>,

    pub method: Option<&'a str>,
    /// Path with query, as sent upstream; `x-envoy-original-path` holds the client's when it was rewritten.
    pub path: Option<&'a str>,
    pub authority: Option<&'a str>,
    pub scheme: Option<&'a str>,
    /// `HTTP/1.1`, `HTTP/2`; absent for opaque connections.
    pub protocol: Option<&'a str>,
    pub request_headers: Option<&'a HeaderMap>,
    pub response_headers: Option<&'a HeaderMap>,
    pub response_trailers: Option<&'a HeaderMap>,
    /// 0 when there was no response.
    pub status: u16,
    /// Envoy's short flags, separated by commas; empty for none.
    pub flags: &'a str,
    /// Envoy's response code details, for instance `via_upstream`.
    pub details: Option<&'a str>,
    pub termination_details: Option<&'a str>,
    pub upstream_transport_failure: Option<&'a str>,
    /// Body bytes (of an opaque connection: all bytes) from and to the client.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub attempts: u32,

    /// The client as far as forwarded headers are believed.
    pub downstream_remote: Option<SocketAddr>,
    /// The socket's other end.
    pub downstream_direct_remote: Option<SocketAddr>,
    pub downstream_local: Option<SocketAddr>,
    pub upstream_host: Option<Address<'a>>,
    pub upstream_remote: Option<SocketAddr>,
    pub upstream_local: Option<SocketAddr>,

    pub cluster: Option<&'a str>,
    pub route: Option<&'a str>,
    pub virtual_host: Option<&'a str>,
    pub server_name: Option<&'a str>,
    pub connection_id: Option<u64>,
    pub downstream_peer_uri: Option<&'a str>,
    pub downstream_local_uri: Option<&'a str>,
    pub downstream_peer_subject: Option<&'a str>,
    pub downstream_tls_version: Option<&'a str>,
    pub downstream_tls_cipher: Option<&'a str>,
    pub upstream_peer_uri: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Http,
    Tcp,
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'a> {
    Socket(SocketAddr),
    /// A path of a Unix socket, or `host:port`.
    Text(&'a str),
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Whom an exchange is reported to; handles that the proxy keeps with its listeners and clusters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sinks<'a> {
    /// Istio's metrics for this pair of source and destination.
    pub traffic: Option<&'a Traffic>,
    /// `http.PREFIX.` or `tcp.PREFIX.`
    pub downstream: Option<&'a Group>,
    /// `cluster.NAME.`
    pub cluster: Option<&'a Group>,
    /// A random number, for logs that keep a share of exchanges.
    pub draw: u32,
}

impl<'a> Exchange<'a> {
    /// One of which nothing is known but its beginning and its duration.
    pub fn new(kind: Kind, started_at: SystemTime, duration: Duration) -> Self {
        Self {
            kind,
            started_at,
            duration,
            request_received: None,
            upstream_sent: None,
            upstream_responded: None,
            method: None,
            path: None,
            authority: None,
            scheme: None,
            protocol: None,
            request_headers: None,
            response_headers: None,
            response_trailers: None,
            status: 0,
            flags: "",
            details: None,
            termination_details: None,
            upstream_transport_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            attempts: 0,
            downstream_remote: None,
            downstream_direct_remote: None,
            downstream_local: None,
            upstream_host: None,
            upstream_remote: None,
            upstream_local: None,
            cluster: None,
            route: None,
            virtual_host: None,
            server_name: None,
            connection_id: None,
            downstream_peer_uri: None,
            downstream_local_uri: None,
            downstream_peer_subject: None,
            downstream_tls_version: None,
            downstream_tls_cipher: None,
            upstream_peer_uri: None,
        }
    }

    /// The request says that it is gRPC.
    pub fn is_grpc(&self) -> bool {
        let content_type = self.request_headers.and_then(|headers| headers.get(http::header::CONTENT_TYPE));
        content_type.is_some_and(|value| {
            value
                .as_bytes()
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| rest.first().is_none_or(|b| *b == b'+'))
        })
    }

    /// `grpc-status` of the response: of its trailers, or of a response that has nothing but headers.
    pub fn grpc_status(&self) -> Option<u16> {
        let of = |headers: Option<&HeaderMap>| {
            headers.and_then(|headers| headers.get("grpc-status")).and_then(|value| value.to_str().ok()?.parse().ok())
        };
        of(self.response_trailers).or_else(|| of(self.response_headers))
    }
}

/// Tells metrics, counters and logs of a finished exchange.
pub fn record(exchange: &Exchange<'_>, sinks: &Sinks<'_>, loggers: &[impl AsRef<Logger>]) {
    match exchange.kind {
        Kind::Http => record_http(exchange, sinks),
        Kind::Tcp => record_tcp(exchange, sinks),
    }
    for logger in loggers {
        logger.as_ref().write(exchange, sinks.draw);
    }
}

fn record_http(exchange: &Exchange<'_>, sinks: &Sinks<'_>) {
    if let Some(traffic) = sinks.traffic {
        let grpc = exchange.is_grpc();
        traffic.http(&HttpSample {
            grpc,
            grpc_status: if grpc { exchange.grpc_status() } else { None },
            status: exchange.status,
            flags: exchange.flags,
            duration: exchange.duration,
            request_bytes: exchange.bytes_received,
            response_bytes: exchange.bytes_sent,
        });
    }
    if let Some(http) = sinks.downstream {
        http.inc(HttpStat::RqTotal);
        match exchange.status / 100 {
            1 => http.inc(HttpStat::Rq1xx),
            2 => http.inc(HttpStat::Rq2xx),
            3 => http.inc(HttpStat::Rq3xx),
            4 => http.inc(HttpStat::Rq4xx),
            5 => http.inc(HttpStat::Rq5xx),
            _ => {}
        }
        if exchange.status > 0 {
            http.inc(HttpStat::RqCompleted);
        }
        http.inc(if exchange.protocol == Some("HTTP/2") { HttpStat::RqHttp2Total } else { HttpStat::RqHttp1Total });
        for flag in exchange.flags.split(',') {
            match flag {
                "NR" => http.inc(HttpStat::NoRoute),
                "NC" => http.inc(HttpStat::NoCluster),
                "DC" => http.inc(HttpStat::RqRxReset),
                "SI" => http.inc(HttpStat::RqIdleTimeout),
                "DI" => http.inc(HttpStat::DelaysInjected),
                "FI" => http.inc(HttpStat::AbortsInjected),
                _ => {}
            }
        }
        if exchange.details == Some("direct_response") {
            http.inc(if (300..400).contains(&exchange.status) {
                HttpStat::RqRedirect
            } else {
                HttpStat::RqDirectResponse
            });
        }
    }
    if let Some(cluster) = sinks.cluster {
        match exchange.status / 100 {
            1 => cluster.inc(ClusterStat::Rq1xx),
            2 => cluster.inc(ClusterStat::Rq2xx),
            3 => cluster.inc(ClusterStat::Rq3xx),
            4 => cluster.inc(ClusterStat::Rq4xx),
            5 => cluster.inc(ClusterStat::Rq5xx),
            _ => {}
        }
        if exchange.status > 0 {
            cluster.inc(ClusterStat::RqCompleted);
        }
        if exchange.attempts > 1 {
            cluster.add(ClusterStat::RqRetry, u64::from(exchange.attempts - 1));
            if exchange.status < 500 {
                cluster.inc(ClusterStat::RqRetrySuccess);
            }
        }
        for flag in exchange.flags.split(',') {
            match flag {
                "UT" if exchange.details == Some("upstream_per_try_timeout") => {
                    cluster.inc(ClusterStat::RqPerTryTimeout);
                }
                "UT" => cluster.inc(ClusterStat::RqTimeout),
                "UO" => cluster.inc(ClusterStat::RqPendingOverflow),
                "UH" => cluster.inc(ClusterStat::CxNoneHealthy),
                "UR" => cluster.inc(ClusterStat::RqRxReset),
                "URX" => cluster.inc(ClusterStat::RqRetryLimitExceeded),
                "DC" => cluster.inc(ClusterStat::RqCancelled),
                _ => {}
            }
        }
    }
}

fn record_tcp(exchange: &Exchange<'_>, sinks: &Sinks<'_>) {
    if let Some(traffic) = sinks.traffic {
        traffic.tcp(&TcpSample {
            flags: exchange.flags,
            opened: 1,
            closed: 1,
            sent: exchange.bytes_sent,
            received: exchange.bytes_received,
        });
    }
    if let Some(tcp) = sinks.downstream {
        tcp.inc(TcpStat::CxTotal);
        tcp.add(TcpStat::CxRxBytesTotal, exchange.bytes_received);
        tcp.add(TcpStat::CxTxBytesTotal, exchange.bytes_sent);
        if exchange.cluster.is_none() {
            tcp.inc(TcpStat::CxNoRoute);
        }
    }
    if let Some(cluster) = sinks.cluster {
        // What the client sent went upstream, and the other way round.
        cluster.add(ClusterStat::CxTxBytesTotal, exchange.bytes_received);
        cluster.add(ClusterStat::CxRxBytesTotal, exchange.bytes_sent);
        if exchange.flags.split(',').any(|flag| flag == "UH") {
            cluster.inc(ClusterStat::CxNoneHealthy);
        }
    }
}
