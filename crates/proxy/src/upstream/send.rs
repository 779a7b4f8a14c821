//! One try: take a connection, send, wait for the head of the response.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use mizzen_balance::{ActiveRequest, Exceeded, Host, Permit};
use mizzen_net::body::{Body, BodyError};
use mizzen_net::http1;
use mizzen_net::timer::Deadline;
use mizzen_snapshot::cluster::UpstreamVersion;
use mizzen_snapshot::route::Reset;

use super::connect::{self, ConnectionFacts, TlsWish};
use super::http1::{Idle, Lease};
use super::http2::{Multiplexed, StreamPlace};
use super::pump::{Pump, PumpError};
use super::request::RequestBody;
use super::timeouts::Timeouts;
use super::{Protocol, Source, Upstream};
use crate::refusal::Refusal;

/// Head of a request as it is sent. Borrowed: another try sends the same.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub method: &'a Method,
    pub scheme: &'static str,
    pub host: &'a str,
    /// Path with query; the authority for CONNECT.
    pub target: &'a str,
    pub headers: &'a HeaderMap,
    /// The request asks for an upgrade that is allowed.
    pub upgrade: bool,
    /// Name of the endpoint, for messages.
    pub endpoint: &'a str,
}

impl Head<'_> {
    /// This status ends HTTP on the connection.
    pub fn is_switch(&self, status: StatusCode) -> bool {
        super::http1::is_switch(status, self.method, self.upgrade)
    }
}

/// A try that got no response head.
#[derive(Debug)]
pub struct Failure {
    pub reset: Reset,
    /// Some of the request was written to the endpoint.
    pub request_started: bool,
    pub response_started: bool,
    /// The connection had carried a request before.
    pub reused: bool,
    pub refusal: Refusal,
}

impl Failure {
    fn before_sending(reset: Reset, refusal: Refusal) -> Self {
        Self { reset, request_started: false, response_started: false, reused: false, refusal }
    }

    /// The endpoint closed an idle connection just when we used it: another connection may do, and it is safe when
    /// nothing was sent, or when sending twice means the same as once.
    pub fn is_idle_race(&self, method: &Method) -> bool {
        // Silence is no closed connection: what timed out is not sent again behind the retry policy's back.
        let silent = matches!(
            self.refusal,
            Refusal::RequestTimeout { .. } | Refusal::PerTryTimeout { .. } | Refusal::IdleTimeout { .. }
        );
        self.reused && !silent && !self.response_started && (!self.request_started || method.is_idempotent())
    }
}

pub struct UpstreamResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ResponseBody,
    pub facts: Rc<ConnectionFacts>,
}

/// The body of a response, with everything that has to live until its end.
pub struct ResponseBody {
    source: Body,
    request: RequestSide,
    lease: Option<Lease>,
    /// The connection may be used again after this response.
    keep_alive: bool,
    _place: Option<StreamPlace>,
    guards: Option<(Permit, ActiveRequest)>,
    /// The route's timeout, which includes the body, and its length for the message.
    pub deadline: Deadline,
    pub timeout: std::time::Duration,
    pub bytes: u64,
    pub trailers: Option<HeaderMap>,
}

/// The request that a response belongs to.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
enum RequestSide {
    /// Still being sent.
    Sending(Box<Pump>),
    /// Sent, and kept for another try.
    Sent(RequestBody),
    Gone {
        received: u64,
    },
}

impl RequestSide {
    fn of(pump: Pump) -> Self {
        if pump.is_done() { Self::Sent(pump.body) } else { Self::Sending(Box::new(pump)) }
    }

    fn is_sent(&self) -> bool {
        match self {
            Self::Sending(pump) => pump.is_done(),
            Self::Sent(_) | Self::Gone { .. } => true,
        }
    }
}

/// Why the body of a response broke off.
#[derive(Debug)]
pub enum Broken {
    Upstream(BodyError),
    Downstream(BodyError),
    Timeout,
}

impl ResponseBody {
    /// A body of our own making.
    pub fn local(source: Body) -> Self {
        Self {
            source,
            request: RequestSide::Gone { received: 0 },
            lease: None,
            keep_alive: false,
            _place: None,
            guards: None,
            deadline: Deadline::default(),
            timeout: std::time::Duration::ZERO,
            bytes: 0,
            trailers: None,
        }
    }

    /// Counts the request as active until the response has ended.
    pub fn hold(&mut self, permit: Permit, active: ActiveRequest) {
        self.guards = Some((permit, active));
        self.finish_if_ended();
    }

    pub fn is_end(&self) -> bool {
        self.source.is_end()
    }

    /// Made here, not by an upstream that is reading the request.
    pub fn is_local(&self) -> bool {
        matches!(self.request, RequestSide::Gone { .. })
    }

    pub fn length(&self) -> Option<u64> {
        self.source.length()
    }

    /// Bytes of the request's body that came in, as far as known by now.
    pub fn request_bytes(&self) -> u64 {
        match &self.request {
            RequestSide::Sending(pump) => pump.body.received(),
            RequestSide::Sent(body) => body.received(),
            RequestSide::Gone { received } => *received,
        }
    }

    /// When the request's body was there whole.
    pub fn request_received_at(&self) -> Option<std::time::Instant> {
        match &self.request {
            RequestSide::Sending(pump) => pump.body.received_at(),
            RequestSide::Sent(body) => body.received_at(),
            RequestSide::Gone { .. } => None,
        }
    }

    /// The request's body from its beginning, for another try; `None` when that is gone, and then this response
    /// stands.
    pub fn take_request(&mut self) -> Option<RequestBody> {
        let received = self.request_bytes();
        let mut body = match std::mem::replace(&mut self.request, RequestSide::Gone { received }) {
            RequestSide::Sending(mut pump) => {
                if !pump.body.rewind() {
                    self.request = RequestSide::Sending(pump);
                    return None;
                }
                pump.cancel();
                pump.body
            }
            RequestSide::Sent(body) => body,
            RequestSide::Gone { .. } => return None,
        };
        if body.rewind() {
            Some(body)
        } else {
            self.request = RequestSide::Sent(body);
            None
        }
    }

    /// There will be no other try.
    pub fn commit(&mut self) {
        if let RequestSide::Sending(pump) = &mut self.request {
            pump.body.commit();
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let RequestSide::Sending(pump) = &mut self.request
            && !pump.is_done()
        {
            match pump.poll(cx) {
                Poll::Ready(Err(PumpError::Source(error))) => {
                    self.fail();
                    return Poll::Ready(Some(Err(Broken::Downstream(error))));
                }
                // It answered and does not want the rest.
                Poll::Ready(Err(PumpError::Sink(_))) => self.keep_alive = false,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if self.deadline.poll(cx).is_ready() {
            self.fail();
            return Poll::Ready(Some(Err(Broken::Timeout)));
        }
        match ready!(self.source.poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                }
                self.finish_if_ended();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.fail();
                Poll::Ready(Some(Err(Broken::Upstream(error))))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn finish_if_ended(&mut self) {
        if self.source.is_end() {
            self.finish();
        }
    }

    /// Gives the connection back. While the request is still being sent it cannot be: then it is closed with us.
    fn finish(&mut self) {
        if self.request.is_sent() {
            if let Some(lease) = self.lease.take()
                && self.keep_alive
            {
                self.source = Body::Empty;
                lease.give_back();
            }
            self.guards = None;
        }
    }

    fn fail(&mut self) {
        self.lease = None;
        self.source = Body::Empty;
        if let RequestSide::Sending(pump) = &mut self.request {
            pump.cancel();
        }
    }

    /// The upstream connection itself, after a switch of protocols.
    pub fn into_tunnel(mut self) -> Option<(http1::Connection, TunnelGuards)> {
        self.source = Body::Empty;
        self.request = RequestSide::Gone { received: 0 };
        let idle = self.lease.take()?.into_connection()?;
        let (connection, active, permit) = idle.into_connection();
        Some((connection, TunnelGuards { _held: (active, permit, self.guards.take()) }))
    }
}

/// Keeps a tunnel counted while it is open.
pub struct TunnelGuards {
    _held: (mizzen_balance::ActiveConnection, Permit, Option<(Permit, ActiveRequest)>),
}

impl UpstreamResponse {
    pub fn http1(response: http1::Response, mut lease: Lease, pump: Pump) -> Self {
        lease.heed_keep_alive(&response.headers);
        let facts = Rc::clone(lease.facts());
        let source = Body::of_http1(lease.connection(), response.body);
        let body = ResponseBody {
            lease: Some(lease),
            keep_alive: response.keep_alive,
            request: RequestSide::of(pump),
            ..ResponseBody::local(source)
        };
        Self { status: response.status, headers: response.headers, body, facts }
    }

    pub fn http2(
        status: StatusCode,
        headers: HeaderMap,
        source: Body,
        place: StreamPlace,
        facts: Rc<ConnectionFacts>,
        pump: Pump,
    ) -> Self {
        let body = ResponseBody { _place: Some(place), request: RequestSide::of(pump), ..ResponseBody::local(source) };
        Self { status, headers, body, facts }
    }
}

/// What a try needs besides the request.
pub struct Try<'a> {
    pub upstream: &'a Rc<Upstream>,
    pub host: &'a Arc<Host>,
    /// The client speaks HTTP/2.
    pub client_http2: bool,
    /// Offer Istio's application protocols.
    pub istio_alpn: bool,
    /// Whose address the endpoint shall see.
    pub source: Option<Source>,
    /// Use a connection of its own (an upgrade ends as a tunnel).
    pub http1_only: bool,
    /// Where to note which connection was used.
    pub connection: Option<&'a RefCell<Option<Rc<ConnectionFacts>>>>,
}

impl Try<'_> {
    fn note(&self, connection: &Rc<ConnectionFacts>) {
        if let Some(noted) = self.connection {
            *noted.borrow_mut() = Some(Rc::clone(connection));
        }
    }
}

/// Sends the request to `host` and waits for the head of its response.
pub async fn send(
    what: &Try<'_>,
    head: Head<'_>,
    body: RequestBody,
    timeouts: &mut Timeouts,
) -> Result<UpstreamResponse, (Failure, RequestBody)> {
    if let Some(noted) = what.connection {
        noted.borrow_mut().take();
    }
    let checkout = match take_idle(what) {
        Some(lease) => Checkout::Http1(lease),
        None => match timeouts.within(Box::pin(checkout(what, head.host))).await {
            Ok(Ok(checkout)) => checkout,
            Ok(Err(failure)) => return Err((failure, body)),
            Err(refusal) => {
                return Err((Failure::before_sending(super::http1::reset_of(&refusal), refusal), body));
            }
        },
    };
    match checkout {
        Checkout::Http1(lease) => {
            what.note(lease.facts());
            super::http1::exchange(lease, head, body, timeouts).await
        }
        Checkout::Http2(connection) => {
            what.note(&connection.facts);
            // Boxed, so that the common way over HTTP/1 does not carry the size of this one.
            Box::pin(super::http2::exchange(connection, head, body, timeouts)).await
        }
    }
}

enum Checkout {
    Http1(Lease),
    Http2(Rc<Multiplexed>),
}

/// Which protocol an endpoint is spoken to in; `None` when the TLS handshake decides.
fn protocol(what: &Try<'_>, tls: bool) -> Option<Protocol> {
    match what.upstream.policy().http.version {
        _ if what.http1_only => Some(Protocol::Http1),
        UpstreamVersion::Http1 => Some(Protocol::Http1),
        UpstreamVersion::Http2 => Some(Protocol::Http2),
        UpstreamVersion::Downstream if what.client_http2 => Some(Protocol::Http2),
        UpstreamVersion::Downstream => Some(Protocol::Http1),
        UpstreamVersion::Alpn if tls => None,
        UpstreamVersion::Alpn => Some(Protocol::Http1),
    }
}

/// Application protocols to offer, where they are not simply the cluster's.
fn alpn(what: &Try<'_>, of_cluster: &[String], protocol: Option<Protocol>) -> Option<&'static [&'static str]> {
    let mesh = of_cluster.iter().any(|name| name == "istio" || name.starts_with("istio-"));
    match protocol {
        Some(Protocol::Http1) if what.istio_alpn && mesh => Some(&["istio-http/1.1", "istio", "http/1.1"]),
        Some(Protocol::Http2) if what.istio_alpn && mesh => Some(&["istio-h2", "istio", "h2"]),
        Some(Protocol::Http2) if of_cluster.is_empty() => Some(&["h2"]),
        None if of_cluster.is_empty() => Some(&["h2", "http/1.1"]),
        _ => None,
    }
}

/// The common case: an idle connection is at hand.
fn take_idle(what: &Try<'_>) -> Option<Lease> {
    let transport = what.upstream.transport_for(&what.host.endpoint);
    let tls = what.upstream.transport(transport).tls.is_some();
    if protocol(what, tls) != Some(Protocol::Http1) {
        return None;
    }
    let key = Upstream::key(what.host, transport, Protocol::Http1);
    what.upstream.take_idle(&key).map(|idle| Lease::new(idle, key, what.upstream))
}

async fn checkout(what: &Try<'_>, host_header: &str) -> Result<Checkout, Failure> {
    let upstream = what.upstream;
    let transport = upstream.transport_for(&what.host.endpoint);
    let tls = upstream.transport(transport).tls.clone();
    let protocol = protocol(what, tls.is_some());
    let keys = [Protocol::Http2, Protocol::Http1].map(|protocol| Upstream::key(what.host, transport, protocol));
    loop {
        if protocol != Some(Protocol::Http2)
            && let Some(idle) = upstream.take_idle(&keys[1])
        {
            return Ok(Checkout::Http1(Lease::new(idle, keys[1], upstream)));
        }
        if protocol != Some(Protocol::Http1)
            && let Some(connection) = upstream.multiplexed(&keys[0])
        {
            return Ok(Checkout::Http2(connection));
        }
        let pending = upstream.balancer.breakers().pending().map_err(|error| overflow(upstream, &error))?;
        let freed = upstream.freed.notified();
        let claim = match protocol {
            Some(Protocol::Http1) => None,
            _ => match upstream.claim_connecting(keys[0], what.host) {
                Some(claim) => Some(claim),
                None => {
                    freed.await;
                    continue;
                }
            },
        };
        let only = upstream.has_none(what.host);
        let Ok(permit) = upstream.balancer.breakers().connection(only) else {
            drop(claim);
            freed.await;
            continue;
        };
        let wish = TlsWish {
            alpn: tls.as_ref().and_then(|tls| alpn(what, &tls.alpn, protocol)),
            host: Some(without_port(host_header)),
            client: None,
            source: what.source,
        };
        let dialled = connect::dial(upstream, what.host, transport, wish)
            .await
            .map_err(|refusal| Failure::before_sending(Reset::ConnectFailure, refusal))?;
        drop(pending);
        let active = what.host.begin_connection();
        let http2 = match protocol {
            Some(protocol) => protocol == Protocol::Http2,
            None => dialled.facts.alpn.as_deref().is_some_and(|name| name.ends_with(b"h2")),
        };
        if !http2 {
            let idle = Box::new(Idle::new(dialled, active, permit));
            return Ok(Checkout::Http1(Lease::new(idle, keys[1], upstream)));
        }
        let connection = Multiplexed::start(dialled, active, permit, upstream.policy())
            .await
            .map_err(|refusal| Failure::before_sending(Reset::ConnectFailure, refusal))?;
        upstream.add_multiplexed(keys[0], what.host, Rc::clone(&connection));
        return Ok(Checkout::Http2(connection));
    }
}

pub fn overflow(upstream: &Upstream, error: &Exceeded) -> Failure {
    let refusal = Refusal::Overflow { cluster: upstream.name().to_owned(), cause: error.to_string() };
    Failure::before_sending(Reset::Overflow, refusal)
}

/// A host without its port; brackets of an IPv6 address stay.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}
