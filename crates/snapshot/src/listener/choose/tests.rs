use std::sync::Arc;

use mizzen_types::ListenerName;

use crate::listener::*;

fn chain(name: &str, matches: ChainMatch) -> Arc<FilterChain> {
    let handler = Handler::Tcp(Arc::new(TcpHandler {
        stat_prefix: String::new(),
        clusters: vec![("c".into(), 1)],
        idle_timeout: None,
        access_log: Vec::new(),
        max_connect_attempts: 1,
        hash_source_ip: false,
        peer_exchange: None,
    }));
    Arc::new(FilterChain { name: name.to_owned(), matches, tls: None, handler, handshake_timeout: None })
}

fn listener(chains: Vec<Arc<FilterChain>>) -> Listener {
    Listener {
        name: ListenerName::new("l"),
        address: ListenAddress::Tcp("0.0.0.0:15006".parse().unwrap()),
        bind: true,
        transparent: false,
        use_original_dst: false,
        direction: Direction::Inbound,
        inspect: Inspect::default(),
        chains,
        default_chain: Some(chain("default", ChainMatch::default())),
        drain: Drain::Default,
        max_connections: None,
        unmatched: None,
        notes: Vec::new(),
        origin: None,
        fingerprint: 0,
    }
}

fn facts<'a>(destination: &str, sni: Option<&'a str>, alpn: &'a [&'a str]) -> ConnectionFacts<'a> {
    ConnectionFacts {
        destination: destination.parse().unwrap(),
        source: "10.9.9.9:1234".parse().unwrap(),
        direct_source: "10.9.9.9".parse().unwrap(),
        transport: if sni.is_some() || alpn.contains(&"istio") { Transport::Tls } else { Transport::RawBuffer },
        server_name: sni,
        application_protocols: alpn,
    }
}

#[track_caller]
fn check(chains: &[(&str, ChainMatch)], facts: ConnectionFacts<'_>, expect: &str) {
    let listener = listener(chains.iter().map(|(name, matches)| chain(name, matches.clone())).collect());
    assert_eq!(listener.choose(&facts).unwrap().name, expect);
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn the_port_is_looked_at_first_and_never_forgiven() {
    let chains = [
        ("port", ChainMatch { destination_port: Some(80), transport: Some(Transport::Tls), ..ChainMatch::default() }),
        ("any", ChainMatch::default()),
    ];
    check(&chains, facts("10.0.0.1:80", None, &[]), "default");
    check(&chains, facts("10.0.0.1:80", Some("x"), &[]), "port");
    check(&chains, facts("10.0.0.1:81", None, &[]), "any");
}

#[test]
fn the_longest_network_wins() {
    let net = |text: &str| ChainMatch { destination: vec![text.parse().unwrap()], ..ChainMatch::default() };
    let chains = [("wide", net("10.0.0.0/8")), ("narrow", net("10.1.0.0/16")), ("any", ChainMatch::default())];
    check(&chains, facts("10.1.2.3:1", None, &[]), "narrow");
    check(&chains, facts("10.2.2.3:1", None, &[]), "wide");
    check(&chains, facts("192.168.0.1:1", None, &[]), "any");
    check(&chains, facts("[::1]:1", None, &[]), "any");
}

#[test]
fn server_names_exact_then_longest_suffix_then_none() {
    let name = |names: &[&str]| ChainMatch { server_names: strings(names), ..ChainMatch::default() };
    let chains = [
        ("suffix", name(&["*.com"])),
        ("longer", name(&["*.shop.com"])),
        ("exact", name(&["a.shop.com", "other"])),
        ("none", ChainMatch::default()),
    ];
    check(&chains, facts("10.0.0.1:1", Some("a.shop.com"), &[]), "exact");
    check(&chains, facts("10.0.0.1:1", Some("B.Shop.com"), &[]), "longer");
    check(&chains, facts("10.0.0.1:1", Some("shop.com"), &[]), "suffix");
    check(&chains, facts("10.0.0.1:1", Some("org"), &[]), "none");
    check(&chains, facts("10.0.0.1:1", None, &[]), "none");
    check(&chains[..3], facts("10.0.0.1:1", None, &[]), "default");
}

/// The chains of Istio's `virtualInbound` with PERMISSIVE mutual TLS.
#[test]
fn a_permissive_inbound_listener_tells_mesh_plaintext_and_foreign_tls_apart() {
    let alpn = |transport, protocols: &[&str], port: Option<u16>| ChainMatch {
        destination_port: port,
        transport,
        application_protocols: strings(protocols),
        ..ChainMatch::default()
    };
    let tls = Some(Transport::Tls);
    let raw = Some(Transport::RawBuffer);
    let chains = [
        ("blackhole", alpn(None, &[], Some(15006))),
        ("mesh-http", alpn(tls, &["istio-http/1.0", "istio-http/1.1", "istio-h2"], None)),
        ("plain-http", alpn(raw, &["http/1.1", "h2c"], None)),
        ("mesh-tcp", alpn(tls, &["istio-peer-exchange", "istio"], None)),
        ("plain-tcp", alpn(raw, &[], None)),
        ("foreign-tls", alpn(tls, &[], None)),
        ("port-mesh", alpn(tls, &["istio", "istio-peer-exchange", "istio-http/1.1", "istio-h2"], Some(9080))),
        ("port-plain", alpn(raw, &[], Some(9080))),
    ];
    check(&chains, facts("10.0.0.1:15006", None, &[]), "blackhole");
    check(&chains, facts("10.0.0.1:1", Some("x"), &["istio-http/1.1", "istio", "http/1.1"]), "mesh-http");
    check(&chains, facts("10.0.0.1:1", Some("x"), &["istio-peer-exchange", "istio"]), "mesh-tcp");
    check(&chains, facts("10.0.0.1:1", Some("x"), &["h2"]), "foreign-tls");
    check(&chains, facts("10.0.0.1:1", None, &["http/1.1"]), "plain-http");
    check(&chains, facts("10.0.0.1:1", None, &[]), "plain-tcp");
    check(&chains, facts("10.0.0.1:9080", Some("x"), &["istio-h2"]), "port-mesh");
    check(&chains, facts("10.0.0.1:9080", None, &["http/1.1"]), "port-plain");
    check(&chains, facts("10.0.0.1:9080", Some("x"), &["h2"]), "default");
}

#[test]
fn local_and_source_conditions_come_last() {
    let chains = [
        ("local", ChainMatch { same_ip_or_loopback: Some(true), ..ChainMatch::default() }),
        ("near", ChainMatch { source: vec!["10.9.0.0/16".parse().unwrap()], ..ChainMatch::default() }),
        (
            "port",
            ChainMatch {
                source: vec!["10.9.0.0/16".parse().unwrap()],
                source_ports: vec![1234],
                ..ChainMatch::default()
            },
        ),
        ("any", ChainMatch::default()),
    ];
    check(&chains, facts("10.9.9.9:1", None, &[]), "local");
    check(&chains, facts("10.0.0.1:1", None, &[]), "port");
    let mut other = facts("10.0.0.1:1", None, &[]);
    other.source.set_port(9);
    check(&chains, other.clone(), "near");
    other.source = "11.0.0.1:1".parse().unwrap();
    check(&chains, other, "any");
}
