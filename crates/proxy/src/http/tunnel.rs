//! After `101 Switching Protocols` (or a CONNECT that was accepted) the bytes are no longer HTTP.
//!
//! Only then: until the upstream has agreed, nothing that the client sent behind its request goes anywhere.

use std::rc::Rc;

use mizzen_net::http1::Connection as Io;
use mizzen_net::relay;
use mizzen_snapshot::http::HttpHandler;

use super::answer::Reply;
use super::http1::{Gone, record};
use crate::connection::Connection;
use crate::facts::HttpFacts;

/// Sends the head that is queued, then relays until both sides have closed.
pub async fn run(
    connection: &Rc<Connection>,
    handler: &HttpHandler,
    io: &Io,
    mut facts: Box<HttpFacts>,
    mut answer: Reply,
) {
    let body = std::mem::replace(&mut answer.body, crate::upstream::send::ResponseBody::local(mizzen_net::Body::Empty));
    let Some((upstream, _guards)) = body.into_tunnel() else {
        return record(connection, facts, answer, Err(Gone::Length));
    };
    if io.flush().await.is_err() {
        return record(connection, facts, answer, Err(Gone::Client));
    }
    let idle = handler.stream_idle_timeout.filter(|idle| !idle.is_zero());
    let moved = relay::http1(io, &upstream, idle).await;
    facts.bytes_received += moved.to_upstream;
    answer.body.bytes = moved.to_client;
    let sent = if moved.idle { Err(Gone::Idle) } else { Ok(()) };
    record(connection, facts, answer, sent);
}
