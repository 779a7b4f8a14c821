//! Puts the control plane together, starts it, and ends it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use mizzen_identity::ca::{AuthorityError, SignError, control_plane_names};
use mizzen_identity::incoming::{control_plane_tls, webhook_tls};
use mizzen_identity::service::SigningService;
use mizzen_identity::token::{TokenError, Verifier};
use mizzen_identity::{Authenticator, Authority, Secrets, SharedAuthority};
use mizzen_sources::kubernetes::Statuses;
use mizzen_sources::{Batch, FileSource, KubernetesSource, Layer, SourceError};
use mizzen_types::TrustDomain;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::engine::{Engine, Event, Shared};
use crate::kubernetes::authority::{CaSecrets, Held, Rotation};
use crate::kubernetes::leader::Leading;
use crate::kubernetes::permissions::Permissions;
use crate::kubernetes::tokens::TokenReviewer;
use crate::kubernetes::{KubernetesError, Leaders, Place};
use crate::places::Places;
use crate::session::Common;
use crate::webhook::{self, Hooks, WebhookConfig};
use crate::{http, serve};

/// What a control plane is started with. Port 0 picks a free one.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Files and folders with configuration; watched.
    pub config: Vec<PathBuf>,
    /// The cluster that the control plane looks after and whose objects are configuration. Where a file says something
    /// of the same object, the file counts.
    pub kubernetes: Option<KubernetesConfig>,
    /// Plaintext discovery (15010).
    pub xds_address: SocketAddr,
    /// Discovery and signing over TLS (15012).
    pub secure_xds_address: SocketAddr,
    /// Debug pages and metrics (15014).
    pub http_address: SocketAddr,
    /// The webhooks of the API server (15017); without it there are none.
    pub webhook: Option<WebhookConfig>,
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

/// A control plane's place in Kubernetes.
#[derive(Debug, Clone)]
pub struct KubernetesConfig {
    /// Without it: the pod's own service account, or the user's kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Of the control plane; also the mesh's root namespace.
    pub namespace: String,
    pub revision: String,
    pub cluster_id: String,
    /// What tells this replica from the others: its pod's name.
    pub replica: String,
    /// When a certificate authority of our own making is renewed.
    pub rotation: Rotation,
}

/// What is open at once, over all discovery ports.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    /// From one address that is not this machine's.
    pub connections_of_address: usize,
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, connections_of_address: 1_000, streams: 10_000 }
    }
}

impl Default for ControlConfig {
    /// Istio's ports on 127.0.0.1, no configuration, nothing on disk.
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            config: Vec::new(),
            kubernetes: None,
            xds_address: local(15010),
            secure_xds_address: local(15012),
            http_address: local(15014),
            webhook: None,
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
    pub webhook: Option<SocketAddr>,
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
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    #[error("{what} ended: {reason}")]
    Ended { what: &'static str, reason: String },
}

/// How long streams may take to end after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a control plane until `shutdown`. `ready` is told the addresses once everything listens and all configuration
/// has been read for the first time; no proxy is served before that.
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
    let webhooks = match &config.webhook {
        Some(webhook) => Some(bind("the webhooks", webhook.address).await?),
        None => None,
    };
    let mut shutdown = pin!(shutdown);
    let shared = Arc::new(Shared::new());
    let (stop, stopped) = watch::channel(false);
    let end = |mut stopped: watch::Receiver<bool>| async move { drop(stopped.wait_for(|stop| *stop).await) };
    let mut tasks = JoinSet::new();
    // Before anything that may have to be waited for: here it is found why the control plane is not ready.
    let app = http::router(shared.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(pages, app).with_graceful_shutdown(end(stopped.clone()));
    tasks.spawn(async move { ("debug HTTP", server.await.map_err(|error| error.to_string())) });
    let place = match &config.kubernetes {
        Some(kubernetes) => Some(Place::connect(kubernetes).await?),
        None => None,
    };
    let addresses = [xds_bound, secure_bound];
    let identity = tokio::select! {
        identity = Identity::prepare(&config, &addresses, place.as_ref(), &shared) => identity?,
        () = &mut shutdown => return Ok(()),
    };
    let files = match (config.config.as_slice(), &place) {
        ([], Some(_)) => None,
        (paths, _) => Some(FileSource::watch(paths.to_vec())?),
    };
    let layers = files.iter().map(|_| Layer::Files).chain(place.iter().map(|_| Layer::Kubernetes)).collect();

    let (events, queue) = mpsc::unbounded_channel();
    let engine = tokio::spawn(Engine::new(shared.clone(), layers, queue, &events).run());
    let permissions = place.as_ref().map(|place| Arc::new(Permissions::new(place.client.clone())));
    let common =
        Common { events: events.clone(), metrics: shared.metrics.clone(), cache: shared.cache.clone(), permissions };
    let streams = Arc::new(Semaphore::new(config.limits.streams));
    let places = Places::new(config.limits);
    let next = Arc::new(AtomicU64::new(1));
    let cluster_id: Arc<str> = config.kubernetes.as_ref().map_or("Kubernetes", |it| &it.cluster_id).into();
    let name = Arc::<str>::from(place.as_ref().map_or("istiod", |place| &place.replica));
    let admission = |authenticator| {
        let (shared, common, streams, next) = (shared.clone(), common.clone(), streams.clone(), next.clone());
        let (cluster_id, name) = (cluster_id.clone(), name.clone());
        Arc::new(Admission { shared, common, cluster_id, authenticator, streams, next, name })
    };

    let mut sources = JoinSet::new();
    let webhook_bound = webhooks.as_ref().map(|(_, bound)| *bound);
    let signing = || SigningService::new(identity.authority.clone(), identity.authenticator.clone());
    let loopback = xds_bound.ip().is_loopback();
    let server = serve::plaintext(xds, admission(None), loopback.then(signing), places.clone(), end(stopped.clone()));
    tasks.spawn(async move { ("plaintext discovery", server.await.map_err(|error| error.to_string())) });
    let tls = control_plane_tls(&identity.secrets);
    let secure = admission(Some(identity.authenticator.clone()));
    let server = serve::secure(secure_xds, tls, secure, signing(), places, end(stopped.clone()));
    tasks.spawn(async move { ("discovery over TLS", server.await.map_err(|error| error.to_string())) });
    if let Some((source, first)) = files {
        sources.spawn(watch_files(source, first, events.clone()));
    }
    let mut statuses = Statuses::default();
    if let Some(place) = &place {
        let source = KubernetesSource::watch(&place.client, &place.watched());
        statuses = source.statuses();
        sources.spawn(watch_kubernetes(source, shared.clone(), events.clone()));
    }
    if let (Some((listener, _)), Some(webhook)) = (webhooks, &config.webhook) {
        let root = place.as_ref().map_or("istio-system", |place| &place.namespace);
        let hooks = Arc::new(Hooks::new(shared.clone(), root));
        match &place {
            Some(place) => {
                sources.spawn(webhook::follow(place.clone(), hooks.clone(), webhook.native_sidecars.clone()));
            }
            None => hooks.take(webhook::defaults(&webhook.native_sidecars)),
        }
        let server = webhook::serve(listener, webhook_tls(&identity.secrets), hooks, end(stopped.clone()));
        tasks.spawn(async move {
            server.await;
            ("the webhooks", Ok(()))
        });
    }
    let renewing = identity.keep_certificate();
    let leaders = place.as_ref().map(Leaders::new);
    let following = identity.follow_secrets(leaders.as_ref().map(Leaders::of_mesh));
    if let (Some(leaders), Some(place)) = (&leaders, place) {
        let work = leaders.clone().run(place, shared.clone(), statuses, identity.roots.subscribe(), stopped.clone());
        tasks.spawn(async move {
            work.await;
            ("the leader's work", Ok(()))
        });
    }

    let bound = Bound { xds: xds_bound, secure_xds: secure_bound, http: http_bound, webhook: webhook_bound };
    let serving = async {
        shared.readiness().await;
        tracing::info!(xds = %bound.xds, secure_xds = %bound.secure_xds, http = %bound.http, "control plane is ready");
        ready(bound);
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        () = &mut shutdown => Ok(()),
        () = serving => Ok(()),
        () = renewing => Ok(()),
        () = following => Ok(()),
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

async fn watch_files(mut source: FileSource, first: Batch, events: mpsc::UnboundedSender<Event>) {
    let mut batch = first;
    while events.send(Event::Config(Layer::Files, batch)).is_ok() {
        batch = source.next().await;
    }
}

async fn watch_kubernetes(mut source: KubernetesSource, shared: Arc<Shared>, events: mpsc::UnboundedSender<Event>) {
    /// How often it is said what is being waited for: to those who ask, and in the logs.
    const TELL: Duration = Duration::from_secs(1);
    const LOG: Duration = Duration::from_secs(5);
    let mut logged = Instant::now();
    let mut batch = loop {
        if let Ok(batch) = tokio::time::timeout(TELL, source.first()).await {
            break batch;
        }
        let missing = source.missing().join(", ");
        if logged.elapsed() >= LOG {
            tracing::info!(missing, "still waiting for the API server to list everything");
            logged = Instant::now();
        }
        shared.waiting.store(Arc::new(format!("waiting for the API server to list: {missing}")));
    };
    while events.send(Event::Config(Layer::Kubernetes, batch)).is_ok() {
        batch = source.next().await;
    }
}

/// The mesh's authority, and what the control plane itself shows and believes.
struct Identity {
    authority: SharedAuthority,
    authenticator: Authenticator,
    secrets: Secrets,
    names: Vec<String>,
    /// The mesh's roots as PEM.
    roots: watch::Sender<Arc<str>>,
    /// In a cluster: where the authority is kept, and what was read there.
    kept: Option<(CaSecrets, Held)>,
}

impl Identity {
    async fn prepare(
        config: &ControlConfig,
        bound: &[SocketAddr],
        place: Option<&Place>,
        shared: &Shared,
    ) -> Result<Self, ControlError> {
        let trust_domain = match place {
            Some(place) => place.trust_domain(shared).await,
            None => None,
        };
        let trust_domain = TrustDomain::new(trust_domain.as_ref().unwrap_or(&config.trust_domain));
        let now = SystemTime::now();
        let mut kept = None;
        let authority = match (place, &config.state_dir) {
            (Some(place), _) => {
                let rotation = config.kubernetes.as_ref().map(|it| it.rotation).unwrap_or_default();
                let secrets = CaSecrets::new(place, trust_domain.clone(), rotation);
                let loaded = secrets.open_patiently(shared).await.map_err(KubernetesError::from)?;
                kept = Some((secrets, loaded.held));
                loaded.authority
            }
            (None, Some(dir)) => Authority::open(&dir.join("ca"), trust_domain.clone(), now)?,
            (None, None) => Authority::in_memory(trust_domain.clone(), now)?,
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
        let mut authenticator = Authenticator::new(verifier, trust_domain);
        if let Some(place) = place {
            authenticator = authenticator.with_reviewer(Arc::new(TokenReviewer::new(place.client.clone())));
        }
        let addresses = bound.iter().map(|address| address.ip()).filter(|address| !address.is_unspecified());
        let in_cluster = place.map(Place::names).unwrap_or_default();
        let extra = config.names.iter().cloned().chain(in_cluster).chain(addresses.map(|it| it.to_string()));
        let roots = Arc::<str>::from(authority.roots().pem());
        let identity = Self {
            authority: authority.into(),
            authenticator,
            secrets: Secrets::new(),
            names: control_plane_names(&extra.collect::<Vec<_>>()),
            roots: watch::Sender::new(roots),
            kept,
        };
        identity.secrets.set_roots("ROOTCA".into(), identity.authority.load().roots());
        identity.issue()?;
        Ok(identity)
    }

    /// Takes over authorities that are put into the cluster's Secrets; for ever.
    async fn follow_secrets(&self, leading: Option<Leading>) {
        let (Some((secrets, held)), Some(leading)) = (&self.kept, leading) else {
            return std::future::pending().await;
        };
        secrets.follow(held.clone(), &leading, |authority| self.replace(authority)).await;
        std::future::pending().await
    }

    fn replace(&self, authority: Authority) {
        self.secrets.set_roots("ROOTCA".into(), authority.roots());
        self.roots.send_replace(authority.roots().pem().into());
        self.authority.replace(authority);
        if let Err(error) = self.issue() {
            tracing::error!(%error, "the control plane's certificate cannot be renewed");
        }
    }

    /// Makes a new serving certificate and returns how long it is good for.
    fn issue(&self) -> Result<Duration, SignError> {
        let now = SystemTime::now();
        let certificate = Arc::new(self.authority.load().serving_certificate(&self.names, now)?);
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

#[cfg(test)]
mod tests;
