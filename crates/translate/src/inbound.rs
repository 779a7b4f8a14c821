//! The ports of a workload that its sidecar stands in front of.

use mizzen_mesh::{Mesh, Service, ServicePort, TargetPort};

use crate::view::ProxyView;

/// One workload port that a service leads to.
pub(crate) struct InboundPort<'a> {
    /// Of the workload.
    pub(crate) number: u16,
    pub(crate) service: &'a Service,
    pub(crate) service_port: &'a ServicePort,
}

/// Workload ports with their services, by number. Where several services lead to one port, the oldest decides
/// (reference: semantics 147).
pub(crate) fn inbound_ports<'a>(mesh: &'a Mesh, view: &ProxyView) -> Vec<InboundPort<'a>> {
    let mut ports: Vec<InboundPort<'a>> = Vec::new();
    for service in mesh.services_of_workload(&view.namespace, &view.labels) {
        for service_port in &service.ports {
            let Some(number) = workload_port(mesh, view, service, service_port) else { continue };
            if !ports.iter().any(|known| known.number == number) {
                ports.push(InboundPort { number, service, service_port });
            }
        }
    }
    ports.sort_by_key(|port| port.number);
    ports
}

/// Where this workload answers for a service port: as the endpoints say, else as the service says.
pub(crate) fn workload_port(mesh: &Mesh, view: &ProxyView, service: &Service, port: &ServicePort) -> Option<u16> {
    let endpoints = mesh.endpoints(&service.key);
    let endpoints = endpoints.map(|endpoints| endpoints.on_port(port.number)).unwrap_or_default();
    let mine = endpoints.iter().find(|endpoint| view.addresses.iter().any(|own| **own == *endpoint.address));
    match (mine, &port.target) {
        (Some(endpoint), _) => Some(endpoint.port),
        (None, TargetPort::Number(number)) => Some(*number),
        (None, TargetPort::Name(name)) => {
            view.named_ports.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
        }
    }
}
