//! HTTP/1 clients: requests one after another.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, DATE, HeaderMap};
use http::{Method, StatusCode, Version};
use mizzen_net::Body;
use mizzen_net::http1::{Connection as Io, Encoder, Request, connection::HIGH_WATER};
use mizzen_net::timer::Deadline;
use mizzen_snapshot::http::HttpHandler;
use tokio::time::Instant;

use super::answer::Reply;
use super::exchange::{Head, begin, exchange};
use super::{headers, tunnel};
use crate::connection::Connection;
use crate::drain::Phase;
use crate::facts::HttpFacts;
use crate::refusal::{Flag, Refusal};
use crate::upstream::send::Broken;

/// How much of a request body is read and dropped so that the client can read an answer that came early.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

pub async fn serve(connection: Rc<Connection>, handler: Arc<HttpHandler>, io: Io) {
    let mut clock = Deadline::default();
    let opened = Instant::now();
    let mut requests = 0;
    loop {
        let request = match next_request(&connection, &handler, &io, &mut clock, requests == 0).await {
            Next::Request(request) => request,
            Next::Refuse(refusal) => return refuse(&connection, &handler, &io, &refusal).await,
            Next::Done => {
                let _ = io.shutdown().await;
                return;
            }
        };
        requests += 1;
        let last = handler.max_requests_per_connection.is_some_and(|most| most > 0 && requests >= most)
            || handler.max_connection_duration.is_some_and(|most| opened.elapsed() >= most);
        let client = ClientSide {
            method: request.method.clone(),
            version: request.version,
            keep_alive: request.keep_alive && !last,
        };
        if request.expects_continue {
            io.expect_continue();
        }
        let body = Body::of_http1(&io, request.body);
        let head =
            Head { method: request.method, uri: request.uri, version: request.version, headers: request.headers };
        let mut facts = begin(&connection, &handler, head);
        let reply = {
            let mut answering = pin!(exchange(&connection, &handler, &mut facts, body));
            poll_fn(|cx| {
                if let Poll::Ready(reply) = answering.as_mut().poll(cx) {
                    return Poll::Ready(Some(reply));
                }
                // Nobody waits for the answer any more: what is under way for it ends here.
                if io.decoder().is_done() && io.poll_closed(cx).is_ready() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            })
            .await
        };
        let Some(reply) = reply else { return record_gone(&connection, facts) };
        match send(&connection, &handler, &io, &client, facts, reply).await {
            After::Next => io.shrink(),
            After::Close => {
                let _ = io.shutdown().await;
                let _ = tokio::time::timeout(LINGER_TIME, io.drain(LINGER_BYTES)).await;
                return;
            }
            After::Abort => return,
        }
    }
}

enum Next {
    Request(Request),
    Refuse(Refusal),
    Done,
}

/// Waits for a request: as long as the connection may be idle, and then as long as a head may take.
async fn next_request(
    connection: &Connection,
    handler: &HttpHandler,
    io: &Io,
    clock: &mut Deadline,
    first: bool,
) -> Next {
    // The usual case on a busy connection: it is here already.
    let head_time = handler.request_headers_timeout.unwrap_or(connection.worker.shared.limits.header_timeout);
    let now = Instant::now();
    clock.set_after(now, if first { Some(head_time) } else { handler.idle_timeout });
    let mut begun = first;
    let idle_over = connection.drain.reached(Phase::ClosingIdle);
    let mut idle_over = pin!(idle_over);
    poll_fn(|cx| {
        match io.poll_request(cx) {
            Poll::Ready(Ok(request)) => return Poll::Ready(Next::Request(request)),
            Poll::Ready(Err(error)) => {
                return Poll::Ready(match Refusal::of_head(&error) {
                    Some(refusal) => Next::Refuse(refusal),
                    None => Next::Done,
                });
            }
            Poll::Pending => {}
        }
        if !begun && io.buffered() > 0 {
            begun = true;
            clock.set_after(Instant::now(), Some(head_time));
        }
        if io.buffered() == 0 && idle_over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Next::Done);
        }
        ready!(clock.poll(cx));
        Poll::Ready(if io.buffered() > 0 {
            Next::Refuse(Refusal::RequestReceiveTimeout { after: head_time })
        } else {
            Next::Done
        })
    })
    .await
}

/// Answers a head that could not be read, and closes: where the next message would begin is not known.
async fn refuse(connection: &Connection, handler: &Arc<HttpHandler>, io: &Io, refusal: &Refusal) {
    let told = refusal.told();
    tracing::info!(peer = %connection.downstream.peer, cause = %refusal, "request refused");
    record_refused(connection, handler, refusal);
    let mut response = HeaderMap::new();
    headers::respond(handler, &mut response);
    add_date(connection, &mut response);
    let body = told.body.into_bytes();
    io.queue_response(told.status, &response, Encoder::Length(body.len() as u64), Some("close"));
    let mut encoder = Encoder::Length(body.len() as u64);
    let _ = io.queue_data(&mut encoder, body.into());
    let closing = async {
        let _ = io.shutdown().await;
        io.drain(LINGER_BYTES).await;
    };
    let _ = tokio::time::timeout(LINGER_TIME, closing).await;
}

/// Records a request of which nothing could be read; its method and path are not known.
fn record_refused(connection: &Connection, handler: &Arc<HttpHandler>, refusal: &Refusal) {
    let Ok(method) = Method::from_bytes(b"-") else { return };
    let head = Head { method, uri: http::Uri::default(), version: Version::HTTP_11, headers: HeaderMap::new() };
    let mut facts = begin(connection, handler, head);
    let told = refusal.told();
    facts.path.clear();
    facts.status = told.status.as_u16();
    facts.flags.extend(told.flag);
    facts.details = told.details;
    facts.cause = Some(refusal.to_string());
    connection.worker.shared.recorder.http(&facts);
}

/// What the client's request says about its answer.
struct ClientSide {
    method: Method,
    version: Version,
    keep_alive: bool,
}

enum After {
    Next,
    /// Everything was sent; the connection ends in order.
    Close,
    /// The answer is incomplete; only breaking the connection tells that.
    Abort,
}

async fn send(
    connection: &Rc<Connection>,
    handler: &HttpHandler,
    io: &Io,
    client: &ClientSide,
    facts: Box<HttpFacts>,
    mut answer: Reply,
) -> After {
    add_date(connection, &mut answer.headers);
    let mut encoder = encoder(client, &answer);
    // An answer of our own does not wait for the rest of a request: what follows it would be taken for the next one.
    let unread = !io.decoder().is_done() && answer.body.is_local();
    let keep_alive = client.keep_alive
        && !answer.close
        && !unread
        && !connection.drain.is_draining()
        && encoder != Encoder::UntilClose;
    let option = match (keep_alive, client.version) {
        _ if answer.tunnel => None,
        (false, _) => Some("close"),
        (true, Version::HTTP_10) => Some("keep-alive"),
        (true, _) => None,
    };
    let status = answer.status;
    io.queue_response(status, &answer.headers, encoder, option);
    if answer.tunnel {
        tunnel::run(connection, handler, io, facts, answer).await;
        return After::Abort;
    }
    let idle = handler.stream_idle_timeout.filter(|idle| !idle.is_zero());
    let mut clock = Deadline::default();
    clock.set_after(Instant::now(), idle);
    let sent = poll_fn(|cx| match poll_send(io, &mut encoder, &mut answer, cx) {
        Poll::Ready(sent) => Poll::Ready(sent),
        Poll::Pending if idle.is_some() => clock.poll(cx).map(|()| Err(Gone::Idle)),
        Poll::Pending => Poll::Pending,
    })
    .await;
    let complete = sent.is_ok();
    record(connection, facts, answer, sent);
    match (complete, keep_alive && io.decoder().is_done()) {
        (true, true) => After::Next,
        (true, false) => After::Close,
        (false, _) => After::Abort,
    }
}

/// How the body is framed for this client (RFC 9112, section 6).
fn encoder(client: &ClientSide, answer: &Reply) -> Encoder {
    let status = answer.status;
    let bodiless = client.method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if bodiless || answer.tunnel {
        return Encoder::None;
    }
    let promised = answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match promised.or_else(|| answer.body.length()) {
        Some(length) => Encoder::Length(length),
        None if client.version == Version::HTTP_10 => Encoder::UntilClose,
        None => Encoder::Chunked,
    }
}

/// Why an answer was not sent to its end.
pub enum Gone {
    Client,
    Idle,
    Body(Broken),
    /// The upstream's body does not have the length that it promised.
    Length,
}

fn poll_send(io: &Io, encoder: &mut Encoder, answer: &mut Reply, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
    loop {
        if io.unsent() > HIGH_WATER && ready!(io.poll_flush(cx)).is_err() {
            return Poll::Ready(Err(Gone::Client));
        }
        if *encoder == Encoder::None {
            // A response without a body (HEAD, 304) whose upstream still has to finish its own.
            return io.poll_flush(cx).map_err(|_| Gone::Client);
        }
        match answer.body.poll_frame(cx) {
            Poll::Pending => {
                if let Poll::Ready(Err(_)) = io.poll_flush(cx) {
                    return Poll::Ready(Err(Gone::Client));
                }
                if io.decoder().is_done() && io.poll_closed(cx).is_ready() {
                    return Poll::Ready(Err(Gone::Client));
                }
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    if io.queue_data(encoder, data).is_err() {
                        return Poll::Ready(Err(Gone::Length));
                    }
                }
                Err(frame) => {
                    if io.queue_end(*encoder, frame.trailers_ref()).is_err() {
                        return Poll::Ready(Err(Gone::Length));
                    }
                    *encoder = Encoder::None;
                }
            },
            Poll::Ready(Some(Err(broken))) => {
                // What came so far is passed on, so that the client sees where it broke off.
                let _ = io.poll_flush(cx);
                return Poll::Ready(Err(Gone::Body(broken)));
            }
            Poll::Ready(None) => {
                if io.queue_end(*encoder, None).is_err() {
                    return Poll::Ready(Err(Gone::Length));
                }
                *encoder = Encoder::None;
            }
        }
    }
}

/// Completes the facts with how the answer went, and records them.
pub fn record(connection: &Connection, mut facts: Box<HttpFacts>, mut answer: Reply, sent: Result<(), Gone>) {
    facts.duration = facts.started.elapsed();
    facts.bytes_sent = answer.body.bytes;
    facts.bytes_received = facts.bytes_received.max(answer.body.request_bytes());
    if let Some(at) = answer.body.request_received_at() {
        facts.request_received = Some(at.duration_since(facts.started));
    }
    facts.connected_at_least();
    facts.response_trailers = answer.body.trailers.take();
    facts.response_headers = std::mem::take(&mut answer.headers);
    match sent {
        Ok(()) => {}
        Err(Gone::Client) => {
            facts.flags.push(Flag::DC);
            facts.details = "downstream_remote_disconnect";
            facts.cause = Some("the client closed the connection while it was being answered".to_owned());
        }
        Err(Gone::Idle) => {
            facts.flags.push(Flag::SI);
            facts.details = "stream_idle_timeout";
            facts.cause = Some("nothing was transferred within the stream idle timeout".to_owned());
        }
        Err(Gone::Body(Broken::Upstream(error))) => {
            facts.flags.push(Flag::UC);
            facts.details = "upstream_reset_after_response_started{connection_termination}";
            facts.cause = Some(format!("the upstream broke its response off: {error}"));
        }
        Err(Gone::Length) => {
            facts.flags.push(Flag::UPE);
            facts.details = "upstream_reset_after_response_started{protocol_error}";
            facts.cause = Some("the upstream's response is not as long as its content-length says".to_owned());
        }
        Err(Gone::Body(Broken::Downstream(error))) => {
            facts.flags.push(Flag::DC);
            facts.details = "downstream_remote_disconnect";
            facts.cause = Some(format!("the client broke its request off: {error}"));
        }
        Err(Gone::Body(Broken::Timeout)) => {
            facts.flags.push(Flag::UT);
            facts.details = "response_timeout";
            facts.cause = Some(format!("the response was not complete within {} ms", answer.body.timeout.as_millis()));
        }
    }
    connection.worker.shared.recorder.http(&facts);
}

/// Records a request whose client left before there was an answer.
pub fn record_gone(connection: &Connection, mut facts: Box<HttpFacts>) {
    let gone = Refusal::DownstreamGone { while_: "it waited for the answer" };
    let told = gone.told();
    facts.connected_at_least();
    facts.duration = facts.started.elapsed();
    facts.flags.extend(told.flag);
    facts.details = told.details;
    facts.cause = Some(gone.to_string());
    connection.worker.shared.recorder.http(&facts);
}

/// Every response says when it was made (RFC 9110, section 6.6.1).
pub fn add_date(connection: &Connection, headers: &mut HeaderMap) {
    if !headers.contains_key(DATE) {
        headers.insert(DATE, connection.worker.date());
    }
}
