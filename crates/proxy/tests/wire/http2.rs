//! HTTP/2 from clients, to upstreams, and between the two versions.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use mizzen_snapshot::cluster::UpstreamVersion;

use crate::support::*;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") })
}

async fn connect(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://test{path}")).body(()).unwrap()
}

async fn read(response: Response<h2::RecvStream>) -> (http::response::Parts, Vec<u8>, Option<HeaderMap>) {
    let (parts, mut body) = response.into_parts();
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap();
    (parts, all, trailers)
}

/// An HTTP/2 upstream that sends back what it gets, with a trailer.
fn echo_http2() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(tcp).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        tokio::spawn(async move {
                            let path = request.uri().to_string();
                            let mut body = request.into_body();
                            let response = Response::builder().header("x-uri", path).body(()).unwrap();
                            let mut stream = respond.send_response(response, false).unwrap();
                            while let Some(Ok(data)) = body.data().await {
                                body.flow_control().release_capacity(data.len()).unwrap();
                                stream.send_data(data, false).unwrap();
                            }
                            let mut trailers = HeaderMap::new();
                            trailers.insert("grpc-status", "0".parse().unwrap());
                            stream.send_trailers(trailers).unwrap();
                        });
                    }
                });
            }
        });
    });
    address
}

fn to_http2() -> World {
    let mut world = World::to(echo_http2());
    world.policy(|policy| policy.http.version = UpstreamVersion::Http2);
    world
}

#[test]
fn http2_becomes_http1() {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    block_on(async {
        let mut send = connect(proxy.address()).await;
        let mut request = get("/x?y");
        request.headers_mut().append("cookie", "a=1".parse().unwrap());
        request.headers_mut().append("cookie", "b=2".parse().unwrap());
        let (response, _) = send.send_request(request, true).unwrap();
        let (parts, body, _) = read(response.await.unwrap()).await;
        let text = String::from_utf8(body).unwrap();
        assert_eq!(parts.status, 200);
        assert!(text.starts_with("GET /x?y HTTP/1.1\r\nhost: test\r\n"), "{text}");
        assert_eq!(header(&text, "cookie"), Some("a=1; b=2"));
    });
}

#[test]
fn http1_becomes_http2() {
    let proxy = Proxy::start(to_http2().snapshot());
    let answer = proxy.client().send("POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi").answer();
    assert_eq!((answer.status, answer.text(), answer.header("x-uri")), (200, "hi", Some("http://h/p")));
}

#[test]
fn streams_go_both_ways_with_trailers() {
    let proxy = Proxy::start(to_http2().snapshot());
    block_on(async {
        let mut send = connect(proxy.address()).await;
        let (response, mut stream) = send.send_request(get("/"), false).unwrap();
        // The response begins before the request ends, and each message comes back before the next is sent.
        let response = response.await.unwrap();
        let mut body = response.into_body();
        for message in ["one", "two", "three"] {
            stream.send_data(Bytes::from(message), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), message);
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn many_streams_share_one_upstream_connection() {
    let proxy = Proxy::start(to_http2().snapshot());
    block_on(async {
        let send = connect(proxy.address()).await;
        let mut all = tokio::task::JoinSet::new();
        for number in 0..50 {
            let mut send = send.clone();
            all.spawn(async move {
                let (response, _) = send.send_request(get(&format!("/{number}")), true).unwrap();
                response.await.unwrap().status()
            });
        }
        while let Some(status) = all.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
    });
    let balancers = proxy.shared.balancers.all();
    assert_eq!(balancers[0].1.active_connections(), 1);
}

#[test]
fn a_grpc_client_gets_a_grpc_status() {
    let proxy = Proxy::start(World::to_all(&[]).snapshot());
    block_on(async {
        let mut send = connect(proxy.address()).await;
        let mut request = get("/svc/Method");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let (response, _) = send.send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["grpc-status"].to_str().unwrap()), (200, "14"));
        assert_eq!(response.headers()["grpc-message"], "no healthy upstream");
    });
}

#[test]
fn a_drained_connection_says_goaway_and_finishes_its_streams() {
    let proxy = Proxy::start_with(to_http2().snapshot(), mizzen_proxy::Limits::default(), PATIENCE);
    block_on(async {
        let tcp = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
        let (send, connection) = h2::client::handshake::<_>(tcp).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut send = send.ready().await.unwrap();
        let (response, mut stream) = send.send_request(get("/"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        let draining = tokio::task::spawn_blocking(move || proxy.drain());
        // GOAWAY: no new stream is possible, the old one goes on.
        while send.clone().ready().await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        stream.send_data(Bytes::from("last"), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "last");
        assert!(body.data().await.is_none());
        body.trailers().await.unwrap();
        drop((body, stream, send));
        draining.await.unwrap();
        let _ = connection.await.unwrap();
    });
}

#[test]
fn s1_rapid_reset_ends_the_connection_and_nobody_else_notices() {
    let silent = upstream(|client, _| while request(client).is_some() {});
    let proxy = Proxy::start(World::to(silent).snapshot());
    block_on(async {
        let tcp = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
        let (send, connection) = h2::client::handshake::<_>(tcp).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut ended = false;
        for _ in 0..20_000 {
            let Ok(mut ready) = send.clone().ready().await else {
                ended = true;
                break;
            };
            let Ok((response, mut stream)) = ready.send_request(get("/"), true) else {
                ended = true;
                break;
            };
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
            tokio::task::yield_now().await;
        }
        assert!(ended, "the connection was never ended");
        drop(send);
        // GOAWAY with the reason; or a broken pipe, where the client was still sending when the proxy closed.
        let error = connection.await.unwrap().unwrap_err();
        assert!(error.is_io() || error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM), "{error:?}");
    });
    let mut other = World::to(echo()).snapshot();
    other.listeners = proxy.shared.snapshot.load().listeners.clone();
    let mut proxy = proxy;
    proxy.publish(other);
    eventually(|| proxy.client().get("/").status == 200);
}
