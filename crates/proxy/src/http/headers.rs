//! Headers that the proxy itself reads, adds and takes away (Envoy: `ConnectionManagerUtility`).
//!
//! At the edge (`use_remote_address`) nothing a client says about itself is believed: `x-envoy-*` headers go, the
//! forwarded address and scheme are ours. Elsewhere those go that give a proxy orders (retries, time limits): Envoy takes
//! them from callers that `internal_address_config` names, which a listener is refused for, so here there are none. A
//! private client address is not a reason for trust.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use mizzen_identity::certificate::fingerprint;
use mizzen_net::http1::head::options;
use mizzen_snapshot::http::{ClientCertDetails, ForwardClientCert, HttpHandler, ServerHeader, Underscores};

use crate::connection::Connection;
use crate::refusal::Refusal;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
pub const X_ENVOY_ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
pub const X_ENVOY_ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
pub const X_ENVOY_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
pub const X_ENVOY_DECORATOR: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");
pub const X_ENVOY_EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The protocol that a request asks to switch to, when it does (RFC 9110, section 7.8).
pub fn upgrade(headers: &HeaderMap) -> Option<String> {
    let wanted = headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| options(value.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"upgrade")));
    let protocol = headers.get(header::UPGRADE)?.to_str().ok()?;
    // HTTP/2 without TLS begins with its preface here, not with an upgrade; asking for it is harmless (as in Envoy).
    (wanted && !protocol.eq_ignore_ascii_case("h2c")).then(|| protocol.to_ascii_lowercase())
}

/// Removes what belongs to the hop that a message came over, the headers that `connection` names included. With
/// `upgrade` the pair that asks for (or agrees to) it stays.
pub fn remove_hop_headers(headers: &mut HeaderMap, upgrade: bool) {
    if let Some(named) = headers.get(header::CONNECTION).cloned() {
        for value in headers.get_all(header::CONNECTION).iter().cloned().collect::<Vec<_>>() {
            for option in options(value.as_bytes()) {
                if let Ok(name) = HeaderName::from_bytes(option)
                    && may_be_dropped(&name)
                {
                    headers.remove(name);
                }
            }
        }
        if upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        } else {
            headers.remove(header::CONNECTION);
        }
        drop(named);
    }
    if headers.contains_key(header::UPGRADE) && !upgrade {
        headers.remove(header::UPGRADE);
        headers.remove(HTTP2_SETTINGS);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.remove(header::TE);
    }
}

/// A client must not strip, by naming them in `connection`, the headers that carry framing, identity or trust.
fn may_be_dropped(name: &HeaderName) -> bool {
    let text = name.as_str();
    !(matches!(text, "host" | "content-length" | "authorization" | "cookie" | "upgrade" | "te" | "expect")
        || text.starts_with("x-forwarded-")
        || text.starts_with("x-envoy-")
        || text == "x-request-id")
}

/// What was found out about the client.
pub struct Client {
    /// The address as far as forwarded headers may be believed.
    pub address: SocketAddr,
    pub scheme: &'static str,
}

/// Prepares a request's headers for routing and for the upstream.
pub fn receive(
    connection: &Connection,
    handler: &HttpHandler,
    headers: &mut HeaderMap,
    upgrade: bool,
) -> Result<Client, Refusal> {
    let peer = connection.downstream.peer;
    check_underscores(handler, headers)?;
    remove_hop_headers(headers, upgrade);
    headers.remove(header::EXPECT);
    let edge = handler.use_remote_address;
    remove_internal(headers, edge);
    headers.remove(X_ENVOY_DECORATOR);
    let tls = connection.downstream.tls.as_ref().is_some_and(|tls| !tls.version.is_empty());
    let own_scheme = if tls { "https" } else { "http" };
    let address = if edge {
        let address = forwarded(headers, handler.trusted_hops).map_or(peer, |ip| SocketAddr::new(ip, 0));
        if !handler.skip_xff_append {
            append_address(headers, peer.ip());
        }
        if !is_private(address.ip()) {
            insert_text(headers, X_ENVOY_EXTERNAL_ADDRESS, &address.ip().to_string());
        }
        address
    } else {
        let hops = handler.trusted_hops + 1;
        forwarded(headers, hops).map_or(peer, |ip| SocketAddr::new(ip, 0))
    };
    let believe = !edge || handler.trusted_hops > 0;
    let scheme = match headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(b"https") if believe => "https",
        Some(b"http") if believe => "http",
        _ => {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(own_scheme));
            own_scheme
        }
    };
    request_id(connection, handler, headers, edge);
    client_certificate(connection, handler.client_certificate, headers);
    Ok(Client { address, scheme })
}

fn check_underscores(handler: &HttpHandler, headers: &mut HeaderMap) -> Result<(), Refusal> {
    if handler.underscores == Underscores::Allow {
        return Ok(());
    }
    let odd: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    match (odd.first(), handler.underscores) {
        (Some(name), Underscores::Reject) => {
            Err(Refusal::BadRequest(format!("header {name} has an underscore, which this listener rejects")))
        }
        _ => {
            for name in odd {
                headers.remove(name);
            }
            Ok(())
        }
    }
}

/// What only internal callers may say, after `x-envoy-`.
const INTERNAL: [&str; 15] = [
    "internal",
    "retriable-status-codes",
    "retriable-header-names",
    "retry-on",
    "retry-grpc-on",
    "max-retries",
    "upstream-alt-stat-name",
    "upstream-rq-timeout-ms",
    "upstream-rq-per-try-timeout-ms",
    "upstream-rq-timeout-alt-response",
    "expected-rq-timeout-ms",
    "force-trace",
    "ip-tags",
    "original-url",
    "hedge-on-per-try-timeout",
];

/// Removes what the client may not say: at the edge all of Envoy's headers.
fn remove_internal(headers: &mut HeaderMap, edge: bool) {
    let is_one = |name: &HeaderName| {
        let rest = name.as_str().strip_prefix("x-envoy-");
        rest.is_some_and(|rest| edge || INTERNAL.contains(&rest))
    };
    // The usual client sends none of them.
    if headers.keys().any(is_one) {
        let internal: Vec<HeaderName> = headers.keys().filter(|name| is_one(name)).cloned().collect();
        for name in internal {
            headers.remove(name);
        }
    }
}

/// The address that is `hops` from the end of `x-forwarded-for`.
fn forwarded(headers: &HeaderMap, hops: u32) -> Option<IpAddr> {
    let hops = (hops as usize).checked_sub(1)?;
    let values = headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>();
    let mut addresses =
        values.iter().rev().flat_map(|value| value.to_str().unwrap_or_default().rsplit(',').map(str::trim));
    addresses.nth(hops)?.parse().ok()
}

fn append_address(headers: &mut HeaderMap, ip: IpAddr) {
    let mut text = String::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        if let Ok(value) = value.to_str() {
            text.push_str(value);
            text.push(',');
        }
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "{ip}");
    insert_text(headers, X_FORWARDED_FOR, &text);
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn request_id(connection: &Connection, handler: &HttpHandler, headers: &mut HeaderMap, edge: bool) {
    if !handler.generate_request_id {
        return;
    }
    if headers.contains_key(X_REQUEST_ID) && (!edge || handler.preserve_external_request_id) {
        return;
    }
    let random = &connection.worker.random;
    let text = uuid(random.next(), random.next());
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(X_REQUEST_ID, value);
    }
}

/// A random UUID (version 4).
fn uuid(high: u64, low: u64) -> [u8; 36] {
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0xc << 60) | 0x8 << 60;
    let bits = u128::from(high) << 64 | u128::from(low);
    let mut text = [b'-'; 36];
    let mut nibble = 32;
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            nibble -= 1;
            *byte = b"0123456789abcdef"[(bits >> (4 * nibble)) as usize & 0xf];
        }
    }
    text
}

/// `x-forwarded-client-cert`: who the client proved to be, for the application.
fn client_certificate(connection: &Connection, mode: ForwardClientCert, headers: &mut HeaderMap) {
    let verified = connection.downstream.tls.as_ref().is_some_and(|tls| tls.peer.is_some());
    match mode {
        ForwardClientCert::Sanitize => {
            headers.remove(X_FORWARDED_CLIENT_CERT);
        }
        ForwardClientCert::AlwaysForwardOnly => {}
        _ if !verified => {
            headers.remove(X_FORWARDED_CLIENT_CERT);
        }
        ForwardClientCert::ForwardOnly => {}
        ForwardClientCert::AppendForward(details) => {
            let Some(element) = connection.certificate_element(details) else { return };
            let mut text = String::new();
            for value in headers.get_all(X_FORWARDED_CLIENT_CERT) {
                if let Ok(value) = value.to_str() {
                    text.push_str(value);
                    text.push(',');
                }
            }
            text.push_str(&element);
            insert_text(headers, X_FORWARDED_CLIENT_CERT, &text);
        }
        ForwardClientCert::SanitizeSet(details) => {
            headers.remove(X_FORWARDED_CLIENT_CERT);
            if let Some(element) = connection.certificate_element(details) {
                insert_text(headers, X_FORWARDED_CLIENT_CERT, &element);
            }
        }
    }
}

/// One element of `x-forwarded-client-cert`, in Envoy's order.
pub fn certificate_element(connection: &Connection, details: ClientCertDetails) -> Option<String> {
    let tls = connection.downstream.tls.as_ref()?;
    let (peer, leaf) = (tls.peer.as_ref()?, tls.chain.first()?);
    let mut parts = Vec::new();
    if let Some(own) = connection.worker.shared.secrets.identity() {
        parts.push(format!("By={}", own.id));
    }
    parts.push(format!("Hash={}", fingerprint(&leaf.clone().into())));
    if details.cert
        && let Some(pem) = pem_for_header(leaf)
    {
        parts.push(format!("Cert=\"{pem}\""));
    }
    if details.subject {
        parts.push(format!("Subject=\"{}\"", peer.subject.replace('"', "\\\"")));
    }
    if details.uri {
        parts.extend(peer.uris.iter().map(|uri| format!("URI={uri}")));
    }
    if details.dns {
        parts.extend(peer.dns_names.iter().map(|name| format!("DNS={name}")));
    }
    Some(parts.join(";"))
}

/// PEM with everything escaped that a header value or its list syntax would trip over.
fn pem_for_header(der: &[u8]) -> Option<String> {
    let pem = mizzen_identity::certificate::certificate_to_pem(&der.to_vec().into());
    let mut text = String::new();
    for byte in pem.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte as char),
            _ => write!(text, "%{byte:02X}").ok()?,
        }
    }
    Some(text)
}

/// The listener's own response headers.
pub fn respond(handler: &HttpHandler, headers: &mut HeaderMap) {
    match &handler.server_header {
        ServerHeader::Overwrite(name) => insert_server(headers, name),
        ServerHeader::AppendIfAbsent(name) if !headers.contains_key(header::SERVER) => insert_server(headers, name),
        ServerHeader::AppendIfAbsent(_) | ServerHeader::PassThrough => {}
    }
}

fn insert_server(headers: &mut HeaderMap, name: &str) {
    if let Ok(value) = HeaderValue::from_str(name) {
        headers.insert(header::SERVER, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_4_uuids() {
        assert_eq!(&uuid(u64::MAX, u64::MAX)[..], b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&uuid(0, 0)[..], b"00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn a_client_cannot_strip_what_carries_trust() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close, x-mine, x-forwarded-for, host"));
        headers.insert("x-mine", HeaderValue::from_static("1"));
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("1.2.3.4"));
        remove_hop_headers(&mut headers, false);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key(X_FORWARDED_FOR));
    }

    #[test]
    fn the_forwarded_address_is_counted_from_the_end() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("6.6.6.6, 1.1.1.1"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("2.2.2.2"));
        assert_eq!(forwarded(&headers, 0), None);
        assert_eq!(forwarded(&headers, 1), Some("2.2.2.2".parse().unwrap()));
        assert_eq!(forwarded(&headers, 2), Some("1.1.1.1".parse().unwrap()));
        assert_eq!(forwarded(&headers, 9), None);
    }
}
