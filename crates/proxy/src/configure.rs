//! Where the configuration comes from: the bootstrap, what was kept from last time, and the control plane.
//!
//! One loop applies updates to `mizzen_compile::Config`, publishes the snapshot, answers the control plane (a NACK
//! names what is not obeyed), and keeps the last good resources, so that a proxy starts and serves while the control
//! plane is away. A bad resource never takes anything else with it.

mod kept;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mizzen_compile::{Bootstrap, Config, Outcome, Refused, Resource, Secret, Update};
use mizzen_identity::certificate::{Certificate, TrustRoots};
use mizzen_identity::secrets::{IDENTITY, ROOTS};
use mizzen_net::memory;
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::istio_nds::NameTable;
use mizzen_snapshot::tls::{CertificateSource, Roots};
use mizzen_types::{ClusterName, SecretName};
use mizzen_xds::ResourceType;
use mizzen_xds::client::{self, Event, Handle, Refusal, Subscription, UpdateId};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admin::{Held, Origin};
use crate::health::Health;
use crate::publish::{BindFailure, Publisher};
use crate::shared::Shared;
use kept::Kept;

/// How long after the last update a removed cluster that routes still name is let go.
const SETTLE: Duration = Duration::from_secs(5);
/// How long after the last update the memory is given back that only taking it needed.
const QUIET: Duration = Duration::from_secs(2);
/// Time between looks at what waits: endpoints that do not come, addresses that are taken.
const TICK: Duration = Duration::from_millis(500);
/// Changes within this time are written to disk once.
const KEEP_AFTER: Duration = Duration::from_millis(500);

pub struct Configurator {
    shared: Arc<Shared>,
    config: Config,
    publisher: Publisher,
    health: Arc<Health>,
    /// Secrets that the identity client provides; nobody is asked for them.
    own_secrets: bool,
    kept: Option<Kept>,
    keep_at: Option<Instant>,
    refused: HashMap<(String, String), Refused>,
    refused_in_bootstrap: Vec<Refused>,
    bind_failures: Vec<BindFailure>,
    /// Types of which the control plane has said something since the process began.
    heard: BTreeSet<ResourceType>,
    from_disk: bool,
    needs_control_plane: bool,
    warming_since: HashMap<ClusterName, Instant>,
    last_update: Instant,
    /// State of the world: what this stream has not said yet. Until then what it removed may only be out of order.
    owed: BTreeSet<ResourceType>,
    /// Memory that the last update needed may be there still.
    swollen: bool,
    /// For the admin interface.
    held: Arc<Held>,
}

impl Configurator {
    /// Puts the bootstrap's own resources in force, then what was kept from last time.
    pub fn new(
        bootstrap: &Bootstrap,
        shared: Arc<Shared>,
        publisher: Publisher,
        health: Arc<Health>,
        held: Arc<Held>,
        own_secrets: bool,
        state_dir: Option<PathBuf>,
    ) -> Self {
        let mut configurator = Self {
            shared,
            config: Config::new(),
            publisher,
            health,
            own_secrets,
            kept: state_dir.map(Kept::new),
            keep_at: None,
            refused: HashMap::new(),
            refused_in_bootstrap: Vec::new(),
            bind_failures: Vec::new(),
            heard: BTreeSet::new(),
            from_disk: false,
            needs_control_plane: bootstrap.listeners_by_ads || bootstrap.clusters_by_ads,
            warming_since: HashMap::new(),
            last_update: Instant::now(),
            owed: BTreeSet::new(),
            swollen: true,
            held,
        };
        for update in &bootstrap.resources {
            let outcome = configurator.config.apply_static(update.clone());
            configurator.note(update, &outcome, Origin::Static);
            configurator.say_what_is_passed_over(&outcome);
        }
        configurator.refused_in_bootstrap = configurator.refused();
        if configurator.needs_control_plane {
            configurator.load_kept();
        }
        configurator.publish();
        configurator
    }

    pub fn refused_in_bootstrap(&self) -> &[Refused] {
        &self.refused_in_bootstrap
    }

    /// What is not obeyed now, by type and name.
    pub fn refused(&self) -> Vec<Refused> {
        let mut all: Vec<_> = self.refused.values().cloned().collect();
        all.sort_by(|left, right| (&left.type_url, &left.name).cmp(&(&right.type_url, &right.name)));
        all
    }

    pub fn bind_failures(&self) -> &[BindFailure] {
        &self.bind_failures
    }

    pub fn addresses(&self) -> Vec<(mizzen_types::ListenerName, std::net::SocketAddr)> {
        self.publisher.addresses()
    }

    fn load_kept(&mut self) {
        let Some(kept) = &self.kept else { return };
        match kept.load() {
            Ok(updates) => {
                self.from_disk = !updates.is_empty();
                for update in updates {
                    let outcome = self.config.apply(update.clone());
                    self.note(&update, &outcome, Origin::Discovered);
                }
                if self.from_disk {
                    tracing::info!("serving the configuration kept from last time until the control plane answers");
                }
            }
            Err(error) => tracing::warn!(%error, "the kept configuration is not used"),
        }
    }

    /// Without a control plane: keeps trying what could not be done at once. Never ends.
    pub async fn run_static(mut self, mut orders: mpsc::UnboundedReceiver<bool>) {
        loop {
            let pause = tokio::time::sleep(self.pause());
            tokio::select! {
                Some(inbound_only) = orders.recv() => self.publisher.close_listeners(inbound_only),
                () = pause => self.tick(),
            }
        }
    }

    /// Follows the control plane until its events end. An order closes listeners (true: the inbound ones alone).
    pub async fn run(
        mut self,
        handle: Handle,
        mut events: mpsc::Receiver<Event>,
        mut orders: mpsc::UnboundedReceiver<bool>,
        bootstrap: &Bootstrap,
    ) {
        if bootstrap.clusters_by_ads {
            handle.subscribe(ResourceType::Cluster, Subscription::Wildcard);
        }
        if bootstrap.listeners_by_ads {
            handle.subscribe(ResourceType::Listener, Subscription::Wildcard);
        }
        if asks_for_names(bootstrap) {
            handle.subscribe(ResourceType::NameTable, Subscription::Wildcard);
        }
        self.subscribe(&handle);
        loop {
            let pause = tokio::time::sleep(self.pause());
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(&handle, event, bootstrap),
                    None => return,
                },
                Some(inbound_only) = orders.recv() => self.publisher.close_listeners(inbound_only),
                () = pause => self.tick(),
            }
            self.check_ready();
        }
    }

    fn handle(&mut self, handle: &Handle, event: Event, bootstrap: &Bootstrap) {
        match event {
            Event::Connected => {
                tracing::info!("connected to the control plane");
                if bootstrap.ads.as_ref().is_some_and(|ads| !ads.delta) {
                    self.owed = self.asked(bootstrap);
                }
            }
            Event::Disconnected { reason, retry_in } => {
                tracing::warn!(reason, retry_in_ms = retry_in.as_millis(), "no control plane; the last state stays");
            }
            Event::Update(update) => self.update(handle, update),
        }
    }

    /// The types that a new stream asks for, and that say what routes and clusters there are.
    fn asked(&self, bootstrap: &Bootstrap) -> BTreeSet<ResourceType> {
        let asked = [
            (ResourceType::Cluster, bootstrap.clusters_by_ads),
            (ResourceType::Listener, bootstrap.listeners_by_ads),
            (ResourceType::Route, !self.config.wanted().routes.is_empty()),
        ];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(kind, _)| kind).collect()
    }

    fn update(&mut self, handle: &Handle, update: client::Update) {
        let kind = update.kind;
        if kind == ResourceType::NameTable {
            return self.names(handle, &update);
        }
        let first = self.heard.insert(kind);
        self.owed.remove(&kind);
        // What was kept may be out of date: the first answer says all there is.
        let full = update.full || first && self.from_disk && kind.is_wildcard();
        tracing::debug!(%kind, resources = update.resources.len(), removed = update.removed.len(), full, "update");
        let resources = update.resources.into_iter().map(|received| Resource {
            name: received.name,
            version: received.version,
            body: received.body,
        });
        let (id, update) = (
            update.id,
            Update {
                type_url: kind.type_url().to_owned(),
                resources: resources.collect(),
                removed: update.removed,
                full,
            },
        );
        let outcome = self.config.apply(update.clone());
        self.last_update = Instant::now();
        self.swollen = true;
        self.note(&update, &outcome, Origin::Discovered);
        self.say_what_is_passed_over(&outcome);
        self.publish();
        self.answer(handle, kind, id, &outcome);
        if outcome.wanted_changed {
            self.subscribe(handle);
        }
        if kind != ResourceType::Secret {
            self.keep_at.get_or_insert_with(|| Instant::now() + KEEP_AFTER);
        }
    }

    /// The names are nothing that the proxy obeys: they are for the name server beside it.
    fn names(&self, handle: &Handle, update: &client::Update) {
        let Some(received) = update.resources.first() else { return handle.accept(update.id) };
        match NameTable::decode(received.body.clone()) {
            Ok(table) => {
                self.shared.names.send_replace(Arc::new(table));
                handle.accept(update.id);
            }
            Err(error) => {
                let message = format!("no table of names: {error}");
                handle.refuse(update.id, vec![Refusal { name: received.name.clone(), message }]);
            }
        }
    }

    fn answer(&self, handle: &Handle, kind: ResourceType, id: UpdateId, outcome: &Outcome) {
        let refused = outcome.refused.iter().map(|refused| Refusal {
            name: refused.name.clone(),
            message: if refused.field.is_empty() {
                refused.message.clone()
            } else {
                format!("{}: {}", refused.field, refused.message)
            },
        });
        let unbound = self
            .bind_failures
            .iter()
            .filter(|failure| kind == ResourceType::Listener && outcome.listeners_changed.contains(&failure.listener));
        // A new listener is opened once its routes are there, but whether it can be is told with its acknowledgement.
        let waiting = self.config.waiting_listeners().filter(|_| kind == ResourceType::Listener);
        let unopenable = waiting.filter_map(|listener| self.publisher.probe(listener));
        let unbound = unbound
            .cloned()
            .chain(unopenable)
            .map(|failure| Refusal { name: failure.listener.to_string(), message: failure.to_string() });
        let all: Vec<_> = refused.chain(unbound).collect();
        if all.is_empty() {
            handle.accept(id);
        } else {
            handle.refuse(id, all);
        }
    }

    /// Asks for what accepted resources name.
    fn subscribe(&self, handle: &Handle) {
        let wanted = self.config.wanted();
        let own = |name: &String| self.own_secrets && (name == IDENTITY || name == ROOTS);
        let secrets = wanted.secrets.into_iter().filter(|name| !own(name)).collect();
        handle.subscribe(ResourceType::Endpoint, Subscription::Names(wanted.endpoints.into_iter().collect()));
        handle.subscribe(ResourceType::Route, Subscription::Names(wanted.routes.into_iter().collect()));
        handle.subscribe(ResourceType::Secret, Subscription::Names(secrets));
    }

    /// Logs what is refused, and hands secrets on.
    fn note(&mut self, update: &Update, outcome: &Outcome, origin: Origin) {
        let url = update.type_url.as_str();
        for resource in &update.resources {
            self.refused.remove(&(url.to_owned(), resource.name.clone()));
            match outcome.refused.iter().find(|refused| refused.name == resource.name) {
                Some(refused) => {
                    tracing::warn!("not obeyed: {refused}");
                    self.held.refuse(url, &resource.name, &resource.version, &refused.to_string());
                    self.refused.insert((url.to_owned(), refused.name.clone()), refused.clone());
                }
                None => {
                    if let Some(packed) = self.config.accepted_as(url, &resource.name) {
                        self.held.put(url, &resource.name, packed.clone(), origin);
                    }
                }
            }
        }
        let mut gone = update.removed.clone();
        if update.full {
            let (listeners, clusters) = (&outcome.listeners_removed, &outcome.clusters_removed);
            gone.extend(listeners.iter().map(ToString::to_string).chain(clusters.iter().map(ToString::to_string)));
        }
        for name in gone {
            self.refused.remove(&(url.to_owned(), name.clone()));
            self.held.remove(url, &name);
        }
        self.let_go(outcome);
        for (name, secret) in &outcome.secrets_changed {
            self.take_secret(name, secret.as_ref());
        }
    }

    /// Shows no more what nothing asks for any more.
    fn let_go(&mut self, outcome: &Outcome) {
        for (url, name) in &outcome.unwanted {
            self.refused.remove(&((*url).to_owned(), name.clone()));
            self.held.remove(url, name);
        }
    }

    fn say_what_is_passed_over(&self, outcome: &Outcome) {
        for name in &outcome.listeners_changed {
            let notes = outcome.snapshot.listeners.get(name).map(|listener| listener.notes.as_slice());
            for note in notes.unwrap_or_default() {
                tracing::warn!(listener = %name, "not obeyed: {note}");
            }
        }
    }

    fn take_secret(&mut self, name: &SecretName, secret: Option<&Secret>) {
        if self.own_secrets && (name.as_str() == IDENTITY || name.as_str() == ROOTS) {
            return;
        }
        let secrets = &self.shared.secrets;
        let taken = match secret {
            None => {
                secrets.remove(name);
                Ok(())
            }
            Some(Secret::Certificate(source)) => {
                read_certificate(source).map(|read| secrets.set_certificate(name.clone(), &Arc::new(read)))
            }
            Some(Secret::Validation(validation)) => {
                read_roots(&validation.roots).map(|read| secrets.set_roots(name.clone(), &Arc::new(read)))
            }
        };
        if let Err(reason) = taken {
            tracing::error!(secret = %name, reason, "the secret cannot be used; the old one stays");
        }
    }

    fn publish(&mut self) {
        self.bind_failures = self.publisher.publish(&Arc::clone(self.config.snapshot()));
        let now = Instant::now();
        let warming: BTreeSet<ClusterName> = self.config.warming().map(|(name, _)| name.clone()).collect();
        self.warming_since.retain(|name, _| warming.contains(name));
        for name in warming {
            self.warming_since.entry(name).or_insert(now);
        }
        self.check_ready();
    }

    /// Ready once everything that was asked for has come, or was there from last time.
    fn check_ready(&self) {
        let heard = |kind| self.heard.contains(&kind);
        let answered = !self.needs_control_plane || heard(ResourceType::Cluster) && heard(ResourceType::Listener);
        let tables = self.config.has_wanted_tables();
        let identity = !self.own_secrets || self.shared.secrets.identity().is_some();
        if (answered || self.from_disk) && tables && identity && self.warming_since.is_empty() {
            self.health.configured();
        }
    }

    fn pause(&self) -> Duration {
        let waits = !self.warming_since.is_empty()
            || self.config.has_retained()
            || !self.bind_failures.is_empty()
            || self.keep_at.is_some()
            || self.swollen
            || !self.health.is_ready();
        if waits { TICK } else { Duration::from_secs(3600) }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let overdue: Vec<ClusterName> = self
            .config
            .warming()
            .filter(|(name, patience)| {
                let since = self.warming_since.get(*name).map_or(Duration::ZERO, |since| now.duration_since(*since));
                patience.is_some_and(|patience| since >= patience)
            })
            .map(|(name, _)| name.clone())
            .collect();
        let mut changed = !self.bind_failures.is_empty();
        for name in overdue {
            tracing::warn!(cluster = %name, "no endpoints came in time; the cluster is used without");
            let outcome = self.config.expire(&name);
            self.let_go(&outcome);
            changed = true;
        }
        // A listener may stop asking for routes while they are owed.
        if self.owed.contains(&ResourceType::Route) && self.config.wanted().routes.is_empty() {
            self.owed.remove(&ResourceType::Route);
        }
        if self.config.has_retained() && self.owed.is_empty() && now.duration_since(self.last_update) >= SETTLE {
            self.config.settle();
            changed = true;
        }
        if changed {
            self.publish();
        }
        if self.keep_at.is_some_and(|at| now >= at) {
            self.keep();
        }
        if self.swollen && now.duration_since(self.last_update) >= QUIET {
            self.swollen = false;
            memory::release_free_heap();
            memory::release_program_text();
        }
        self.check_ready();
    }

    fn keep(&mut self) {
        self.keep_at = None;
        if let Some(kept) = &self.kept {
            let all = ResourceType::ALL
                .into_iter()
                .filter(|kind| kept::is_kept(*kind))
                .map(|kind| (kind, self.config.accepted(kind.type_url())));
            if let Err(error) = kept.save(all) {
                tracing::warn!(%error, "the configuration could not be kept for the next start");
            }
        }
    }
}

/// Whether the node says that its names are resolved beside the proxy (Istio: `ISTIO_META_DNS_CAPTURE`); not at gateways.
fn asks_for_names(bootstrap: &Bootstrap) -> bool {
    if !bootstrap.node.id.starts_with("sidecar~") {
        return false;
    }
    let metadata = bootstrap.node.metadata.as_ref();
    let value = metadata.and_then(|metadata| metadata.fields.get("DNS_CAPTURE")).and_then(|value| value.kind.as_ref());
    match value {
        Some(Kind::BoolValue(on)) => *on,
        Some(Kind::StringValue(text)) => matches!(text.as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE"),
        _ => false,
    }
}

fn read_certificate(source: &CertificateSource) -> Result<Certificate, String> {
    match source {
        CertificateSource::Inline { certificate, key } => {
            Certificate::from_pem(certificate, key).map_err(|error| error.to_string())
        }
        CertificateSource::Files { certificate, key } => {
            let chain = std::fs::read(certificate).map_err(|error| format!("{certificate}: {error}"))?;
            let key_pem = std::fs::read(key).map_err(|error| format!("{key}: {error}"))?;
            Certificate::from_pem(&chain, &key_pem).map_err(|error| error.to_string())
        }
        CertificateSource::Secret(name) => Err(format!("it only points at another secret, {name}")),
    }
}

fn read_roots(source: &Roots) -> Result<TrustRoots, String> {
    match source {
        Roots::Inline(pem) => TrustRoots::from_pem(pem).map_err(|error| error.to_string()),
        Roots::File(path) => {
            let pem = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
            TrustRoots::from_pem(&pem).map_err(|error| error.to_string())
        }
        Roots::None | Roots::System | Roots::Secret(_) => Err("it holds no roots".to_owned()),
    }
}

#[cfg(test)]
mod tests;
