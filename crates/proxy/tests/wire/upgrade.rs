//! WebSocket and CONNECT (security S9).

use crate::support::*;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nhost: t\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";

fn world(upstream: std::net::SocketAddr) -> World {
    let mut world = World::to(upstream);
    world.handler.upgrades = vec!["websocket".to_owned()];
    world
}

#[test]
fn after_101_bytes_flow_both_ways() {
    let upstream = upstream(|client, _| {
        let (head, _) = request(client).unwrap();
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        assert_eq!(header(&head, "connection"), Some("upgrade"));
        client.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
        assert_eq!(client.exactly(4), b"ping");
        client.send("pong");
        client.rest();
    });
    let proxy = Proxy::start(world(upstream).snapshot());
    let mut client = proxy.client();
    client.send(UPGRADE);
    let (head, status) = client.head();
    assert_eq!((status, header(&head, "upgrade")), (101, Some("websocket")));
    assert_eq!(client.exactly(5), b"hello");
    client.send("ping");
    assert_eq!(client.exactly(4), b"pong");
    client.shutdown();
    assert!(client.is_closed());
    assert_eq!(proxy.recorded(1)[0].status, 101);
}

#[test]
fn s9_no_byte_goes_through_before_the_upstream_agrees() {
    let (told, seen) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let upstream = upstream(move |client, _| {
        let (head, _) = request(client).unwrap();
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno");
        // What follows must be an HTTP request that the proxy made, or nothing.
        let next = request(client).map(|(head, _)| head);
        told.lock().unwrap().send((head, next)).unwrap();
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext");
    });
    let proxy = Proxy::start(world(upstream).snapshot());
    let mut client = proxy.client();
    client.send(format!("{UPGRADE}GET /next HTTP/1.1\r\nhost: t\r\n\r\n"));
    assert_eq!(client.answer().text(), "no");
    assert_eq!(client.answer().text(), "next");
    let (first, second) = seen.recv_timeout(PATIENCE).unwrap();
    assert!(first.starts_with("GET /chat "));
    let second = second.unwrap();
    assert!(second.starts_with("GET /next ") && header(&second, "x-request-id").is_some(), "{second}");
}

#[test]
fn an_upgrade_that_is_not_enabled_is_an_ordinary_request() {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    let answer = proxy.client().send(UPGRADE).answer();
    assert_eq!(answer.status, 200);
    assert_eq!(header(answer.text(), "upgrade"), None);
    assert_eq!(header(answer.text(), "connection"), None);
}

#[test]
fn an_upgrade_that_the_route_forbids_is_refused() {
    let mut world = world(echo());
    world.forward(|forward| forward.upgrades = vec![("websocket".to_owned(), false)]);
    let proxy = Proxy::start(world.snapshot());
    assert_eq!(proxy.client().send(UPGRADE).answer().status, 403);
}

#[test]
fn connect_is_refused_where_it_is_not_enabled() {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    let answer = proxy.client().send("CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n").answer();
    assert!(matches!(answer.status, 403 | 404), "{answer:?}");
}
