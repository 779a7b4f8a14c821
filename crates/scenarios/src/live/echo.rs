//! The workloads of the world: servers that answer with what they were asked, and remember it.
//!
//! A request may tell them to misbehave, with the header `x-echo`: `delay=2s` (answer later), `fail=2` (503 for the
//! first two tries of this call), `status=503@reviews-v2` (always, at that workload). One that speaks gRPC ends its answers
//! with trailers; one that speaks TCP says `answered by NAME` and sends all bytes back.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::certificate;
use crate::expect::{Seen, duration};
use crate::world::{Speaks, Workload};

/// Names a call, so that tries and copies of it are known.
pub(crate) const CALL_HEADER: &str = "x-scenario-call";
/// Who answered.
pub(crate) const WORKLOAD_HEADER: &str = "x-workload";

/// What all workloads were asked, by call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<HashMap<String, Vec<Asked>>>>);

/// A workload and what it was asked.
type Asked = (&'static str, Seen);

impl Memory {
    /// Takes what was remembered of a call.
    pub(crate) fn take(&self, call: &str) -> Vec<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(call).unwrap_or_default()
    }

    /// Looks at it without taking it.
    pub(crate) fn workloads(&self, call: &str) -> Vec<&'static str> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(call).into_iter().flatten().map(|(workload, _)| *workload).collect()
    }

    /// Remembers a request; how many of the same call came before it.
    fn record(&self, call: String, workload: &'static str, seen: Seen) -> usize {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = held.entry(call).or_default();
        all.push((workload, seen));
        all.len() - 1
    }
}

/// Starts a workload; it ends with the runtime. Returns where it listens.
pub(crate) async fn start(workload: &'static Workload, address: SocketAddr, memory: Memory) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let tls = (workload.speaks == Speaks::Tls).then(certificate::acceptor).transpose().map_err(io::Error::other)?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (memory, tls) = (memory.clone(), tls.clone());
            // Nothing breaks if it cannot be set.
            drop(stream.set_nodelay(true));
            // A client that goes away is its own affair.
            tokio::spawn(async move { drop(serve(workload, stream, memory, tls).await) });
        }
    });
    Ok(bound)
}

async fn serve(
    workload: &'static Workload,
    stream: TcpStream,
    memory: Memory,
    tls: Option<tokio_rustls::TlsAcceptor>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match (workload.speaks, tls) {
        (Speaks::Tcp, _) => {
            let (mut read, mut write) = stream.into_split();
            write.write_all(greeting(workload.name).as_bytes()).await?;
            tokio::io::copy(&mut read, &mut write).await?;
        }
        (_, Some(tls)) => http(workload, tls.accept(stream).await?, memory).await?,
        (_, None) => http(workload, stream, memory).await?,
    }
    Ok(())
}

/// What a workload says of itself.
pub(crate) fn greeting(workload: &str) -> String {
    format!("answered by {workload}\n")
}

async fn http(
    workload: &'static Workload,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    memory: Memory,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let memory = memory.clone();
        async move { Ok::<_, Infallible>(answer(workload, request, &memory).await) }
    });
    let stream = TokioIo::new(stream);
    if workload.speaks == Speaks::Grpc {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).with_upgrades().await
    }
}

async fn answer(
    workload: &'static Workload,
    mut request: Request<Incoming>,
    memory: &Memory,
) -> Response<BoxBody<Bytes, Infallible>> {
    let Workload { name: workload, speaks, .. } = *workload;
    let upgrade = request.headers().get(http::header::UPGRADE).cloned();
    if upgrade.is_some() {
        tokio::spawn(send_back(hyper::upgrade::on(&mut request)));
    }
    let (head, body) = request.into_parts();
    // Bodies of scenarios are small; one that is not is not read to its end.
    let body = Limited::new(body, 64 * 1024).collect().await;
    let trailers = body.ok().and_then(|body| body.trailers().cloned()).unwrap_or_default();
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string),
        host: head
            .uri
            .host()
            .map_or_else(|| header("host"), |_| head.uri.authority().map(ToString::to_string).unwrap_or_default()),
        headers: head.headers.clone(),
        trailers,
    };
    let before = memory.record(header(CALL_HEADER), workload, seen);
    let mut status = StatusCode::OK;
    for wish in header("x-echo").split_whitespace() {
        match wish.split_once('=') {
            Some(("delay", time)) => tokio::time::sleep(duration(time).unwrap_or_default()).await,
            Some(("fail", times)) if before < times.parse().unwrap_or_default() => {
                status = StatusCode::SERVICE_UNAVAILABLE;
            }
            Some(("status", wish)) => {
                let (code, at) = wish.split_once('@').unwrap_or((wish, workload));
                if at == workload {
                    status = code.parse().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                }
            }
            _ => {}
        }
    }
    let body = Full::from(greeting(workload));
    let body = if speaks == Speaks::Grpc {
        let trailers =
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        body.with_trailers(async { Some(Ok(trailers)) }).boxed()
    } else {
        body.boxed()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(WORKLOAD_HEADER, HeaderValue::from_static(workload));
    headers.insert("x-echo-extra", HeaderValue::from_static("1"));
    if let Some(kind) = head.headers.get(http::header::CONTENT_TYPE).filter(|_| speaks == Speaks::Grpc) {
        headers.insert(http::header::CONTENT_TYPE, kind.clone());
    }
    if let Some(protocol) = upgrade {
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(http::header::UPGRADE, protocol);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.body_mut() = Full::default().boxed();
    }
    response
}

/// After an upgrade all bytes go back.
async fn send_back(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(stream) = upgrade.await else { return };
    let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
    // Ends with the connection, however that ends.
    drop(tokio::io::copy(&mut read, &mut write).await);
}
