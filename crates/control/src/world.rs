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
    clusters: u64,
    routes: u64,
    listeners: u64,
    /// All endpoints.
    endpoints: u64,
    /// Those of one host.
    hosts: HashTrieMapSync<Hostname, u64>,
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
            workloads,
            secrets: _,
        } = dirty;
        let services = *everything || !services.is_empty();
        let rules = !destination_rules.is_empty();
        let peers = !peer_authentications.is_empty();
        // Shared resources may depend on pods by their service accounts, which count as part of services; listeners
        // of one proxy depend on its own pod.
        if services || rules || peers || indirect.endpoints_elsewhere || !gateways.is_empty() {
            touched.clusters = revision;
        }
        if services || rules || peers {
            touched.endpoints = revision;
        }
        if services || rules || !virtual_services.is_empty() || !gateways.is_empty() {
            touched.routes = revision;
        }
        if services
            || rules
            || peers
            || indirect.endpoints_elsewhere
            || !virtual_services.is_empty()
            || !gateways.is_empty()
            || !workloads.is_empty()
        {
            touched.listeners = revision;
        }
        for service in endpoints {
            touched.hosts.insert_mut(service.host.clone(), revision);
        }
        Self { revision, mesh, at, touched }
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

    pub(crate) fn endpoints_since(&self, host: &Hostname) -> u64 {
        self.touched.endpoints.max(self.touched.hosts.get(host).copied().unwrap_or_default())
    }
}
