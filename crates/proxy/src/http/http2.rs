//! HTTP/2 clients: requests side by side, each in a task of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, Version};
use mizzen_net::http1::Connection as Io;
use mizzen_net::http2::{self, Rewound, Sender};
use mizzen_net::timer::Deadline;
use mizzen_net::{Body, Stream};
use mizzen_snapshot::http::HttpHandler;
use tokio::time::Instant;

use super::answer::Reply;
use super::exchange::{Head, begin, exchange};
use super::http1::{Gone, add_date, record, record_gone};
use crate::connection::Connection;
use crate::drain::Phase;
use crate::facts::HttpFacts;
use crate::upstream::http2::is_connection_header;
use crate::upstream::send::Broken;

pub async fn serve(connection: Rc<Connection>, handler: Arc<HttpHandler>, io: Io) {
    let Some((stream, read)) = io.into_parts() else { return };
    if let Err(error) = run(&connection, &handler, stream, read).await {
        tracing::debug!(peer = %connection.downstream.peer, %error, "HTTP/2 connection ended");
    }
}

async fn run(
    connection: &Rc<Connection>,
    handler: &Arc<HttpHandler>,
    stream: Stream,
    read: BytesMut,
) -> Result<(), h2::Error> {
    let settings = http2::server(&handler.http2, handler.max_request_headers_kb as usize * 1024);
    let patience = handler.request_headers_timeout.unwrap_or(connection.worker.shared.limits.header_timeout);
    let shaking = settings.handshake::<_, Bytes>(Rewound::new(stream, read));
    let Ok(shaken) = tokio::time::timeout(patience, shaking).await else { return Ok(()) };
    let mut h2 = shaken?;
    let mut idle = Deadline::default();
    let mut age = Deadline::default();
    age.set_after(Instant::now(), handler.max_connection_duration);
    let streams = Rc::new(std::cell::Cell::new(0_usize));
    // Whoever connects during a drain has a request to make: it is told to leave after that, not before.
    let late = connection.drain.is_draining();
    let draining = connection.drain.reached(if late { Phase::ClosingIdle } else { Phase::Draining });
    let mut draining = pin!(draining);
    let mut closing = false;
    let resets = Rc::new(Resets::default());
    loop {
        if resets.are_too_many() {
            tracing::warn!(peer = %connection.downstream.peer, "HTTP/2 connection closed: most streams were reset early");
            h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            let _ = tokio::time::timeout(patience, poll_fn(|cx| h2.poll_closed(cx))).await;
            return Ok(());
        }
        let next = poll_fn(|cx| {
            let served = late && resets.begun.get() > 0;
            if !closing && (served || draining.as_mut().poll(cx).is_ready() || age.poll(cx).is_ready()) {
                return Poll::Ready(Next::Drain);
            }
            if streams.get() > 0 {
                idle.set(None);
            } else if idle.at().is_none() {
                idle.set_after(Instant::now(), handler.idle_timeout);
            }
            if let Poll::Ready(next) = h2.poll_accept(cx) {
                return Poll::Ready(Next::Accepted(next));
            }
            match idle.poll(cx) {
                Poll::Ready(()) if streams.get() == 0 && !closing => Poll::Ready(Next::Drain),
                _ => Poll::Pending,
            }
        })
        .await;
        match next {
            Next::Drain => {
                closing = true;
                h2.graceful_shutdown();
            }
            Next::Accepted(None) => return Ok(()),
            Next::Accepted(Some(accepted)) => {
                let (request, respond) = accepted?;
                streams.set(streams.get() + 1);
                let guard = StreamGuard(Rc::clone(&streams));
                resets.begun.set(resets.begun.get() + 1);
                let serving =
                    serve_stream(Rc::clone(connection), Arc::clone(handler), request, respond, Rc::clone(&resets));
                tokio::task::spawn_local(async move {
                    serving.await;
                    drop(guard);
                });
            }
        }
    }
}

type Accepted = Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one turn of the loop, and a box would be one for each stream"
)]
enum Next {
    Drain,
    Accepted(Accepted),
}

/// Streams that the client reset before they were answered. Each costs us more than it costs the client ("rapid
/// reset"), so a connection where most streams end so is closed (Envoy: `premature_reset_min_stream_lifetime`).
#[derive(Default)]
struct Resets {
    begun: std::cell::Cell<u32>,
    early: std::cell::Cell<u32>,
}

impl Resets {
    const ALLOWED: u32 = 100;

    fn count(&self) {
        self.early.set(self.early.get() + 1);
    }

    fn are_too_many(&self) -> bool {
        self.early.get() > Self::ALLOWED && self.early.get() > self.begun.get() / 2
    }
}

struct StreamGuard(Rc<std::cell::Cell<usize>>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn serve_stream(
    connection: Rc<Connection>,
    handler: Arc<HttpHandler>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    resets: Rc<Resets>,
) {
    let (parts, stream) = request.into_parts();
    let mut headers = parts.headers;
    join_cookies(&mut headers);
    let body = Body::of_http2(stream, &headers);
    let head = Head { method: parts.method, uri: parts.uri, version: Version::HTTP_2, headers };
    let mut facts = begin(&connection, &handler, head);
    let reply = {
        let mut answering = pin!(exchange(&connection, &handler, &mut facts, body));
        poll_fn(|cx| {
            if let Poll::Ready(reply) = answering.as_mut().poll(cx) {
                return Poll::Ready(Some(reply));
            }
            // The client took its request back: what is under way for it ends here.
            respond.poll_reset(cx).map(|_| None)
        })
        .await
    };
    match reply {
        Some(reply) => send(&connection, &handler, respond, facts, reply).await,
        None => {
            resets.count();
            record_gone(&connection, facts);
        }
    }
}

/// HTTP/2 may split `cookie` into several headers; elsewhere they are one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(http::header::COOKIE).iter();
    if cookies.next().is_some() && cookies.next().is_some() {
        let all: Vec<&[u8]> = headers.get_all(http::header::COOKIE).iter().map(|value| value.as_bytes()).collect();
        if let Ok(joined) = http::HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(http::header::COOKIE, joined);
        }
    }
}

async fn send(
    connection: &Rc<Connection>,
    handler: &HttpHandler,
    mut respond: SendResponse<Bytes>,
    facts: Box<HttpFacts>,
    mut answer: Reply,
) {
    let is_head = facts.method == http::Method::HEAD;
    add_date(connection, &mut answer.headers);
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.version_mut() = Version::HTTP_2;
    let headers = response.headers_mut();
    headers.reserve(answer.headers.len());
    for (name, value) in &answer.headers {
        if !is_connection_header(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let ended = is_head || answer.body.is_end();
    if ended && !is_head && !headers.contains_key(http::header::CONTENT_LENGTH) && has_body(answer.status) {
        headers.insert(http::header::CONTENT_LENGTH, http::HeaderValue::from_static("0"));
    }
    let stream = match respond.send_response(response, ended) {
        Ok(stream) => stream,
        Err(_) => return record(connection, facts, answer, Err(Gone::Client)),
    };
    if ended {
        return record(connection, facts, answer, Ok(()));
    }
    let mut sender = Sender::new(stream);
    let idle = handler.stream_idle_timeout.filter(|idle| !idle.is_zero());
    let mut clock = Deadline::default();
    clock.set_after(Instant::now(), idle);
    let sent = poll_fn(|cx| match poll_send(&mut sender, &mut answer, cx) {
        Poll::Ready(sent) => Poll::Ready(sent),
        Poll::Pending if idle.is_some() => clock.poll(cx).map(|()| Err(Gone::Idle)),
        Poll::Pending => Poll::Pending,
    })
    .await;
    match &sent {
        Ok(()) | Err(Gone::Client) => {}
        Err(Gone::Body(Broken::Upstream(_)) | Gone::Length) => sender.reset(Reason::INTERNAL_ERROR),
        Err(Gone::Body(Broken::Downstream(_) | Broken::Timeout) | Gone::Idle) => sender.reset(Reason::CANCEL),
    }
    record(connection, facts, answer, sent);
}

fn has_body(status: http::StatusCode) -> bool {
    !status.is_informational() && status != http::StatusCode::NO_CONTENT && status != http::StatusCode::NOT_MODIFIED
}

fn poll_send(sender: &mut Sender, answer: &mut Reply, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
    loop {
        if sender.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Gone::Client));
        }
        if ready!(sender.poll_sent(cx)).is_err() {
            return Poll::Ready(Err(Gone::Client));
        }
        match ready!(answer.body.poll_frame(cx)) {
            None => return Poll::Ready(sender.end(None).map_err(|_| Gone::Client)),
            Some(Err(broken)) => return Poll::Ready(Err(Gone::Body(broken))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => sender.push(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().ok();
                    return Poll::Ready(sender.end(trailers).map_err(|_| Gone::Client));
                }
            },
        }
    }
}
