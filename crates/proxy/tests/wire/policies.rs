//! What a cluster or a route says about connections and tries: the PROXY protocol, pinned certificates, priorities.

use std::sync::Arc;

use mizzen_identity::certificate::fingerprint;
use mizzen_snapshot::Snapshot;
use mizzen_snapshot::cluster::{Cluster, EndpointSet, ProxyVersion};
use mizzen_snapshot::listener::{FilterChain, Listener};
use mizzen_snapshot::route::{RetryOn, RetryPolicy};
use mizzen_snapshot::tls::{CertificateSource, ClientAuth, Pins, Roots, ServerTls, TlsVersions, Validation};

use crate::support::*;

/// Says back the line that the connection begins with, or as many bytes as the binary form has.
fn header_echo() -> std::net::SocketAddr {
    upstream(|client, _| {
        let line = client.line();
        if line == "\r\n" {
            let rest = client.exactly(26);
            client.send(&rest[10..]);
        } else {
            client.send(line);
        }
        client.rest();
    })
}

fn telling(version: ProxyVersion) -> Proxy {
    let mut world = World { tcp: true, ..World::to(header_echo()) };
    world.policy(|policy| policy.proxy_protocol = Some(version));
    Proxy::start(world.snapshot())
}

#[test]
fn an_opaque_connection_begins_with_who_its_client_is() {
    let proxy = telling(ProxyVersion::V1);
    let mut client = proxy.client();
    let (own, called) = (client.stream.local_addr().unwrap(), proxy.address());
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), called.port());
    assert_eq!(client.line(), expected);

    let proxy = telling(ProxyVersion::V2);
    let mut client = proxy.client();
    let mut expected = vec![0x21, 0x11, 0, 12, 127, 0, 0, 1, 127, 0, 0, 1];
    expected.extend(client.stream.local_addr().unwrap().port().to_be_bytes());
    expected.extend(proxy.address().port().to_be_bytes());
    assert_eq!(client.exactly(16), expected);
}

#[test]
fn a_connection_for_requests_names_ourselves_and_is_shared() {
    let app = upstream(|client, number| {
        let line = client.line();
        assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{line}");
        while let Some((_, _)) = request(client) {
            client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}"));
        }
    });
    let mut world = World::to(app);
    world.policy(|policy| policy.proxy_protocol = Some(ProxyVersion::V1));
    let proxy = Proxy::start(world.snapshot());
    for _ in 0..2 {
        assert_eq!(proxy.client().get("/").text(), "0");
    }
}

/// A server whose certificate is its own, and a client that pins.
fn pinned(pins: impl Fn(&rcgen::CertifiedKey<rcgen::KeyPair>) -> Pins) -> u16 {
    let own = rcgen::generate_simple_self_signed(vec!["app.test".to_owned()]).unwrap();
    let pins = pins(&own);
    let mut server = World::to(echo()).snapshot();
    let old: Arc<Listener> = server.listeners.values().next().unwrap().clone();
    let tls = ServerTls {
        certificates: vec![CertificateSource::Inline {
            certificate: own.cert.pem().into_bytes(),
            key: own.signing_key.serialize_pem().into_bytes(),
        }],
        client: ClientAuth::None,
        alpn: Vec::new(),
        versions: TlsVersions::default(),
        cipher_suites: Vec::new(),
    };
    let chain = FilterChain {
        name: "tls".to_owned(),
        matches: Default::default(),
        tls: Some(Arc::new(tls)),
        handler: old.chains[0].handler.clone(),
        handshake_timeout: None,
    };
    let inspect = mizzen_snapshot::listener::Inspect { tls: true, timeout: Some(PATIENCE), ..Default::default() };
    let listening = listener(chain, inspect, 78);
    server.listeners.insert_mut(listening.name.clone(), Arc::new(listening));
    let server = Proxy::start(server);

    let mut world = World::to(server.address());
    world.policy(|policy| {
        policy.default_transport = Some(Arc::new(mizzen_snapshot::tls::ClientTls {
            certificate: None,
            validation: Validation { roots: Roots::None, pins: pins.clone(), ..Validation::default() },
            sni: Some("app.test".to_owned()),
            auto_sni: false,
            auto_san_validation: false,
            alpn: Vec::new(),
            versions: TlsVersions::default(),
        }));
    });
    let client = Proxy::start(world.snapshot());
    client.client().get("/").status
}

fn bytes(hex: &str) -> [u8; 32] {
    std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
}

#[test]
fn only_a_pinned_certificate_or_key_is_spoken_to() {
    let certificate = |own: &rcgen::CertifiedKey<rcgen::KeyPair>| bytes(&fingerprint(own.cert.der()));
    // The hash of a certificate is that of any bytes.
    let key = |own: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        bytes(&fingerprint(&rcgen::PublicKeyData::subject_public_key_info(&own.signing_key).into()))
    };
    assert_eq!(pinned(|own| Pins { certificates: vec![[0; 32], certificate(own)], keys: Vec::new() }), 200);
    assert_eq!(pinned(|own| Pins { certificates: Vec::new(), keys: vec![key(own)] }), 200);
    assert_eq!(pinned(|own| Pins { certificates: vec![[0; 32]], keys: vec![key(own)] }), 200, "one list is enough");
    assert_eq!(pinned(|own| Pins { certificates: vec![key(own)], keys: vec![certificate(own)] }), 503);
    assert_eq!(pinned(|_| Pins { certificates: vec![[0; 32]], keys: Vec::new() }), 503);
    assert_eq!(pinned(|_| Pins { certificates: Vec::new(), keys: vec![[0; 32]] }), 503);
}

#[test]
fn retries_go_to_another_priority() {
    let busy = upstream(|client, _| {
        while request(client).is_some() {
            client.send("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
        }
    });
    for (after, expected) in [(0, 503), (1, 200), (2, 200), (3, 503)] {
        let mut world = World::to(busy);
        world.forward(|forward| {
            forward.retry = Some(Arc::new(RetryPolicy {
                on: RetryOn { server_error: true, ..RetryOn::default() },
                retries: 2,
                per_try_timeout: None,
                per_try_idle_timeout: None,
                statuses: Vec::new(),
                backoff_base: std::time::Duration::from_millis(1),
                backoff_max: std::time::Duration::from_millis(1),
                avoid_previous_hosts: false,
                host_selection_attempts: 1,
                leave_priorities_after: after,
            }));
        });
        let proxy = Proxy::start(with_second_priority(world.snapshot(), echo()));
        assert_eq!(proxy.client().get("/").status, expected, "after {after}");
    }
}

fn with_second_priority(mut snapshot: Snapshot, address: std::net::SocketAddr) -> Snapshot {
    let first = snapshot.clusters.values().next().unwrap().clone();
    let second =
        cluster(mizzen_snapshot::cluster::ClusterPolicy::plain("x".into(), first.policy.discovery.clone()), &[address]);
    let mut localities = first.endpoints.localities.clone();
    for mut locality in second.endpoints.localities.iter().cloned() {
        locality.priority = 1;
        localities.push(locality);
    }
    let endpoints = Arc::new(EndpointSet { localities, overprovisioning: 140 });
    let both = Cluster { policy: Arc::clone(&first.policy), endpoints };
    snapshot.clusters.insert_mut(both.policy.name.clone(), Arc::new(both));
    snapshot
}
