//! Sidecars on traffic that the kernel catches: pods are network namespaces, with the binary as it ships in each.
//!
//! The control plane reads files; `mizzen init` and `mizzen proxy sidecar` run in every pod as injection would start
//! them; applications are plain sockets that know nothing of a mesh. The main path is also walked with stock Envoys in
//! the sidecars' place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apps;
mod bed;
mod dns;
mod envoy;
mod mesh;

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use apps::{PATIENCE, get, greeting, try_get, try_greeting};
use bed::{Pod, in_namespaces};
use mesh::{Mesh, Sidecar};

/// The two applications of the pod `server`, and what stands outside of the mesh.
fn serve(server: &Pod, outside: &Pod) {
    server.run(|| apps::http_server(8080));
    server.run(|| apps::greeter(3306));
    server.run(|| apps::greeter(9000));
    outside.run(|| apps::http_server(80));
    outside.run(|| apps::greeter(2525));
}

/// What has to hold with any sidecar.
fn main_path(sidecar: Sidecar) {
    let mesh = Mesh::start(&[], sidecar);
    let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
    serve(server, outside);
    mesh.ready();

    // HTTP to a service: over mutual TLS, from the address that Istio's sidecars call their applications from.
    let page = client.call(|| get("10.96.0.10:80", "web"));
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.told("peer"), "127.0.0.6");
    let certificate = page.header("x-forwarded-client-cert");
    assert!(certificate.contains("URI=spiffe://cluster.local/ns/default/sa/client"), "{page:?}");

    // To the pod's own address: no service, and so no certificate.
    let page = client.call(|| get("10.66.2.2:8080", "10.66.2.2"));
    assert_eq!((page.status, page.header("x-forwarded-client-cert")), (200, String::new()), "{page:?}");

    // A server that speaks first, behind a port that is known to be no HTTP.
    assert_eq!(client.call(|| greeting("10.96.0.11:3306")), "hello 127.0.0.6");

    // From outside of the mesh, in the clear.
    let page = outside.call(|| get("10.66.2.2:8080", "10.66.2.2"));
    assert_eq!((page.status, page.told("peer").as_str()), (200, "127.0.0.6"), "{page:?}");

    // To what nobody knows.
    let page = client.call(|| get("10.66.3.2:80", "example.org"));
    assert_eq!((page.status, page.told("peer").as_str()), (200, "10.66.1.2"), "{page:?}");
    assert_eq!(client.call(|| greeting("10.66.3.2:2525")), "hello 10.66.1.2");

    // The application calls the service that it serves itself.
    let page = server.call(|| get("10.96.0.10:80", "web"));
    assert_eq!((page.status, page.told("peer").as_str()), (200, "127.0.0.6"), "{page:?}");
    assert!(page.header("x-forwarded-client-cert").contains("/sa/server"), "{page:?}");
    // And itself, past any proxy.
    let page = server.call(|| get("127.0.0.1:8080", "localhost"));
    assert_eq!((page.status, page.told("peer").as_str()), (200, "127.0.0.1"), "{page:?}");
    let page = server.call(|| get("10.66.2.2:8080", "localhost"));
    assert_eq!((page.status, page.told("peer").as_str()), (200, "10.66.2.2"), "{page:?}");
}

#[test]
fn connections_take_the_way_through_both_sidecars() {
    in_namespaces("connections_take_the_way_through_both_sidecars", || main_path(Sidecar::Mizzen));
}

#[test]
fn stock_envoys_take_the_same_way() {
    let test = "stock_envoys_take_the_same_way";
    match mizzen_testing::envoy() {
        Some(envoy) => in_namespaces(test, || main_path(Sidecar::Envoy(envoy.clone()))),
        None => mizzen_testing::skip(test, "there is no Envoy (MIZZEN_ENVOY)"),
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_on_a_port_of_unknown_protocol() {
    in_namespaces("a_server_that_speaks_first_is_heard_on_a_port_of_unknown_protocol", || {
        let mesh = Mesh::start(&[], Sidecar::Mizzen);
        let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
        serve(server, outside);
        mesh.ready();
        // Through both sidecars, to a port without a name.
        assert_eq!(client.call(|| greeting("10.96.0.12:9000")), "hello 127.0.0.6");
        // In the clear: mutual TLS may begin here, so somebody has to look.
        assert_eq!(outside.call(|| greeting("10.66.2.2:3306")), "hello 127.0.0.6");
        // And to a port that no service names.
        server.run(|| apps::greeter(9999));
        assert_eq!(outside.call(|| greeting("10.66.2.2:9999")), "hello 127.0.0.6");
        // The other way round it is HTTP.
        server.run(|| apps::http_server(9001));
        let page = client.call(|| get("10.96.0.12:9001", "unnamed:9001"));
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.header("x-forwarded-client-cert").contains("/sa/client"), "{page:?}");
    });
}

#[test]
fn ipv6_is_caught_too() {
    in_namespaces("ipv6_is_caught_too", || {
        let mesh = Mesh::start(&[], Sidecar::Mizzen);
        let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
        serve(server, outside);
        mesh.ready();
        let page = outside.call(|| get("[fd66:2::2]:8080", "server"));
        assert_eq!((page.status, page.told("peer").as_str()), (200, "::6"), "{page:?}");
        let page = client.call(|| get("[fd66:3::2]:80", "example.org"));
        assert_eq!((page.status, page.told("peer").as_str()), (200, "fd66:1::2"), "{page:?}");
        assert_eq!(client.call(|| greeting("[fd66:3::2]:2525")), "hello fd66:1::2");
    });
}

#[test]
fn what_is_excluded_passes_the_sidecar_by() {
    in_namespaces("what_is_excluded_passes_the_sidecar_by", || {
        let mesh = Mesh::start(&["-o", "2525", "-d", "15090,15021,15020,7000"], Sidecar::Mizzen);
        let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
        serve(server, outside);
        server.run(|| apps::greeter(7000));
        mesh.ready();
        let from: IpAddr = "10.66.3.2".parse().unwrap();
        assert_eq!(outside.call(|| greeting("10.66.2.2:7000")), format!("hello {from}"));
        assert_eq!(client.call(|| greeting("10.66.3.2:2525")), "hello 10.66.1.2");
        // Rules are replaced while connections go on, and what was excluded is caught now.
        for _ in 0..3 {
            mesh.init(server, &[]);
        }
        assert_eq!(outside.call(|| greeting("10.66.2.2:7000")), "hello 127.0.0.6");
        let page = client.call(|| get("10.96.0.10:80", "web"));
        assert_eq!(page.status, 200, "{page:?}");
    });
}

#[test]
fn s38_who_passes_his_sidecar_by_is_refused_by_the_other_one() {
    in_namespaces("s38_who_passes_his_sidecar_by_is_refused_by_the_other_one", || {
        let mesh = Mesh::start(&[], Sidecar::Mizzen);
        let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
        serve(server, outside);
        mesh.ready();
        // A program that runs as the sidecar's user is not caught: its bytes come in the clear.
        let past_the_sidecar = |address: &str| {
            let mut curl = client.command_as_proxy(Path::new("curl"));
            curl.args(["--silent", "--max-time", "20", "--noproxy", "*", "--write-out", "%{http_code}", "--output"]);
            let output = curl.arg("/dev/null").arg(format!("http://{address}:8080/")).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let ways = ["10.66.2.2", "[fd66:2::2]"];
        assert_eq!(ways.map(past_the_sidecar), ["200", "200"], "nobody has demanded mutual TLS yet");
        mesh.apply(
            "strict.yaml",
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n",
        );
        let deadline = Instant::now() + PATIENCE;
        while ways.map(past_the_sidecar) != ["000", "000"] {
            assert!(Instant::now() < deadline, "still answered in the clear: {:#?}", mesh.said());
        }
        // Neither are hosts without a sidecar; a caller with one still is.
        assert!(outside.call(|| try_get("10.66.2.2:8080", "web")).is_err());
        assert_eq!(client.call(|| get("10.96.0.10:80", "web")).status, 200);
    });
}

#[test]
fn what_nobody_knows_is_blocked_where_the_mesh_says_so() {
    in_namespaces("what_nobody_knows_is_blocked_where_the_mesh_says_so", || {
        let mesh = Mesh::with(&[], Sidecar::Mizzen, "outboundTrafficPolicy: {mode: REGISTRY_ONLY}");
        let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
        serve(server, outside);
        mesh.ready();
        // Port 80 is one of the mesh's, so the request is understood; the host is nobody's.
        let page = client.call(|| get("10.66.3.2:80", "example.org"));
        assert_eq!(page.status, 502, "{page:?}");
        mesh.wait_for_line(&["client:", "example.org", "502 - direct_response", "block_all"]);
        // Bytes go nowhere.
        assert_eq!(client.call(|| greeting("10.66.3.2:2525")), "");
        mesh.wait_for_line(&["client:", "10.66.3.2:2525", "BlackHoleCluster"]);
        let page = client.call(|| get("10.96.0.10:80", "web"));
        assert_eq!(page.status, 200, "{page:?}");
    });
}

#[test]
fn pods_of_a_headless_service_are_called_by_their_own_addresses() {
    in_namespaces("pods_of_a_headless_service_are_called_by_their_own_addresses", || {
        let mesh = Mesh::start(&[], Sidecar::Mizzen);
        let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
        serve(server, outside);
        server.run(|| apps::greeter(5432));
        server.run(|| apps::http_server(8088));
        mesh.ready();
        assert_eq!(client.call(|| greeting("10.66.2.2:5432")), "hello 127.0.0.6");
        mesh.wait_for_line(&["client:", "outbound|5432||db.default.svc.cluster.local"]);
        // By the service's name, and by the pod's.
        for host in ["db.default.svc.cluster.local:8088", "db-0.db.default.svc.cluster.local:8088"] {
            let page = client.call(|| get("10.66.2.2:8088", host));
            assert_eq!(page.status, 200, "{page:?}");
            assert!(page.header("x-forwarded-client-cert").contains("/sa/client"), "{host}: {page:?}");
        }
    });
}

/// With TPROXY, applications see their clients' own addresses.
fn clients_are_seen(sidecar: Sidecar) {
    // Envoy waits for the client where it does not know the protocol.
    let hears_silence = matches!(sidecar, Sidecar::Mizzen);
    let mesh = Mesh::start(&["-m", "TPROXY"], sidecar);
    let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
    serve(server, outside);
    mesh.ready();
    // In turns, so that a connection that was made for one of them would be found by the other.
    for _ in 0..3 {
        let page = client.call(|| get("10.96.0.10:80", "web"));
        assert_eq!((page.status, page.told("peer").as_str()), (200, "10.66.1.2"), "{page:?}");
        assert!(page.header("x-forwarded-client-cert").contains("/sa/client"), "{page:?}");
        let page = outside.call(|| get("10.66.2.2:8080", "10.66.2.2"));
        assert_eq!((page.status, page.told("peer").as_str()), (200, "10.66.3.2"), "{page:?}");
    }
    // Bytes, to a port of a service and to one that no service names.
    assert_eq!(client.call(|| greeting("10.96.0.11:3306")), "hello 10.66.1.2");
    if hears_silence {
        server.run(|| apps::greeter(9999));
        assert_eq!(outside.call(|| greeting("10.66.2.2:9999")), "hello 10.66.3.2");
    }
    // What goes out is redirected as ever.
    let page = client.call(|| get("10.66.3.2:80", "example.org"));
    assert_eq!((page.status, page.told("peer").as_str()), (200, "10.66.1.2"), "{page:?}");
    // The application calls itself: by its service, and past any proxy.
    let page = server.call(|| get("10.96.0.10:80", "web"));
    assert_eq!((page.status, page.told("peer").as_str()), (200, "10.66.2.2"), "{page:?}");
    assert!(page.header("x-forwarded-client-cert").contains("/sa/server"), "{page:?}");
    let page = server.call(|| get("10.66.2.2:8080", "localhost"));
    assert_eq!((page.status, page.told("peer").as_str()), (200, "10.66.2.2"), "{page:?}");
    assert_eq!(page.header("x-forwarded-client-cert"), "", "{page:?}");
}

#[test]
fn with_tproxy_applications_see_their_clients() {
    in_namespaces("with_tproxy_applications_see_their_clients", || clients_are_seen(Sidecar::Mizzen));
}

#[test]
fn with_tproxy_stock_envoys_do_the_same() {
    let test = "with_tproxy_stock_envoys_do_the_same";
    match mizzen_testing::envoy() {
        Some(envoy) => in_namespaces(test, || clients_are_seen(Sidecar::Envoy(envoy.clone()))),
        None => mizzen_testing::skip(test, "there is no Envoy (MIZZEN_ENVOY)"),
    }
}

#[test]
fn names_are_answered_by_the_sidecar() {
    in_namespaces("names_are_answered_by_the_sidecar", || {
        let mesh = Mesh::start(&["--redirect-dns", "--capture-all-dns"], Sidecar::Mizzen);
        let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
        serve(server, outside);
        // What the machine's own resolver says; of the mesh's names it has another opinion.
        outside.run(|| {
            dns::server(&[("elsewhere.example", "192.0.2.7"), ("web.default.svc.cluster.local", "192.0.2.8")]);
        });
        mesh.ready();
        let ask = |name: &str| client.call(|| dns::ask("10.66.3.2:53", name));
        // Once the control plane has told.
        dns::eventually(|| ask("web.default.svc.cluster.local.") == ["10.96.0.10"]);
        for name in ["web.", "web.default.", "web.default.svc.", "WEB.default.svc.cluster.local."] {
            assert_eq!(ask(name), ["10.96.0.10"], "{name}");
        }
        assert_eq!(ask("db.default.svc.cluster.local."), ["10.66.2.2"], "a headless service has its pods' addresses");
        for name in ["db-0.db.", "db-0.db.default.", "db-0.db.default.svc.", "db-0.db.default.svc.cluster.local."] {
            assert_eq!(ask(name), ["10.66.2.2"], "{name}: its pods have names of their own");
        }
        assert_eq!(client.call(|| dns::ask_on_stream("10.66.3.2:53", "web.")), ["10.96.0.10"]);
        // All others are asked elsewhere, by a user whose queries are not caught.
        assert_eq!(ask("elsewhere.example."), ["192.0.2.7"]);
        assert_eq!(client.call(|| dns::ask_on_stream("10.66.3.2:53", "elsewhere.example.")), ["192.0.2.7"]);
        assert!(ask("nowhere.example.").is_empty());
        // From outside of the mesh nothing is caught.
        let direct = outside.call(|| dns::ask("10.66.3.2:53", "web.default.svc.cluster.local."));
        assert_eq!(direct, ["192.0.2.8"]);
    });
}

/// Two services outside of the cluster on one port, neither of which has an address.
const WITHOUT_ADDRESSES: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: first, namespace: default}
spec:
  hosts: [first.example]
  ports: [{number: 3307, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.66.2.2, ports: {tcp: 3306}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second, namespace: default}
spec:
  hosts: [second.example]
  ports: [{number: 3307, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.66.3.2, ports: {tcp: 2525}}]
";

#[test]
fn services_without_addresses_are_told_apart_by_those_that_they_are_given() {
    in_namespaces("services_without_addresses_are_told_apart_by_those_that_they_are_given", || {
        let mesh = Mesh::start(&["--redirect-dns", "--capture-all-dns"], Sidecar::Mizzen);
        let [client, server, outside] = ["client", "server", "outside"].map(|name| mesh.pod(name));
        serve(server, outside);
        outside.run(|| dns::server(&[]));
        mesh.ready();
        mesh.apply("entries.yaml", WITHOUT_ADDRESSES);
        let ask = |name: &str| client.call(|| dns::ask("10.66.3.2:53", name));
        dns::eventually(|| ask("first.example.").len() == 1 && ask("second.example.").len() == 1);
        let [first, second] = ["first.example.", "second.example."].map(|name| ask(name).remove(0));
        assert!(first != second && first.starts_with("240.240.") && second.starts_with("240.240."), "{first} {second}");
        // By who they are seen to be called by: the one is behind a sidecar, the other is not.
        dns::eventually(|| {
            client.call(|| try_greeting(&format!("{second}:3307"))).is_ok_and(|it| it == "hello 10.66.1.2")
        });
        assert_eq!(client.call(|| greeting(&format!("{first}:3307"))), "hello 127.0.0.6");
    });
}
