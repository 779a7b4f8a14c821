//! TLS between proxies: mutual, with SPIFFE names, beside plaintext on one port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mizzen_identity::Secrets;
use mizzen_identity::ca::Authority;
use mizzen_identity::certificate::{self, Certificate, Identity, TrustRoots};
use mizzen_identity::secrets::{IDENTITY, ROOTS};
use mizzen_proxy::Limits;
use mizzen_snapshot::Snapshot;
use mizzen_snapshot::http::{ClientCertDetails, ForwardClientCert, HttpHandler};
use mizzen_snapshot::listener::{ChainMatch, FilterChain, Handler, Inspect, Transport};
use mizzen_snapshot::matcher::StringMatch;
use mizzen_snapshot::tls::{
    CertificateSource, ClientAuth, ClientTls, Roots, SanKind, SanMatch, ServerTls, TlsVersions, Validation,
};
use mizzen_types::{SpiffeId, TrustDomain};

use crate::support::*;

fn id(account: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "default", account)
}

pub(crate) fn secrets(authority: &Authority, account: &str) -> Secrets {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let signed = authority.sign(&csr, &id(account), None, SystemTime::now()).unwrap();
    let chain = certificate::certificates_from_pem(signed.chain[0].as_bytes()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let roots = TrustRoots::clone(authority.roots());
    let secrets = Secrets::new();
    secrets.set_identity(&Arc::new(Identity::new(Certificate::new(chain, key).unwrap(), roots).unwrap()));
    secrets
}

pub(crate) fn validation(names: Vec<SanMatch>) -> Validation {
    Validation { roots: Roots::Secret(ROOTS.into()), names, ..Validation::default() }
}

pub(crate) fn client_tls(server: &str) -> Arc<ClientTls> {
    let name = SanMatch { kind: SanKind::Uri, value: StringMatch::exact(&id(server).to_string()) };
    Arc::new(ClientTls {
        certificate: Some(CertificateSource::Secret(IDENTITY.into())),
        validation: validation(vec![name]),
        sni: Some("outbound_.80_._.app".to_owned()),
        auto_sni: false,
        auto_san_validation: false,
        alpn: vec!["istio-peer-exchange".to_owned(), "istio".to_owned()],
        versions: TlsVersions::default(),
    })
}

fn chain(name: &str, matches: ChainMatch, tls: Option<Arc<ServerTls>>, handler: &Arc<HttpHandler>) -> Arc<FilterChain> {
    let handler = Handler::Http(Arc::clone(handler));
    Arc::new(FilterChain { name: name.to_owned(), matches, tls, handler, handshake_timeout: None })
}

/// An inbound listener as Istio's permissive mode has it: mTLS for the mesh's application protocols, plaintext too.
fn permissive(app: SocketAddr) -> Snapshot {
    let mut snapshot = World::to(app).snapshot();
    let old = snapshot.listeners.values().next().unwrap().clone();
    let Handler::Http(handler) = &old.chains[0].handler else { panic!() };
    let details = ClientCertDetails { subject: true, uri: true, dns: true, ..ClientCertDetails::default() };
    let handler = Arc::new(HttpHandler {
        client_certificate: ForwardClientCert::AppendForward(details),
        routes: handler.routes.clone(),
        ..crate::support::handler()
    });
    let tls = Arc::new(ServerTls {
        certificates: vec![CertificateSource::Secret(IDENTITY.into())],
        client: ClientAuth::Required(validation(Vec::new())),
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned(), "istio-h2".to_owned(), "istio-http/1.1".to_owned()],
        versions: TlsVersions { tls12: false, tls13: true },
        cipher_suites: Vec::new(),
    });
    let mesh = ChainMatch {
        transport: Some(Transport::Tls),
        application_protocols: vec!["istio-http/1.1".to_owned(), "istio-h2".to_owned()],
        ..ChainMatch::default()
    };
    let plain = ChainMatch { transport: Some(Transport::RawBuffer), ..ChainMatch::default() };
    let chains = vec![chain("mesh", mesh, Some(tls), &handler), chain("plain", plain, None, &handler)];
    let inspect = Inspect { tls: true, timeout: Some(PATIENCE), ..Inspect::default() };
    let new = mizzen_snapshot::Listener { chains, inspect, ..listener_like(&old) };
    snapshot.listeners.insert_mut(new.name.clone(), Arc::new(new));
    snapshot
}

fn listener_like(old: &mizzen_snapshot::Listener) -> mizzen_snapshot::Listener {
    let chain = FilterChain {
        name: String::new(),
        matches: ChainMatch::default(),
        tls: None,
        handler: old.chains[0].handler.clone(),
        handshake_timeout: None,
    };
    listener(chain, Inspect::default(), old.fingerprint)
}

pub(crate) fn start(secrets: Secrets, snapshot: Snapshot) -> Proxy {
    Proxy::start_as(secrets, snapshot, Limits::default(), Duration::from_millis(200))
}

fn outbound(to: SocketAddr, server: &str) -> Snapshot {
    let mut world = World::to(to);
    world.handler.istio_alpn = true;
    world.policy(|policy| policy.default_transport = Some(client_tls(server)));
    world.snapshot()
}

pub(crate) fn authority() -> Authority {
    Authority::in_memory(TrustDomain::default(), SystemTime::now()).unwrap()
}

#[test]
fn sidecars_prove_to_each_other_who_they_are() {
    let authority = authority();
    let server = start(secrets(&authority, "server"), permissive(echo()));
    let client = start(secrets(&authority, "client"), outbound(server.address(), "server"));
    let mut connection = client.client();
    for _ in 0..2 {
        let answer = connection.get("/x");
        assert_eq!(answer.status, 200, "{answer:?}");
        let cert = header(answer.text(), "x-forwarded-client-cert").unwrap();
        assert!(cert.starts_with("By=spiffe://cluster.local/ns/default/sa/server;Hash="), "{cert}");
        assert!(cert.ends_with("URI=spiffe://cluster.local/ns/default/sa/client"), "{cert}");
    }
}

#[test]
fn a_server_that_is_somebody_else_is_not_spoken_to() {
    let authority = authority();
    let server = start(secrets(&authority, "impostor"), permissive(echo()));
    let client = start(secrets(&authority, "client"), outbound(server.address(), "server"));
    assert_eq!(client.client().get("/").status, 503);
    let recorded = &client.recorded(1)[0];
    assert_eq!(recorded.flags, ["UF"]);
    assert!(recorded.cause.as_ref().unwrap().starts_with("TLS with "), "{recorded:?}");
}

#[test]
fn plaintext_is_served_on_the_same_port() {
    let authority = authority();
    let server = start(secrets(&authority, "server"), permissive(echo()));
    let answer = server.client().get("/x");
    assert_eq!(answer.status, 200);
    assert_eq!(header(answer.text(), "x-forwarded-client-cert"), None);
    // And when the first byte comes alone.
    let mut slow = server.client();
    slow.send("G");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(slow.send("ET / HTTP/1.1\r\nhost: t\r\n\r\n").answer().status, 200);
}

#[test]
fn another_mesh_is_not_let_in() {
    let server = start(secrets(&authority(), "server"), permissive(echo()));
    let client = start(secrets(&authority(), "client"), outbound(server.address(), "server"));
    assert_eq!(client.client().get("/").status, 503);
}
