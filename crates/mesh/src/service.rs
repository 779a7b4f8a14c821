//! Services: what can be called by name, whoever declared it. Not here: who answers (see `endpoint`).

use std::net::IpAddr;
use std::sync::Arc;

use mizzen_types::{Hostname, Labels, ObjectKey, Protocol};

use crate::visibility::Visibility;

/// A host name within the namespace that declared it: two namespaces may declare one host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub host: Hostname,
    pub namespace: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Registry {
    Kubernetes,
    ServiceEntry,
}

/// How a proxy finds the endpoints of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The control plane tells them.
    Endpoints,
    /// The proxy resolves every endpoint's name and uses all addresses.
    Dns,
    /// The proxy resolves one name and uses one address of it.
    DnsRoundRobin,
    /// Wherever the client wanted to go: headless services, and entries without resolution.
    Passthrough,
    /// An `ExternalName` service: another spelling of `Service::alias_of`.
    Alias,
    /// The proxy resolves the requested name. Not obeyed yet: nothing is generated for it.
    DynamicDns,
}

/// Where the workload listens for a service port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetPort {
    Number(u16),
    /// A named port of the workload's containers.
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub number: u16,
    pub name: String,
    pub protocol: Protocol,
    pub target: TargetPort,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub key: ServiceKey,
    /// Kubernetes name; for a ServiceEntry the host.
    pub name: Arc<str>,
    pub registry: Registry,
    /// The object that declares it.
    pub origin: ObjectKey,
    pub created: i64,
    /// TCP ports only, in the order of the object.
    pub ports: Vec<ServicePort>,
    /// Virtual addresses (or CIDR ranges); none when headless or not assigned.
    pub addresses: Vec<String>,
    /// Whether it is to be given addresses because it has none, and those that it was given before.
    pub wants_addresses: Option<Vec<IpAddr>>,
    /// Those that it is given. Nobody has them: they count for callers whose names are resolved beside their proxy, which then knows
    /// by them whom a connection is for.
    pub given_addresses: Vec<IpAddr>,
    pub resolution: Resolution,
    pub alias_of: Option<Hostname>,
    /// Outside of the mesh: no mesh TLS.
    pub external: bool,
    pub visibility: Visibility,
    /// Labels of the workloads that serve it; `None` when endpoints are listed by hand.
    pub selector: Option<Labels>,
    /// Names that its certificates may carry, besides those of the workloads.
    pub subject_alt_names: Vec<String>,
    pub publish_not_ready: bool,
}

impl Service {
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Kubernetes headless service: no virtual address and the workloads are called directly.
    pub fn is_headless(&self) -> bool {
        self.registry == Registry::Kubernetes && self.resolution == Resolution::Passthrough
    }
}
