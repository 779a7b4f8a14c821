//! Puts the control plane together, starts it, and ends it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use mizzen_identity::ca::{AuthorityError, SignError, control_plane_names};
use mizzen_identity::incoming::control_plane_tls;
use mizzen_identity::service::SigningService;
use mizzen_identity::token::{TokenError, Verifier};
use mizzen_identity::{Authenticator, Authority, Secrets};
use mizzen_sources::{FileSource, SourceError};
use mizzen_types::TrustDomain;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::engine::{Engine, Event, Shared};
use crate::session::Common;
use crate::{http, serve};

/// What a control plane is started with. Port 0 picks a free one.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Files and folders with configuration; watched.
    pub config: Vec<PathBuf>,
    /// Plaintext discovery (15010).
    pub xds_address: SocketAddr,
    /// Discovery and signing over TLS (15012).
    pub secure_xds_address: SocketAddr,
    /// Debug pages and metrics (15014).
    pub http_address: SocketAddr,
    /// Holds the certificate authority (`ca/`) and `root-cert.pem`; without it the authority lives in memory.
    pub state_dir: Option<PathBuf>,
    pub trust_domain: String,
    /// PEM files with the public keys of those who issue service-account tokens.
    pub token_issuer_keys: Vec<PathBuf>,
    /// Further names and addresses for the serving certificate.
    pub names: Vec<String>,
    /// Whether plaintext discovery may listen on addresses other than loopback.
    pub remote_plaintext: bool,
    pub limits: Limits,
}

/// What is open at once, over all discovery ports.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, streams: 10_000 }
    }
}

impl Default for ControlConfig {
    /// Istio's ports on 127.0.0.1, no configuration, nothing on disk.
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            config: Vec::new(),
            xds_address: local(15010),
            secure_xds_address: local(15012),
            http_address: local(15014),
            state_dir: None,
            trust_domain: "cluster.local".to_owned(),
            token_issuer_keys: Vec::new(),
            names: Vec::new(),
            remote_plaintext: false,
            limits: Limits::default(),
        }
    }
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub xds: SocketAddr,
    pub secure_xds: SocketAddr,
    pub http: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{what} cannot listen on {address}: {source}; choose another address, or port 0 for a free one")]
    Bind { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("plaintext discovery on {0} would be open to the network; use a loopback address, or allow it expressly")]
    RemotePlaintext(SocketAddr),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the certificate authority cannot be used: {0}")]
    Authority(#[from] AuthorityError),
    #[error("the control plane's own certificate cannot be made: {0}")]
    Certificate(#[from] SignError),
    #[error("{path}: {source}")]
    IssuerKey { path: PathBuf, source: TokenError },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{what} ended: {reason}")]
    Ended { what: &'static str, reason: String },
}

/// How long streams may take to end after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a control plane until `shutdown`. `ready` is told the addresses once everything listens and the configuration
/// has been read for the first time.
pub async fn run(
    config: ControlConfig,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(Bound),
) -> Result<(), ControlError> {
    if !config.xds_address.ip().is_loopback() && !config.remote_plaintext {
        return Err(ControlError::RemotePlaintext(config.xds_address));
    }
    let (xds, xds_bound) = bind("plaintext discovery", config.xds_address).await?;
    let (secure_xds, secure_bound) = bind("discovery over TLS", config.secure_xds_address).await?;
    let (pages, http_bound) = bind("debug HTTP", config.http_address).await?;
    let identity = Identity::prepare(&config, &[xds_bound, secure_bound])?;
    let (source, first) = FileSource::watch(config.config.clone())?;

    let shared = Arc::new(Shared::new());
    let (events, queue) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let engine = tokio::spawn(Engine::new(shared.clone(), queue, &events).run());
    // Before the first proxy can be admitted.
    let _ = events.send(Event::Config(first));
    let common = Common { events: events.clone(), metrics: shared.metrics.clone(), cache: shared.cache.clone() };
    let streams = Arc::new(Semaphore::new(config.limits.streams));
    let places = Arc::new(Semaphore::new(config.limits.connections));
    let next = Arc::new(AtomicU64::new(1));
    let admission = |authenticator| {
        let (shared, common, streams, next) = (shared.clone(), common.clone(), streams.clone(), next.clone());
        Arc::new(Admission { shared, common, authenticator, streams, next })
    };

    let mut tasks = JoinSet::new();
    let end = |mut stopped: watch::Receiver<bool>| async move { drop(stopped.wait_for(|stop| *stop).await) };
    let signing = || SigningService::new(identity.authority.clone(), identity.authenticator.clone());
    let loopback = xds_bound.ip().is_loopback();
    let server = serve::plaintext(xds, admission(None), loopback.then(signing), places.clone(), end(stopped.clone()));
    tasks.spawn(async move { ("plaintext discovery", server.await.map_err(|error| error.to_string())) });
    let tls = control_plane_tls(&identity.secrets);
    let secure = admission(Some(identity.authenticator.clone()));
    let server = serve::secure(secure_xds, tls, secure, signing(), places, end(stopped.clone()));
    tasks.spawn(async move { ("discovery over TLS", server.await.map_err(|error| error.to_string())) });
    let app = http::router(shared.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(pages, app).with_graceful_shutdown(end(stopped.clone()));
    tasks.spawn(async move { ("debug HTTP", server.await.map_err(|error| error.to_string())) });
    let watching = watch_files(source, events.clone());
    let renewing = identity.keep_certificate();

    let bound = Bound { xds: xds_bound, secure_xds: secure_bound, http: http_bound };
    tracing::info!(xds = %bound.xds, secure_xds = %bound.secure_xds, http = %bound.http, "control plane is ready");
    ready(bound);
    let result = tokio::select! {
        () = shutdown => Ok(()),
        () = watching => Ok(()),
        () = renewing => Ok(()),
        Some(ended) = tasks.join_next() => {
            let (what, reason) = match ended {
                Ok((what, Err(reason))) => (what, reason),
                Ok((what, Ok(()))) => (what, "without a reason".to_owned()),
                Err(error) => ("a task", error.to_string()),
            };
            Err(ControlError::Ended { what, reason })
        }
    };
    tracing::info!("control plane is stopping");
    // Streams first: servers wait for them.
    let _ = events.send(Event::Stop);
    let _ = stop.send(true);
    let all = async {
        let _ = engine.await;
        while tasks.join_next().await.is_some() {}
    };
    if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
        tracing::debug!("some connections did not end in time");
    }
    result
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ControlError> {
    serve::bind(address).await.map_err(|source| ControlError::Bind { what, address, source })
}

async fn watch_files(mut source: FileSource, events: mpsc::UnboundedSender<Event>) {
    loop {
        let batch = source.next().await;
        if events.send(Event::Config(batch)).is_err() {
            return;
        }
    }
}

/// The mesh's authority, and what the control plane itself shows and believes.
struct Identity {
    authority: Arc<Authority>,
    authenticator: Authenticator,
    secrets: Secrets,
    names: Vec<String>,
}

impl Identity {
    fn prepare(config: &ControlConfig, bound: &[SocketAddr]) -> Result<Self, ControlError> {
        let trust_domain = TrustDomain::new(&config.trust_domain);
        let now = SystemTime::now();
        let authority = match &config.state_dir {
            Some(dir) => Authority::open(&dir.join("ca"), trust_domain.clone(), now)?,
            None => Authority::in_memory(trust_domain.clone(), now)?,
        };
        if let Some(dir) = &config.state_dir {
            let path = dir.join("root-cert.pem");
            replace_file(&path, authority.roots().pem().as_bytes())
                .map_err(|source| ControlError::File { path, source })?;
        }
        let mut verifier = Verifier::new();
        for path in &config.token_issuer_keys {
            let pem = std::fs::read(path).map_err(|source| ControlError::File { path: path.clone(), source })?;
            verifier.trust(None, &pem).map_err(|source| ControlError::IssuerKey { path: path.clone(), source })?;
        }
        let addresses = bound.iter().map(|address| address.ip()).filter(|address| !address.is_unspecified());
        let extra: Vec<_> = config.names.iter().cloned().chain(addresses.map(|it| it.to_string())).collect();
        let identity = Self {
            authority: Arc::new(authority),
            authenticator: Authenticator::new(verifier, trust_domain),
            secrets: Secrets::new(),
            names: control_plane_names(&extra),
        };
        identity.secrets.set_roots("ROOTCA".into(), identity.authority.roots());
        identity.issue()?;
        Ok(identity)
    }

    /// Makes a new serving certificate and returns how long it is good for.
    fn issue(&self) -> Result<Duration, SignError> {
        let now = SystemTime::now();
        let certificate = Arc::new(self.authority.serving_certificate(&self.names, now)?);
        self.secrets.set_certificate("default".into(), &certificate);
        Ok(certificate.not_after.duration_since(now).unwrap_or_default())
    }

    /// Renews the serving certificate at half its life, as workloads do.
    async fn keep_certificate(&self) {
        const RETRY: Duration = Duration::from_secs(60);
        loop {
            let left = match self.secrets.certificate(&"default".into()) {
                Some(certificate) => certificate.not_after.duration_since(SystemTime::now()).unwrap_or_default(),
                None => Duration::ZERO,
            };
            tokio::time::sleep((left / 2).max(RETRY)).await;
            match self.issue() {
                Ok(_) => tracing::info!("the control plane's certificate is renewed"),
                Err(error) => tracing::error!(%error, "the control plane's certificate cannot be renewed"),
            }
        }
    }
}

/// Writes a file so that readers see the old or the new one.
fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, content)?;
    std::fs::rename(&temporary, path)
}
