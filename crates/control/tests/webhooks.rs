//! The webhooks' port as the API server and as hostile callers meet it: HTTPS with the mesh's root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/plane.rs"]
mod plane;

use std::sync::Arc;
use std::time::Duration;

use mizzen_control::{Bound, WebhookConfig};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Plane {
    bound: Bound,
    tls: TlsConnector,
    _started: plane::Started,
}

impl Plane {
    async fn start() -> Self {
        let mut started = plane::start(|_, config| {
            let address = ([127, 0, 0, 1], 0).into();
            config.webhook = Some(WebhookConfig { address, native_sidecars: String::new() });
        })
        .await;
        // What Go offers; the server has HTTP/1.1.
        started.tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { bound: started.bound, tls: Arc::new(started.tls.clone()).into(), _started: started }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.bound.webhook.unwrap()).await.unwrap()
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
        self.tls.connect(name, self.tcp().await).await.unwrap()
    }

    async fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut connection = self.connect().await;
        post(&mut connection, path, &body.to_string()).await
    }
}

/// One request and its answer, on a connection that stays open.
async fn post<C: AsyncRead + AsyncWrite + Unpin>(connection: &mut C, path: &str, body: &str) -> (u16, Value) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: istiod\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body.as_bytes()).await.unwrap();
    answer(connection).await
}

async fn answer<C: AsyncRead + Unpin>(connection: &mut C) -> (u16, Value) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "default", "operation": "CREATE",
            "object": {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_answered_over_https_and_may_ask_again() {
    let plane = Plane::start().await;
    let mut connection = plane.connect().await;
    assert_eq!(connection.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    for _ in 0..2 {
        let (status, answer) = post(&mut connection, "/inject?timeout=10s", &review().to_string()).await;
        assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(true)));
        assert!(answer["response"]["patch"].is_string());
    }
    let (status, answer) = post(&mut connection, "/validate", &review().to_string()).await;
    assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(true)));
    assert_eq!(post(&mut connection, "/inject", "{").await.0, 400);

    let mut pages = TcpStream::connect(plane.bound.http).await.unwrap();
    pages.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    pages.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("sidecar_injection_success_total 2\n"), "{text}");
}

/// Each of these is refused or cut off, and the next caller is served as if nothing had happened.
#[tokio::test(flavor = "multi_thread")]
async fn s32_hostile_callers_of_the_webhooks_hold_up_nobody() {
    let plane = Plane::start().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", b"\0\0\0\0", b""] {
        let mut tcp = plane.tcp().await;
        tcp.write_all(bytes).await.unwrap();
    }
    // HTTP that is none, inside of TLS.
    let mut connection = plane.connect().await;
    connection.write_all(b"NONSENSE\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&rest));
    // A length that is too large is refused before the body is sent.
    let mut connection = plane.connect().await;
    let head = "POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, answer(&mut connection)).await.unwrap().0, 413);
    // Callers that begin and never end.
    let mut slow = Vec::new();
    for large in [false, true].repeat(20) {
        let mut connection = plane.connect().await;
        let head =
            "POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";
        connection.write_all(head.as_bytes()).await.unwrap();
        let begun = if large { vec![b' '; 300 << 10] } else { vec![b'{'] };
        connection.write_all(&begun).await.unwrap();
        slow.push(connection);
    }
    let asked = tokio::time::timeout(PATIENCE, plane.ask("/inject", &review())).await.unwrap();
    assert_eq!((asked.0, &asked.1["response"]["allowed"]), (200, &json!(true)));
    drop(slow);
}
