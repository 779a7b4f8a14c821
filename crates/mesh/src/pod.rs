//! Pods, nodes and WorkloadEntries as the mesh sees them: somebody at an address, with an identity.

use std::sync::Arc;

use mizzen_api::kubernetes::{Pod as PodObject, PodSpec};
use mizzen_api::networking::WorkloadEntry;
use mizzen_config::Meta;
use mizzen_types::{Labels, Locality};

use crate::endpoint::Workload;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub workload: Arc<Workload>,
    pub node: Arc<str>,
    /// All its addresses; the first is the main one. None once it has ended: they may be another pod's by then.
    pub addresses: Vec<Arc<str>>,
    /// Its addresses are those of its node.
    pub on_host_network: bool,
    pub ready: bool,
    /// Named container ports.
    pub ports: Vec<(String, u16)>,
}

impl Pod {
    pub(crate) fn read(namespace: &str, name: &str, meta: &Meta, pod: &PodObject, node: Option<&Locality>) -> Self {
        let labels = &meta.labels;
        let from_label = labels.get("istio-locality").map(|text| Locality::parse(&text.replace('.', "/")));
        let workload = Workload {
            name: workload_name(name, meta).into(),
            namespace: namespace.into(),
            service_account: pod.spec.service_account().into(),
            locality: from_label.or_else(|| node.cloned()).unwrap_or_default(),
            sidecar: labels.get(Workload::TLS_MODE_LABEL) == Some("istio"),
            labels: labels.clone(),
            own_name: own_name(name, &pod.spec).map(Into::into),
        };
        let mut addresses: Vec<Arc<str>> = Vec::new();
        let listed = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str());
        let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        for ip in [pod.status.pod_ip.as_str()].into_iter().chain(listed).filter(|ip| !ended && !ip.is_empty()) {
            if !addresses.iter().any(|known| **known == *ip) {
                addresses.push(ip.into());
            }
        }
        let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
        Self {
            workload: Arc::new(workload),
            node: pod.spec.node_name.as_str().into(),
            addresses,
            on_host_network: pod.spec.host_network,
            ready: pod.status.is_ready(),
            ports: ports
                .filter(|port| !port.name.is_empty())
                .map(|port| (port.name.clone(), port.container_port))
                .collect(),
        }
    }

    pub fn named_port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }
}

/// A pod that has a subdomain and names no host is called by its own name there.
fn own_name(pod: &str, spec: &PodSpec) -> Option<String> {
    let host = if spec.hostname.is_empty() { pod } else { &spec.hostname };
    (!spec.subdomain.is_empty()).then(|| format!("{host}.{}", spec.subdomain))
}

/// What people call the workload that a pod is one of: its Deployment, StatefulSet, CronJob, …; the pod itself when nobody
/// made it. A Deployment owns its pods through ReplicaSets, and a CronJob through Jobs, whose names begin with its own.
fn workload_name<'a>(pod: &'a str, meta: &'a Meta) -> &'a str {
    let Some(controller) = meta.controller.as_ref().filter(|_| !meta.generate_name.is_empty()) else { return pod };
    let name = controller.name.as_str();
    match controller.kind.as_str() {
        "ReplicaSet" => {
            let hash = meta.labels.get("pod-template-hash").unwrap_or_default();
            let deployment = name.strip_suffix(hash).filter(|_| !hash.is_empty());
            deployment.and_then(|name| name.strip_suffix('-')).unwrap_or(name)
        }
        "Job" => match name.rsplit_once('-') {
            Some((job, time))
                if (8..=10).contains(&time.len()) && !job.is_empty() && time.bytes().all(|b| b.is_ascii_digit()) =>
            {
                job
            }
            _ => name,
        },
        _ => name,
    }
}

/// A workload that is no pod: a WorkloadEntry, or an endpoint written into a ServiceEntry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outsider {
    pub(crate) workload: Arc<Workload>,
    pub(crate) spec: WorkloadEntry,
}

impl Outsider {
    /// `labels` are the object's own; they win over those in the spec (reference: semantics 201).
    pub(crate) fn read(namespace: &str, name: &str, labels: &Labels, spec: &WorkloadEntry) -> Self {
        let all: Labels = spec.labels.iter().chain(labels.iter()).collect();
        let sidecar = match all.get(Workload::TLS_MODE_LABEL) {
            Some(mode) => mode == "istio",
            None => !spec.service_account.is_empty(),
        };
        let locality = if spec.locality.is_empty() {
            all.get("istio-locality").map(|text| Locality::parse(&text.replace('.', "/"))).unwrap_or_default()
        } else {
            Locality::parse(&spec.locality)
        };
        let workload = Workload {
            name: name.into(),
            namespace: namespace.into(),
            service_account: spec.service_account.as_str().into(),
            locality,
            sidecar,
            labels: all,
            own_name: None,
        };
        Self { workload: Arc::new(workload), spec: spec.clone() }
    }

    /// The port at which it answers for a service port (reference: semantics 199).
    pub(crate) fn port(&self, name: &str, number: u16, target: Option<u16>) -> u16 {
        if self.spec.address.starts_with("unix://") {
            return 0;
        }
        self.spec.ports.get(name).copied().or(target).unwrap_or(number)
    }

    pub(crate) fn weight(&self) -> u32 {
        self.spec.weight.max(1)
    }
}

/// Locality of a node, from its labels.
pub(crate) fn node_locality(labels: &Labels) -> Locality {
    let of = |keys: [&str; 2]| keys.iter().find_map(|key| labels.get(key)).unwrap_or_default().to_owned();
    Locality {
        region: of(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
        zone: of(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
        subzone: labels.get("topology.istio.io/subzone").unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mizzen_config::{Controller, Meta};

    use super::workload_name;

    #[track_caller]
    fn check(kind: &str, owner: &str, hash: Option<&str>, expected: &str) {
        let controller = Some(Controller { kind: kind.to_owned(), name: owner.to_owned() });
        let labels = hash.map(|hash| ("pod-template-hash".to_owned(), hash.to_owned())).into_iter().collect();
        let meta = Meta { labels, generate_name: "made-".to_owned(), controller, ..Meta::default() };
        assert_eq!(workload_name("the-pod", &meta), expected);
        let by_hand = Meta { generate_name: String::new(), ..meta };
        assert_eq!(workload_name("the-pod", &by_hand), "the-pod");
    }

    #[test]
    fn a_pod_is_called_by_what_made_it() {
        check("ReplicaSet", "ratings-v1-5d8f9c7b6", Some("5d8f9c7b6"), "ratings-v1");
        check("ReplicaSet", "ratings-v1-5d8f9c7b6", Some("other"), "ratings-v1-5d8f9c7b6");
        check("ReplicaSet", "ratings-v1-5d8f9c7b6", None, "ratings-v1-5d8f9c7b6");
        check("ReplicaSet", "5d8f9c7b6", Some("5d8f9c7b6"), "5d8f9c7b6");
        check("Deployment", "ratings-v1", None, "ratings-v1");
        check("StatefulSet", "db", None, "db");
        check("Job", "backup-28934560", None, "backup");
        check("Job", "backup-now", None, "backup-now");
        assert_eq!(workload_name("the-pod", &Meta::default()), "the-pod");
    }
}
