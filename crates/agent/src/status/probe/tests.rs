use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

/// Generous: what it limits has to answer at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// An application that answers everything with `answer`, and tells what it was asked.
async fn application(answer: &'static str) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let mut head = format!("from {}\n", peer.ip()).into_bytes();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = told.send(String::from_utf8(head).unwrap());
        }
    });
    (port, asked)
}

/// A server that speaks first, and no protocol.
async fn nonsense() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"nonsense\r\n\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    port
}

fn http(port: u16, tls: bool) -> Prober {
    let headers = vec![("X-Probe".to_owned(), "yes".to_owned()), ("Host".to_owned(), "shop".to_owned())];
    Prober { action: Action::Http { port, path: "/ready?a=b".to_owned(), tls, headers, host: None }, timeout: PATIENCE }
}

fn local() -> Option<IpAddr> {
    Some(Ipv4Addr::LOCALHOST.into())
}

#[tokio::test]
async fn the_application_is_asked_as_the_kubelet_would_and_its_status_passed_on() {
    let (port, mut asked) = application("HTTP/1.1 418 x\r\ncontent-length: 0\r\n\r\n").await;
    let kubelet: HeaderMap =
        [("user-agent", "kube-probe/1.34"), ("x-probe", "yes"), ("host", "10.0.0.1:15020"), ("connection", "close")]
            .into_iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
    assert_eq!(probe(&http(port, false), local(), &kubelet).await.unwrap(), 418);
    let head = asked.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("from 127.0.0.6\nget /ready?a=b http/1.1\r\n"), "{head}");
    assert!(head.contains("user-agent: kube-probe/1.34") && head.contains("host: shop\r\n"), "{head}");
    for name in ["x-probe", "host:", "connection:"] {
        assert_eq!(head.matches(name).count(), 1, "{name} in {head}");
    }
}

#[tokio::test]
async fn tcp_is_open_or_not() {
    let (port, _asked) = application("").await;
    let tcp = |port| Prober { action: Action::Tcp { port }, timeout: PATIENCE };
    assert_eq!(probe(&tcp(port), local(), &HeaderMap::new()).await.unwrap(), 200);
    // Bound and not listening.
    let dead = TcpSocket::new_v4().unwrap();
    dead.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = dead.local_addr().unwrap().port();
    assert!(matches!(probe(&tcp(port), local(), &HeaderMap::new()).await, Err(ProbeFailure::Connect { .. })));
}

#[tokio::test]
async fn silence_and_nonsense_fail() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = Prober { timeout: Duration::from_millis(50), ..http(port, false) };
    assert!(matches!(probe(&silent, local(), &HeaderMap::new()).await, Err(ProbeFailure::Timeout(_))));
    let port = nonsense().await;
    assert!(matches!(probe(&http(port, false), local(), &HeaderMap::new()).await, Err(ProbeFailure::Http(_))));
    let tls = probe(&http(port, true), local(), &HeaderMap::new()).await;
    assert!(matches!(tls, Err(ProbeFailure::Tls(_))), "{tls:?}");
    let grpc = Prober { action: Action::Grpc { port, service: String::new() }, timeout: PATIENCE };
    assert!(matches!(probe(&grpc, local(), &HeaderMap::new()).await, Err(ProbeFailure::Grpc(_))));
}

#[tokio::test]
async fn over_tls_any_certificate_will_do() {
    use mizzen_identity::Authority;
    use mizzen_identity::incoming::{control_plane_tls, incoming};
    use tokio_stream::StreamExt;
    // An authority that nobody here trusts.
    let now = std::time::SystemTime::now();
    let authority = Authority::in_memory(Default::default(), now).unwrap();
    let secrets = Secrets::new();
    secrets.set_roots("ROOTCA".into(), authority.roots());
    let serving = authority.serving_certificate(&["elsewhere.example".to_owned()], now).unwrap();
    secrets.set_certificate("default".into(), &Arc::new(serving));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut connections = incoming(listener, control_plane_tls(&secrets));
    tokio::spawn(async move {
        let mut stream = connections.next().await.unwrap().unwrap();
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).await.unwrap();
        stream.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        // Open until the other side has read it.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(probe(&http(port, true), local(), &HeaderMap::new()).await.unwrap(), 204);
}
