//! Keeps a workload's certificate fresh.
//!
//! Makes a key, has it signed by the control plane, publishes the result, and does so again when half of the validity
//! is over, or when the file with the mesh's roots changes: the answer brings the new ones. Until a new certificate is there the old one stays in force, however long the control plane is away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mizzen_proto::istio_ca::IstioCertificateRequest;
use mizzen_proto::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use mizzen_types::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::PrivateKeyDer;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;

use crate::certificate::{self, Certificate, CertificateError, Identity, TrustRoots};
use crate::connect::{ConnectError, ControlPlane, RootSource};
use crate::files;
use crate::secrets::Secrets;

const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Waits grow up to this while there is no certificate at all …
const LONGEST_RETRY_WITHOUT: Duration = Duration::from_secs(3);
/// … and up to this while an old one is still in force.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Time between looks at the file with the mesh's roots. It is replaced seldom, and a minute late anyway (by the kubelet).
const ROOTS_PERIOD: Duration = Duration::from_secs(20);
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Share of the validity by which the time of renewal is spread, so that a mesh does not renew at one moment.
const JITTER: f64 = 0.01;

#[derive(Debug, Clone)]
pub struct Config {
    pub control_plane: ControlPlane,
    /// File with the service-account token; read for every attempt, since tokens are rewritten before they expire.
    pub token: PathBuf,
    /// Whom we take ourselves for: the name written into the request. The token decides.
    pub id: Option<SpiffeId>,
    /// Wished validity; the control plane's default when absent.
    pub ttl: Option<Duration>,
    /// Folder to keep the certificate over a restart. It has to lie in memory and be its owner's alone.
    pub state_dir: Option<PathBuf>,
}

/// Why no certificate was got this time.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error("the token {}: {source}", path.display())]
    Token { path: PathBuf, source: std::io::Error },
    #[error("the token {} holds characters that no token has", .0.display())]
    TokenText(PathBuf),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the control plane did not sign: {0}")]
    Refused(String),
    #[error("the control plane's answer cannot be used: {0}")]
    Answer(#[from] CertificateError),
    #[error("the control plane signed for {got}, not for {wanted}")]
    OtherIdentity { got: SpiffeId, wanted: SpiffeId },
    #[error("no key could be made: {0}")]
    Key(String),
    #[error("the control plane took longer than {} s", ATTEMPT_TIMEOUT.as_secs())]
    Timeout,
}

/// A running client. Dropping it ends the renewal.
#[derive(Debug)]
pub struct WorkloadIdentity {
    identities: watch::Receiver<Option<Arc<Identity>>>,
    task: JoinHandle<()>,
}

impl WorkloadIdentity {
    /// Starts the client. The watch holds `None` until there is a certificate; one from the state folder is there at
    /// once.
    pub fn start(config: Config) -> Self {
        let kept = config.state_dir.as_deref().and_then(|dir| match load(dir, SystemTime::now()) {
            Ok(identity) => identity.filter(|identity| config.id.as_ref().is_none_or(|id| *id == identity.id)),
            Err(error) => {
                tracing::warn!(%error, "the kept certificate is not used");
                None
            }
        });
        let (publish, identities) = watch::channel(kept.map(Arc::new));
        let task = tokio::spawn(renew_for_ever(config, publish));
        Self { identities, task }
    }

    pub fn watch(&self) -> watch::Receiver<Option<Arc<Identity>>> {
        self.identities.clone()
    }
}

impl Drop for WorkloadIdentity {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn renew_for_ever(config: Config, publish: watch::Sender<Option<Arc<Identity>>>) {
    let mut failures = 0;
    let mut roots = RootsFile::new(&config.control_plane.roots, publish.borrow().as_deref());
    loop {
        let held = publish.borrow().clone();
        if failures == 0
            && let Some(identity) = &held
        {
            let pause = until_renewal(identity, SystemTime::now(), rand::random());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = roots.changed() => tracing::info!("the mesh's roots have changed"),
            }
        }
        let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, renew(&config));
        match attempt.await.unwrap_or(Err(RenewError::Timeout)) {
            Ok(identity) => {
                tracing::info!(identity = %identity.id, "certificate renewed");
                if let Some(dir) = &config.state_dir
                    && let Err(error) = store(dir, &identity)
                {
                    tracing::warn!(%error, folder = %dir.display(), "the certificate is not kept over a restart");
                }
                failures = 0;
                roots.note();
                publish.send_replace(Some(Arc::new(identity)));
            }
            Err(error) => {
                failures += 1;
                let pause = back_off(failures, held.is_some(), rand::random());
                // Right after the start the control plane may just not be up yet.
                if failures > 5 {
                    tracing::warn!(%error, failures, "no new certificate");
                } else {
                    tracing::debug!(%error, failures, "no new certificate");
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// The file with the mesh's roots, as it was at the last renewal.
struct RootsFile {
    path: Option<PathBuf>,
    known: Option<Vec<u8>>,
}

impl RootsFile {
    /// A certificate kept from an earlier process may be older than the file.
    fn new(source: &RootSource, kept: Option<&Identity>) -> Self {
        let path = match source {
            RootSource::File(path) => Some(path.clone()),
            RootSource::Pem(_) => None,
        };
        let mut file = Self { path, known: None };
        let now = file.read();
        let covers = |identity: &Identity, pem: &[u8]| {
            TrustRoots::from_pem(pem)
                .is_ok_and(|roots| roots.certificates().iter().all(|root| identity.roots.certificates().contains(root)))
        };
        if kept.zip(now.as_deref()).is_some_and(|(identity, pem)| covers(identity, pem)) {
            file.known = now;
        }
        file
    }

    fn read(&self) -> Option<Vec<u8>> {
        std::fs::read(self.path.as_ref()?).ok()
    }

    fn note(&mut self) {
        self.known = self.read();
    }

    /// Ready once the file is there and not what it was.
    async fn changed(&self) {
        if self.path.is_none() {
            return std::future::pending().await;
        }
        loop {
            if self.read().is_some_and(|now| self.known.as_ref() != Some(&now)) {
                return;
            }
            tokio::time::sleep(ROOTS_PERIOD).await;
        }
    }
}

/// Time left until half of the validity is over, with jitter; `draw` is from 0 to 1.
fn until_renewal(identity: &Identity, now: SystemTime, draw: f64) -> Duration {
    let (from, to) = (identity.certificate.not_before, identity.certificate.not_after);
    let whole = to.duration_since(from).unwrap_or_default();
    let at = from + whole.mul_f64((0.5 + JITTER * (2.0 * draw - 1.0)).clamp(0.0, 1.0));
    at.duration_since(now).unwrap_or_default()
}

/// Doubles with every failure, between half and the whole of that; `draw` is from 0 to 1.
fn back_off(failures: u32, have_one: bool, draw: f64) -> Duration {
    let longest = if have_one { LONGEST_RETRY } else { LONGEST_RETRY_WITHOUT };
    let grown = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    grown.mul_f64(0.5 + draw.clamp(0.0, 1.0) / 2.0)
}

async fn renew(config: &Config) -> Result<Identity, RenewError> {
    let token = tokio::fs::read_to_string(&config.token)
        .await
        .map_err(|source| RenewError::Token { path: config.token.clone(), source })?;
    let mut bearer: MetadataValue<_> =
        format!("Bearer {}", token.trim()).parse().map_err(|_| RenewError::TokenText(config.token.clone()))?;
    bearer.set_sensitive(true);

    let key = KeyPair::generate().map_err(|error| RenewError::Key(error.to_string()))?;
    let csr = signing_request(&key, config.id.as_ref())?;
    let channel = config.control_plane.connect(None).await?;
    let mut request = tonic::Request::new(IstioCertificateRequest {
        csr,
        validity_duration: config.ttl.map_or(0, |ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)),
        metadata: None,
    });
    request.metadata_mut().insert("authorization", bearer);
    let answer = IstioCertificateServiceClient::new(channel)
        .create_certificate(request)
        .await
        .map_err(|status| RenewError::Refused(format!("{:?}: {}", status.code(), status.message())))?
        .into_inner();
    let identity = read_answer(&answer.cert_chain, &key)?;
    match &config.id {
        Some(wanted) if *wanted != identity.id => {
            Err(RenewError::OtherIdentity { got: identity.id, wanted: wanted.clone() })
        }
        _ => Ok(identity),
    }
}

fn signing_request(key: &KeyPair, id: Option<&SpiffeId>) -> Result<String, RenewError> {
    let failed = |error: rcgen::Error| RenewError::Key(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(id) = id {
        params.subject_alt_names.push(SanType::URI(id.to_string().try_into().map_err(failed)?));
    }
    params.serialize_request(key).and_then(|request| request.pem()).map_err(failed)
}

/// Leaf first, root last: the last entry holds the roots, all others the chain.
fn read_answer(entries: &[String], key: &KeyPair) -> Result<Identity, CertificateError> {
    let (roots, chain) = entries.split_last().ok_or(CertificateError::NoCertificate)?;
    let roots = TrustRoots::from_pem(roots.as_bytes())?;
    let mut certificates = Vec::new();
    for entry in chain {
        certificates.extend(certificate::certificates_from_pem(entry.as_bytes())?);
    }
    certificates.retain(|certificate| !roots.certificates().contains(certificate));
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Identity::new(Certificate::new(certificates, key)?, roots)
}

const CERTIFICATE_FILE: &str = "identity.pem";
const ROOTS_FILE: &str = "root-cert.pem";

/// Why the state folder is not used.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error(transparent)]
    Private(#[from] files::PrivateFileError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{}: {source}", path.display())]
    Content { path: PathBuf, source: CertificateError },
    #[error("{} is not in memory (tmpfs), so no key is written there", .0.display())]
    NotInMemory(PathBuf),
}

/// The identity kept by an earlier process; `None` when there is none or it is no longer valid.
fn load(dir: &Path, now: SystemTime) -> Result<Option<Identity>, StateError> {
    let (path, roots_path) = (dir.join(CERTIFICATE_FILE), dir.join(ROOTS_FILE));
    if !path.exists() {
        return Ok(None);
    }
    let pem = files::read_private(&path)?;
    let of = |source| StateError::Content { path: path.clone(), source };
    let certificate = Certificate::from_pem(&pem, &pem).map_err(of)?;
    let roots = TrustRoots::from_pem(&std::fs::read(roots_path)?).map_err(of)?;
    let trusted = crate::tls::verify_chain(
        certificate.leaf(),
        &certificate.chain()[1..],
        &roots,
        crate::tls::Side::Client,
        crate::tls::unix_time(now),
    );
    match trusted {
        Ok(()) => Identity::new(certificate, roots).map(Some).map_err(of),
        Err(error) => {
            tracing::info!(%error, "the kept certificate is no longer valid");
            Ok(None)
        }
    }
}

fn store(dir: &Path, identity: &Identity) -> Result<(), StateError> {
    files::private_dir(dir)?;
    if !files::memory_backed(dir) {
        return Err(StateError::NotInMemory(dir.to_owned()));
    }
    // Roots first: should we end between the two, the older certificate still leads to one of them or is not used.
    files::write_atomic(&dir.join(ROOTS_FILE), identity.roots.pem().as_bytes(), 0o600)?;
    let pem = format!("{}{}", identity.certificate.key_pem(), identity.certificate.chain_pem());
    files::write_atomic(&dir.join(CERTIFICATE_FILE), pem.as_bytes(), 0o600)?;
    Ok(())
}

/// Starts a client whose certificates go straight into `secrets`; returns it to be kept.
pub fn start_into(config: Config, secrets: &Secrets) -> WorkloadIdentity {
    let client = WorkloadIdentity::start(config);
    if let Some(identity) = client.watch().borrow().as_ref() {
        secrets.set_identity(identity);
    }
    tokio::spawn(secrets.clone().follow(client.watch()));
    client
}

#[cfg(test)]
mod tests;
