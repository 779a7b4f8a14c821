//! **Every way in which the data path fails**, and what the client, the access log and the metrics are told.
//!
//! The only place that turns a failure into a status, an Envoy response flag, response code details and a body. The
//! matches are exhaustive, so a new failure has to be answered here. Each carries its cause in words.
//!
//! Source: Envoy `StreamInfo::ResponseFlag`, `ResponseCodeDetails`, and its local replies.

use std::time::Duration;

use http::StatusCode;
use mizzen_net::http1::HeadError;
use mizzen_snapshot::plan::NoPlan;

/// Envoy's two-letter response flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// No healthy upstream.
    UH,
    /// Upstream connection failure.
    UF,
    /// Upstream overflow: a circuit breaker is open.
    UO,
    /// No route.
    NR,
    /// The upstream retry limit is exceeded.
    URX,
    /// No cluster.
    NC,
    /// The connection duration limit is reached.
    DT,
    /// Downstream connection termination.
    DC,
    /// Upstream request timeout.
    UT,
    /// Connection local reset.
    LR,
    /// Upstream remote reset.
    UR,
    /// Upstream connection termination.
    UC,
    /// Delay injected.
    DI,
    /// Fault injected: an abort.
    FI,
    /// Stream idle timeout.
    SI,
    /// Downstream protocol error.
    DPE,
    /// Upstream protocol error.
    UPE,
    /// The upstream's maximum stream duration is reached.
    UMSDR,
    /// Overload: one of our own limits.
    OM,
}

impl Flag {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UH => "UH",
            Self::UF => "UF",
            Self::UO => "UO",
            Self::NR => "NR",
            Self::URX => "URX",
            Self::NC => "NC",
            Self::DT => "DT",
            Self::DC => "DC",
            Self::UT => "UT",
            Self::LR => "LR",
            Self::UR => "UR",
            Self::UC => "UC",
            Self::DI => "DI",
            Self::FI => "FI",
            Self::SI => "SI",
            Self::DPE => "DPE",
            Self::UPE => "UPE",
            Self::UMSDR => "UMSDR",
            Self::OM => "OM",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{}", no_plan(.0))]
    NoPlan(NoPlan),
    #[error("cluster {cluster} has no {} endpoint", if *.empty { "" } else { "healthy" })]
    NoHealthyUpstream { cluster: String, empty: bool },
    #[error("cluster {cluster}: {cause}")]
    Overflow { cluster: String, cause: String },
    #[error("connecting to {endpoint}: {cause}")]
    ConnectFailure { endpoint: String, cause: String },
    #[error("connecting to {endpoint} took longer than {} ms", .after.as_millis())]
    ConnectTimeout { endpoint: String, after: Duration },
    #[error("TLS with {endpoint}: {cause}")]
    TlsFailure { endpoint: String, cause: String },
    /// The connection ended before a response came.
    #[error("{endpoint} closed the connection before it answered: {cause}")]
    ConnectionTermination { endpoint: String, cause: String },
    #[error("{endpoint} reset the stream: {cause}")]
    RemoteReset { endpoint: String, cause: String },
    #[error("{endpoint} sent what is not HTTP: {cause}")]
    UpstreamProtocol { endpoint: String, cause: String },
    #[error("no complete response within the route's timeout of {} ms", .after.as_millis())]
    RequestTimeout { after: Duration },
    #[error("no response within the per-try timeout of {} ms", .after.as_millis())]
    PerTryTimeout { after: Duration },
    #[error("nothing was transferred for {} ms", .after.as_millis())]
    IdleTimeout { after: Duration },
    #[error("the request was not received within {} ms", .after.as_millis())]
    RequestReceiveTimeout { after: Duration },
    #[error("abort injected by the route's fault rule")]
    FaultAbort { status: StatusCode, grpc: Option<i32> },
    #[error("{0}")]
    BadRequest(String),
    #[error("the request head is larger than allowed")]
    HeadTooLarge,
    #[error("the request names a transfer-encoding other than chunked")]
    UnknownTransferEncoding,
    #[error("the path holds an escaped slash, which this listener rejects")]
    PathRejected,
    #[error("upgrade to {0} is not enabled on this route")]
    UpgradeNotAllowed(String),
    #[error("HTTP/1.0 is not accepted here")]
    Http10NotAllowed,
    #[error("the client closed the connection while {while_}")]
    DownstreamGone { while_: &'static str },
    #[error("the client broke its request off: {cause}")]
    DownstreamBody { cause: String },
    #[error("the proxy is closing")]
    Closing,
}

/// What the client and the log are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub status: StatusCode,
    pub flag: Option<Flag>,
    pub details: &'static str,
    pub body: String,
    /// The connection cannot be used for another request.
    pub close: bool,
}

impl Refusal {
    pub fn told(&self) -> Told {
        let reset =
            |reason: &str| format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
        let told =
            |status, flag, details, body: &str| Told { status, flag, details, body: body.to_owned(), close: false };
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let bad = |status, details, body: &str| Told {
            status,
            flag: Some(Flag::DPE),
            details,
            body: body.to_owned(),
            close: true,
        };
        match self {
            Self::NoPlan(NoPlan::NoRouteTable | NoPlan::NoVirtualHost | NoPlan::NoRoute { .. }) => {
                told(StatusCode::NOT_FOUND, Some(Flag::NR), "route_not_found", "")
            }
            Self::NoPlan(NoPlan::NoCluster { status, .. }) => told(*status, Some(Flag::NC), "cluster_not_found", ""),
            Self::NoPlan(NoPlan::TlsRequired { .. }) => {
                told(StatusCode::MOVED_PERMANENTLY, None, "direct_response", "")
            }
            Self::NoHealthyUpstream { .. } => {
                told(unavailable, Some(Flag::UH), "no_healthy_upstream", "no healthy upstream")
            }
            Self::Overflow { .. } => told(
                unavailable,
                Some(Flag::UO),
                "upstream_reset_before_response_started{overflow}",
                &reset("overflow"),
            ),
            // Why it failed is for the log: Envoy 1.40 does not tell the client either.
            Self::ConnectFailure { .. } => told(
                unavailable,
                Some(Flag::UF),
                "upstream_reset_before_response_started{remote_connection_failure}",
                &reset("remote connection failure"),
            ),
            Self::TlsFailure { .. } => told(
                unavailable,
                Some(Flag::UF),
                "upstream_reset_before_response_started{remote_connection_failure|TLS_error}",
                &reset("remote connection failure"),
            ),
            Self::ConnectTimeout { .. } => told(
                unavailable,
                Some(Flag::UF),
                "upstream_reset_before_response_started{connection_timeout}",
                &reset("connection timeout"),
            ),
            Self::ConnectionTermination { .. } => told(
                unavailable,
                Some(Flag::UC),
                "upstream_reset_before_response_started{connection_termination}",
                &reset("connection termination"),
            ),
            Self::RemoteReset { .. } => told(
                unavailable,
                Some(Flag::UR),
                "upstream_reset_before_response_started{remote_reset}",
                &reset("remote reset"),
            ),
            Self::UpstreamProtocol { .. } => told(
                StatusCode::BAD_GATEWAY,
                Some(Flag::UPE),
                "upstream_reset_before_response_started{protocol_error}",
                &reset("protocol error"),
            ),
            Self::RequestTimeout { .. } => {
                told(StatusCode::GATEWAY_TIMEOUT, Some(Flag::UT), "response_timeout", "upstream request timeout")
            }
            Self::PerTryTimeout { .. } => told(
                StatusCode::GATEWAY_TIMEOUT,
                Some(Flag::UT),
                "upstream_per_try_timeout",
                "upstream request timeout",
            ),
            Self::IdleTimeout { .. } => {
                told(StatusCode::GATEWAY_TIMEOUT, Some(Flag::SI), "stream_idle_timeout", "stream timeout")
            }
            Self::RequestReceiveTimeout { .. } => Told {
                status: StatusCode::REQUEST_TIMEOUT,
                flag: None,
                details: "request_overall_timeout",
                body: "request timeout".to_owned(),
                close: true,
            },
            Self::FaultAbort { status, .. } => {
                told(*status, Some(Flag::FI), "fault_filter_abort", "fault filter abort")
            }
            Self::BadRequest(_) => bad(StatusCode::BAD_REQUEST, "http1.codec_error", ""),
            Self::HeadTooLarge => bad(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "http1.headers_too_large", ""),
            Self::UnknownTransferEncoding => bad(StatusCode::NOT_IMPLEMENTED, "http1.invalid_transfer_encoding", ""),
            Self::PathRejected => told(StatusCode::BAD_REQUEST, None, "path_normalization_failed", ""),
            Self::UpgradeNotAllowed(_) => told(StatusCode::FORBIDDEN, None, "upgrade_failed", ""),
            Self::Http10NotAllowed => Told {
                status: StatusCode::UPGRADE_REQUIRED,
                flag: None,
                details: "low_version",
                body: String::new(),
                close: true,
            },
            Self::DownstreamGone { .. } => bad_gone("downstream_remote_disconnect"),
            Self::DownstreamBody { .. } => bad(StatusCode::BAD_REQUEST, "http1.body_error", ""),
            Self::Closing => Told {
                status: unavailable,
                flag: Some(Flag::OM),
                details: "overload",
                body: String::new(),
                close: true,
            },
        }
    }

    /// `grpc-status` for a gRPC client, who does not look at the HTTP status (Envoy: `httpToGrpcStatus`).
    pub fn grpc_status(&self) -> i32 {
        match self {
            Self::FaultAbort { grpc: Some(status), .. } => *status,
            _ => grpc_of_http(self.told().status),
        }
    }

    /// For a head that could not be read. `None`: there is nobody to answer.
    pub fn of_head(error: &HeadError) -> Option<Self> {
        match error {
            HeadError::Closed | HeadError::Truncated | HeadError::Io(_) => None,
            HeadError::TooLarge | HeadError::TooManyHeaders => Some(Self::HeadTooLarge),
            HeadError::UnknownTransferEncoding => Some(Self::UnknownTransferEncoding),
            HeadError::Malformed(what) => Some(Self::BadRequest((*what).to_owned())),
        }
    }
}

fn bad_gone(details: &'static str) -> Told {
    // 499 is never sent, only recorded: nobody is there to read it.
    let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
    Told { status, flag: Some(Flag::DC), details, body: String::new(), close: true }
}

/// gRPC status that an HTTP status stands for.
pub fn grpc_of_http(status: StatusCode) -> i32 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn no_plan(no: &NoPlan) -> String {
    match no {
        NoPlan::NoRouteTable => "the route table has not arrived from the control plane".to_owned(),
        NoPlan::NoVirtualHost => "no virtual host has the request's host".to_owned(),
        NoPlan::NoRoute { host } => format!("no route of virtual host {host} matches"),
        NoPlan::NoCluster { cluster, route, .. } => {
            format!("route {route} names cluster {cluster}, which does not exist")
        }
        NoPlan::TlsRequired { .. } => "the virtual host wants TLS".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_what_envoy_would_say() {
        let none = Refusal::NoHealthyUpstream { cluster: "c".to_owned(), empty: false };
        let told = none.told();
        assert_eq!((told.status.as_u16(), told.flag, told.body.as_str()), (503, Some(Flag::UH), "no healthy upstream"));
        let nr = Refusal::NoPlan(NoPlan::NoVirtualHost).told();
        assert_eq!((nr.status.as_u16(), nr.flag, nr.details), (404, Some(Flag::NR), "route_not_found"));
        let refused = Refusal::ConnectFailure { endpoint: "1.2.3.4:5".to_owned(), cause: "refused".to_owned() };
        assert!(
            refused.told().body.starts_with("upstream connect error or disconnect/reset before headers. reset reason")
        );
        assert_eq!(refused.to_string(), "connecting to 1.2.3.4:5: refused");
        assert_eq!(refused.grpc_status(), 14);
    }
}
