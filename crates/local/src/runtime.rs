//! The Kubernetes objects that a cluster would make by itself: Pods, EndpointSlices, Namespaces, and the gateway's
//! Service. The control plane reads them as it reads everything else, from files. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::instance::{GATEWAY, GATEWAY_ACCOUNT, GATEWAY_NAMESPACE, Instance, NODE, Role};
use crate::manifest::{Manifests, PortRef, Service, entry_labels};

/// Label of a generated EndpointSlice: whether all its endpoints are ready. By it the supervisor sees when the control
/// plane has read the last change.
pub const ALL_READY_LABEL: &str = "mizzen.dev/all-ready";

/// A file name and the objects in it.
pub type Files = BTreeMap<String, String>;

/// An instance and whether it takes requests.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    pub instance: &'a Instance,
    pub ready: bool,
    /// It is going away: no endpoint any more.
    pub leaving: bool,
}

/// All objects for a mesh of these instances. `gateway_ports` are the ports of Gateway servers, each with the one that
/// is really opened.
pub fn objects(
    manifests: &Manifests,
    placed: &[Placed<'_>],
    gateway_ports: &BTreeMap<u16, u16>,
    trust_domain: &str,
) -> Files {
    let mut files = Files::new();
    if !manifests.has_mesh_config {
        files.insert("mesh-config.yaml".to_owned(), stream([mesh_config(trust_domain)]));
    }
    files.insert("mesh.yaml".to_owned(), stream(namespaces(manifests, placed).chain(gateway_objects(gateway_ports))));
    for place in placed {
        files.insert(format!("pod-{}.yaml", place.instance.folder()), stream([pod(place)]));
    }
    let gateway_service = gateway_service(gateway_ports);
    for service in manifests.services.iter().chain([&gateway_service]).filter(|service| !service.selector.is_empty()) {
        let name = format!("endpoints-{}.{}.yaml", service.name, service.namespace);
        files.insert(name, stream(endpoint_slices(service, placed)));
    }
    files
}

fn stream(objects: impl IntoIterator<Item = Value>) -> String {
    let mut text = String::from("# Written by mizzen; changes are overwritten.\n");
    for (index, object) in objects.into_iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        text.push_str(&crate::yaml(&object));
    }
    text
}

/// The mesh configuration for those who wrote none: as Istio's, with access logs, since on one machine somebody wants to
/// see what happens.
fn mesh_config(trust_domain: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": GATEWAY_NAMESPACE},
        "data": {"mesh": format!("accessLogFile: /dev/stdout\ntrustDomain: {trust_domain}\n")},
    })
}

/// Namespaces that are used but that nobody wrote.
fn namespaces<'a>(manifests: &'a Manifests, placed: &'a [Placed<'_>]) -> impl Iterator<Item = Value> + 'a {
    let used: BTreeSet<&str> = placed
        .iter()
        .map(|place| place.instance.namespace.as_str())
        .chain(manifests.services.iter().map(|service| service.namespace.as_str()))
        .chain(["default", GATEWAY_NAMESPACE])
        .collect();
    used.into_iter().filter(|name| !manifests.namespaces.iter().any(|written| written.name == *name)).map(|name| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
    })
}

fn gateway_objects(ports: &BTreeMap<u16, u16>) -> impl Iterator<Item = Value> {
    let labels: BTreeMap<_, _> = entry_labels().into_iter().collect();
    let service = gateway_service(ports);
    let written: Vec<Value> = service
        .ports
        .iter()
        .map(|port| match &port.target {
            PortRef::Number(target) => {
                json!({"name": port.name, "port": port.number, "protocol": "TCP", "targetPort": target})
            }
            PortRef::Name(target) => {
                json!({"name": port.name, "port": port.number, "protocol": "TCP", "targetPort": target})
            }
        })
        .collect();
    [
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": GATEWAY_ACCOUNT, "namespace": GATEWAY_NAMESPACE},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": GATEWAY, "namespace": GATEWAY_NAMESPACE, "labels": labels},
            "spec": {"type": "LoadBalancer", "selector": labels, "ports": written},
        }),
    ]
    .into_iter()
}

pub(crate) fn gateway_service(ports: &BTreeMap<u16, u16>) -> Service {
    let port = |(number, target): (&u16, &u16)| crate::manifest::ServicePort {
        name: format!("port-{number}"),
        number: *number,
        target: PortRef::Number(*target),
        transport: "TCP".to_owned(),
        app_protocol: None,
    };
    Service {
        namespace: GATEWAY_NAMESPACE.to_owned(),
        name: GATEWAY.to_owned(),
        selector: entry_labels().map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ports: ports.iter().map(port).collect(),
        cluster_ip: String::new(),
        external_name: false,
    }
}

/// What an API server says of the addresses that it has given to Services.
pub fn addresses<'a>(assigned: impl Iterator<Item = (&'a (String, String), &'a Ipv4Addr)>) -> String {
    stream(assigned.map(|((namespace, name), address)| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": address.to_string()},
            "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
        })
    }))
}

fn pod(place: &Placed<'_>) -> Value {
    let instance = place.instance;
    let status = if place.ready { "True" } else { "False" };
    let ports: Vec<Value> = match &instance.role {
        Role::Gateway { ports, .. } => ports.iter().map(|port| json!({"containerPort": port})).collect(),
        Role::Sidecar { plan, .. } => plan
            .ports
            .iter()
            .map(|port| match port.name.as_str() {
                "" => json!({"containerPort": port.number}),
                name => json!({"containerPort": port.number, "name": name}),
            })
            .collect(),
    };
    let (container, image) = match &instance.role {
        Role::Gateway { .. } => ("istio-proxy", "proxy"),
        Role::Sidecar { plan, .. } => (plan.container.as_str(), plan.image.as_str()),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": instance.pod,
            "generateName": format!("{}-", instance.workload),
            "namespace": instance.namespace,
            "labels": instance.labels,
            "annotations": instance.annotations,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": instance.workload, "controller": true}],
        },
        "spec": {
            "serviceAccountName": instance.service_account,
            "nodeName": NODE,
            "containers": [{"name": container, "image": image, "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "podIP": instance.mesh.to_string(),
            "podIPs": [{"ip": instance.mesh.to_string()}],
            "hostIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": status}],
        },
    })
}

/// One slice for each set of port numbers: a named target port may be another number in every pod.
fn endpoint_slices(service: &Service, placed: &[Placed<'_>]) -> Vec<Value> {
    let mut groups: BTreeMap<Vec<(String, u16)>, Vec<Value>> = BTreeMap::new();
    for place in placed.iter().filter(|place| service.selects(&place.instance.namespace, &place.instance.labels)) {
        let instance = place.instance;
        let number = |target: &PortRef| match (&instance.role, target) {
            (Role::Sidecar { plan, .. }, target) => plan.port(target),
            (Role::Gateway { .. }, PortRef::Number(number)) => Some(*number),
            (Role::Gateway { .. }, PortRef::Name(_)) => None,
        };
        let ports = service.ports.iter().filter_map(|port| Some((port.name.clone(), number(&port.target)?))).collect();
        let ready = place.ready && !place.leaving;
        groups.entry(ports).or_default().push(json!({
            "addresses": [instance.mesh.to_string()],
            "conditions": {"ready": ready, "serving": place.ready, "terminating": place.leaving},
            "nodeName": NODE,
            "targetRef": {"kind": "Pod", "name": instance.pod, "namespace": instance.namespace},
        }));
    }
    let slice = |index: usize, ports: Vec<(String, u16)>, endpoints: Vec<Value>| {
        let all_ready = endpoints.iter().all(|endpoint| endpoint["conditions"]["ready"] == true);
        let ports: Vec<Value> = ports
            .iter()
            .map(|(name, number)| {
                let written = service.ports.iter().find(|port| port.name == *name);
                let mut port = json!({"name": name, "port": number, "protocol": written.map_or("TCP", |port| port.transport.as_str())});
                if let Some(protocol) = written.and_then(|port| port.app_protocol.as_deref()) {
                    port["appProtocol"] = protocol.into();
                }
                port
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}", service.name, index + 1),
                "namespace": service.namespace,
                "labels": {"kubernetes.io/service-name": service.name, ALL_READY_LABEL: all_ready.to_string()},
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        })
    };
    groups.into_iter().enumerate().map(|(index, (ports, endpoints))| slice(index, ports, endpoints)).collect()
}

#[cfg(test)]
mod tests;
