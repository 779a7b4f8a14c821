//! The immutable snapshot of the whole mesh: services, endpoints, workloads and rules, with the indexes that the
//! translators need.
//!
//! A [`Mesh`] is never changed: [`Mesh::apply`] makes the next one, which shares everything that did not change with it,
//! and tells what did ([`Dirty`]). Not here: what is right or wrong in a resource (`mizzen-config`, `mizzen-analysis`) and
//! what proxies are told (`mizzen-translate`).

#![forbid(unsafe_code)]

mod allot;
mod apply;
mod declare;
pub mod dirty;
pub mod endpoint;
mod gather;
mod locate;
pub mod pod;
pub mod policy;
pub mod rules;
pub mod service;
pub mod sidecar;
pub mod visibility;

use std::sync::Arc;

use mizzen_api::kubernetes::{EndpointSlice, Secret};
use mizzen_api::mesh::MeshConfig;
use mizzen_config::{Change, Object};
use mizzen_types::{Hostname, Labels, Locality, ObjectKey};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

pub use declare::{CLUSTER_DOMAIN, kubernetes_host};
pub use dirty::{Dirty, Named};
pub use endpoint::{Endpoint, Endpoints, Health, Workload};
pub use pod::Pod;
pub use policy::{MtlsMode, PeerPolicy};
pub use rules::{Attachment, DestinationPolicy, DestinationRuleEntry, GatewayRule, Order, VirtualServiceRule};
pub use service::{Registry, Resolution, Service, ServiceKey, ServicePort, TargetPort};
pub use sidecar::{Egress, SidecarRule};
pub use visibility::Visibility;

type Map<K, V> = RedBlackTreeMapSync<K, V>;

/// Everything that is known of the mesh at one moment.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    config: Arc<MeshConfig>,
    /// The objects as they came, to read them again when the mesh configuration changes.
    objects: Map<ObjectKey, Arc<Object>>,
    /// Who declares a service: usually one object.
    declared: Map<ServiceKey, Map<(Registry, Order), Arc<Service>>>,
    services: Map<ServiceKey, Arc<Service>>,
    /// Addresses of services that have none of their own.
    allotment: allot::Allotment,
    services_of_namespace: Map<Arc<str>, RedBlackTreeSetSync<ServiceKey>>,
    /// `ExternalName` services by the host that they stand for.
    aliases: Map<Hostname, RedBlackTreeSetSync<ServiceKey>>,
    endpoints: Map<ServiceKey, Arc<Endpoints>>,
    /// By namespace and Service, then by name of the slice.
    slices: Map<Named, Map<Arc<str>, Arc<EndpointSlice>>>,
    slice_owner: Map<Named, Named>,
    /// Addresses of Services that do not say themselves which they have (`IPAddress`).
    assigned: Map<Named, RedBlackTreeSetSync<Arc<str>>>,
    pods: Map<Named, Arc<Pod>>,
    pods_by_address: Map<Arc<str>, Named>,
    outsiders: Map<Named, Arc<pod::Outsider>>,
    nodes: Map<Arc<str>, Arc<Locality>>,
    virtual_services: rules::VirtualServices,
    destination_rules: rules::DestinationRules,
    gateways: Map<Order, Arc<GatewayRule>>,
    peer_policies: policy::PeerPolicies,
    sidecars: sidecar::Sidecars,
    secrets: Map<Named, Arc<Secret>>,
}

impl Mesh {
    /// The mesh without any object, with Istio's defaults.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The mesh after some changes, and what they touched. Costs what they touch.
    pub fn apply(&self, changes: &[Change]) -> (Arc<Self>, Dirty) {
        apply::apply(self, changes)
    }

    /// Mesh-wide settings.
    pub fn config(&self) -> &Arc<MeshConfig> {
        &self.config
    }

    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.pods.get(&(namespace.into(), name.into()))
    }

    pub fn pod_at(&self, address: &str) -> Option<&Arc<Pod>> {
        self.pods.get(self.pods_by_address.get(address)?)
    }

    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(&(namespace.into(), name.into()))
    }

    /// Gateways that select a workload, oldest first (reference: semantics 78).
    pub fn gateways_for<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a Arc<GatewayRule>> {
        self.gateways.values().filter(|gateway| gateway.spec.selector.selects(labels))
    }

    /// What a workload accepts (reference: semantics 143).
    pub fn peer_policy(&self, namespace: &str, labels: &Labels) -> PeerPolicy {
        self.peer_policies.effective(namespace, labels, &self.config.root_namespace)
    }

    /// The Sidecar resource that a workload obeys (reference: semantics 95).
    pub fn sidecar_for(&self, namespace: &str, labels: &Labels) -> Option<&Arc<SidecarRule>> {
        self.sidecars.effective(namespace, labels, &self.config.root_namespace)
    }

    /// Whether any proxy may be told less than its namespace sees.
    pub fn has_sidecars(&self) -> bool {
        !self.sidecars.is_empty()
    }

    pub fn sidecar(&self, namespace: &str, name: &str) -> Option<&Arc<SidecarRule>> {
        self.sidecars.named(namespace, name)
    }
}

#[cfg(test)]
mod tests;
