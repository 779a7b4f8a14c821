//! **The state machine**: what a control plane said so far, and what of it can be obeyed now.
//!
//! A resource is compiled once, when its bytes change; one that cannot be obeyed is refused and its last good version
//! stays. What is accepted becomes visible when nothing it names is still on its way:
//!
//! - a cluster with endpoints by EDS, once they came (or were waited for long enough: [`Config::expire`]);
//! - a route table, once every cluster that it names and that is configured is visible;
//! - a listener, once its route tables are visible, and its clusters as for a table;
//! - a removed cluster or route table stays while something visible names it ([`Config::settle`] ends that).
//!
//! So a request never meets a route to a cluster that is about to come or has just gone. A name that is not configured
//! at all does not hold anything back: the route is shown, and its requests are answered with "no cluster".
//!
//! Route tables and endpoints are taken only when a listener or cluster asks for them, so these come first.
//!
//! Costs follow the change: an update of endpoints replaces one cluster's part and looks at no route.

mod counts;
mod decode;
mod show;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mizzen_proto::type_url;
use mizzen_snapshot::cluster::{ClusterPolicy, Discovery, Endpoint, EndpointSet};
use mizzen_snapshot::route::{Action, Target};
use mizzen_snapshot::{Listener, RouteTable, Snapshot};
use mizzen_types::{ClusterName, ListenerName, RouteTableName, SecretName};

use crate::cluster;
use crate::invalid::Invalid;
use crate::limits;
use crate::packed::{Packed, Packer};
use crate::pool::Pool;
use crate::secret::Secret;
use counts::Counts;
use decode::{Compiled, Names};

/// What a control plane, or a file, says about resources of one type.
#[derive(Debug, Clone, Default)]
pub struct Update {
    pub type_url: String,
    pub resources: Vec<Resource>,
    /// Names that are gone (delta).
    pub removed: Vec<String>,
    /// State of the world: listeners and clusters that are not in `resources` are gone. Route tables and endpoints
    /// that are missing are not: they may come in another message.
    pub full: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Resource {
    /// May be empty when only the message says it (state of the world).
    pub name: String,
    pub version: String,
    /// The encoded message, without the `Any` around it.
    pub body: Bytes,
}

/// A resource that is not obeyed; its last good version, if any, stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {name:?}{}: {message}", type_url::short(type_url), if field.is_empty() { String::new() } else { format!(" at {field}") })]
pub struct Refused {
    pub type_url: String,
    pub name: String,
    /// Path of the field, in the names of the `.proto` files; empty for the resource as a whole.
    pub field: String,
    pub message: String,
}

/// What an update came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What is to be obeyed from now on; the same `Arc` as before when nothing visible changed.
    pub snapshot: Arc<Snapshot>,
    pub refused: Vec<Refused>,
    /// Listeners that appeared or changed in `snapshot`.
    pub listeners_changed: Vec<ListenerName>,
    pub listeners_removed: Vec<ListenerName>,
    /// Clusters whose policy or endpoints changed in `snapshot`, or that appeared.
    pub clusters_changed: Vec<ClusterName>,
    pub clusters_removed: Vec<ClusterName>,
    /// Secrets that came, changed, or (`None`) went.
    pub secrets_changed: Vec<(SecretName, Option<Secret>)>,
    /// Type and name of route tables and endpoints that nothing asks for any more. Nobody says that they are gone: they are
    /// just not asked for, and what was accepted of them is let go.
    pub unwanted: Vec<(&'static str, String)>,
    /// [`Config::wanted`] is different from before.
    pub wanted_changed: bool,
}

/// Names to subscribe to, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub routes: Vec<String>,
    pub endpoints: Vec<String>,
    pub secrets: Vec<String>,
}

/// An accepted resource.
#[derive(Debug)]
struct Held<T> {
    fingerprint: u64,
    packed: Packed,
    /// From the bootstrap: a control plane can neither change nor remove it.
    fixed: bool,
    value: T,
}

#[derive(Debug)]
struct HeldCluster {
    policy: Arc<ClusterPolicy>,
    /// Of a cluster that does not need EDS.
    endpoints: Option<Arc<EndpointSet>>,
    fetch_timeout: Option<Duration>,
    /// The same for most clusters, and then one list.
    secrets: Arc<Vec<String>>,
}

#[derive(Debug)]
struct HeldListener {
    listener: Arc<Listener>,
    names: Arc<Names>,
}

#[derive(Debug)]
struct HeldTable {
    table: Arc<RouteTable>,
    names: Arc<Names>,
}

/// All that was accepted, and what of it is visible.
#[derive(Debug, Default)]
pub struct Config {
    listeners: HashMap<ListenerName, Held<HeldListener>>,
    tables: HashMap<RouteTableName, Held<HeldTable>>,
    clusters: HashMap<ClusterName, Held<HeldCluster>>,
    endpoints: HashMap<Arc<str>, Held<Arc<EndpointSet>>>,
    secrets: HashMap<SecretName, Held<Secret>>,

    /// Clusters by the EDS name that their endpoints come under.
    services: HashMap<Arc<str>, Vec<ClusterName>>,
    /// Clusters whose endpoints were waited for long enough.
    expired: HashSet<ClusterName>,

    published: Arc<Snapshot>,
    visible_tables: HashMap<RouteTableName, Arc<Names>>,
    visible_listeners: HashMap<ListenerName, Arc<Names>>,
    /// How many visible tables and listeners name a cluster.
    cluster_users: Counts<ClusterName>,
    /// How many visible listeners name a route table.
    table_users: Counts<RouteTableName>,

    /// Changed, and not visible yet.
    pending_clusters: BTreeSet<ClusterName>,
    pending_tables: BTreeSet<RouteTableName>,
    pending_listeners: BTreeSet<ListenerName>,
    /// Removed, and still visible because something names them.
    retained_clusters: BTreeSet<ClusterName>,
    retained_tables: BTreeSet<RouteTableName>,

    wanted_routes: Counts<RouteTableName>,
    wanted_endpoints: Counts<Arc<str>>,
    wanted_secrets: Counts<String>,

    /// Equal parts of resources are kept once.
    shared_endpoints: Pool<Endpoint>,
    shared_secrets: Pool<Vec<String>>,
    /// By type.
    packers: HashMap<String, Packer>,
}

impl Config {
    pub fn new() -> Self {
        Self::default()
    }

    /// What is visible now.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.published
    }

    /// Takes resources that a control plane cannot change, from the bootstrap.
    pub fn apply_static(&mut self, update: Update) -> Outcome {
        self.take(update, true)
    }

    /// Takes an update. Never fails as a whole: what cannot be obeyed is in [`Outcome::refused`].
    pub fn apply(&mut self, update: Update) -> Outcome {
        self.take(update, false)
    }

    /// Ends the wait for the endpoints of a cluster: it becomes visible without any.
    pub fn expire(&mut self, cluster: &ClusterName) -> Outcome {
        let mut outcome = self.outcome();
        if self.pending_clusters.contains(cluster) && self.clusters.contains_key(cluster) {
            self.expired.insert(cluster.clone());
            self.show(&mut outcome);
        }
        outcome
    }

    /// Lets go of what was removed and is still named: from now on a route to it answers "no cluster". To be called
    /// when a removal has been followed by nothing for some seconds.
    pub fn settle(&mut self) -> Outcome {
        let mut outcome = self.outcome();
        // One that is configured again waits for its endpoints, and its old version serves until then.
        let (again, gone): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.retained_clusters).into_iter().partition(|name| self.clusters.contains_key(name));
        self.retained_clusters = again;
        if !gone.is_empty() {
            let mut snapshot = Snapshot::clone(&self.published);
            for name in gone {
                snapshot.clusters.remove_mut(&name);
                outcome.clusters_removed.push(name);
            }
            self.published = Arc::new(snapshot);
        }
        outcome.snapshot = Arc::clone(&self.published);
        outcome
    }

    /// Whether [`settle`](Self::settle) would change something.
    pub fn has_retained(&self) -> bool {
        self.retained_clusters.iter().any(|name| !self.clusters.contains_key(name))
    }

    /// Clusters that wait for endpoints, and how long they want to wait (`None`: for ever).
    pub fn warming(&self) -> impl Iterator<Item = (&ClusterName, Option<Duration>)> {
        let held = |name| self.clusters.get(name).map(|held| (name, held.value.fetch_timeout));
        self.pending_clusters.iter().filter_map(held)
    }

    /// Accepted listeners that are not visible yet: what they name is still on its way.
    pub fn waiting_listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.pending_listeners.iter().filter_map(|name| self.listeners.get(name)).map(|held| &held.value.listener)
    }

    /// Names of the route tables, endpoints and secrets that accepted resources ask for.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            routes: self.wanted_routes.names().map(ToString::to_string).collect(),
            endpoints: self.wanted_endpoints.names().map(ToString::to_string).collect(),
            secrets: self.wanted_secrets.names().cloned().collect(),
        }
    }

    pub fn secret(&self, name: &SecretName) -> Option<&Secret> {
        self.secrets.get(name).map(|held| &held.value)
    }

    /// Whether every route table that is asked for is visible.
    pub fn has_wanted_tables(&self) -> bool {
        self.wanted_routes.names().all(|name| self.published.routes.contains_key(name))
    }

    /// The accepted resources of a type as they came, by name. Secrets are not among them.
    pub fn accepted(&self, type_url: &str) -> Vec<(&str, &Packed)> {
        fn all<K: AsRef<str>, T>(held: &HashMap<K, Held<T>>) -> Vec<(&str, &Packed)> {
            let mut resources: Vec<_> = held.iter().map(|(name, held)| (name.as_ref(), &held.packed)).collect();
            resources.sort_unstable_by_key(|(name, _)| *name);
            resources
        }
        match type_url {
            type_url::LISTENER => all(&self.listeners),
            type_url::ROUTE => all(&self.tables),
            type_url::CLUSTER => all(&self.clusters),
            type_url::ENDPOINT => all(&self.endpoints),
            _ => Vec::new(),
        }
    }

    /// One of them.
    pub fn accepted_as(&self, type_url: &str, name: &str) -> Option<&Packed> {
        match type_url {
            type_url::LISTENER => self.listeners.get(name).map(|held| &held.packed),
            type_url::ROUTE => self.tables.get(name).map(|held| &held.packed),
            type_url::CLUSTER => self.clusters.get(name).map(|held| &held.packed),
            type_url::ENDPOINT => self.endpoints.get(name).map(|held| &held.packed),
            _ => None,
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            snapshot: Arc::clone(&self.published),
            refused: Vec::new(),
            listeners_changed: Vec::new(),
            listeners_removed: Vec::new(),
            clusters_changed: Vec::new(),
            clusters_removed: Vec::new(),
            secrets_changed: Vec::new(),
            unwanted: Vec::new(),
            wanted_changed: false,
        }
    }

    fn take(&mut self, update: Update, fixed: bool) -> Outcome {
        let mut outcome = self.outcome();
        let mut present = HashSet::new();
        for resource in update.resources {
            let name = resource.name.clone();
            match self.accept(&update.type_url, resource, fixed, &mut present, &mut outcome) {
                Ok(()) => {}
                Err((named, invalid)) => {
                    let name = if named.is_empty() { name } else { named };
                    // What is refused is not gone.
                    present.insert(name.clone());
                    let Invalid { field, message } = invalid;
                    outcome.refused.push(Refused { type_url: update.type_url.clone(), name, field, message });
                }
            }
        }
        let mut removed = update.removed;
        if update.full && !fixed {
            removed.extend(self.missing(&update.type_url, &present));
        }
        for name in &removed {
            self.remove(&update.type_url, name, &mut outcome);
        }
        self.show(&mut outcome);
        outcome.wanted_changed = [
            self.wanted_routes.take_changed(),
            self.wanted_endpoints.take_changed(),
            self.wanted_secrets.take_changed(),
        ]
        .contains(&true);
        outcome
    }

    /// Takes one resource; the error has the resource's name as far as it is known.
    fn accept(
        &mut self,
        type_url: &str,
        resource: Resource,
        fixed: bool,
        present: &mut HashSet<String>,
        outcome: &mut Outcome,
    ) -> Result<(), (String, Invalid)> {
        let fingerprint = xxhash_rust::xxh64::xxh64(&resource.body, 0);
        if !resource.name.is_empty() && self.same(type_url, &resource.name, fingerprint) {
            present.insert(resource.name);
            return Ok(());
        }
        let (name, compiled) = decode::decode(type_url, &resource, fingerprint)?;
        // Late for somebody who asked and does not any more: kept, it would stay for ever.
        let asked = match type_url {
            type_url::ROUTE => self.wanted_routes.has(name.as_str()),
            type_url::ENDPOINT => self.wanted_endpoints.has(name.as_str()),
            _ => true,
        };
        if !asked {
            return Ok(());
        }
        let wrong = |message: &str| Err((name.clone(), Invalid::new(message)));
        if !present.insert(name.clone()) {
            return wrong("the same name is in this update twice");
        }
        if self.same(type_url, &name, fingerprint) {
            return Ok(());
        }
        if !fixed && self.is_fixed(type_url, &name) {
            return wrong("a resource of this name is in the bootstrap and cannot be changed");
        }
        if self.count(type_url) >= limits::RESOURCES {
            return wrong(&format!(
                "there are {} resources of this type already, which is the limit",
                limits::RESOURCES
            ));
        }
        let packed = match type_url {
            type_url::SECRET => Packed::default(),
            _ => self.packers.entry(type_url.to_owned()).or_default().pack(&resource.version, &resource.body),
        };
        match compiled {
            Compiled::Listener(listener, names) => {
                self.wanted_routes.add(&names.tables);
                self.wanted_secrets.add(&names.secrets);
                let name = listener.name.clone();
                let value = HeldListener { listener: Arc::new(*listener), names: Arc::new(names) };
                let old = self.listeners.insert(name.clone(), Held { fingerprint, packed, fixed, value });
                self.forget_listener(old, outcome);
                self.pending_listeners.insert(name);
            }
            Compiled::Table(mut table, mut names) => {
                self.share_names(&mut table, &mut names);
                let name = table.name.clone();
                let value = HeldTable { table: Arc::new(*table), names: Arc::new(names) };
                self.tables.insert(name.clone(), Held { fingerprint, packed, fixed, value });
                self.retained_tables.remove(&name);
                self.pending_tables.insert(name);
            }
            Compiled::Cluster(cluster, secrets) => {
                let cluster::Compiled { policy, endpoints, fetch_timeout } = *cluster;
                let name = policy.name.clone();
                if let Discovery::Eds { service_name } = &policy.discovery {
                    self.wanted_endpoints.add(std::slice::from_ref(service_name));
                    // Few services have more than one.
                    let clusters = self.services.entry(service_name.clone()).or_insert_with(|| Vec::with_capacity(1));
                    if !clusters.contains(&name) {
                        clusters.push(name.clone());
                    }
                }
                self.wanted_secrets.add(&secrets);
                let secrets = self.shared_secrets.share(Arc::new(secrets));
                let (policy, endpoints) = (Arc::new(policy), endpoints.map(Arc::new));
                let value = HeldCluster { policy, endpoints, fetch_timeout, secrets };
                let old = self.clusters.insert(name.clone(), Held { fingerprint, packed, fixed, value });
                self.forget_cluster(&name, old, outcome);
                self.pending_clusters.insert(name);
            }
            Compiled::Endpoints(mut endpoints) => {
                for endpoint in endpoints.localities.iter_mut().flat_map(|locality| &mut locality.endpoints) {
                    *endpoint = self.shared_endpoints.share(Arc::clone(endpoint));
                }
                let held = Held { fingerprint, packed, fixed, value: Arc::new(*endpoints) };
                let clusters = self.services.get_key_value(name.as_str());
                let name = clusters.map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
                self.endpoints.insert(Arc::clone(&name), held);
                for cluster in self.services.get(&name).into_iter().flatten() {
                    self.expired.remove(cluster);
                    self.pending_clusters.insert(cluster.clone());
                }
            }
            Compiled::Secret(secret) => {
                let name = SecretName::from(name);
                outcome.secrets_changed.push((name.clone(), Some(secret.clone())));
                self.secrets.insert(name, Held { fingerprint, packed, fixed, value: secret });
            }
        }
        Ok(())
    }

    /// Names of clusters that are here already are taken from these.
    fn share_names(&self, table: &mut RouteTable, names: &mut Names) {
        let share = |name: &mut ClusterName| {
            if let Some((known, _)) = self.clusters.get_key_value(name) {
                name.clone_from(known);
            }
        };
        names.clusters.iter_mut().for_each(share);
        // It was compiled just now: nobody else holds its parts.
        let hosts = table.hosts.iter_mut().filter_map(Arc::get_mut);
        for route in hosts.flat_map(|host| &mut host.routes).filter_map(Arc::get_mut) {
            let Action::Forward(forward) = &mut route.action else { continue };
            match &mut forward.target {
                Target::Cluster(name) => share(name),
                Target::Weighted { clusters, .. } => clusters.iter_mut().for_each(|choice| share(&mut choice.cluster)),
                Target::ClusterHeader(_) => {}
            }
        }
    }

    fn same(&self, type_url: &str, name: &str, fingerprint: u64) -> bool {
        let have = match type_url {
            type_url::LISTENER => self.listeners.get(name).map(|held| held.fingerprint),
            type_url::ROUTE => self.tables.get(name).map(|held| held.fingerprint),
            type_url::CLUSTER => self.clusters.get(name).map(|held| held.fingerprint),
            type_url::ENDPOINT => self.endpoints.get(name).map(|held| held.fingerprint),
            type_url::SECRET => self.secrets.get(name).map(|held| held.fingerprint),
            _ => None,
        };
        have == Some(fingerprint)
    }

    fn is_fixed(&self, type_url: &str, name: &str) -> bool {
        match type_url {
            type_url::LISTENER => self.listeners.get(name).is_some_and(|held| held.fixed),
            type_url::CLUSTER => self.clusters.get(name).is_some_and(|held| held.fixed),
            type_url::SECRET => self.secrets.get(name).is_some_and(|held| held.fixed),
            _ => false,
        }
    }

    fn count(&self, type_url: &str) -> usize {
        match type_url {
            type_url::LISTENER => self.listeners.len(),
            type_url::ROUTE => self.tables.len(),
            type_url::CLUSTER => self.clusters.len(),
            type_url::ENDPOINT => self.endpoints.len(),
            _ => self.secrets.len(),
        }
    }

    /// Resources that a state of the world does not have any more.
    fn missing(&self, type_url: &str, present: &HashSet<String>) -> Vec<String> {
        fn gone<K: AsRef<str>, T>(held: &HashMap<K, Held<T>>, present: &HashSet<String>) -> Vec<String> {
            let names = held.iter().filter(|(_, held)| !held.fixed).map(|(name, _)| name.as_ref());
            names.filter(|name| !present.contains(*name)).map(str::to_owned).collect()
        }
        match type_url {
            type_url::LISTENER => gone(&self.listeners, present),
            type_url::CLUSTER => gone(&self.clusters, present),
            _ => Vec::new(),
        }
    }

    fn remove(&mut self, type_url: &str, name: &str, outcome: &mut Outcome) {
        if self.is_fixed(type_url, name) {
            return;
        }
        match type_url {
            type_url::LISTENER => {
                let old = self.listeners.remove(name);
                self.pending_listeners.insert(name.into());
                self.forget_listener(old, outcome);
            }
            type_url::ROUTE => {
                self.tables.remove(name);
                self.pending_tables.insert(name.into());
            }
            type_url::CLUSTER => {
                let name = ClusterName::from(name);
                let old = self.clusters.remove(&name);
                self.expired.remove(&name);
                self.forget_cluster(&name, old, outcome);
                self.pending_clusters.insert(name);
            }
            // Endpoints go with their cluster; a cluster that stays keeps the last it heard of.
            type_url::ENDPOINT => {}
            _ => {
                let name = SecretName::from(name);
                if self.secrets.remove(&name).is_some() {
                    outcome.secrets_changed.push((name, None));
                }
            }
        }
    }

    /// Takes back what the former version of a listener asked for, unless it is still visible.
    fn forget_listener(&mut self, old: Option<Held<HeldListener>>, outcome: &mut Outcome) {
        if let Some(old) = old {
            self.wanted_secrets.remove(&old.value.names.secrets);
            self.forget_tables(&old.value.names, outcome);
        }
    }

    /// A listener stops asking for its tables; those that nobody asks for any more are let go.
    fn forget_tables(&mut self, names: &Names, outcome: &mut Outcome) {
        self.wanted_routes.remove(&names.tables);
        for name in &names.tables {
            if self.wanted_routes.has(name) {
                continue;
            }
            outcome.unwanted.push((type_url::ROUTE, name.to_string()));
            if self.tables.remove(name).is_some() {
                self.pending_tables.insert(name.clone());
            }
        }
    }

    fn forget_cluster(&mut self, name: &ClusterName, old: Option<Held<HeldCluster>>, outcome: &mut Outcome) {
        let Some(old) = old else { return };
        self.wanted_secrets.remove(&old.value.secrets);
        let Discovery::Eds { service_name } = &old.value.policy.discovery else { return };
        self.wanted_endpoints.remove(std::slice::from_ref(service_name));
        let renamed =
            self.clusters.get(name).is_none_or(|new| new.value.policy.discovery != old.value.policy.discovery);
        if renamed && let Some(clusters) = self.services.get_mut(service_name) {
            clusters.retain(|other| other != name);
        }
        if !self.wanted_endpoints.has(service_name) {
            self.services.remove(service_name);
            self.endpoints.remove(service_name);
            outcome.unwanted.push((type_url::ENDPOINT, service_name.to_string()));
        }
    }
}

#[cfg(test)]
mod tests;
