//! Workloads tell each other who they are: in headers, and at the beginning of a TCP connection.

use std::net::SocketAddr;
use std::sync::Arc;

use mizzen_identity::secrets::IDENTITY;
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::google::protobuf::{Struct, Value, value::Kind};
use mizzen_proxy::peer::{MAGIC, Own};
use mizzen_snapshot::Snapshot;
use mizzen_snapshot::cluster::{Cluster, Endpoint, EndpointSet, LocalityEndpoints};
use mizzen_snapshot::http::{PeerExchange, PeerHeaders};
use mizzen_snapshot::listener::{ChainMatch, FilterChain, Handler, Inspect, TcpHandler};
use mizzen_snapshot::tls::{CertificateSource, ClientAuth, ServerTls, TlsVersions};

use crate::support::*;
use crate::tls::{authority, client_tls, secrets, start, validation};

const BOTH: PeerHeaders = PeerHeaders { discover: true, propagate: true };
const EXCHANGE: &str = "istio-peer-exchange";

fn called(proxy: &Proxy, workload: &str) {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = [("WORKLOAD_NAME", text(workload)), ("NAMESPACE", text("default"))];
    let metadata = Struct { fields: fields.map(|(key, value)| (key.to_owned(), value)).into() };
    let node = Node { id: format!("sidecar~{workload}"), metadata: Some(metadata), ..Node::default() };
    proxy.shared.own.set(Own::of(&node).unwrap()).unwrap();
}

/// Says of all endpoints that they are workloads of the mesh.
fn in_mesh(mut snapshot: Snapshot) -> Snapshot {
    let cluster = snapshot.clusters.values().next().unwrap().clone();
    let known = |endpoint: &Arc<Endpoint>| {
        Arc::new(Endpoint { workload: Some(Default::default()), ..Endpoint::clone(endpoint) })
    };
    let localities = cluster.endpoints.localities.iter().map(|locality| LocalityEndpoints {
        endpoints: locality.endpoints.iter().map(known).collect(),
        ..locality.clone()
    });
    let endpoints = EndpointSet { localities: localities.collect(), overprovisioning: 140 };
    let cluster = Cluster { policy: Arc::clone(&cluster.policy), endpoints: Arc::new(endpoints) };
    snapshot.clusters.insert_mut(cluster.policy.name.clone(), Arc::new(cluster));
    snapshot
}

fn outbound(to: SocketAddr) -> World {
    let mut world = World::to(to);
    world.handler.peers = PeerExchange { upstream: BOTH, ..PeerExchange::default() };
    world
}

/// An application that shows what it got, and answers with a description that is not ours.
fn inbound() -> World {
    let mut world = World::to(echo());
    world.handler.peers = PeerExchange { downstream: BOTH, ..PeerExchange::default() };
    world
}

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn both_sides_of_a_request_know_each_other_and_nobody_else_learns_it() {
    let server = Proxy::start(inbound().snapshot());
    called(&server, "reviews-v2");
    let client = Proxy::start(in_mesh(outbound(server.address()).snapshot()));
    called(&client, "productpage-v1");
    let mut connection = client.client();
    for _ in 0..2 {
        let answer = connection.get("/");
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("x-envoy-peer"), "the application was told: {}", answer.text());
        assert!(!answer.head.contains("x-envoy-peer"), "the client was told: {}", answer.head);
    }
    for recorded in server.recorded(2) {
        assert_eq!(recorded.told, [some("productpage-v1"), None]);
    }
    for recorded in client.recorded(2) {
        assert_eq!(recorded.told, [None, some("reviews-v2")]);
    }
}

#[test]
fn who_does_not_describe_himself_is_not_told() {
    let server = Proxy::start(inbound().snapshot());
    called(&server, "reviews-v2");
    let answer = server.client().get("/");
    assert!(!answer.head.contains("x-envoy-peer"), "{}", answer.head);
    assert_eq!(server.recorded(1)[0].told, [None, None]);
}

#[test]
fn strangers_are_not_told() {
    let forged = "GET / HTTP/1.1\r\nhost: test\r\nx-envoy-peer-metadata: AAAA\r\nx-envoy-peer-metadata-id: me\r\n\r\n";
    let mut external = outbound(echo());
    external.policy(|policy| policy.stranger = true);
    for snapshot in [in_mesh(external.snapshot()), outbound(echo()).snapshot()] {
        let client = Proxy::start(snapshot);
        called(&client, "productpage-v1");
        let answer = client.client().send(forged).answer();
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("x-envoy-peer"), "{}", answer.text());
    }
    // The same request inside of the mesh: told, and nothing forged.
    let client = Proxy::start(in_mesh(outbound(echo()).snapshot()));
    called(&client, "productpage-v1");
    let answer = client.client().send(forged).answer();
    assert_eq!(header(answer.text(), "x-envoy-peer-metadata-id"), Some("sidecar~productpage-v1"));
    assert!(header(answer.text(), "x-envoy-peer-metadata").is_some_and(|told| told.len() > 16));
}

/// An application that greets first and then sends back what it gets.
fn greeter() -> SocketAddr {
    upstream(|client, _| {
        client.send("hello ");
        while let Some(byte) = client.try_exactly(1) {
            client.send(byte);
        }
    })
}

fn tcp_server(app: SocketAddr, authority: &mizzen_identity::ca::Authority) -> Proxy {
    let mut snapshot = World::to(app).snapshot();
    let tls = ServerTls {
        certificates: vec![CertificateSource::Secret(IDENTITY.into())],
        client: ClientAuth::Required(validation(Vec::new())),
        alpn: vec![EXCHANGE.to_owned(), "istio".to_owned()],
        versions: TlsVersions { tls12: false, tls13: true },
        cipher_suites: Vec::new(),
    };
    let handler = Handler::Tcp(Arc::new(TcpHandler { peer_exchange: some(EXCHANGE), ..tcp_handler() }));
    let chain = FilterChain {
        name: "tcp".to_owned(),
        matches: ChainMatch::default(),
        tls: Some(Arc::new(tls)),
        handler,
        handshake_timeout: None,
    };
    let inspect = Inspect { tls: true, timeout: Some(PATIENCE), ..Inspect::default() };
    let listener = mizzen_snapshot::Listener {
        direction: mizzen_snapshot::listener::Direction::Inbound,
        ..listener(chain, inspect, 77)
    };
    snapshot.listeners.insert_mut(listener.name.clone(), Arc::new(listener));
    let server = start(secrets(authority, "server"), snapshot);
    called(&server, "mysqldb-v1");
    server
}

fn tcp_client(to: SocketAddr, authority: &mizzen_identity::ca::Authority, exchange: bool) -> Proxy {
    let mut world = World::to(to);
    world.tcp = true;
    world.policy(|policy| {
        policy.default_transport = Some(client_tls("server"));
        policy.peer_exchange = exchange.then(|| EXCHANGE.to_owned());
    });
    let client = start(secrets(authority, "client"), world.snapshot());
    called(&client, "ratings-v2");
    client
}

#[test]
fn both_ends_of_a_tcp_connection_know_each_other() {
    let authority = authority();
    let server = tcp_server(greeter(), &authority);
    let client = tcp_client(server.address(), &authority, true);
    let mut connection = client.client();
    // The application speaks first, so nobody may wait for the client.
    assert_eq!(connection.exactly(6), b"hello ");
    assert_eq!(connection.send("ping").exactly(4), b"ping");
    connection.shutdown();
    assert!(connection.is_closed());
    assert_eq!(client.recorded(1)[0].told, [None, some("mysqldb-v1")]);
    assert_eq!(server.recorded(1)[0].told, [some("ratings-v2"), None]);
}

#[test]
fn an_end_that_agrees_and_does_not_tell_is_relayed_all_the_same() {
    let authority = authority();
    let server = tcp_server(greeter(), &authority);
    let client = tcp_client(server.address(), &authority, false);
    let mut connection = client.client();
    // This client's proxy has no such filter, so what the server tells goes to the client (as with Envoy).
    assert_eq!(connection.exactly(4), MAGIC.to_be_bytes());
    let length: [u8; 4] = connection.exactly(4).try_into().unwrap();
    connection.exactly(u32::from_be_bytes(length) as usize);
    assert_eq!(connection.exactly(6), b"hello ");
    // Bytes that begin as the magic number does are the client's own all the same.
    let text = b"\x3d\x23ping";
    assert_eq!(connection.send(&text[..2]).send(&text[2..]).exactly(text.len()), text);
    connection.shutdown();
    assert!(connection.is_closed());
    assert_eq!(server.recorded(1)[0].told, [None, None]);
}
