//! One state of everything that proxies are told from.

use std::sync::Arc;
use std::time::Instant;

use mizzen_mesh::{Dirty, Mesh};
use mizzen_types::Hostname;
use rpds::HashTrieMapSync;

use crate::audience::Indirect;

/// A state of the mesh, and how long which parts of it have been as they are.
#[derive(Debug)]
pub(crate) struct World {
    /// Counts the states since start.
    pub(crate) revision: u64,
    pub(crate) mesh: Arc<Mesh>,
    /// When the change that led to it came in.
    pub(crate) at: Instant,
    touched: Touched,
}

/// The revision in which something last changed that such resources depend on. What was made since is still right.
#[derive(Debug, Clone, Default)]
struct Touched {
    /// The set of clusters as a whole.
    clusters: u64,
    routes: u64,
    listeners: u64,
    /// Clusters and endpoints of all hosts.
    hosts: u64,
    /// Clusters of one host.
    clusters_of: HashTrieMapSync<Hostname, u64>,
    /// Endpoints of one host.
    endpoints_of: HashTrieMapSync<Hostname, u64>,
}

impl World {
    pub(crate) fn first(mesh: Arc<Mesh>, at: Instant) -> Self {
        Self { revision: 0, mesh, at, touched: Touched::default() }
    }

    /// The state after a change.
    pub(crate) fn next(&self, mesh: Arc<Mesh>, dirty: &Dirty, indirect: Indirect, at: Instant) -> Self {
        let revision = self.revision + 1;
        let mut touched = self.touched.clone();
        let Dirty {
            everything,
            services,
            endpoints,
            virtual_services,
            destination_rules,
            gateways,
            peer_authentications,
            sidecars,
            workloads,
            secrets: _,
        } = dirty;
        let services_changed = *everything || !services.is_empty();
        let rules_changed = !destination_rules.is_empty();
        let peers_changed = !peer_authentications.is_empty();
        let imports_changed = !sidecars.is_empty();
        let any_host = *everything || imports_changed || peers_changed || indirect.rules_of_any_host;
        if any_host {
            touched.hosts = revision;
        }
        let of_clusters = services.iter().map(|it| &it.host).chain(destination_rules);
        let in_clusters = endpoints.iter().filter(|_| indirect.endpoints_elsewhere).map(|it| &it.host);
        for host in of_clusters.clone().chain(in_clusters) {
            touched.clusters_of.insert_mut(host.clone(), revision);
        }
        for host in of_clusters.chain(endpoints.iter().map(|it| &it.host)) {
            touched.endpoints_of.insert_mut(host.clone(), revision);
        }
        // Pods count here by what services tell of them, but for a proxy's own.
        let lists_changed = services_changed || indirect.rules_import || !gateways.is_empty();
        if any_host || lists_changed || rules_changed || indirect.endpoints_elsewhere {
            touched.clusters = revision;
        }
        if lists_changed || rules_changed || imports_changed || !virtual_services.is_empty() {
            touched.routes = revision;
        }
        if touched.clusters == revision || touched.routes == revision || !workloads.is_empty() {
            touched.listeners = revision;
        }
        Self { revision, mesh, at, touched }
    }

    /// The same for proxies, after a change that they are told nothing of.
    pub(crate) fn with(&self, mesh: Arc<Mesh>) -> Self {
        Self { revision: self.revision, mesh, at: self.at, touched: self.touched.clone() }
    }

    pub(crate) const fn clusters_since(&self) -> u64 {
        self.touched.clusters
    }

    pub(crate) const fn routes_since(&self) -> u64 {
        self.touched.routes
    }

    pub(crate) const fn listeners_since(&self) -> u64 {
        self.touched.listeners
    }

    pub(crate) fn clusters_of_since(&self, host: &Hostname) -> u64 {
        self.touched.hosts.max(self.touched.clusters_of.get(host).copied().unwrap_or_default())
    }

    pub(crate) fn endpoints_of_since(&self, host: &Hostname) -> u64 {
        self.touched.hosts.max(self.touched.endpoints_of.get(host).copied().unwrap_or_default())
    }
}
