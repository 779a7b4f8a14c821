//! One instance: a replica of a workload (or the gateway) with its name, address and identity. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mizzen_types::{SpiffeId, TrustDomain};

use crate::manifest::ValueSource;
use crate::manifest::entry_labels;
use crate::network::{ADMIN_PORT, HEALTH_PORT, STATS_PORT};
use crate::plan::Workload;
use crate::probe::Action;
use crate::probe::check::Target;

pub const GATEWAY: &str = "istio-ingressgateway";
pub const GATEWAY_NAMESPACE: &str = "istio-system";
pub const GATEWAY_ACCOUNT: &str = "istio-ingressgateway-service-account";
/// As in Kubernetes; the suffix of every name.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// One proxy of the mesh and what it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub pod: String,
    pub namespace: String,
    /// Name of the Deployment.
    pub workload: String,
    pub mesh: Ipv4Addr,
    /// Where this machine reaches its proxy: the same address, unless the mesh has a network of its own.
    pub host: Ipv4Addr,
    pub service_account: String,
    /// Those of the pod, with the ones that an injector adds.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub role: Role,
}

/// Addresses at which a proxy is asked about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorPorts {
    pub admin: SocketAddr,
    pub health: SocketAddr,
    pub stats: SocketAddr,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    Gateway {
        bind: Ipv4Addr,
        /// Ports that are opened on `bind`.
        ports: Vec<u16>,
    },
    Sidecar {
        plan: Arc<Workload>,
        /// Port of the workload → port of 127.0.0.1 where the application listens.
        app_ports: BTreeMap<u16, u16>,
    },
}

impl Instance {
    pub fn gateway(mesh: Ipv4Addr, bind: Ipv4Addr, ports: Vec<u16>) -> Self {
        let labels = entry_labels().map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self {
            pod: format!("{GATEWAY}-0"),
            namespace: GATEWAY_NAMESPACE.to_owned(),
            workload: GATEWAY.to_owned(),
            mesh,
            host: mesh,
            service_account: GATEWAY_ACCOUNT.to_owned(),
            labels: with_canonical_labels(labels, GATEWAY),
            annotations: BTreeMap::new(),
            role: Role::Gateway { bind, ports },
        }
    }

    pub fn sidecar(plan: Arc<Workload>, ordinal: u32, mesh: Ipv4Addr, app_ports: BTreeMap<u16, u16>) -> Self {
        Self {
            pod: format!("{}-{ordinal}", plan.name),
            namespace: plan.namespace.clone(),
            workload: plan.name.clone(),
            mesh,
            host: mesh,
            service_account: plan.service_account.clone(),
            labels: with_canonical_labels(plan.labels.clone(), &plan.name),
            annotations: plan.annotations.clone(),
            role: Role::Sidecar { plan, app_ports },
        }
    }

    /// `NAMESPACE/POD`: no two instances share it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.pod)
    }

    /// Name of its folder and unique among all namespaces.
    pub fn folder(&self) -> String {
        if self.namespace == "default" { self.pod.clone() } else { format!("{}.{}", self.pod, self.namespace) }
    }

    /// The id under which its proxy is known to the control plane.
    pub fn node_id(&self) -> String {
        let Self { mesh, pod, namespace, .. } = self;
        let role = match self.role {
            Role::Gateway { .. } => "router",
            Role::Sidecar { .. } => "sidecar",
        };
        format!("{role}~{mesh}~{pod}.{namespace}~{namespace}.svc.{CLUSTER_DOMAIN}")
    }

    pub fn identity(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId::new(trust_domain.clone(), &self.namespace, &self.service_account)
    }

    /// Where this machine asks its proxy.
    pub fn admin(&self) -> SocketAddr {
        (self.host, ADMIN_PORT).into()
    }

    pub fn health(&self) -> SocketAddr {
        (self.host, HEALTH_PORT).into()
    }

    pub fn stats(&self) -> SocketAddr {
        (self.host, STATS_PORT).into()
    }

    /// Where its proxy listens for these questions, in its own network.
    pub fn listens(&self) -> OperatorPorts {
        let (own, all) =
            if self.is_inside() { (Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED) } else { (self.mesh, self.mesh) };
        OperatorPorts {
            admin: (own, ADMIN_PORT).into(),
            health: (all, HEALTH_PORT).into(),
            stats: (all, STATS_PORT).into(),
        }
    }

    /// Whether it has a network of its own.
    pub fn is_inside(&self) -> bool {
        self.host != self.mesh
    }

    /// Where it is reached, for people.
    pub fn shown_address(&self) -> String {
        match &self.role {
            Role::Gateway { bind, ports } => {
                ports.first().map_or_else(|| bind.to_string(), |port| format!("{bind}:{port}"))
            }
            Role::Sidecar { plan, .. } => plan
                .ports
                .first()
                .map_or_else(|| self.mesh.to_string(), |port| format!("{}:{}", self.mesh, port.number)),
        }
    }

    /// The environment that the Deployment gives its container.
    pub fn container_environment(&self, plan: &Workload) -> Vec<(String, String)> {
        let value = |source: &ValueSource| match source {
            ValueSource::Literal(text) => Some(text.clone()),
            ValueSource::Field(field) => self.field(field),
            ValueSource::Unsupported(_) => None,
        };
        plan.env.iter().filter_map(|variable| Some((variable.name.clone(), value(&variable.value)?))).collect()
    }

    /// A field of the pod, by the path that the downward API gives it.
    fn field(&self, path: &str) -> Option<String> {
        let keyed = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
        Some(match path {
            "metadata.name" => self.pod.clone(),
            "metadata.namespace" => self.namespace.clone(),
            "metadata.uid" => format!("{}-{}", self.namespace, self.pod),
            "spec.serviceAccountName" => self.service_account.clone(),
            "spec.nodeName" => NODE.to_owned(),
            "status.podIP" | "status.podIPs" => self.mesh.to_string(),
            "status.hostIP" => Ipv4Addr::LOCALHOST.to_string(),
            _ => {
                let label = keyed("metadata.labels['").and_then(|key| self.labels.get(key));
                label.or_else(|| keyed("metadata.annotations['").and_then(|key| self.annotations.get(key)))?.clone()
            }
        })
    }

    /// Whom a readiness probe of the application asks: its real port, not the proxy's. `None` when there is nothing to
    /// ask, since it has no port.
    pub fn probe_target(&self, action: &Action, listen: Ipv4Addr, environment: &[(String, String)]) -> Option<Target> {
        let Role::Sidecar { plan, app_ports } = &self.role else { return None };
        let address = |port| {
            let number = plan.port(port)?;
            Some(SocketAddr::from((listen, app_ports.get(&number).copied().unwrap_or(number))))
        };
        Some(match action {
            Action::Http { path, port, headers, .. } => {
                Target::Http { address: address(port)?, path: path.clone(), headers: headers.clone() }
            }
            Action::Tcp { port } => Target::Tcp { address: address(port)? },
            Action::Grpc { port, service } => Target::Grpc { address: address(port)?, service: service.clone() },
            Action::Exec { command } => Target::Exec { command: command.clone(), environment: environment.to_vec() },
        })
    }
}

/// Name of the only Kubernetes node.
pub const NODE: &str = "local";

/// What an injector adds to a pod's labels.
fn with_canonical_labels(mut labels: BTreeMap<String, String>, workload: &str) -> BTreeMap<String, String> {
    let first_of = |labels: &BTreeMap<String, String>, keys: &[&str], fallback: &str| {
        keys.iter().find_map(|key| labels.get(*key).cloned()).unwrap_or_else(|| fallback.to_owned())
    };
    let name = first_of(&labels, &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"], workload);
    let revision =
        first_of(&labels, &["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"], "latest");
    labels.insert("service.istio.io/canonical-name".to_owned(), name);
    labels.insert("service.istio.io/canonical-revision".to_owned(), revision);
    labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
    labels
}

#[cfg(test)]
pub(crate) mod tests;
