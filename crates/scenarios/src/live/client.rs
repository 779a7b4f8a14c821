//! The caller: HTTP or bytes to a sidecar's HTTP proxy port, to the gateway, or straight to an address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::certificate;
use crate::scenario::Call;

/// A call that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(50);
/// How the message of such a call begins.
pub(crate) const HANGS: &str = "no answer within";
/// A listener that was just configured may need a moment until it is open.
const OPENING: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: HeaderMap,
    pub(crate) body: String,
    pub(crate) took: Duration,
    /// DNS names of the server's certificate, where it has shown one.
    pub(crate) certificate: Option<Vec<String>>,
}

type Body = BoxBody<Bytes, Infallible>;

#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.ready().await.is_ok(),
            Self::Http2(connection) => connection.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        match self {
            Self::Http1(connection) => connection.send_request(request).await,
            Self::Http2(connection) => connection.send_request(request).await,
        }
    }
}

/// A client with one connection, kept while the other side keeps it.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    /// The other side is a proxy: it is given the whole URI.
    through_proxy: bool,
    connection: Option<(Connection, Option<Vec<String>>)>,
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
        if call.is_tcp() {
            let exchange = self.bytes(call);
            return tokio::time::timeout(LIMIT, exchange).await.map_err(|_| format!("{HANGS} {LIMIT:?}"))?;
        }
        let target = if self.through_proxy || call.http2 {
            format!("{}://{}{}", call.scheme, call.authority, call.path_and_query)
        } else {
            call.path_and_query.clone()
        };
        let uri: Uri = target.parse().map_err(|error| format!("{target}: {error}"))?;
        let body = Full::new(Bytes::from(call.body.clone()));
        let body = if call.trailers.is_empty() {
            body.boxed()
        } else {
            let trailers = call.trailers.clone();
            body.with_trailers(async { Some(Ok(trailers)) }).boxed()
        };
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = call.headers.clone();
        let host = call.authority.parse().map_err(|_| format!("{:?} is no host", call.authority))?;
        if call.http2 {
            *request.version_mut() = http::Version::HTTP_2;
        } else {
            request.headers_mut().insert(http::header::HOST, host);
        }
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().map_err(|_| format!("{name:?} is no header"))?;
            let value = value.parse().map_err(|_| format!("{value:?} is no header value"))?;
            request.headers_mut().insert(name, value);
        }
        let exchange = self.exchange(call, request);
        tokio::time::timeout(LIMIT, exchange).await.map_err(|_| format!("{HANGS} {LIMIT:?}"))?
    }

    async fn exchange(&mut self, call: &Call, request: Request<Body>) -> Result<Answer, String> {
        let mut kept = self.connection.take();
        if let Some((connection, _)) = &mut kept
            && !connection.ready().await
        {
            kept = None;
        }
        let (mut connection, certificate) = match kept {
            Some(kept) => kept,
            None => self.connect(call).await?,
        };
        let before = Instant::now();
        let response = connection.send(request).await.map_err(|error| format!("the call failed: {error}"))?;
        let took = before.elapsed();
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return switched(response, took).await;
        }
        let (head, body) = response.into_parts();
        let body = Limited::new(body, 1024 * 1024)
            .collect()
            .await
            .map_err(|error| format!("the answer broke off: {error}"))?;
        self.connection = Some((connection, certificate.clone()));
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            took,
            certificate,
        })
    }

    async fn connect(&self, call: &Call) -> Result<(Connection, Option<Vec<String>>), String> {
        let stream = self.open().await?;
        if call.scheme != "https" || self.through_proxy {
            return Ok((handshake(stream, call.http2).await?, None));
        }
        let name = call.host().to_owned();
        let name = name.try_into().map_err(|_| format!("{} is no server name", call.host()))?;
        let connector = certificate::connector(call.http2)?;
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS failed: {error}"))?;
        let names = certificate::names(stream.get_ref().1.peer_certificates());
        Ok((handshake(stream, call.http2).await?, Some(names)))
    }

    async fn open(&self) -> Result<TcpStream, String> {
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
        Ok(stream)
    }

    /// Sends the body as it is, and its end; all that comes back is the answer.
    async fn bytes(&self, call: &Call) -> Result<Answer, String> {
        let failed = |error: std::io::Error| format!("the connection broke off: {error}");
        let mut stream = self.open().await?;
        let before = Instant::now();
        stream.write_all(call.body.as_bytes()).await.map_err(failed)?;
        stream.shutdown().await.map_err(failed)?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.map_err(failed)?;
        if back.is_empty() {
            return Err("the connection was closed without a byte".to_owned());
        }
        Ok(Answer {
            status: 0,
            headers: HeaderMap::new(),
            trailers: HeaderMap::new(),
            body: String::from_utf8_lossy(&back).into_owned(),
            took: before.elapsed(),
            certificate: None,
        })
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
) -> Result<Connection, String> {
    let stream = TokioIo::new(stream);
    if http2 {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        return Ok(Connection::Http2(sender));
    }
    let handshake = http1::Builder::new().preserve_header_case(true).handshake(stream).await;
    let (sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection.with_upgrades());
    Ok(Connection::Http1(sender))
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
    let body = String::from_utf8_lossy(&back).into_owned();
    Ok(Answer { status, headers, trailers: HeaderMap::new(), body, took, certificate: None })
}
