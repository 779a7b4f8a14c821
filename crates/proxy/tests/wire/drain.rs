//! Listeners that change or go, and the end of the process.

use std::time::{Duration, Instant};

use mizzen_proxy::Limits;
use mizzen_snapshot::cluster::{ClusterPolicy, Discovery};

use crate::support::*;

#[test]
fn a_changed_listener_keeps_its_socket_and_old_connections_are_told_to_go() {
    let mut proxy = Proxy::start_with(World::to(echo()).snapshot(), Limits::default(), 2 * PATIENCE);
    let address = proxy.address();
    let mut old = proxy.client();
    assert_eq!(old.get("/").header("server"), Some("envoy"));
    let mut world = World::to(echo());
    world.handler.server_header = mizzen_snapshot::http::ServerHeader::Overwrite("new".to_owned());
    proxy.publish(world.snapshot());
    assert_eq!(proxy.address(), address);
    let mut new = proxy.client();
    eventually(|| {
        new = Client::to(address);
        new.get("/").header("server") == Some("new")
    });
    let last = old.get("/");
    assert_eq!((last.header("server"), last.header("connection")), (Some("envoy"), Some("close")));
    assert!(old.is_closed());
    assert_eq!(new.get("/").header("connection"), None);
}

#[test]
fn routes_change_without_touching_connections() {
    let mut proxy = Proxy::start(World::to(echo()).snapshot());
    let snapshot = proxy.shared.snapshot.load_full();
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    // The same listener, another endpoint.
    let other = upstream(|client, _| {
        while request(client).is_some() {
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother");
        }
    });
    let mut next = mizzen_snapshot::Snapshot::clone(&snapshot);
    let old = next.clusters.get("c").unwrap();
    let policy = std::sync::Arc::clone(&old.policy);
    let changed = mizzen_snapshot::Cluster {
        policy: std::sync::Arc::clone(&policy),
        endpoints: cluster(ClusterPolicy::plain("c".into(), Discovery::Static), &[other]).endpoints,
    };
    next.clusters.insert_mut("c".into(), std::sync::Arc::new(changed));
    proxy.publish(next);
    eventually(|| client.get("/").text() == "other");
}

#[test]
fn on_the_end_requests_are_finished_first() {
    let upstream = upstream(|client, _| {
        request(client);
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsl");
        std::thread::sleep(Duration::from_millis(150));
        client.send("ow");
        request(client);
    });
    let proxy = Proxy::start_with(World::to(upstream).snapshot(), Limits::default(), 2 * PATIENCE);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").head();
    let began = Instant::now();
    proxy.drain();
    // It did not wait for its limit.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(client.exactly(4), b"slow");
    assert!(client.is_closed());
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let upstream = upstream(|client, _| {
        request(client);
        client.stream.set_read_timeout(None).unwrap();
        request(client);
    });
    let proxy = Proxy::start_with(World::to(upstream).snapshot(), Limits::default(), Duration::from_millis(200));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
    // The upstream never answers: without a limit this would not return.
    proxy.drain();
    assert!(client.is_closed());
}

#[test]
fn a_removed_listener_accepts_no_more() {
    let mut proxy = Proxy::start(World::to(echo()).snapshot());
    let address = proxy.address();
    proxy.publish(mizzen_snapshot::Snapshot::default());
    eventually(|| std::net::TcpStream::connect(address).is_err());
}
