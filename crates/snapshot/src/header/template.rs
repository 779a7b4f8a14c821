//! Header values with Envoy's `%…%` command operators.
//!
//! An operator that is not known here is refused when the configuration is compiled, so that no header ever goes out
//! with a raw `%NAME%` in it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::header::HeaderKey;
use crate::route::RequestView;

/// A header value: literal, or with Envoy's `%…%` operators resolved for each request.
#[derive(Debug, Clone)]
pub enum HeaderTemplate {
    Literal(HeaderValue),
    /// Literal parts and operators in turn, for instance `%REQ(x)%`.
    Parts(Vec<TemplatePart>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Literal(String),
    Operator(Operator),
}

/// What a part of a header value is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// `%REQ(NAME?OTHER):LENGTH%`
    Request {
        name: HeaderKey,
        other: Option<HeaderKey>,
        limit: Option<usize>,
    },
    /// `%RESP(NAME?OTHER):LENGTH%`
    Response {
        name: HeaderName,
        other: Option<HeaderName>,
        limit: Option<usize>,
    },
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamPeerUriSan,
    DownstreamPeerSubject,
    DownstreamTlsVersion,
    RequestedServerName,
    Protocol,
    UpstreamHost,
    UpstreamCluster,
    RouteName,
    ResponseCode,
    ResponseFlags,
    Hostname,
}

/// What is known of an exchange when a header is written. Everything may be missing; a missing fact is written `-`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    pub request: Option<RequestView<'a>>,
    /// Headers of the response, for edits of it.
    pub response: Option<&'a HeaderMap>,
    pub downstream_remote: Option<SocketAddr>,
    pub downstream_direct_remote: Option<SocketAddr>,
    pub downstream_local: Option<SocketAddr>,
    pub peer_uri_san: Option<&'a str>,
    pub peer_subject: Option<&'a str>,
    pub tls_version: Option<&'a str>,
    pub server_name: Option<&'a str>,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: Option<&'a str>,
    pub upstream_host: Option<SocketAddr>,
    pub upstream_cluster: Option<&'a str>,
    pub route_name: Option<&'a str>,
    pub response_code: Option<u16>,
    pub response_flags: Option<&'a str>,
    pub hostname: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the operator %{0}% is not known")]
    UnknownOperator(String),
    #[error("a % has no partner; write %% for a percent sign")]
    Unbalanced,
    #[error("{0:?} is not a header name")]
    HeaderName(String),
    #[error("the value has bytes that a header cannot have")]
    Bytes,
}

impl HeaderTemplate {
    /// Reads a header value with operators.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
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
            let end = rest.find('%').ok_or(TemplateError::Unbalanced)?;
            if !literal.is_empty() {
                parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
            }
            parts.push(TemplatePart::Operator(Operator::parse(&rest[..end])?));
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        HeaderValue::from_str(&literal).map_err(|_| TemplateError::Bytes)?;
        if parts.is_empty() {
            return HeaderValue::from_str(&literal).map(Self::Literal).map_err(|_| TemplateError::Bytes);
        }
        if !literal.is_empty() {
            parts.push(TemplatePart::Literal(literal));
        }
        Ok(Self::Parts(parts))
    }

    /// The value for one exchange; `current` are the headers being edited, which `%REQ(…)%` falls back on when the
    /// facts have no request. `None` when it would not be a header value.
    pub fn resolve(&self, facts: &Facts<'_>, current: &HeaderMap) -> Option<HeaderValue> {
        let parts = match self {
            Self::Literal(value) => return Some(value.clone()),
            Self::Parts(parts) => parts,
        };
        let mut text = Vec::new();
        for part in parts {
            match part {
                TemplatePart::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                TemplatePart::Operator(operator) => operator.write(&mut text, facts, current),
            }
        }
        // An operator alone that is not known now gives no header, as in Envoy.
        if text == b"-" && parts.len() == 1 {
            text.clear();
        }
        HeaderValue::from_bytes(&text).ok()
    }
}

impl Operator {
    fn parse(text: &str) -> Result<Self, TemplateError> {
        let unknown = || TemplateError::UnknownOperator(text.to_owned());
        if let Some((kind, argument)) = text.split_once('(') {
            let (names, limit) = match argument.rsplit_once(')') {
                Some((names, "")) => (names, None),
                Some((names, limit)) => {
                    let limit = limit.strip_prefix(':').and_then(|limit| limit.parse().ok()).ok_or_else(unknown)?;
                    (names, Some(limit))
                }
                None => return Err(unknown()),
            };
            let (name, other) = match names.split_once('?') {
                Some((name, other)) => (name, Some(other)),
                None => (names, None),
            };
            return match kind {
                "REQ" => {
                    Ok(Self::Request { name: header_key(name)?, other: other.map(header_key).transpose()?, limit })
                }
                "RESP" => {
                    Ok(Self::Response { name: header_name(name)?, other: other.map(header_name).transpose()?, limit })
                }
                _ => Err(unknown()),
            };
        }
        Ok(match text {
            "DOWNSTREAM_REMOTE_ADDRESS" => Self::DownstreamRemoteAddress,
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Self::DownstreamRemoteAddressWithoutPort,
            "DOWNSTREAM_REMOTE_PORT" => Self::DownstreamRemotePort,
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Self::DownstreamDirectRemoteAddress,
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Self::DownstreamDirectRemoteAddressWithoutPort,
            "DOWNSTREAM_LOCAL_ADDRESS" => Self::DownstreamLocalAddress,
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Self::DownstreamLocalAddressWithoutPort,
            "DOWNSTREAM_LOCAL_PORT" => Self::DownstreamLocalPort,
            "DOWNSTREAM_PEER_URI_SAN" => Self::DownstreamPeerUriSan,
            "DOWNSTREAM_PEER_SUBJECT" => Self::DownstreamPeerSubject,
            "DOWNSTREAM_TLS_VERSION" => Self::DownstreamTlsVersion,
            "REQUESTED_SERVER_NAME" => Self::RequestedServerName,
            "PROTOCOL" => Self::Protocol,
            "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Self::UpstreamHost,
            "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Self::UpstreamCluster,
            "ROUTE_NAME" => Self::RouteName,
            "RESPONSE_CODE" => Self::ResponseCode,
            "RESPONSE_FLAGS" => Self::ResponseFlags,
            "HOSTNAME" => Self::Hostname,
            _ => return Err(unknown()),
        })
    }

    fn write(&self, out: &mut Vec<u8>, facts: &Facts<'_>, current: &HeaderMap) {
        match self {
            Self::Request { name, other, limit } => {
                let value = |key: &HeaderKey| match (&facts.request, key) {
                    (Some(request), key) => key.value(request).map(|value| value.into_owned()),
                    (None, HeaderKey::Name(name)) => super::joined(current, name).map(|value| value.into_owned()),
                    (None, _) => None,
                };
                limited(out, value(name).or_else(|| other.as_ref().and_then(value)), *limit);
            }
            Self::Response { name, other, limit } => {
                let headers = facts.response.unwrap_or(current);
                let value = |name: &HeaderName| super::joined(headers, name).map(|value| value.into_owned());
                limited(out, value(name).or_else(|| other.as_ref().and_then(value)), *limit);
            }
            Self::DownstreamRemoteAddress => address(out, facts.downstream_remote),
            Self::DownstreamRemoteAddressWithoutPort => ip(out, facts.downstream_remote),
            Self::DownstreamRemotePort => port(out, facts.downstream_remote),
            Self::DownstreamDirectRemoteAddress => address(out, facts.downstream_direct_remote),
            Self::DownstreamDirectRemoteAddressWithoutPort => ip(out, facts.downstream_direct_remote),
            Self::DownstreamLocalAddress => address(out, facts.downstream_local),
            Self::DownstreamLocalAddressWithoutPort => ip(out, facts.downstream_local),
            Self::DownstreamLocalPort => port(out, facts.downstream_local),
            Self::DownstreamPeerUriSan => text(out, facts.peer_uri_san),
            Self::DownstreamPeerSubject => text(out, facts.peer_subject),
            Self::DownstreamTlsVersion => text(out, facts.tls_version),
            Self::RequestedServerName => text(out, facts.server_name),
            Self::Protocol => text(out, facts.protocol),
            Self::UpstreamHost => address(out, facts.upstream_host),
            Self::UpstreamCluster => text(out, facts.upstream_cluster),
            Self::RouteName => text(out, facts.route_name),
            Self::ResponseCode => shown(out, facts.response_code),
            Self::ResponseFlags => text(out, facts.response_flags),
            Self::Hostname => text(out, facts.hostname),
        }
    }
}

fn header_key(name: &str) -> Result<HeaderKey, TemplateError> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => HeaderKey::Method,
        ":authority" | "host" => HeaderKey::Authority,
        ":scheme" => HeaderKey::Scheme,
        ":path" => HeaderKey::Path,
        _ => HeaderKey::Name(header_name(name)?),
    })
}

fn header_name(name: &str) -> Result<HeaderName, TemplateError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| TemplateError::HeaderName(name.to_owned()))
}

fn limited(out: &mut Vec<u8>, value: Option<Vec<u8>>, limit: Option<usize>) {
    match value {
        Some(value) => out.extend_from_slice(&value[..value.len().min(limit.unwrap_or(usize::MAX))]),
        None => out.push(b'-'),
    }
}

fn text(out: &mut Vec<u8>, value: Option<&str>) {
    out.extend_from_slice(value.filter(|value| !value.is_empty()).unwrap_or("-").as_bytes());
}

fn shown<T: std::fmt::Display>(out: &mut Vec<u8>, value: Option<T>) {
    let mut written = String::new();
    if let Some(value) = value {
        // Writing to a string cannot fail.
        let _ = write!(written, "{value}");
    }
    text(out, Some(&written));
}

fn address(out: &mut Vec<u8>, value: Option<SocketAddr>) {
    shown(out, value);
}

fn ip(out: &mut Vec<u8>, value: Option<SocketAddr>) {
    shown(out, value.map(|address| address.ip()));
}

fn port(out: &mut Vec<u8>, value: Option<SocketAddr>) {
    shown(out, value.map(|address| address.port()));
}
