//! HTTP/2 to an endpoint: many exchanges at once on a connection.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Version, header};
use mizzen_balance::{ActiveConnection, Permit};
use mizzen_net::{Body, http2};
use mizzen_snapshot::cluster::ClusterPolicy;
use mizzen_snapshot::route::Reset;

use super::connect::{ConnectionFacts, Dialled, name};
use super::pump::{Pump, PumpError};
use super::request::RequestBody;
use super::send::{Failure, Head, UpstreamResponse};
use super::timeouts::Timeouts;
use crate::refusal::Refusal;

/// A connection that is shared by exchanges.
pub struct Multiplexed {
    send: h2::client::SendRequest<Bytes>,
    pub facts: Rc<ConnectionFacts>,
    state: Rc<State>,
    max_streams: usize,
    max_requests: u32,
}

#[derive(Default)]
struct State {
    closed: Cell<bool>,
    streams: Cell<usize>,
    requests: Cell<u32>,
}

/// One stream's place on a connection.
pub struct StreamPlace {
    state: Rc<State>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.state.streams.set(self.state.streams.get() - 1);
    }
}

impl Multiplexed {
    /// Starts HTTP/2 on a new connection; a task of its own keeps it going until it is closed.
    pub async fn start(
        dialled: Dialled,
        active: ActiveConnection,
        permit: Permit,
        policy: &ClusterPolicy,
    ) -> Result<Rc<Self>, Refusal> {
        let endpoint = name(active.host());
        let (send, mut connection) = http2::client()
            .handshake::<_, Bytes>(dialled.stream)
            .await
            .map_err(|error| Refusal::ConnectFailure { endpoint, cause: error.to_string() })?;
        let state = Rc::new(State::default());
        let ending = Rc::clone(&state);
        let pings = connection.ping_pong();
        let keepalive = policy.http.http2_keepalive;
        tokio::task::spawn_local(async move {
            let reason = tokio::select! {
                ended = connection => ended.err().map(|error| error.to_string()),
                () = keep_alive(pings, keepalive) => Some("a ping was not answered in time".to_owned()),
            };
            if let Some(reason) = reason {
                tracing::debug!(reason, endpoint = name(active.host()), "HTTP/2 connection to upstream ended");
            }
            ending.closed.set(true);
            drop(permit);
        });
        let max_streams = policy.http.max_concurrent_streams.map_or(usize::MAX, |most| most as usize);
        let max_requests = policy.max_requests_per_connection.filter(|most| *most > 0).unwrap_or(u32::MAX);
        Ok(Rc::new(Self { send, facts: dialled.facts, state, max_streams, max_requests }))
    }

    pub fn is_closed(&self) -> bool {
        self.state.closed.get() || self.state.requests.get() >= self.max_requests
    }

    pub fn has_room(&self) -> bool {
        !self.is_closed() && self.state.streams.get() < self.max_streams.min(self.send.current_max_send_streams())
    }

    fn take_place(&self) -> StreamPlace {
        self.state.streams.set(self.state.streams.get() + 1);
        self.state.requests.set(self.state.requests.get() + 1);
        StreamPlace { state: Rc::clone(&self.state) }
    }

    /// The endpoint said that it takes no more streams, or the connection broke.
    fn close(&self) {
        self.state.closed.set(true);
    }

    fn is_reused(&self) -> bool {
        self.state.requests.get() > 1
    }
}

/// Pings the endpoint from time to time; returns when one ping is not answered in time, and else never.
async fn keep_alive(pings: Option<h2::PingPong>, settings: Option<(Duration, Duration)>) {
    let (Some(mut pings), Some((interval, timeout))) = (pings, settings) else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(interval).await;
        match tokio::time::timeout(timeout, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection itself knows better what is wrong.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Sends the request and waits for the head of the response.
pub async fn exchange(
    connection: Rc<Multiplexed>,
    head: Head<'_>,
    body: RequestBody,
    timeouts: &mut Timeouts,
) -> Result<UpstreamResponse, (Failure, RequestBody)> {
    let place = connection.take_place();
    let failure = |reset, request_started, refusal| Failure {
        reset,
        request_started,
        response_started: false,
        reused: connection.is_reused(),
        refusal,
    };
    let request = match request(&head) {
        Ok(request) => request,
        Err(cause) => return Err((failure(Reset::Broken, false, Refusal::BadRequest(cause)), body)),
    };
    let ended = body.is_empty();
    // Waits for a place if the endpoint allows fewer streams than we thought.
    let mut ready = match connection.send.clone().ready().await {
        Ok(ready) => ready,
        Err(error) => {
            connection.close();
            return Err((failure(Reset::Broken, false, not_sent(&head, &error)), body));
        }
    };
    let (response, stream) = match ready.send_request(request, ended) {
        Ok(sent) => sent,
        Err(error) => {
            connection.close();
            return Err((failure(Reset::Broken, false, not_sent(&head, &error)), body));
        }
    };
    let mut pump = Pump::to_http2(body, http2::Sender::new(stream), ended);
    let mut response = pin!(response);
    let mut seen = 0;
    let outcome = poll_fn(|cx| {
        if !pump.is_done()
            && let Poll::Ready(Err(PumpError::Source(error))) = pump.poll(cx)
        {
            return Poll::Ready(Err(Err(Refusal::DownstreamBody { cause: error.to_string() })));
        }
        if pump.body.is_received() {
            timeouts.request_received();
        } else if pump.body.received() > seen {
            seen = pump.body.received();
            timeouts.moved();
        }
        if let Poll::Ready(response) = response.as_mut().poll(cx) {
            return Poll::Ready(response.map_err(Ok));
        }
        timeouts.poll(cx).map(|refusal| Err(Err(refusal)))
    })
    .await;
    match outcome {
        Ok(response) => {
            let (parts, stream) = response.into_parts();
            let body = Body::of_http2(stream, &parts.headers);
            Ok(UpstreamResponse::http2(parts.status, parts.headers, body, place, Rc::clone(&connection.facts), pump))
        }
        Err(Err(refusal)) => {
            pump.cancel();
            Err((failure(super::http1::reset_of(&refusal), true, refusal), pump.body))
        }
        Err(Ok(error)) => {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            // After GOAWAY, streams beyond its last identifier were not looked at (RFC 9113, section 6.8).
            let unprocessed = refused || error.is_go_away() && error.is_remote();
            if error.is_io() || error.is_go_away() {
                connection.close();
            }
            let reset = if unprocessed { Reset::RefusedStream } else { Reset::Broken };
            Err((failure(reset, !unprocessed, broken(&head, &error)), pump.body))
        }
    }
}

fn not_sent(head: &Head<'_>, error: &h2::Error) -> Refusal {
    Refusal::ConnectionTermination {
        endpoint: head.endpoint.to_owned(),
        cause: format!("{error}, before the request was sent"),
    }
}

fn broken(head: &Head<'_>, error: &h2::Error) -> Refusal {
    let (endpoint, cause) = (head.endpoint.to_owned(), error.to_string());
    if error.is_reset() && error.is_remote() {
        Refusal::RemoteReset { endpoint, cause }
    } else if error.is_io() || error.is_remote() {
        Refusal::ConnectionTermination { endpoint, cause }
    } else {
        Refusal::UpstreamProtocol { endpoint, cause }
    }
}

fn request(head: &Head<'_>) -> Result<Request<()>, String> {
    let uri = if head.method == http::Method::CONNECT {
        http::Uri::builder().authority(head.host.as_bytes())
    } else {
        http::Uri::builder().scheme(head.scheme).authority(head.host.as_bytes()).path_and_query(head.target)
    };
    let uri = uri.build().map_err(|error| error.to_string())?;
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.reserve(head.headers.len());
    for (name, value) in head.headers {
        if !is_connection_header(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    keep_te_trailers(headers);
    Ok(request)
}

/// Headers that mean this hop only and have no place in HTTP/2 (RFC 9113, section 8.2.2). `host` is `:authority`.
pub fn is_connection_header(name: &header::HeaderName) -> bool {
    matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE | header::HOST)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

fn keep_te_trailers(headers: &mut HeaderMap) {
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}
