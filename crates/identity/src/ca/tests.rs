use std::os::unix::fs::PermissionsExt;

use rcgen::{CustomExtension, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;
use crate::certificate::Peer;

fn authority() -> Authority {
    Authority::in_memory(TrustDomain::default(), SystemTime::now()).unwrap()
}

fn sleep_account() -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "foo", "sleep")
}

fn request(key: &KeyPair, names: Vec<SanType>) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn sign(authority: &Authority, csr: &str) -> Result<Signed, SignError> {
    authority.sign(csr, &sleep_account(), None, SystemTime::now())
}

#[test]
fn names_come_from_the_caller_and_not_from_the_request() {
    let key = KeyPair::generate().unwrap();
    let wanted = SanType::URI("spiffe://cluster.local/ns/kube-system/sa/admin".try_into().unwrap());
    let signed = sign(&authority(), &request(&key, vec![wanted])).unwrap();
    let leaf = certificate::certificates_from_pem(signed.chain[0].as_bytes()).unwrap().remove(0);
    let peer = Peer::of(&leaf).unwrap();
    assert_eq!(peer.uris, ["spiffe://cluster.local/ns/foo/sa/sleep"]);
    assert_eq!(peer.id, Some(sleep_account()));
    assert_eq!(peer.dns_names, Vec::<String>::new());
}

#[test]
fn a_leaf_has_the_form_that_peers_expect() {
    let authority = authority();
    let signed = sign(&authority, &request(&KeyPair::generate().unwrap(), Vec::new())).unwrap();
    let der = certificate::certificates_from_pem(signed.chain[0].as_bytes()).unwrap().remove(0);
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(leaf.subject_alternative_name().unwrap().unwrap().critical, "the subject is empty");
    assert!(!leaf.is_ca());
    assert!(leaf.validity().not_before.timestamp() < now_seconds());
    let day = leaf.validity().not_after.timestamp() - now_seconds();
    assert!((86_000..=86_400).contains(&day), "valid for {day} s");
    assert_eq!(signed.chain.len(), 2);
    assert_eq!(signed.chain[1], authority.roots().pem(), "root last");
    let again = sign(&authority, &request(&KeyPair::generate().unwrap(), Vec::new())).unwrap();
    assert_ne!(signed.serial, again.serial);
}

fn now_seconds() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
fn validity_has_a_maximum_and_ends_with_the_signer() {
    let key = KeyPair::generate().unwrap();
    let csr = request(&key, Vec::new());
    let signer = authority();
    let now = SystemTime::now();
    let above = signer.sign(&csr, &sleep_account(), Some(MAX_TTL + Duration::from_secs(1)), now);
    assert!(matches!(above, Err(SignError::TtlTooLong { .. })), "{above:?}");
    signer.sign(&csr, &sleep_account(), Some(MAX_TTL), now).unwrap();

    // A day before the root ends, a leaf for a month ends with it.
    let late = now + ROOT_TTL - Duration::from_secs(86_400);
    let signed = signer.sign(&csr, &sleep_account(), Some(Duration::from_secs(30 * 86_400)), late).unwrap();
    assert_eq!(signed.expires, signer.not_after);
    let too_late = signer.sign(&csr, &sleep_account(), None, now + ROOT_TTL + Duration::from_secs(1));
    assert!(matches!(too_late, Err(SignError::SignerExpired)), "{too_late:?}");
}

#[test]
fn requests_are_checked() {
    let signer = authority();
    let key = KeyPair::generate().unwrap();
    let good = request(&key, Vec::new());

    // One bit of the signature is turned.
    let mut der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = certificate::to_pem("CERTIFICATE REQUEST", &der);
    assert!(matches!(sign(&signer, &forged), Err(SignError::BadSignature | SignError::Malformed(_))));

    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert!(matches!(sign(&signer, &request(&ed25519, Vec::new())), Err(SignError::KeyType(_))));
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    sign(&signer, &request(&p384, Vec::new())).unwrap();

    for garbage in ["", "not PEM", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        assert!(matches!(sign(&signer, garbage), Err(SignError::Malformed(_))), "{garbage:?}");
    }
    assert!(matches!(sign(&signer, &"a".repeat(MAX_CSR_BYTES + 1)), Err(SignError::TooLarge(_))));

    let foreign = SpiffeId::new(TrustDomain::new("elsewhere"), "foo", "sleep");
    let refused = signer.sign(&good, &foreign, None, SystemTime::now());
    assert!(matches!(refused, Err(SignError::TrustDomain(..))));
}

#[test]
fn unknown_extensions_of_a_request_do_no_harm() {
    let mut params = CertificateParams::default();
    params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]));
    let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    sign(&authority(), &csr).unwrap();
}

#[test]
fn an_authority_is_made_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state").join("ca");
    let now = SystemTime::now();
    let first = Authority::open(&dir, TrustDomain::default(), now).unwrap();
    let second = Authority::open(&dir, TrustDomain::default(), now).unwrap();
    assert_eq!(first.roots(), second.roots());
    let mode = |name: &str| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("ca-key.pem"), 0o600);

    std::fs::set_permissions(dir.join("ca-key.pem"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let exposed = Authority::open(&dir, TrustDomain::default(), now);
    assert!(matches!(exposed, Err(AuthorityError::Private(PrivateFileError::Exposed { .. }))), "{exposed:?}");
}

/// A plug-in authority: root → intermediate → leaf, as `cacerts` has it.
#[test]
fn a_plug_in_authority_signs_with_its_intermediate() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (root_pem, root_key) = self_signed(&TrustDomain::default(), now).unwrap();
    let root = Issuer::from_ca_cert_pem(&root_pem, root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    set_validity(&mut params, now - CLOCK_SKEW, now + Duration::from_secs(3600));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let intermediate = params.signed_by(&key, &root).unwrap().pem();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca-cert.pem", &intermediate);
    write("ca-key.pem", &key.serialize_pem());
    write("root-cert.pem", &root_pem);
    write("cert-chain.pem", &format!("{intermediate}{root_pem}"));

    let authority = Authority::load(folder.path(), TrustDomain::default(), now).unwrap();
    let signed = sign(&authority, &request(&KeyPair::generate().unwrap(), Vec::new())).unwrap();
    assert_eq!(signed.chain.len(), 3, "leaf, intermediate, root");
    let chain = certificate::certificates_from_pem(signed.chain.concat().as_bytes()).unwrap();
    let roots = TrustRoots::from_pem(signed.chain[2].as_bytes()).unwrap();
    crate::tls::verify_chain(&chain[0], &chain[1..2], &roots, crate::tls::Side::Client, crate::tls::unix_time(now))
        .unwrap();
    assert_eq!(signed.expires, authority.not_after, "the leaf does not outlive the intermediate");

    // Keys and chains that do not belong together are refused, each with its reason.
    write("ca-key.pem", &KeyPair::generate().unwrap().serialize_pem());
    let other_key = Authority::load(folder.path(), TrustDomain::default(), now);
    assert!(
        matches!(&other_key, Err(AuthorityError::Certificate { source: CertificateError::Mismatch, .. })),
        "{other_key:?}"
    );
    write("ca-key.pem", &key.serialize_pem());
    write("root-cert.pem", &self_signed(&TrustDomain::default(), now).unwrap().0);
    let other_root = Authority::load(folder.path(), TrustDomain::default(), now);
    assert!(matches!(other_root, Err(AuthorityError::BrokenChain { .. })), "{other_root:?}");
}

#[test]
fn the_serving_certificate_has_the_control_planes_names() {
    let names = control_plane_names(&["127.77.0.1".to_owned(), "mesh.example.org".to_owned()]);
    let certificate = authority().serving_certificate(&names, SystemTime::now()).unwrap();
    let peer = Peer::of(certificate.leaf()).unwrap();
    for name in ["istiod.istio-system.svc", "istiod", "localhost", "mesh.example.org"] {
        assert!(peer.dns_names.iter().any(|dns| dns == name), "{name} is not among {:?}", peer.dns_names);
    }
    assert!(peer.ips.contains(&"127.77.0.1".parse().unwrap()));
}

/// Whether a certificate of one authority is good for who trusts another's roots.
fn is_trusted(signer: &AuthorityPem, trusting: &AuthorityPem, now: SystemTime) -> bool {
    let place = Path::new("test");
    let authority = Authority::from_pem(signer, place, TrustDomain::default(), now).unwrap();
    let leaf = authority.serving_certificate(&["localhost".to_owned()], now).unwrap();
    let roots = TrustRoots::from_pem(&trusting.roots).unwrap();
    let (side, at) = (crate::tls::Side::Server, crate::tls::unix_time(now));
    crate::tls::verify_chain(leaf.leaf(), &leaf.chain()[1..], &roots, side, at).is_ok()
}

#[test]
fn a_renewed_root_and_the_old_one_trust_each_others_certificates() {
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let old = AuthorityPem::self_signed_for(&TrustDomain::default(), now, 10 * day).unwrap();
    let later = now + 9 * day;
    let new = old.renewed(later, 100 * day).unwrap();
    assert_ne!(new.certificate, old.certificate);
    assert_eq!(new.key, old.key);
    assert!(is_trusted(&new, &old, later), "who knows the old root only");
    assert!(is_trusted(&old, &new, later), "what was signed before");
    let end =
        |pem: &AuthorityPem| pem.self_signed_validity().unwrap().1.duration_since(now).unwrap().as_secs() / 86_400;
    assert!((9..=10).contains(&end(&old)) && (108..=109).contains(&end(&new)), "{} {}", end(&old), end(&new));
    let count = |pem: &AuthorityPem| TrustRoots::from_pem(&pem.roots).unwrap().certificates().len();
    assert_eq!(count(&new), 2, "both are trusted while the old one lasts");
    let newest = new.renewed(now + 100 * day, 100 * day).unwrap();
    assert_eq!(count(&newest), 2, "the first one has ended");
    let stranger = AuthorityPem::self_signed(&TrustDomain::default(), now).unwrap();
    assert!(!is_trusted(&stranger, &new, later));
}

#[test]
fn a_root_of_another_maker_is_renewed_under_the_same_bytes_of_its_name() {
    let key = KeyPair::generate().unwrap();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, DnValue::PrintableString("cluster.local".try_into().unwrap()));
    let now = SystemTime::now();
    let certificate = root_certificate(&key, name, now, ROOT_TTL).unwrap().into_bytes();
    let roots = certificate.clone();
    let old = AuthorityPem { certificate, key: key.serialize_pem().into_bytes(), chain: None, roots };
    let new = old.renewed(now, ROOT_TTL).unwrap();
    let subject = |pem: &AuthorityPem| {
        let der = certificate::certificates_from_pem(&pem.certificate).unwrap().remove(0);
        X509Certificate::from_der(&der).unwrap().1.subject().as_raw().to_vec()
    };
    assert_eq!(subject(&new), subject(&old));
}
