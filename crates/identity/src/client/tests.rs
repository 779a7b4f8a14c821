use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use mizzen_types::TrustDomain;
use tokio::net::TcpListener;
use tonic::Code;

use super::*;
use crate::ca::{Authority, control_plane_names};
use crate::caller::Authenticator;
use crate::connect::RootSource;
use crate::incoming::{control_plane_tls, incoming};
use crate::service::SigningService;
use crate::token::{Issuer, LOCAL_ISSUER, Verifier};

/// A control plane's secure port with nothing but the signing service.
struct Signer {
    address: String,
    authority: Arc<Authority>,
    issuer: Issuer,
    task: JoinHandle<()>,
}

impl Signer {
    async fn start(ttl: Duration) -> Self {
        let now = SystemTime::now();
        let authority = Authority::in_memory(TrustDomain::default(), now).unwrap();
        let authority = Arc::new(authority.with_ttl(ttl, Duration::from_secs(90 * 86_400)));
        let issuer = Issuer::generate(LOCAL_ISSUER).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(serve(listener, Arc::clone(&authority), issuer.public_key_pem().to_owned()));
        Self { address, authority, issuer, task }
    }

    fn config(&self, folder: &Path) -> Config {
        let token = self.issuer.mint("default", "reviews", Duration::from_secs(60), SystemTime::now()).unwrap();
        let path = folder.join("token");
        std::fs::write(&path, format!("{token}\n")).unwrap();
        let roots = RootSource::Pem(self.authority.roots().pem().into_bytes());
        Config {
            control_plane: ControlPlane::new(&self.address, roots),
            token: path,
            id: None,
            ttl: None,
            state_dir: None,
        }
    }
}

async fn serve(listener: TcpListener, authority: Arc<Authority>, issuer_pem: String) {
    let mut verifier = Verifier::new();
    verifier.trust(Some(LOCAL_ISSUER), issuer_pem.as_bytes()).unwrap();
    let serving = authority.serving_certificate(&control_plane_names(&[]), SystemTime::now()).unwrap();
    let secrets = Secrets::new();
    secrets.set_certificate("default".into(), &Arc::new(serving));
    secrets.set_roots("ROOTCA".into(), authority.roots());
    let authenticator = Authenticator::new(verifier, TrustDomain::default());
    tonic::transport::Server::builder()
        .add_service(SigningService::new(authority, authenticator).into_server())
        .serve_with_incoming(incoming(listener, control_plane_tls(&secrets)))
        .await
        .unwrap();
}

async fn first(watch: &mut watch::Receiver<Option<Arc<Identity>>>) -> Arc<Identity> {
    let got = tokio::time::timeout(Duration::from_secs(60), watch.wait_for(Option::is_some)).await;
    got.expect("no certificate in time").unwrap().clone().unwrap()
}

#[tokio::test]
async fn a_token_becomes_a_certificate() {
    let signer = Signer::start(Duration::from_secs(3600)).await;
    let folder = tempfile::tempdir().unwrap();
    let client = WorkloadIdentity::start(signer.config(folder.path()));
    let identity = first(&mut client.watch()).await;
    assert_eq!(identity.id.to_string(), "spiffe://cluster.local/ns/default/sa/reviews");
    assert_eq!(identity.roots, *signer.authority.roots());
    assert_eq!(identity.certificate.chain().len(), 1, "the root is not part of the chain");
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_life_and_kept_while_the_control_plane_is_away() {
    // Certificates start two minutes in the past: half of 122 s is over after a second.
    let signer = Signer::start(Duration::from_secs(122)).await;
    let folder = tempfile::tempdir().unwrap();
    let client = WorkloadIdentity::start(signer.config(folder.path()));
    let mut watch = client.watch();
    let one = first(&mut watch).await;
    watch.mark_unchanged();
    tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.expect("not renewed").unwrap();
    let two = watch.borrow_and_update().clone().unwrap();
    assert_ne!(one.certificate.leaf(), two.certificate.leaf());
    assert_ne!(one.certificate.key_pem(), two.certificate.key_pem(), "a new key each time");

    signer.task.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(watch.borrow().is_some());
}

#[tokio::test]
async fn who_proves_nothing_gets_nothing() {
    let signer = Signer::start(Duration::from_secs(3600)).await;
    let folder = tempfile::tempdir().unwrap();
    let config = signer.config(folder.path());

    std::fs::write(&config.token, "not.a.token").unwrap();
    let refused = renew(&config).await.unwrap_err().to_string();
    assert!(refused.contains("Unauthenticated"), "{refused}");

    let stranger = Issuer::generate(LOCAL_ISSUER).unwrap();
    let token = stranger.mint("default", "reviews", Duration::from_secs(60), SystemTime::now()).unwrap();
    std::fs::write(&config.token, token).unwrap();
    assert!(renew(&config).await.unwrap_err().to_string().contains("InvalidSignature"));

    let channel = config.control_plane.connect(None).await.unwrap();
    let mut service = IstioCertificateServiceClient::new(channel);
    let anonymous = service.create_certificate(IstioCertificateRequest::default()).await.unwrap_err();
    assert_eq!(anonymous.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_of_the_mesh_renews_itself() {
    let signer = Signer::start(Duration::from_secs(3600)).await;
    let folder = tempfile::tempdir().unwrap();
    let config = signer.config(folder.path());
    let secrets = Secrets::new();
    secrets.set_identity(&Arc::new(renew(&config).await.unwrap()));

    let key = KeyPair::generate().unwrap();
    let channel = config.control_plane.connect(Some(&secrets)).await.unwrap();
    let request = IstioCertificateRequest { csr: signing_request(&key, None).unwrap(), ..Default::default() };
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await.unwrap().into_inner();
    assert_eq!(read_answer(&answer.cert_chain, &key).unwrap().id.service_account.as_ref(), "reviews");
}

#[tokio::test]
async fn limits_are_kept() {
    let signer = Signer::start(Duration::from_secs(3600)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = signer.config(folder.path());
    config.ttl = Some(Duration::from_secs(91 * 86_400));
    let refused = renew(&config).await.unwrap_err().to_string();
    assert!(refused.contains("InvalidArgument") && refused.contains("maximum"), "{refused}");

    config.ttl = None;
    config.id = Some(SpiffeId::new(TrustDomain::default(), "default", "ratings"));
    assert!(matches!(renew(&config).await, Err(RenewError::OtherIdentity { .. })));

    config.control_plane.roots = RootSource::Pem(
        Authority::in_memory(TrustDomain::default(), SystemTime::now()).unwrap().roots().pem().into_bytes(),
    );
    assert!(matches!(renew(&config).await, Err(RenewError::Connect(_))), "an impostor is not given the token");
}

/// A folder in memory, or `None` where the machine has none.
fn memory_folder() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir_in("/dev/shm").ok()?;
    files::memory_backed(folder.path()).then_some(folder)
}

#[tokio::test]
async fn a_restarted_proxy_has_its_certificate_without_a_control_plane() {
    let Some(folder) = memory_folder() else {
        eprintln!("skipped: /dev/shm is not a tmpfs here");
        return;
    };
    let state = folder.path().join("state");
    let signer = Signer::start(Duration::from_secs(3600)).await;
    let config = Config { state_dir: Some(state.clone()), ..signer.config(folder.path()) };
    let before = first(&mut WorkloadIdentity::start(config.clone()).watch()).await;
    signer.task.abort();

    let after = WorkloadIdentity::start(config.clone());
    assert_eq!(after.watch().borrow().as_ref().unwrap().certificate.leaf(), before.certificate.leaf());
    let file = state.join(CERTIFICATE_FILE);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // Others could have read it, or it is over: it is not used.
    let late = SystemTime::now() + Duration::from_secs(7200);
    assert!(load(&state, late).unwrap().is_none());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(load(&state, SystemTime::now()), Err(StateError::Private(_))));
}

#[test]
fn a_key_is_not_written_to_a_disk() {
    assert!(!files::memory_backed(Path::new("/proc")));
    assert!(!files::memory_backed(Path::new("/nowhere")));
}

#[test]
fn waits_grow_and_have_a_limit() {
    assert_eq!(back_off(1, false, 1.0), FIRST_RETRY);
    assert_eq!(back_off(1, false, 0.0), FIRST_RETRY / 2);
    assert_eq!(back_off(2, false, 1.0), FIRST_RETRY * 2);
    assert_eq!(back_off(40, false, 1.0), LONGEST_RETRY_WITHOUT);
    assert_eq!(back_off(u32::MAX, true, 1.0), LONGEST_RETRY);
}

#[test]
fn renewal_is_at_half_life_within_a_percent() {
    let now = SystemTime::now();
    let authority = Authority::in_memory(TrustDomain::default(), now).unwrap();
    let key = KeyPair::generate().unwrap();
    let id = SpiffeId::new(TrustDomain::default(), "a", "b");
    let signed = authority.sign(&signing_request(&key, None).unwrap(), &id, None, now).unwrap();
    let identity = read_answer(&signed.chain, &key).unwrap();
    let whole = identity.expires().duration_since(identity.certificate.not_before).unwrap();
    let at = |draw| until_renewal(&identity, identity.certificate.not_before, draw).as_secs_f64() / whole.as_secs_f64();
    assert!((at(0.0) - 0.49).abs() < 1e-6 && (at(0.5) - 0.5).abs() < 1e-6 && (at(1.0) - 0.51).abs() < 1e-6);
    assert_eq!(until_renewal(&identity, identity.expires(), 0.5), Duration::ZERO);
}

#[tokio::test]
async fn new_roots_are_a_reason_to_renew() {
    use futures_util::FutureExt;
    let signer = Signer::start(Duration::from_secs(3600)).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root-cert.pem");
    std::fs::write(&path, signer.authority.roots().pem()).unwrap();
    let source = RootSource::File(path.clone());
    let changed = |file: &RootsFile| file.changed().now_or_never().is_some();

    let mut client = signer.config(folder.path());
    client.control_plane.roots = source.clone();
    let client = WorkloadIdentity::start(client);
    let kept = first(&mut client.watch()).await;
    assert!(!changed(&RootsFile::new(&source, Some(&kept))), "the kept certificate knows these roots");
    assert!(!changed(&RootsFile::new(&RootSource::Pem(Vec::new()), Some(&kept))));

    let other = Authority::in_memory(TrustDomain::default(), SystemTime::now()).unwrap();
    std::fs::write(&path, format!("{}{}", signer.authority.roots().pem(), other.roots().pem())).unwrap();
    let mut file = RootsFile::new(&source, Some(&kept));
    assert!(changed(&file), "one more than it knows");
    file.note();
    assert!(!changed(&file), "once is enough");
    std::fs::write(&path, "half a fi").unwrap();
    assert!(changed(&file));
    std::fs::remove_file(&path).unwrap();
    assert!(!changed(&file), "what is gone is nothing new");
}
