//! Access-log formats: text with Envoy's `%…%` command operators, compiled once.
//!
//! Here is what a format says. Writing lines with it is `mizzen-telemetry`'s business.
//! Source: Envoy "Access logging: command operators"; the default formats of Envoy and Istio.

mod time;

use http::HeaderName;

use crate::header::HeaderKey;
use crate::listener::LogFormat;

pub use time::{TimeFormat, TimePart};

/// Envoy's default format.
pub const ENVOY_DEFAULT: &str = concat!(
    r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" "#,
    r#"%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "#,
    r#"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "#,
    r#""%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%""#,
    "\n"
);

/// Istio's default text format.
pub const ISTIO_DEFAULT: &str = concat!(
    r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" "#,
    r#"%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "#,
    r#""%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "#,
    r#"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "#,
    r#""%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% "#,
    r#"%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "#,
    r#"%REQUESTED_SERVER_NAME% %ROUTE_NAME%"#,
    "\n"
);

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTemplate {
    /// One line; the format has its own line end.
    Text(Vec<LogPart>),
    /// One JSON object a line, keys in alphabetical order as Envoy writes them.
    Json(Vec<(String, Vec<LogPart>)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPart {
    Literal(String),
    Field {
        field: LogField,
        /// Cut after this many bytes.
        limit: Option<usize>,
    },
}

/// What an operator stands for. Names are Envoy's, without the percent signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogField {
    StartTime(TimeFormat),
    Request {
        name: HeaderKey,
        other: Option<HeaderKey>,
    },
    Response {
        name: HeaderName,
        other: Option<HeaderName>,
    },
    Trailer {
        name: HeaderName,
        other: Option<HeaderName>,
    },
    QueryParameter(String),
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    RequestTxDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamRequestAttemptCount,
    Upstream(Side, AddressPart),
    Downstream(Side, AddressPart),
    DownstreamDirectRemote(AddressPart),
    RequestedServerName,
    RouteName,
    VirtualHostName,
    ConnectionId,
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    DownstreamPeerSubject,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    UpstreamPeerUriSan,
    /// As a name (`OK`, `NotFound`), or as a number.
    GrpcStatus {
        number: bool,
    },
    StreamId,
    Hostname,
    /// `DownstreamEnd`: lines are written when an exchange or connection has ended.
    AccessLogType,
    /// Envoy's filter metadata and filter state: no filter here sets any, so the value is always absent.
    Absent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Local,
    Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPart {
    Whole,
    Ip,
    Port,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogFormatError {
    #[error("access log format: the operator %{0}% is not known")]
    UnknownOperator(String),
    #[error("access log format: a % in {0:?} has no partner; write %% for a percent sign")]
    Unbalanced(String),
    #[error("access log format: {0:?} is not a header name")]
    HeaderName(String),
    #[error("access log format: {0:?} is not a length")]
    Length(String),
    #[error("access log format: the time specifier %{specifier} of {format:?} is not known")]
    TimeSpecifier { format: String, specifier: char },
}

impl LogTemplate {
    /// Compiles what a listener asks for.
    pub fn compile(format: &LogFormat) -> Result<Self, LogFormatError> {
        Ok(match format {
            LogFormat::Text(text) => Self::Text(parts(text.as_deref().unwrap_or(ENVOY_DEFAULT))?),
            LogFormat::Json(fields) => {
                let mut compiled = Vec::with_capacity(fields.len());
                for (key, text) in fields {
                    compiled.push((key.clone(), parts(text)?));
                }
                compiled.sort_by(|left, right| left.0.cmp(&right.0));
                Self::Json(compiled)
            }
        })
    }
}

fn parts(text: &str) -> Result<Vec<LogPart>, LogFormatError> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        literal.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let (operator, after) = split_operator(rest).ok_or_else(|| LogFormatError::Unbalanced(text.to_owned()))?;
        if !literal.is_empty() {
            parts.push(LogPart::Literal(std::mem::take(&mut literal)));
        }
        parts.push(operator_part(operator)?);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(LogPart::Literal(literal));
    }
    Ok(parts)
}

/// The operator up to its closing percent sign. Inside parentheses (a time format) percent signs are text.
fn split_operator(text: &str) -> Option<(&str, &str)> {
    let mut inside = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => inside = true,
            b')' => inside = false,
            b'%' if !inside => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn operator_part(text: &str) -> Result<LogPart, LogFormatError> {
    let (name, argument, limit) = match text.split_once('(') {
        Some((name, rest)) => {
            let (argument, after) =
                rest.rsplit_once(')').ok_or_else(|| LogFormatError::UnknownOperator(text.to_owned()))?;
            (name, Some(argument), after)
        }
        None => match text.split_once(':') {
            Some((name, _)) => (name, None, &text[name.len()..]),
            None => (text, None, ""),
        },
    };
    let limit = match limit.strip_prefix(':') {
        Some(digits) => Some(digits.parse().map_err(|_| LogFormatError::Length(digits.to_owned()))?),
        None if limit.is_empty() => None,
        None => return Err(LogFormatError::UnknownOperator(text.to_owned())),
    };
    let field = match argument {
        Some(argument) => with_argument(name, argument),
        None => plain(name).map(Ok),
    };
    match field {
        Some(field) => Ok(LogPart::Field { field: field?, limit }),
        None => Err(LogFormatError::UnknownOperator(text.to_owned())),
    }
}

fn with_argument(name: &str, argument: &str) -> Option<Result<LogField, LogFormatError>> {
    let (first, other) = match argument.split_once('?') {
        Some((first, other)) => (first, Some(other)),
        None => (argument, None),
    };
    let headers = || Ok((header_name(first)?, other.map(header_name).transpose()?));
    Some(match name {
        "START_TIME" => TimeFormat::parse(argument).map(LogField::StartTime),
        "REQ" => header_key(first).and_then(|name| {
            let other = other.map(header_key).transpose()?;
            Ok(LogField::Request { name, other })
        }),
        "RESP" => headers().map(|(name, other)| LogField::Response { name, other }),
        "TRAILER" => headers().map(|(name, other)| LogField::Trailer { name, other }),
        "QUERY_PARAM" => Ok(LogField::QueryParameter(argument.to_owned())),
        "GRPC_STATUS" => Ok(LogField::GrpcStatus { number: argument == "NUMBER" }),
        "DYNAMIC_METADATA" | "CLUSTER_METADATA" | "UPSTREAM_METADATA" | "FILTER_STATE" | "METADATA" => {
            Ok(LogField::Absent)
        }
        _ => return None,
    })
}

fn plain(name: &str) -> Option<LogField> {
    use AddressPart::{Ip, Port, Whole};
    use LogField::{Downstream, DownstreamDirectRemote, Upstream};
    use Side::{Local, Remote};
    Some(match name {
        "START_TIME" => LogField::StartTime(TimeFormat::default()),
        "PROTOCOL" => LogField::Protocol,
        "RESPONSE_CODE" => LogField::ResponseCode,
        "RESPONSE_CODE_DETAILS" => LogField::ResponseCodeDetails,
        "RESPONSE_FLAGS" => LogField::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => LogField::ResponseFlagsLong,
        "CONNECTION_TERMINATION_DETAILS" => LogField::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => LogField::UpstreamTransportFailureReason,
        "BYTES_RECEIVED" => LogField::BytesReceived,
        "BYTES_SENT" => LogField::BytesSent,
        "DURATION" => LogField::Duration,
        "REQUEST_DURATION" => LogField::RequestDuration,
        "REQUEST_TX_DURATION" => LogField::RequestTxDuration,
        "RESPONSE_DURATION" => LogField::ResponseDuration,
        "RESPONSE_TX_DURATION" => LogField::ResponseTxDuration,
        // As the client sent it.
        "PATH" => LogField::Request {
            name: HeaderKey::Name(HeaderName::from_static("x-envoy-original-path")),
            other: Some(HeaderKey::Path),
        },
        "UPSTREAM_HOST" => LogField::UpstreamHost,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => LogField::UpstreamCluster,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => LogField::UpstreamRequestAttemptCount,
        "UPSTREAM_LOCAL_ADDRESS" => Upstream(Local, Whole),
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Upstream(Local, Ip),
        "UPSTREAM_LOCAL_PORT" => Upstream(Local, Port),
        "UPSTREAM_REMOTE_ADDRESS" => Upstream(Remote, Whole),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Upstream(Remote, Ip),
        "UPSTREAM_REMOTE_PORT" => Upstream(Remote, Port),
        "DOWNSTREAM_LOCAL_ADDRESS" => Downstream(Local, Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Downstream(Local, Ip),
        "DOWNSTREAM_LOCAL_PORT" => Downstream(Local, Port),
        "DOWNSTREAM_REMOTE_ADDRESS" => Downstream(Remote, Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Downstream(Remote, Ip),
        "DOWNSTREAM_REMOTE_PORT" => Downstream(Remote, Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => DownstreamDirectRemote(Whole),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => DownstreamDirectRemote(Ip),
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => DownstreamDirectRemote(Port),
        "REQUESTED_SERVER_NAME" => LogField::RequestedServerName,
        "ROUTE_NAME" => LogField::RouteName,
        "VIRTUAL_HOST_NAME" => LogField::VirtualHostName,
        "CONNECTION_ID" => LogField::ConnectionId,
        "DOWNSTREAM_PEER_URI_SAN" => LogField::DownstreamPeerUriSan,
        "DOWNSTREAM_LOCAL_URI_SAN" => LogField::DownstreamLocalUriSan,
        "DOWNSTREAM_PEER_SUBJECT" => LogField::DownstreamPeerSubject,
        "DOWNSTREAM_TLS_VERSION" => LogField::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => LogField::DownstreamTlsCipher,
        "UPSTREAM_PEER_URI_SAN" => LogField::UpstreamPeerUriSan,
        "GRPC_STATUS" => LogField::GrpcStatus { number: false },
        "GRPC_STATUS_NUMBER" => LogField::GrpcStatus { number: true },
        "STREAM_ID" => LogField::StreamId,
        "HOSTNAME" => LogField::Hostname,
        "ACCESS_LOG_TYPE" => LogField::AccessLogType,
        // Virtual clusters are a feature that Istio does not use.
        "VIRTUAL_CLUSTER_NAME" => LogField::Absent,
        _ => return None,
    })
}

fn header_key(name: &str) -> Result<HeaderKey, LogFormatError> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => HeaderKey::Method,
        ":authority" | "host" => HeaderKey::Authority,
        ":scheme" => HeaderKey::Scheme,
        ":path" => HeaderKey::Path,
        _ => HeaderKey::Name(header_name(name)?),
    })
}

fn header_name(name: &str) -> Result<HeaderName, LogFormatError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| LogFormatError::HeaderName(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<usize, LogFormatError>) {
        assert_eq!(parts(text).map(|parts| parts.len()), expected, "{text}");
    }

    #[test]
    fn formats_are_compiled_or_refused_by_name() {
        check("plain", Ok(1));
        check("100%%", Ok(1));
        check("%PROTOCOL%", Ok(1));
        check("a %REQ(x-a?:PATH):12% b", Ok(3));
        check("%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", Ok(1));
        check("%REQ(A)%%RESP(B)%", Ok(2));
        check(ENVOY_DEFAULT, Ok(31));
        check(ISTIO_DEFAULT, Ok(49));
        check("%NOPE%", Err(LogFormatError::UnknownOperator("NOPE".into())));
        check("%NOPE(a)%", Err(LogFormatError::UnknownOperator("NOPE(a)".into())));
        check("%REQ(a%", Err(LogFormatError::Unbalanced("%REQ(a%".into())));
        check("50% off", Err(LogFormatError::Unbalanced("50% off".into())));
        check("%REQ(a b)%", Err(LogFormatError::HeaderName("a b".into())));
        check("%REQ(a):x%", Err(LogFormatError::Length("x".into())));
        check("%START_TIME(%Q)%", Err(LogFormatError::TimeSpecifier { format: "%Q".into(), specifier: 'Q' }));
    }

    #[test]
    fn json_keys_are_sorted() {
        let format = LogFormat::Json(vec![("b".into(), "%PROTOCOL%".into()), ("a".into(), "x".into())]);
        let Ok(LogTemplate::Json(fields)) = LogTemplate::compile(&format) else { panic!("not JSON") };
        assert_eq!(fields.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
