//! The loop: everything that happens to the control plane comes in here as one [`Event`], and nowhere else.
//!
//! Configuration is applied to the mesh, the [`audience`](crate::audience) of what changed is found, and each concerned
//! stream's [`Slot`] is filled. Making and sending resources is the work of the streams' own tasks: a slow proxy holds up
//! nobody, and all processors take part.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use mizzen_config::{Change, Kind, Object};
use mizzen_mesh::Mesh;
use mizzen_sources::{Batch, Layer, Layers};
use mizzen_types::{Finding, ObjectKey};
use mizzen_xds::server::Observed;
use rpds::RedBlackTreeMapSync;
use tokio::sync::{mpsc, watch};

use crate::audience::{Extent, Indirect, Touch};
use crate::blame::Blame;
use crate::cache::Cache;
use crate::debounce::Debounce;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::queue::Slot;
use crate::session::stopping;
use crate::status::{ProxyStatus, Status, StreamId};
use crate::world::World;

/// Everything that can happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A source of configuration has read something new; the first time, all that there is.
    Config(Layer, Batch),
    Connected(Box<Connection>),
    Gone(StreamId),
    /// A stream subscribed, was sent something, acknowledged or refused it.
    Observed(StreamId, Observed),
    /// A stream is given Secrets from now on, or not any more.
    Secrets(StreamId, bool),
    /// A stream has answered everything up to a revision; `complete`: and refuses nothing of it.
    Settled {
        id: StreamId,
        revision: u64,
        complete: bool,
    },
    /// Findings across all objects, of one revision.
    Analysed {
        revision: u64,
        findings: Vec<Finding>,
        took: Duration,
    },
    /// Stop: end all streams.
    Stop,
}

/// A new stream.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: StreamId,
    pub(crate) slot: Arc<Slot>,
    pub(crate) status: ProxyStatus,
}

/// What others may read: the admission of streams and the debug pages.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) world: ArcSwap<World>,
    pub(crate) status: Mutex<Status>,
    pub(crate) progress: Mutex<Progress>,
    /// Raised when objects, findings or the progress of proxies are different from before.
    pub(crate) news: watch::Sender<u64>,
    /// All objects in force, with their positions as they are now.
    pub(crate) objects: ArcSwap<RedBlackTreeMapSync<ObjectKey, Arc<Object>>>,
    /// Of reading, then across objects.
    pub(crate) findings: ArcSwap<(Vec<Finding>, Vec<Finding>)>,
    /// Revision of the world up to which findings across objects are known.
    pub(crate) analysed: AtomicU64,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) cache: Arc<Cache>,
    /// What is waited for before that, for those who ask why.
    pub(crate) waiting: ArcSwap<String>,
    /// Whether all sources have been read once and what they said is in force. Nobody is served before that.
    pub(crate) ready: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let metrics = Arc::new(Metrics::default());
        Self {
            world: ArcSwap::from_pointee(World::first(Mesh::empty(), Instant::now())),
            status: Mutex::default(),
            progress: Mutex::default(),
            news: watch::Sender::new(0),
            objects: ArcSwap::default(),
            findings: ArcSwap::default(),
            analysed: AtomicU64::new(0),
            cache: Arc::new(Cache::new(metrics.clone())),
            metrics,
            waiting: ArcSwap::from_pointee("the configuration has not been read for the first time yet".to_owned()),
            ready: watch::Sender::new(false),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until everything has been read once.
    pub(crate) async fn readiness(&self) {
        // The sender is here, so waiting does not fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    pub(crate) fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_news(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    pub(crate) fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often unused parts of the cache are dropped.
const SWEEP: Duration = Duration::from_secs(60);
/// How long the configuration must be quiet before it is looked at as a whole.
const ANALYSE_AFTER: Duration = Duration::from_millis(100);
/// In a large mesh it must be quiet for so many times as long as that took the last time, so that proxies come first.
const ANALYSE_SHARE: u32 = 10;
/// But no longer than this.
const ANALYSE_LATEST: Duration = Duration::from_secs(5);

/// The engine: sole writer of [`Shared`].
#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<Event>,
    /// To itself, from work that it hands away.
    back: mpsc::WeakUnboundedSender<Event>,
    slots: BTreeMap<StreamId, Arc<Slot>>,
    blame: Blame,
    layers: Layers,
    /// Sources that have not told anything yet.
    awaited: Vec<Layer>,
    debounce: Debounce,
    waiting: Vec<Change>,
    analysed: u64,
    analyse_at: Option<Instant>,
    /// How long it must be quiet before that.
    analyse_after: Duration,
    /// Something came that findings may depend on.
    unanalysed: bool,
}

impl Engine {
    /// `sources` are those that will send configuration.
    pub(crate) fn new(
        shared: Arc<Shared>,
        sources: Vec<Layer>,
        events: mpsc::UnboundedReceiver<Event>,
        back: &mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            shared,
            events,
            back: back.downgrade(),
            slots: BTreeMap::new(),
            blame: Blame::default(),
            layers: if sources.len() > 1 { Layers::both() } else { Layers::default() },
            awaited: sources,
            debounce: Debounce::new(),
            waiting: Vec::new(),
            analysed: 0,
            analyse_at: None,
            analyse_after: ANALYSE_AFTER,
            unanalysed: false,
        }
    }

    /// Runs until [`Event::Stop`].
    pub(crate) async fn run(mut self) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let due = [self.debounce.due(), self.analyse_at].into_iter().flatten().min();
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Events first: what has already come is applied together.
                biased;
                event = self.events.recv() => match event {
                    Some(Event::Stop) | None => break,
                    Some(event) => self.handle(event),
                },
                () = timer => {}
                _ = sweep.tick() => self.shared.cache.sweep(),
            }
            let now = now();
            if self.debounce.due().is_some_and(|due| due <= now) {
                self.apply(now);
            }
            if self.analyse_at.is_some_and(|at| at <= now) {
                self.analyse();
            }
        }
        for slot in self.slots.values() {
            slot.end(stopping());
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Config(layer, batch) => self.configure(layer, batch),
            Event::Connected(connection) => {
                let Connection { id, slot, status } = *connection;
                tracing::info!(node = %status.node.name, mode = ?status.mode, observer = status.node.observer, "proxy connected");
                // The world may have moved on since the stream was opened.
                let world = self.shared.world.load_full();
                if slot.revision() != world.revision {
                    slot.put(&world, Extent::everything());
                }
                self.slots.insert(id, slot);
                if !status.node.observer {
                    self.shared.progress().connected(id, world.revision);
                }
                self.shared.status().proxies.insert(id, status);
            }
            Event::Gone(id) => {
                self.slots.remove(&id);
                self.shared.progress().gone(id);
                self.shared.tell_news();
                if let Some(status) = self.shared.status().proxies.remove(&id) {
                    tracing::info!(node = %status.node.name, "proxy disconnected");
                }
            }
            Event::Observed(id, event) => self.observed(id, &event),
            Event::Secrets(id, allowed) => {
                if let Some(proxy) = self.shared.status().proxies.get_mut(&id) {
                    proxy.secrets = allowed;
                }
            }
            Event::Settled { id, revision, complete } => {
                if complete && let Some(proxy) = self.shared.status().proxies.get_mut(&id) {
                    proxy.settled();
                }
                // A proxy that has not asked for everything yet has not got everything.
                let all = self.shared.status().proxies.get(&id).is_some_and(ProxyStatus::has_asked);
                if all {
                    self.shared.progress().settled(id, revision, complete);
                    self.shared.tell_news();
                }
            }
            Event::Analysed { revision, findings, took } => {
                self.analyse_after = (took * ANALYSE_SHARE).clamp(ANALYSE_AFTER, ANALYSE_LATEST);
                if revision >= self.analysed {
                    self.analysed = revision;
                    let reading = self.shared.findings.load().0.clone();
                    log_findings(&findings, &self.shared.findings.load().1);
                    self.shared.findings.store(Arc::new((reading, findings)));
                    self.shared.analysed.store(revision, Ordering::Release);
                    self.shared.tell_news();
                }
            }
            Event::Stop => {}
        }
    }

    fn configure(&mut self, layer: Layer, batch: Batch) {
        let Batch { changes, moved, findings } = self.layers.take(layer, batch);
        // Findings across objects are of what is written, not of where pods are.
        let written = |change: &Change| &*key_of(change).kind != "EndpointSlice";
        if !moved.is_empty() || changes.iter().any(written) {
            self.unanalysed = true;
            self.analyse_at = Some(now() + self.analyse_after);
        }
        let mut objects = (**self.shared.objects.load()).clone();
        {
            let mut progress = self.shared.progress();
            for change in &changes {
                match change {
                    Change::Put(object) => {
                        let same = |before: &Arc<Object>| before.same_but_for_status(object);
                        let generation = object.meta.version.generation;
                        match reconciled(&object.kind) {
                            true if objects.get(&object.key).is_some_and(same) => {
                                progress.renamed(&object.key, generation);
                            }
                            true => progress.changed(&object.key, generation),
                            false => {}
                        }
                        objects.insert_mut(object.key.clone(), object.clone());
                    }
                    Change::Delete(key) => {
                        progress.deleted(key);
                        objects.remove_mut(key);
                    }
                }
            }
            for object in moved {
                if reconciled(&object.kind) {
                    progress.renamed(&object.key, object.meta.version.generation);
                }
                objects.insert_mut(object.key.clone(), object);
            }
        }
        // Before the objects: whoever sees one knows what was found while it was read.
        if let Some(findings) = findings {
            let (before, across) = &**self.shared.findings.load();
            log_findings(&findings, before);
            self.shared.findings.store(Arc::new((findings, across.clone())));
        }
        self.shared.objects.store(Arc::new(objects));
        self.shared.tell_news();
        let first = self.awaited.iter().position(|awaited| *awaited == layer).map(|at| self.awaited.remove(at));
        if first.is_some() || !changes.is_empty() {
            self.waiting.extend(changes);
            self.debounce.arrived(now());
        }
    }

    fn observed(&mut self, id: StreamId, event: &Observed) {
        let mut status = self.shared.status();
        let Some(proxy) = status.proxies.get_mut(&id) else { return };
        proxy.observe(event, SystemTime::now());
        let node = &proxy.node.name;
        match event {
            Observed::Refused { kind, message, .. } => {
                let blamed = self.blame.of(*kind, message, &self.shared.objects.load_full());
                self.shared.progress().refused(id, blamed);
                tracing::warn!(%node, %kind, reason = ?message, "proxy refused a resource; its last good version stays in force");
            }
            Observed::Unanswered { kind, .. } => tracing::warn!(%node, %kind, "proxy does not answer"),
            Observed::Sent { kind, resources, removed, bytes, .. } => {
                tracing::debug!(%node, %kind, resources, removed, bytes, "sent");
            }
            Observed::UnknownType { type_url } => {
                tracing::debug!(%node, ?type_url, "proxy asks for a type that is not served")
            }
            Observed::Subscribed { .. }
            | Observed::Acked { .. }
            | Observed::Stale { .. }
            | Observed::Settled { .. } => {}
        }
    }

    /// Applies what waits, and tells the streams that it concerns.
    fn apply(&mut self, began: Instant) {
        let changes = std::mem::take(&mut self.waiting);
        let old = self.shared.world.load_full();
        let (mesh, dirty) = old.mesh.apply(&changes);
        if dirty.is_empty() {
            self.shared.world.store(Arc::new(old.with(mesh)));
            self.shared.progress().applied(None, now());
            self.shared.tell_news();
            self.debounce.applied(now(), began.elapsed());
            self.ready();
            return;
        }
        let indirect = Indirect::of(&dirty, &old.mesh, &mesh);
        let world = Arc::new(old.next(mesh, &dirty, indirect, began));
        self.shared.world.store(world.clone());
        let touch = Touch::new(&dirty, indirect, &world.mesh.config().root_namespace);
        let mut told = 0;
        {
            let status = self.shared.status();
            let mut progress = self.shared.progress();
            progress.applied(Some(world.revision), now());
            for (id, slot) in &self.slots {
                let extent = status.proxies.get(id).map_or_else(Extent::everything, |proxy| touch.extent(&proxy.node));
                if !extent.is_empty() {
                    told += 1;
                    progress.concerns(*id, world.revision);
                }
                slot.put(&world, extent);
            }
        }
        self.shared.tell_news();
        let took = began.elapsed();
        self.shared.metrics.config_update(changes.len(), took);
        tracing::info!(
            changes = changes.len(),
            revision = world.revision,
            proxies = told,
            ?took,
            "configuration applied"
        );
        self.debounce.applied(now(), took);
        if self.unanalysed {
            self.analyse_at = Some(now() + self.analyse_after);
        }
        self.ready();
    }

    /// Lets proxies in, once what all sources have said is in force.
    fn ready(&self) {
        if self.awaited.is_empty() {
            self.shared.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
        }
    }

    /// Looks at all objects together, aside from the loop.
    fn analyse(&mut self) {
        self.analyse_at = None;
        self.unanalysed = false;
        let world = self.shared.world.load_full();
        let objects: Vec<Arc<Object>> = self.shared.objects.load().values().cloned().collect();
        let back = self.back.clone();
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let findings = mizzen_analysis::analyse(&world.mesh, &objects);
            if let Some(back) = back.upgrade() {
                let _ = back.send(Event::Analysed { revision: world.revision, findings, took: began.elapsed() });
            }
        });
    }
}

fn key_of(change: &Change) -> &ObjectKey {
    match change {
        Change::Put(object) => &object.key,
        Change::Delete(key) => key,
    }
}

/// Whether an object of this kind says in its status where it is in force: Istio's kinds do.
const fn reconciled(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::VirtualService(_)
            | Kind::DestinationRule(_)
            | Kind::Gateway(_)
            | Kind::ServiceEntry(_)
            | Kind::WorkloadEntry(_)
            | Kind::WorkloadGroup(_)
            | Kind::Sidecar(_)
            | Kind::EnvoyFilter(_)
            | Kind::ProxyConfig(_)
            | Kind::PeerAuthentication(_)
            | Kind::RequestAuthentication(_)
            | Kind::AuthorizationPolicy(_)
            | Kind::Telemetry(_)
    )
}

/// Says each finding once, when it is new.
fn log_findings(findings: &[Finding], before: &[Finding]) {
    for finding in findings.iter().filter(|finding| !before.contains(finding)) {
        let place = finding.position.as_ref().map(ToString::to_string).unwrap_or_default();
        let origin = finding.origin.as_ref().map(ToString::to_string).unwrap_or_default();
        match finding.severity {
            mizzen_types::Severity::Error => {
                tracing::error!(code = finding.code, %place, %origin, "{}", finding.message)
            }
            mizzen_types::Severity::Warning => {
                tracing::warn!(code = finding.code, %place, %origin, "{}", finding.message)
            }
            mizzen_types::Severity::Info => tracing::info!(code = finding.code, %place, %origin, "{}", finding.message),
        }
    }
}

/// The runtime's clock, so that tests can turn it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
