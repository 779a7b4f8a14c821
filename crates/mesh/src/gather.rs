//! Who answers for a service: from slices, pods, WorkloadEntries and ServiceEntries (reference: semantics 198 to 205).

use std::collections::BTreeMap;
use std::sync::Arc;

use mizzen_config::Kind;
use mizzen_types::{Labels, Locality};

use crate::Mesh;
use crate::endpoint::{Endpoint, Endpoints, Health, Workload};
use crate::pod::{Outsider, Pod};
use crate::service::{Registry, Resolution, Service, TargetPort};

/// All endpoints that one declaration of a service brings.
pub(crate) fn endpoints(mesh: &Mesh, service: &Service) -> Endpoints {
    match service.registry {
        Registry::Kubernetes => from_slices(mesh, service),
        Registry::ServiceEntry => from_entry(mesh, service),
    }
}

fn from_slices(mesh: &Mesh, service: &Service) -> Endpoints {
    let mut endpoints = Endpoints::default();
    let mut placed = Placed::new();
    let owner = (service.key.namespace.clone(), service.name.clone());
    for slice in mesh.slices.get(&owner).into_iter().flat_map(|slices| slices.values()) {
        if slice.address_type == "FQDN" {
            continue;
        }
        for listed in &slice.endpoints {
            let ready = listed.conditions.ready.unwrap_or(true) || service.publish_not_ready;
            if listed.conditions.terminating == Some(true) && !service.publish_not_ready {
                continue;
            }
            let Some(address) = listed.addresses.first() else { continue };
            let pod = match &listed.target_ref {
                Some(target) if target.kind == "Pod" => {
                    let namespace = if target.namespace.is_empty() { &*owner.0 } else { target.namespace.as_str() };
                    // Who is there is not known yet: the pod's arrival makes these endpoints anew.
                    let Some(pod) = mesh.pod(namespace, &target.name) else { continue };
                    Some(pod)
                }
                _ => None,
            };
            let workload = pod.map_or_else(
                || {
                    let locality = locality_of(mesh, listed);
                    Arc::new(Workload { locality, ..unknown_workload(&owner.0, &service.name) })
                },
                |pod| pod.workload.clone(),
            );
            // Without a number a port means all ports, which no service port does.
            for port in slice.ports.iter().filter(|port| port.port != 0) {
                let Some(of_service) = service.ports.iter().find(|known| known.name == port.name) else { continue };
                let endpoint = Endpoint {
                    address: address.as_str().into(),
                    port: port.port,
                    health: if ready { Health::Healthy } else { Health::Unhealthy },
                    weight: 1,
                    workload: workload.clone(),
                };
                let all = endpoints.by_port.entry(of_service.number).or_default();
                match pod {
                    Some(pod) => place(all, &mut placed, of_service.number, pod, endpoint),
                    None => all.push(endpoint),
                }
            }
        }
    }
    add_selected_entries(mesh, service, &mut endpoints);
    endpoints
}

/// Where the endpoint of a pod stands in the list of a service port, by the pod's place in memory and the port it answers at.
type Placed = BTreeMap<(u16, *const Pod, u16), usize>;

/// A pod of two families stands in two slices, once by each address: it is one endpoint, at the address that the pod has
/// first. Otherwise it would be called twice as often as others, and be ejected by halves.
fn place(all: &mut Vec<Endpoint>, placed: &mut Placed, number: u16, pod: &Arc<Pod>, endpoint: Endpoint) {
    let rank = |address: &str| pod.addresses.iter().position(|own| **own == *address).unwrap_or(usize::MAX);
    match placed.get(&(number, Arc::as_ptr(pod), endpoint.port)).and_then(|at| all.get_mut(*at)) {
        Some(before) if rank(&endpoint.address) < rank(&before.address) => *before = endpoint,
        Some(_) => {}
        None => {
            placed.insert((number, Arc::as_ptr(pod), endpoint.port), all.len());
            all.push(endpoint);
        }
    }
}

/// Where an endpoint is behind which no pod is known: where its node is, else in the zone that its slice names, whose region is
/// that of the nodes there.
fn locality_of(mesh: &Mesh, listed: &mizzen_api::kubernetes::Endpoint) -> Locality {
    if let Some(node) = mesh.nodes.get(listed.node_name.as_str()) {
        return (**node).clone();
    }
    if listed.zone.is_empty() {
        return Locality::default();
    }
    let region = mesh.nodes.values().find(|node| node.zone == listed.zone).map(|node| node.region.clone());
    Locality { region: region.unwrap_or_default(), zone: listed.zone.clone(), subzone: String::new() }
}

/// WorkloadEntries that a Kubernetes Service selects (reference: semantics 202 and 203).
fn add_selected_entries(mesh: &Mesh, service: &Service, endpoints: &mut Endpoints) {
    let Some(selector) = &service.selector else { return };
    for outsider in outsiders_in(mesh, &service.key.namespace).filter(|o| selector.selects(&o.workload.labels)) {
        if outsider.spec.address.parse::<std::net::IpAddr>().is_ok() {
            add_outsider(service, outsider, endpoints);
        }
    }
}

fn outsiders_in<'a>(mesh: &'a Mesh, namespace: &'a Arc<str>) -> impl Iterator<Item = &'a Arc<Outsider>> {
    let first = (namespace.clone(), Arc::from(""));
    let of_namespace = mesh.outsiders.range(first..).take_while(move |((ns, _), _)| ns == namespace);
    of_namespace.map(|(_, outsider)| outsider)
}

fn add_outsider(service: &Service, outsider: &Outsider, endpoints: &mut Endpoints) {
    for port in &service.ports {
        let target = match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => outsider.spec.ports.get(name).copied(),
        };
        endpoints.by_port.entry(port.number).or_default().push(Endpoint {
            address: outsider.spec.address.as_str().into(),
            port: outsider.port(&port.name, port.number, target),
            health: Health::Healthy,
            weight: outsider.weight(),
            workload: outsider.workload.clone(),
        });
    }
}

fn from_entry(mesh: &Mesh, service: &Service) -> Endpoints {
    let mut endpoints = Endpoints::default();
    let Some(object) = mesh.objects.get(&service.origin) else { return endpoints };
    let Kind::ServiceEntry(entry) = &object.kind else { return endpoints };
    if let Some(selector) = &service.selector {
        for outsider in outsiders_in(mesh, &service.key.namespace).filter(|o| selector.selects(&o.workload.labels)) {
            add_outsider(service, outsider, &mut endpoints);
        }
        add_selected_pods(mesh, service, selector, &mut endpoints);
        return endpoints;
    }
    for spec in &entry.endpoints {
        let outsider = Outsider::read(&service.key.namespace, &service.origin.name, &Labels::default(), spec);
        add_outsider(service, &outsider, &mut endpoints);
    }
    let by_name = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if entry.endpoints.is_empty() && by_name && !service.key.host.is_wildcard() {
        // The host itself is looked up (reference: semantics 198).
        for port in &service.ports {
            let TargetPort::Number(target) = port.target else { continue };
            endpoints.by_port.entry(port.number).or_default().push(Endpoint {
                address: service.key.host.as_str().into(),
                port: target,
                health: Health::Healthy,
                weight: 1,
                workload: Arc::new(unknown_workload(&service.key.namespace, &service.origin.name)),
            });
        }
    }
    endpoints
}

fn add_selected_pods(mesh: &Mesh, service: &Service, selector: &Labels, endpoints: &mut Endpoints) {
    let first = (service.key.namespace.clone(), Arc::from(""));
    let of_namespace = mesh.pods.range(first..).take_while(|((ns, _), _)| *ns == service.key.namespace);
    for pod in of_namespace.map(|(_, pod)| pod).filter(|pod| selector.selects(&pod.workload.labels)) {
        let Some(address) = pod.addresses.first() else { continue };
        for port in &service.ports {
            let target = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => pod.named_port(name),
            };
            endpoints.by_port.entry(port.number).or_default().push(Endpoint {
                address: address.clone(),
                port: target.unwrap_or(port.number),
                health: if pod.ready { Health::Healthy } else { Health::Unhealthy },
                weight: 1,
                workload: pod.workload.clone(),
            });
        }
    }
}

/// Nobody is known behind an address, only whose it is.
fn unknown_workload(namespace: &str, name: &str) -> Workload {
    Workload {
        name: name.into(),
        namespace: namespace.into(),
        labels: Labels::default(),
        service_account: "".into(),
        locality: Locality::default(),
        sidecar: false,
        own_name: None,
    }
}
