//! What goes back to the client, and how a refusal becomes that.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use mizzen_net::Body;

use crate::facts::HttpFacts;
use crate::refusal::Refusal;
use crate::upstream::send::ResponseBody;

/// Status, headers and body.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ResponseBody,
    /// After this head the connection carries opaque bytes to and from the upstream.
    pub tunnel: bool,
    /// The connection ends after this answer.
    pub close: bool,
}

impl Reply {
    pub fn local(status: StatusCode, headers: HeaderMap, body: Body) -> Self {
        Self { status, headers, body: ResponseBody::local(body), tunnel: false, close: false }
    }

    /// A plain text from the proxy itself.
    pub fn text(status: StatusCode, text: impl Into<Body>) -> Self {
        let body = text.into();
        let mut headers = HeaderMap::new();
        if !body.is_end() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        Self::local(status, headers, body)
    }

    /// The answer for a refusal; records why. gRPC clients get a gRPC status, for they do not look at HTTP's.
    pub fn refusal(refusal: &Refusal, facts: &mut HttpFacts) -> Self {
        let told = refusal.told();
        facts.flags.extend(told.flag);
        facts.details = told.details;
        facts.cause = Some(refusal.to_string());
        let mut reply = if facts.is_grpc {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(refusal.grpc_status()));
            if let Some(message) = grpc_message(&told.body) {
                headers.insert("grpc-message", message);
            }
            Self::local(StatusCode::OK, headers, Body::Empty)
        } else {
            let body = if facts.method == Method::HEAD { Body::Empty } else { Body::from(told.body) };
            Self::text(told.status, body)
        };
        reply.close = told.close;
        reply
    }
}

/// Percent-encoded as gRPC wants it.
fn grpc_message(text: &str) -> Option<HeaderValue> {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte as char),
            // Writing to a string cannot fail.
            _ => write!(encoded, "%{byte:02X}").unwrap_or_default(),
        }
    }
    (!encoded.is_empty()).then(|| HeaderValue::from_str(&encoded).ok()).flatten()
}

/// Whether the client speaks gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc") && matches!(value.get(16), None | Some(b'+' | b';'))
    })
}
