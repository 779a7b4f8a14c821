//! What a change touched, by kind and name, so that only what depends on it is made and sent again.

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_types::Hostname;

use crate::service::ServiceKey;

/// Namespace and name.
pub type Named = (Arc<str>, Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dirty {
    /// The mesh configuration itself: nothing that was made before may be reused.
    pub everything: bool,
    /// Services that came, went, or changed in ports, addresses, or in what clusters say of their endpoints.
    pub services: BTreeSet<ServiceKey>,
    /// Services whose endpoints changed: the short way.
    pub endpoints: BTreeSet<ServiceKey>,
    /// Hosts of VirtualServices that changed, as written.
    pub virtual_services: BTreeSet<Hostname>,
    /// Hosts of DestinationRules that changed.
    pub destination_rules: BTreeSet<Hostname>,
    /// Gateways that changed.
    pub gateways: BTreeSet<Named>,
    /// Namespaces in which PeerAuthentications changed; the root namespace stands for all.
    pub peer_authentications: BTreeSet<Arc<str>>,
    /// Namespaces in which Sidecar resources changed; the root namespace stands for all.
    pub sidecars: BTreeSet<Arc<str>>,
    /// Pods that changed: a proxy running there has to be looked at anew.
    pub workloads: BTreeSet<Named>,
    pub secrets: BTreeSet<Named>,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing but endpoint lists changed.
    pub fn only_endpoints(&self) -> bool {
        let rest = Self { endpoints: BTreeSet::new(), workloads: BTreeSet::new(), ..self.clone() };
        rest.is_empty() && !self.endpoints.is_empty()
    }

    pub fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.services.extend(other.services);
        self.endpoints.extend(other.endpoints);
        self.virtual_services.extend(other.virtual_services);
        self.destination_rules.extend(other.destination_rules);
        self.gateways.extend(other.gateways);
        self.peer_authentications.extend(other.peer_authentications);
        self.sidecars.extend(other.sidecars);
        self.workloads.extend(other.workloads);
        self.secrets.extend(other.secrets);
    }
}
