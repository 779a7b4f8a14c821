//! HTTP/1 to an endpoint: one exchange at a time on a connection, which then goes back to the pool.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use mizzen_balance::{ActiveConnection, Host, Permit};
use mizzen_net::http1::{Connection, Encoder, HeadError, Limits};
use mizzen_snapshot::route::Reset;
use tokio::time::Instant;

use super::connect::{ConnectionFacts, Dialled};
use super::pump::{Pump, PumpError};
use super::request::RequestBody;
use super::send::{Failure, Head, UpstreamResponse};
use super::timeouts::Timeouts;
use super::{PoolKey, Upstream};
use crate::refusal::Refusal;

/// A connection between two exchanges.
pub struct Idle {
    connection: Connection,
    pub facts: Rc<ConnectionFacts>,
    active: ActiveConnection,
    _permit: Permit,
    opened: Instant,
    idle_since: Instant,
    requests: u32,
    /// What the endpoint said in `keep-alive: timeout=`, less a margin.
    patience: Option<Duration>,
}

impl Idle {
    pub fn new(dialled: Dialled, active: ActiveConnection, permit: Permit) -> Self {
        let now = Instant::now();
        let limits = Limits { head_bytes: 64 * 1024, headers: 200 };
        Self {
            connection: Connection::new(dialled.stream, limits),
            facts: dialled.facts,
            active,
            _permit: permit,
            opened: now,
            idle_since: now,
            requests: 0,
            patience: None,
        }
    }

    pub fn host(&self) -> &Arc<Host> {
        self.active.host()
    }

    /// Still open, and not idle for too long.
    pub fn is_usable(&self, now: Instant, idle_timeout: Duration) -> bool {
        let patience = self.patience.map_or(idle_timeout, |patience| patience.min(idle_timeout));
        now.duration_since(self.idle_since) < patience && self.connection.is_idle_and_open()
    }
}

/// A connection that is in use, and the pool that it came from.
pub struct Lease {
    idle: Option<Box<Idle>>,
    key: PoolKey,
    upstream: Rc<Upstream>,
}

impl Lease {
    pub fn new(idle: Box<Idle>, key: PoolKey, upstream: &Rc<Upstream>) -> Self {
        Self { idle: Some(idle), key, upstream: Rc::clone(upstream) }
    }

    fn idle(&self) -> &Idle {
        self.idle.as_deref().unwrap_or_else(|| unreachable!("a lease holds its connection until it ends"))
    }

    pub fn connection(&self) -> &Connection {
        &self.idle().connection
    }

    pub fn facts(&self) -> &Rc<ConnectionFacts> {
        &self.idle().facts
    }

    /// Takes to heart how long the endpoint says that it keeps idle connections: one that is used just when the
    /// endpoint closes it is a failed request.
    pub fn heed_keep_alive(&mut self, headers: &HeaderMap) {
        let seconds = headers.get("keep-alive").and_then(|value| {
            let text = value.to_str().ok()?;
            text.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse::<u64>().ok())
        });
        if let (Some(seconds), Some(idle)) = (seconds, self.idle.as_mut()) {
            idle.patience = Some(Duration::from_secs(seconds).saturating_sub(Duration::from_millis(500)));
        }
    }

    /// It has carried a request before, so the endpoint may be closing it at this very moment.
    pub fn is_reused(&self) -> bool {
        self.idle().requests > 0
    }

    /// The exchange is over and the connection clean: it may carry the next one.
    pub fn give_back(mut self) {
        let Some(mut idle) = self.idle.take() else { return };
        let policy = self.upstream.policy();
        let now = Instant::now();
        idle.requests += 1;
        let spent = policy.max_requests_per_connection.is_some_and(|most| most > 0 && idle.requests >= most)
            || policy.http.max_connection_duration.is_some_and(|most| now.duration_since(idle.opened) >= most);
        if !spent {
            idle.idle_since = now;
            idle.connection.shrink();
            self.upstream.give_back(self.key, idle);
        }
    }

    /// The stream itself, for a tunnel.
    pub fn into_connection(mut self) -> Option<Box<Idle>> {
        self.idle.take()
    }
}

impl Idle {
    pub fn into_connection(self) -> (Connection, ActiveConnection, Permit) {
        (self.connection, self.active, self._permit)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.upstream.freed.notify_one();
    }
}

/// Sends the request and waits for the head of the response.
pub async fn exchange(
    lease: Lease,
    head: Head<'_>,
    body: RequestBody,
    timeouts: &mut Timeouts,
) -> Result<UpstreamResponse, (Failure, RequestBody)> {
    let connection = lease.connection().clone();
    let (received_before, sent_before) = connection.counts();
    let encoder = encoder(head.method, head.headers, &body, head.upgrade);
    connection.queue_request(head.method, head.target, head.host.as_bytes(), head.headers, encoder);
    let mut pump = Pump::to_http1(body, connection.clone(), encoder);
    let mut pump_error = None;
    let mut seen = 0;
    let outcome = poll_fn(|cx| {
        if pump_error.is_none()
            && let Poll::Ready(Err(error)) = pump.poll(cx)
        {
            match error {
                PumpError::Source(error) => {
                    return Poll::Ready(Err(Refusal::DownstreamBody { cause: error.to_string() }));
                }
                // The endpoint may have answered before it stopped reading.
                PumpError::Sink(error) => pump_error = Some(error),
            }
        }
        if pump.body.is_received() {
            timeouts.request_received();
        } else if pump.body.received() > seen {
            seen = pump.body.received();
            timeouts.moved();
        }
        loop {
            match connection.poll_response(cx, head.method) {
                Poll::Ready(Ok(response)) if response.status.is_informational() && !head.is_switch(response.status) => {
                }
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(head_failure(error, &head, pump_error.take()))),
                Poll::Pending if pump_error.is_some() => {
                    let cause = pump_error.take().unwrap_or_default();
                    let endpoint = head.endpoint.to_owned();
                    return Poll::Ready(Err(Refusal::ConnectionTermination { endpoint, cause }));
                }
                Poll::Pending => return timeouts.poll(cx).map(Err),
            }
        }
    })
    .await;
    match outcome {
        Ok(response) => Ok(UpstreamResponse::http1(response, lease, pump)),
        Err(refusal) => {
            let (received, sent) = connection.counts();
            let failure = Failure {
                reset: reset_of(&refusal),
                request_started: sent > sent_before,
                response_started: received > received_before,
                reused: lease.is_reused(),
                refusal,
            };
            Err((failure, pump.body))
        }
    }
}

pub(super) fn reset_of(refusal: &Refusal) -> Reset {
    match refusal {
        Refusal::PerTryTimeout { .. } => Reset::PerTryTimeout,
        _ => Reset::Broken,
    }
}

fn head_failure(error: HeadError, head: &Head<'_>, pump_error: Option<String>) -> Refusal {
    let endpoint = head.endpoint.to_owned();
    match error {
        HeadError::Closed | HeadError::Truncated | HeadError::Io(_) => {
            Refusal::ConnectionTermination { endpoint, cause: pump_error.unwrap_or_else(|| error.to_string()) }
        }
        HeadError::TooLarge
        | HeadError::TooManyHeaders
        | HeadError::UnknownTransferEncoding
        | HeadError::Malformed(_) => Refusal::UpstreamProtocol { endpoint, cause: error.to_string() },
    }
}

/// How the body is framed: its length if it has one, else chunks.
fn encoder(method: &Method, headers: &HeaderMap, body: &RequestBody, upgrade: bool) -> Encoder {
    if upgrade || method == Method::CONNECT || body.is_empty() {
        // `content-length: 0` from the client stays among the headers.
        return Encoder::None;
    }
    let promised = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    match promised.or_else(|| body.length()) {
        Some(length) => Encoder::Length(length),
        None => Encoder::Chunked,
    }
}

/// Statuses after which the bytes are no longer HTTP.
pub fn is_switch(status: StatusCode, method: &Method, upgrade: bool) -> bool {
    upgrade && status == StatusCode::SWITCHING_PROTOCOLS || method == Method::CONNECT && status.is_success()
}
