//! Asking a control plane or a proxy over HTTP. Small answers from this machine: one connection, one request.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);
/// A dump of a large mesh; more is no dump.
const LARGEST_ANSWER: usize = 512 * 1024 * 1024;

/// `GET` that must be answered with 200.
pub async fn get(address: SocketAddr, path: &str) -> Result<Bytes> {
    match request(Method::GET, address, path).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, body) => bail!("http://{address}{path} answers {status}: {}", shortened(&body)),
    }
}

/// `GET` of a JSON document.
pub async fn json(address: SocketAddr, path: &str) -> Result<Value> {
    let body = get(address, path).await?;
    serde_json::from_slice(&body).with_context(|| format!("http://{address}{path} does not answer with JSON"))
}

/// One request, whatever its status.
pub async fn request(method: Method, address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes)> {
    let asked = async {
        let stream = TcpStream::connect(address).await.with_context(|| format!("nothing answers at {address}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", address.to_string())
            .header("connection", "close")
            .body(Full::<Bytes>::default())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        connection.abort();
        match body {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) => bail!("the answer of {address} cannot be read: {error}"),
        }
    };
    timeout(LIMIT, asked).await.with_context(|| format!("{address} does not answer within {} s", LIMIT.as_secs()))?
}

fn shortened(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim().chars().take(300).collect()
}
