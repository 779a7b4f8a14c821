//! A small HTTP server for the ports that are for operators and machines that watch: admin, health, metrics.
//!
//! Bounded in connections, over all and of one address, in time and bytes; bodies of requests are not read. What it must
//! refuse for safety is in [`Guard`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mizzen_net::listen::{bind, is_exhaustion};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections open at once, so that nobody can take the last of them from who has to know.
const CONNECTIONS: usize = 128;
/// … by one address.
const CONNECTIONS_OF_ONE: usize = 32;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection may not last longer: nobody needs one for long, and there are few.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// A request.
#[derive(Debug)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    /// Who asks.
    pub peer: IpAddr,
    query: String,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

/// Whom a port trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Anybody may ask: nothing is secret, nothing can be changed.
    None,
    /// Only somebody on this machine, who means to: requests for a foreign host (a web page that had its name resolve
    /// to us) and requests that came through a proxy (perhaps this one) are refused.
    Local,
}

impl Ask {
    /// The value of a query parameter, decoded; empty for one without a value.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters().into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    pub fn parameters(&self) -> Vec<(String, String)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(key), decoded(value))
            })
            .collect()
    }
}

impl Answer {
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=UTF-8", body: body.into() }
    }

    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::text(StatusCode::OK, body)
    }

    pub fn json(value: &serde_json::Value) -> Self {
        let mut body = serde_json::to_string_pretty(value).unwrap_or_default();
        body.push('\n');
        Self { status: StatusCode::OK, content_type: "application/json", body: body.into() }
    }

    pub fn metrics(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: mizzen_telemetry::metrics::CONTENT_TYPE, body: body.into() }
    }

    /// An answer with a status and nothing else.
    pub fn empty(status: StatusCode) -> Self {
        Self::text(status, Bytes::new())
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// Listens on `address` (port 0: a free one) and answers with `answer`; gives the address and the task that serves.
pub async fn listen<F, R>(
    address: SocketAddr,
    guard: Guard,
    answer: F,
) -> io::Result<(SocketAddr, tokio::task::JoinHandle<()>)>
where
    F: Fn(Ask) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send,
{
    let socket = TcpListener::from_std(bind(address)?)?;
    let address = socket.local_addr()?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let guests = Guests::default();
    let task = tokio::spawn(async move {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, peer) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if is_exhaustion(&error) {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    continue;
                }
            };
            let peer = peer.ip().to_canonical();
            let Some(guest) = Guest::enter(&guests, peer) else { continue };
            let answer = answer.clone();
            tokio::spawn(async move {
                let _guest = guest;
                let service = service_fn(move |request| respond(request, peer, guard, address, answer.clone()));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(64 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                // Whoever asked is gone, or took too long: nothing to do about it.
                let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
                drop(place);
            });
        }
    });
    Ok((address, task))
}

/// How many connections each address has.
type Guests = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One connection of an address; counted until it is dropped.
struct Guest {
    guests: Guests,
    address: IpAddr,
}

impl Guest {
    fn enter(guests: &Guests, address: IpAddr) -> Option<Self> {
        let mut counts = guests.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Self { guests: Arc::clone(guests), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

async fn respond<F, R>(
    request: hyper::Request<hyper::body::Incoming>,
    peer: IpAddr,
    guard: Guard,
    address: SocketAddr,
    answer: F,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(Ask) -> R,
    R: Future<Output = Answer>,
{
    if guard == Guard::Local
        && let Err(reason) = admit(request.headers(), request.uri().authority().map(|host| host.as_str()), address)
    {
        return Ok(Answer::text(StatusCode::FORBIDDEN, format!("{reason}\n")).response());
    }
    let (head, _) = request.into_parts();
    let ask = Ask {
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        method: head.method,
        headers: head.headers,
        peer,
    };
    Ok(answer(ask).await.response())
}

/// Whether a request may be answered by a port that is for this machine alone.
fn admit(headers: &HeaderMap, target: Option<&str>, address: SocketAddr) -> Result<(), &'static str> {
    let host = match (target, headers.get(header::HOST)) {
        (Some(target), _) => target,
        (None, Some(host)) => host.to_str().map_err(|_| "the host header cannot be read")?,
        // HTTP/1.0, which no browser speaks.
        (None, None) => return Ok(()),
    };
    if !is_local(host, address.ip()) {
        return Err("the host is not this machine's loopback: ask for localhost or the address of this port");
    }
    from_a_program(headers)
}

/// Refuses what a web page or a proxy of the mesh sent in somebody's name.
pub fn from_a_program(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(header::ORIGIN) {
        return Err("requests of web pages are not answered here");
    }
    // Every proxy of a mesh adds these to what it forwards.
    let forwarded = ["x-forwarded-proto", "x-forwarded-for", "x-request-id", "x-envoy-expected-rq-timeout-ms"];
    if forwarded.iter().any(|name| headers.contains_key(*name)) {
        return Err("requests that came through a proxy are not answered here");
    }
    Ok(())
}

fn is_local(host: &str, own: IpAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == own)
}

/// Percent escapes and `+` of a query; what is no escape stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let escape = digits.filter(|_| bytes[at] == b'%');
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
