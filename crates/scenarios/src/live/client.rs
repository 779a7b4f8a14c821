//! The caller: plain HTTP/1.1 to a sidecar's HTTP proxy port or to the gateway.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::scenario::Call;

/// A call that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(50);
/// A listener that was just configured may need a moment until it is open.
const OPENING: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

/// A client with one connection, kept while the other side keeps it.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    /// The other side is a proxy: it is given the whole URI.
    through_proxy: bool,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, through_proxy: bool) -> Self {
        Self { address, through_proxy, connection: None }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a call; `headers` come on top of those of the call.
    pub(crate) async fn call(&mut self, call: &Call, headers: &[(&str, &str)]) -> Result<Answer, String> {
        let target = if self.through_proxy {
            format!("{}://{}{}", call.scheme, call.authority, call.path_and_query)
        } else {
            call.path_and_query.clone()
        };
        let uri: Uri = target.parse().map_err(|error| format!("{target}: {error}"))?;
        let mut request = Request::new(Full::new(Bytes::from(call.body.clone())));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = call.headers.clone();
        let host = call.authority.parse().map_err(|_| format!("{:?} is no host", call.authority))?;
        request.headers_mut().insert(http::header::HOST, host);
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().map_err(|_| format!("{name:?} is no header"))?;
            let value = value.parse().map_err(|_| format!("{value:?} is no header value"))?;
            request.headers_mut().insert(name, value);
        }
        let exchange = self.exchange(request);
        tokio::time::timeout(LIMIT, exchange).await.map_err(|_| format!("no answer within {LIMIT:?}"))?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.ready().await.is_err()
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let before = Instant::now();
        let response = connection.send_request(request).await.map_err(|error| format!("the call failed: {error}"))?;
        let took = before.elapsed();
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return switched(response, took).await;
        }
        let (head, body) = response.into_parts();
        let body = Limited::new(body, 1024 * 1024)
            .collect()
            .await
            .map_err(|error| format!("the answer broke off: {error}"))?;
        self.connection = Some(connection);
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            took,
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let begin = Instant::now();
        let stream = loop {
            match TcpStream::connect(self.address).await {
                Ok(stream) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused && begin.elapsed() < OPENING => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(format!("{} cannot be reached: {error}", self.address)),
            }
        };
        // Nothing breaks if it cannot be set.
        drop(stream.set_nodelay(true));
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

/// After an upgrade: whether bytes go there and back. The body of the answer is what came back.
async fn switched(response: http::Response<hyper::body::Incoming>, took: Duration) -> Result<Answer, String> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let failed = |error: &dyn std::fmt::Display| format!("after the upgrade: {error}");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.map_err(|error| failed(&error))?);
    stream.write_all(b"there and back").await.map_err(|error| failed(&error))?;
    stream.flush().await.map_err(|error| failed(&error))?;
    let mut back = [0; 14];
    stream.read_exact(&mut back).await.map_err(|error| failed(&error))?;
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&back).into_owned(), took })
}
