//! Asking a server on this machine: probes, metrics of the application, the proxy's own health.

use std::net::IpAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// `http://HOST:PORT/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// Most bytes of an answer's body that are taken.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub bytes: usize,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot connect to {to}: {reason}")]
    Connect { to: String, reason: std::io::Error },
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the answer broke off: {0}")]
    Body(String),
}

impl Url {
    pub fn parse(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        if uri.scheme_str() != Some("http") {
            return None;
        }
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { host, port: uri.port_u16().unwrap_or(80), path })
    }

    /// `HOST:PORT`, with brackets where they belong.
    pub fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

/// A GET with an answer of bounded size. It takes as long as the server does: limit the time outside.
pub async fn get(url: &Url, headers: &[(String, String)], limit: Limit) -> Result<Answer, HttpError> {
    let to = url.authority();
    let stream =
        TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|reason| HttpError::Connect { to, reason })?;
    get_over(stream, url, headers, limit).await
}

/// Any method, without headers of the caller's own.
pub async fn request(method: &http::Method, url: &Url, body: String, limit: Limit) -> Result<Answer, HttpError> {
    let to = url.authority();
    let stream =
        TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|reason| HttpError::Connect { to, reason })?;
    let request = http::Request::builder().method(method).uri(&url.path).header("connection", "close");
    let request = request.header("host", url.authority()).body(Full::new(Bytes::from(body)))?;
    exchange(stream, request, limit).await
}

/// The same over a connection that is there.
pub async fn get_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &Url,
    headers: &[(String, String)],
    limit: Limit,
) -> Result<Answer, HttpError> {
    let mut request = http::Request::get(&url.path).header("connection", "close");
    let has = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    if !has("host") {
        request = request.header("host", url.authority());
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    exchange(stream, request.body(Full::default())?, limit).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Full<Bytes>>,
    limit: Limit,
) -> Result<Answer, HttpError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let asked = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, limit.bytes).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                HttpError::TooLarge(limit.bytes)
            } else {
                HttpError::Body(error.to_string())
            }
        })?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    };
    let answer = asked.await;
    // Nobody reads what else the server may have to say.
    connection.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let url = |host: &str, port, path: &str| Some(Url { host: host.to_owned(), port, path: path.to_owned() });
        assert_eq!(Url::parse("http://localhost:15021/healthz/ready"), url("localhost", 15021, "/healthz/ready"));
        assert_eq!(Url::parse("http://[::1]:1/a?b=c"), url("::1", 1, "/a?b=c"));
        assert_eq!(Url::parse("http://a"), url("a", 80, "/"));
        assert_eq!(Url::parse("http://[::1]:1/").map(|url| url.authority()), Some("[::1]:1".to_owned()));
        for text in ["", "localhost:1", "https://a/", "http://", "/a"] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }
}
