use std::time::Duration;

use mizzen_snapshot::matcher::{StringMatch, StringMatchKind};
use mizzen_snapshot::tls::{ClientAuth, ClientTls, SanKind, SanMatch, ServerTls, Validation};
use mizzen_types::{SpiffeId, TrustDomain};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::ca::Authority;
use crate::certificate::{self, Identity, Peer};
use crate::secrets::{IDENTITY, ROOTS, Secrets};

fn id(account: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "default", account)
}

/// What `authority` signs for a workload.
fn identity(authority: &Authority, account: &str) -> Arc<Identity> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let signed = authority.sign(&csr, &id(account), None, SystemTime::now()).unwrap();
    let chain = certificate::certificates_from_pem(signed.chain[0].as_bytes()).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let roots = TrustRoots::clone(authority.roots());
    Arc::new(Identity::new(Certificate::new(chain, key).unwrap(), roots).unwrap())
}

fn secrets(identity: &Arc<Identity>) -> Secrets {
    let secrets = Secrets::new();
    secrets.set_identity(identity);
    secrets
}

fn authority() -> Authority {
    Authority::in_memory(TrustDomain::default(), SystemTime::now()).unwrap()
}

fn mesh_validation(names: Vec<SanMatch>) -> Validation {
    Validation { roots: Roots::Secret(ROOTS.into()), names, ..Validation::default() }
}

fn uri(kind: StringMatchKind) -> SanMatch {
    SanMatch { kind: SanKind::Uri, value: StringMatch { kind, ignore_case: false } }
}

fn exactly(account: &str) -> Vec<SanMatch> {
    vec![uri(StringMatchKind::Exact(id(account).to_string().into()))]
}

fn server(alpn: &[&str]) -> ServerTls {
    ServerTls {
        certificates: vec![CertificateSource::Secret(IDENTITY.into())],
        client: ClientAuth::Required(mesh_validation(vec![uri(StringMatchKind::Prefix(
            "spiffe://cluster.local/".into(),
        ))])),
        alpn: alpn.iter().map(|&name| name.to_owned()).collect(),
        versions: TlsVersions { tls12: true, tls13: true },
        cipher_suites: Vec::new(),
    }
}

fn client(names: Vec<SanMatch>) -> ClientTls {
    ClientTls {
        certificate: Some(CertificateSource::Secret(IDENTITY.into())),
        validation: mesh_validation(names),
        sni: Some("outbound_.9080_.v2_.reviews.default.svc.cluster.local".to_owned()),
        auto_sni: false,
        auto_san_validation: false,
        alpn: vec!["istio-peer-exchange".to_owned(), "istio".to_owned()],
        versions: TlsVersions { tls12: true, tls13: true },
    }
}

/// What both sides know after a handshake.
#[derive(Debug)]
struct Met {
    client: Peer,
    server: Peer,
    alpn: Option<Vec<u8>>,
    version: rustls::ProtocolVersion,
    resumed: bool,
}

async fn meet(
    server: Arc<ServerConfig>,
    client: (Arc<rustls::ClientConfig>, ServerName<'static>),
) -> Result<Met, std::io::Error> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async move {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        let mut heard = [0; 2];
        stream.read_exact(&mut heard).await?;
        let connection = stream.get_ref().1;
        let peer = Peer::of(&connection.peer_certificates().unwrap_or_default()[0]).unwrap();
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok::<_, std::io::Error>((peer, alpn, connection.protocol_version().unwrap()))
    };
    let call = async move {
        let mut stream = TlsConnector::from(client.0).connect(client.1, near).await?;
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await?;
        stream.write_all(b"ok").await?;
        stream.flush().await?;
        let connection = stream.get_ref().1;
        let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Ok::<_, std::io::Error>((Peer::of(&connection.peer_certificates().unwrap_or_default()[0]).unwrap(), resumed))
    };
    let (served, called) = tokio::join!(serve, call);
    let (server, resumed) = called?;
    let (client, alpn, version) = served?;
    Ok(Met { client, server, alpn, version, resumed })
}

#[tokio::test]
async fn two_workloads_know_each_other() {
    let authority = authority();
    let reviews = server_config(&server(&["h2", "istio"]), &secrets(&identity(&authority, "reviews")));
    let page = client_config(&client(exactly("reviews")), &secrets(&identity(&authority, "page")));
    let met = meet(reviews.current().unwrap(), page.current(None).unwrap()).await.unwrap();
    assert_eq!(met.client.id, Some(id("page")));
    assert_eq!(met.server.id, Some(id("reviews")));
    assert_eq!(met.alpn.as_deref(), Some(&b"istio"[..]));
    assert_eq!(met.version, rustls::ProtocolVersion::TLSv1_3);
}

#[tokio::test]
async fn a_server_with_another_identity_is_not_talked_to() {
    let authority = authority();
    let server = server_config(&server(&[]), &secrets(&identity(&authority, "ratings")));
    let page = client_config(&client(exactly("reviews")), &secrets(&identity(&authority, "page")));
    let error = meet(server.current().unwrap(), page.current(None).unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("sa/ratings"), "{error}");
}

#[tokio::test]
async fn a_client_of_another_mesh_is_turned_away() {
    let (ours, theirs) = (authority(), authority());
    let server = server_config(&server(&[]), &secrets(&identity(&ours, "reviews")));
    // It trusts our roots, but its certificate is not from them.
    let stranger = secrets(&identity(&theirs, "page"));
    stranger.set_roots(ROOTS.into(), ours.roots());
    let stranger = client_config(&client(Vec::new()), &stranger);
    meet(server.current().unwrap(), stranger.current(None).unwrap()).await.unwrap_err();

    let anonymous = ClientTls { certificate: None, ..client(Vec::new()) };
    let anonymous = client_config(&anonymous, &secrets(&identity(&ours, "page")));
    meet(server.current().unwrap(), anonymous.current(None).unwrap()).await.unwrap_err();
}

#[tokio::test]
async fn rotation_is_seen_by_the_next_connection_and_ends_resumption() {
    let (old, new) = (authority(), authority());
    let theirs = secrets(&identity(&old, "reviews"));
    let ours = secrets(&identity(&old, "page"));
    let server = server_config(&server(&[]), &theirs);
    let client = client_config(&client(exactly("reviews")), &ours);
    let connect = || async { meet(server.current().unwrap(), client.current(None).unwrap()).await };
    assert!(!connect().await.unwrap().resumed);
    assert!(connect().await.unwrap().resumed, "nothing has changed");
    assert!(Arc::ptr_eq(&server.current().unwrap(), &server.current().unwrap()), "built once");

    // The server's certificate is from a root that the client does not trust yet: no session may hide that.
    theirs.set_identity(&identity(&new, "reviews"));
    connect().await.unwrap_err();

    // Both roots are trusted during a rotation.
    let both: Vec<_> = [&old, &new].iter().flat_map(|authority| authority.roots().certificates().to_vec()).collect();
    let both = Arc::new(TrustRoots::new(both).unwrap());
    theirs.set_roots(ROOTS.into(), &both);
    ours.set_roots(ROOTS.into(), &both);
    assert!(!connect().await.unwrap().resumed);
}

#[tokio::test]
async fn unknown_application_protocols_do_not_end_a_connection() {
    let authority = authority();
    let server = server_config(&server(&["h2"]), &secrets(&identity(&authority, "reviews")));
    let page = client_config(&client(Vec::new()), &secrets(&identity(&authority, "page")));
    let offered = [b"istio-peer-exchange".as_slice(), b"istio"];
    let met = meet(server.for_offer(offered).unwrap(), page.current(None).unwrap()).await.unwrap();
    assert_eq!(met.alpn, None);
    assert_eq!(server.for_offer([b"h2".as_slice()]).unwrap().alpn_protocols, [b"h2"]);
}

#[test]
fn what_is_missing_is_named() {
    let empty = Secrets::new();
    let server_error = server_config(&server(&[]), &empty).current().unwrap_err().to_string();
    assert!(server_error.contains("default"), "{server_error}");
    let nowhere = CertificateSource::Files { certificate: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
    let files = ServerTls { certificates: vec![nowhere], ..server(&[]) };
    let file_error = server_config(&files, &empty).current().unwrap_err().to_string();
    assert!(file_error.contains("/nowhere/tls.crt"), "{file_error}");
    let rootless = ClientTls {
        certificate: None,
        validation: Validation { roots: Roots::None, names: exactly("a"), ..Validation::default() },
        ..client(Vec::new())
    };
    assert!(matches!(client_config(&rootless, &empty).current(None), Err(TlsError::NoRoots)));
}

#[test]
fn cipher_suites_are_those_asked_for() {
    let chosen = provider_with(&["ECDHE-ECDSA-AES256-GCM-SHA384".to_owned(), "AES128-SHA".to_owned()]).unwrap();
    let tls12 = chosen.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count();
    assert_eq!(tls12, 1);
    provider_with(&["AES128-SHA".to_owned()]).unwrap_err();
    let names = ["ECDHE-RSA-AES128-GCM-SHA256".to_owned(), "NONE".to_owned()];
    assert_eq!(unknown_cipher_suites(&names).collect::<Vec<_>>(), ["NONE"]);
}

/// Security S21: names that could be read in two ways.
mod names {
    use super::*;

    fn peer(uris: &[&str], dns: &[&str]) -> Peer {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Peer { uris: owned(uris), dns_names: owned(dns), ..Peer::default() }
    }

    #[test]
    fn an_exact_name_is_the_whole_name() {
        let wanted = exactly("reviews");
        verify_names(&peer(&["spiffe://cluster.local/ns/default/sa/reviews"], &[]), &wanted).unwrap();
        for other in [
            "spiffe://cluster.local/ns/default/sa/reviews-v2",
            "spiffe://cluster.local/ns/default/sa/review",
            "spiffe://cluster.local/ns/default/sa/Reviews",
            "xspiffe://cluster.local/ns/default/sa/reviews",
        ] {
            verify_names(&peer(&[other], &[]), &wanted).unwrap_err();
        }
        // The same text as another kind of name does not count.
        verify_names(&peer(&[], &["spiffe://cluster.local/ns/default/sa/reviews"]), &wanted).unwrap_err();
    }

    #[test]
    fn several_uri_names_are_nobody() {
        let two =
            peer(&["spiffe://cluster.local/ns/default/sa/reviews", "spiffe://cluster.local/ns/default/sa/admin"], &[]);
        assert!(matches!(verify_names(&two, &exactly("reviews")), Err(VerifyError::Ambiguous(_))));
        assert!(matches!(verify_names(&two, &[]), Err(VerifyError::Ambiguous(_))));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let wanted = |name: &str| {
            vec![SanMatch {
                kind: SanKind::Dns,
                value: StringMatch { kind: StringMatchKind::Exact(name.into()), ignore_case: false },
            }]
        };
        let peer = peer(&[], &["*.example.org"]);
        verify_names(&peer, &wanted("a.example.org")).unwrap();
        verify_names(&peer, &wanted("A.Example.org")).unwrap();
        for other in ["example.org", "a.b.example.org", ".example.org", "aexample.org"] {
            verify_names(&peer, &wanted(other)).unwrap_err();
        }
    }

    /// A certificate with such names, signed by a root that is trusted.
    fn certified(names: Vec<SanType>, usage: Option<ExtendedKeyUsagePurpose>) -> (CertificateDer<'static>, TrustRoots) {
        let mut root = CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root_certificate = root.self_signed(&root_key).unwrap();
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = names;
        leaf.extended_key_usages = usage.into_iter().collect();
        let issuer = rcgen::Issuer::from_params(&root, &root_key);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        (leaf.der().clone(), TrustRoots::new(vec![root_certificate.der().clone()]).unwrap())
    }

    use rustls_pki_types::CertificateDer;

    #[test]
    fn a_nul_in_a_name_makes_a_certificate_unreadable() {
        let name = "spiffe://cluster.local/ns/default/sa/reviews\0.evil.org";
        let (leaf, _) = certified(vec![SanType::URI(name.try_into().unwrap())], None);
        assert!(matches!(Peer::of(&leaf), Err(CertificateError::UnprintableName)));
        let (leaf, _) = certified(vec![SanType::DnsName("a.org\0.evil.org".try_into().unwrap())], None);
        assert!(matches!(Peer::of(&leaf), Err(CertificateError::UnprintableName)));
    }

    #[test]
    fn a_certificate_serves_only_the_side_that_it_is_for() {
        let name = SanType::URI("spiffe://cluster.local/ns/a/sa/b".try_into().unwrap());
        let (leaf, roots) = certified(vec![name], Some(ExtendedKeyUsagePurpose::ClientAuth));
        let now = unix_time(SystemTime::now());
        verify_chain(&leaf, &[], &roots, Side::Client, now).unwrap();
        verify_chain(&leaf, &[], &roots, Side::Server, now).unwrap_err();
    }

    #[test]
    fn an_expired_certificate_is_refused() {
        let authority = authority();
        let identity = identity(&authority, "a");
        let later = unix_time(SystemTime::now() + Duration::from_secs(2 * 86_400));
        let refused = verify_chain(identity.certificate.leaf(), &[], authority.roots(), Side::Server, later);
        assert!(matches!(refused, Err(VerifyError::Chain(webpki::Error::CertExpired { .. }))), "{refused:?}");
    }
}
