//! Calls to the other services: HTTP/1.1 with kept connections, through a proxy when there is one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Address;

/// Connections kept for each destination.
const KEPT: usize = 8;
/// No service of Bookinfo says more than this.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

type Connection = SendRequest<Empty<Bytes>>;

/// A client that is shared by all requests of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Upstream {
    proxy: Option<Address>,
    idle: Arc<Mutex<HashMap<String, Vec<Connection>>>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0} did not answer within {1:?}")]
    Timeout(Address, Duration),
    #[error("{0} cannot be reached: {1}")]
    Connect(Address, std::io::Error),
    #[error("{0}: {1}")]
    Http(Address, hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    #[error("{0} said too much or broke off")]
    Body(Address),
}

impl Upstream {
    pub(crate) fn new(proxy: Option<Address>) -> Self {
        Self { proxy, idle: Arc::default() }
    }

    /// `GET http://TARGET PATH`; the time limit is for the whole answer.
    pub(crate) async fn get(
        &self,
        target: &Address,
        path: &str,
        headers: HeaderMap,
        limit: Duration,
    ) -> Result<Answer, CallError> {
        tokio::time::timeout(limit, self.exchange(target, path, headers))
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(target.clone(), limit)))
    }

    async fn exchange(&self, target: &Address, path: &str, headers: HeaderMap) -> Result<Answer, CallError> {
        let peer = self.proxy.as_ref().unwrap_or(target);
        let request = self.request(target, path, headers)?;
        // A kept connection may have been closed by the other side at this very moment; then a new one is made, since
        // reading twice does no harm.
        let mut held = None;
        if let Some(mut kept) = self.kept(peer)
            && let Ok(response) = kept.send_request(request.clone()).await
        {
            held = Some((kept, response));
        }
        let (connection, response) = match held {
            Some(held) => held,
            None => {
                let mut fresh = connect(peer).await?;
                let response =
                    fresh.send_request(request).await.map_err(|error| CallError::Http(target.clone(), error))?;
                (fresh, response)
            }
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|_| CallError::Body(target.clone()))?
            .to_bytes();
        self.keep(peer, connection);
        Ok(Answer { status, body })
    }

    /// A proxy is asked with the whole URI, the service itself with the path (RFC 9112, 3.2).
    fn request(&self, target: &Address, path: &str, headers: HeaderMap) -> Result<Request<Empty<Bytes>>, CallError> {
        let uri: Uri = match self.proxy {
            Some(_) => format!("http://{target}{path}").try_into().map_err(http::Error::from)?,
            None => path.try_into().map_err(http::Error::from)?,
        };
        let mut request = Request::get(uri).body(Empty::new())?;
        *request.headers_mut() = headers;
        let host = HeaderValue::try_from(target.to_string()).map_err(http::Error::from)?;
        request.headers_mut().insert(http::header::HOST, host);
        request.headers_mut().insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        Ok(request)
    }

    fn kept(&self, peer: &Address) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let connections = idle.get_mut(&peer.to_string())?;
        std::iter::from_fn(|| connections.pop()).find(|connection| connection.is_ready())
    }

    fn keep(&self, peer: &Address, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let connections = idle.entry(peer.to_string()).or_default();
        connections.retain(|connection| !connection.is_closed());
        if connections.len() < KEPT && !connection.is_closed() {
            connections.push(connection);
        }
    }
}

async fn connect(peer: &Address) -> Result<Connection, CallError> {
    let stream = TcpStream::connect((peer.host.as_str(), peer.port))
        .await
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|error| CallError::Connect(peer.clone(), error))?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| CallError::Http(peer.clone(), error))?;
    // Ends by itself when the connection does; its error is seen by whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}
