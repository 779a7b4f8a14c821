//! HTTP/1.1 over TLS for the webhooks, with limits: connections, bytes, time, and bodies that are worked on at once.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mizzen_identity::tls::ServerConfigs;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use super::{Answer, Hooks};
use crate::places::Places;
use crate::run::Limits;

/// The API server takes objects of up to 3 MiB, and sends the old one beside the new one.
pub(super) const LARGEST_BODY: usize = 6 << 20;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a head may take, and how long a connection may wait for the next one. The API server opens a new connection
/// when it finds the old one closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once, and those from one address: the API server has few, and who takes as many as may be shuts out nobody
/// who calls from elsewhere.
pub(super) const LIMITS: Limits = Limits { connections: 256, connections_of_address: 128, streams: 0 };
/// Bodies up to this are read at once; nearly all are smaller.
const SMALL_BODY: usize = 256 << 10;
/// Larger bodies in memory at once; further ones wait, so that slow callers with large bodies hold up only their like.
const LARGE_BODIES: usize = 8;
/// Bodies in memory, whatever strangers do.
const ALL_BODIES: usize = 112 << 20;
const _: () = assert!(LIMITS.connections * SMALL_BODY + LARGE_BODIES * LARGEST_BODY <= ALL_BODIES);

/// Serves until `end`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: ServerConfigs,
    hooks: Arc<Hooks>,
    end: impl Future<Output = ()> + Send,
) {
    let mut connections = mizzen_identity::incoming::incoming(listener, tls);
    let places = Places::new(LIMITS);
    let bodies = Arc::new(Semaphore::new(LARGE_BODIES));
    let (stop, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut end = pin!(end);
    loop {
        let connection = tokio::select! {
            connection = connections.next() => connection,
            Some(_) = open.join_next() => continue,
            () = &mut end => break,
        };
        let connection = match connection {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection to the webhooks failed");
                continue;
            }
            None => break,
        };
        let address = connection.remote_address().ip();
        let place = match places.take(address) {
            Ok(place) => place,
            Err(full) => {
                tracing::warn!(%address, reason = %full, "a connection to the webhooks is closed");
                continue;
            }
        };
        let (hooks, bodies, mut stopped) = (hooks.clone(), bodies.clone(), stopped.clone());
        open.spawn(async move {
            let _place = place;
            let service = service_fn(|request: Request<Incoming>| {
                let (hooks, bodies) = (hooks.clone(), bodies.clone());
                async move { Ok::<_, Infallible>(respond(answer(&hooks, &bodies, request).await)) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(64 << 10);
            let mut serving = pin!(server.serve_connection(TokioIo::new(connection), service));
            let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
            let ended = tokio::select! {
                ended = serving.as_mut() => ended,
                () = stopped => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the webhooks ended");
            }
        });
    }
    let _ = stop.send(true);
    while open.join_next().await.is_some() {}
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let kind = if answer.json { "application/json" } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Reads a request as far as it is worth it, and answers it.
pub(super) async fn answer<B>(hooks: &Hooks, bodies: &Semaphore, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "the webhooks are asked with POST".to_owned());
    }
    let content = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content = content.split(';').next().unwrap_or_default().trim();
    if !content.eq_ignore_ascii_case("application/json") {
        let reason = "the Content-Type has to be application/json".to_owned();
        return Answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
    }
    if usize::try_from(body.size_hint().lower()).is_ok_and(|bytes| bytes > LARGEST_BODY) {
        return too_large();
    }
    let (body, _slot) = match tokio::time::timeout(BODY_TIMEOUT, read(body, bodies)).await {
        Ok(Ok(read)) => read,
        Ok(Err(answer)) => return answer,
        Err(_) => return Answer::text(StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned()),
    };
    if body.is_empty() {
        return Answer::text(StatusCode::BAD_REQUEST, "there is no body".to_owned());
    }
    hooks.answer(head.uri.path(), &body)
}

fn too_large() -> Answer {
    Answer::text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {LARGEST_BODY} bytes"))
}

/// A body, and its place among the large ones when it is one.
async fn read<B>(body: B, bodies: &Semaphore) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), Answer>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = pin!(body);
    let (mut bytes, mut slot) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Answer::text(StatusCode::BAD_REQUEST, format!("the body cannot be read: {}", error.into()))
        })?;
        // Trailers say nothing.
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > LARGEST_BODY {
            return Err(too_large());
        }
        if length > SMALL_BODY && slot.is_none() {
            // Never closed; without a place there is none to give back.
            slot = bodies.acquire().await.ok();
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, slot))
}
