use mizzen_testing::ReservedPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(1);

/// A server that answers every connection with `answer`.
async fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn http_target(address: SocketAddr) -> Target {
    Target::Http { address, path: "/ok".into(), headers: Vec::new() }
}

#[tokio::test]
async fn http_succeeds_from_200_to_399() {
    for (status, good) in [("200 OK", true), ("302 Found", true), ("404 Not Found", false), ("503 Busy", false)] {
        let answer = Box::leak(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_boxed_str());
        let outcome = check(&http_target(server(answer).await), LIMIT).await;
        assert_eq!(outcome.is_ok(), good, "{status}: {outcome:?}");
    }
}

#[tokio::test]
async fn garbage_and_silence_are_failures() {
    assert!(matches!(check(&http_target(server("no http\r\n\r\n").await), LIMIT).await, Err(ProbeFailure::Http(_))));
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let target = http_target(silent.local_addr().expect("an address"));
    assert!(matches!(check(&target, Duration::from_millis(50)).await, Err(ProbeFailure::Timeout(_))));
}

#[tokio::test]
async fn tcp_succeeds_where_something_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let target = Target::Tcp { address: listener.local_addr().expect("an address") };
    check(&target, LIMIT).await.expect("something listens");
    let reserved = ReservedPort::new();
    let target = Target::Tcp { address: reserved.address() };
    assert!(matches!(check(&target, LIMIT).await, Err(ProbeFailure::Connect { .. })));
}

#[tokio::test]
async fn exec_succeeds_with_status_0() {
    let target = |line: &str| Target::Exec {
        command: vec!["/bin/sh".into(), "-c".into(), line.into()],
        environment: vec![("WORD".into(), "yes".into())],
    };
    check(&target("test $WORD = yes"), LIMIT).await.expect("the variable is given");
    assert!(matches!(check(&target("exit 3"), LIMIT).await, Err(ProbeFailure::Exec { .. })));
    assert!(matches!(check(&target("sleep 5"), Duration::from_millis(50)).await, Err(ProbeFailure::Timeout(_))));
}

#[tokio::test]
async fn grpc_needs_a_health_service() {
    let target = Target::Grpc { address: server("HTTP/1.1 200 OK\r\n\r\n").await, service: String::new() };
    assert!(matches!(check(&target, LIMIT).await, Err(ProbeFailure::Grpc(_))));
}
