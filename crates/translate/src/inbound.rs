//! The ports of a workload that its sidecar stands in front of.

use std::borrow::Cow;

use mizzen_api::networking::{ConnectionPoolSettings, IstioIngressListener};
use mizzen_mesh::{Mesh, Service, ServicePort, SidecarRule, TargetPort};
use mizzen_types::Protocol;

use crate::view::{ProxyView, split_address};

/// One workload port that a service leads to, or that a Sidecar resource names.
pub(crate) struct InboundPort<'a> {
    /// Of the workload.
    pub(crate) number: u16,
    pub(crate) service: Option<&'a Service>,
    pub(crate) service_port: Cow<'a, ServicePort>,
    /// The limits of a Sidecar resource, before those of DestinationRules.
    pub(crate) connection_pool: Option<&'a ConnectionPoolSettings>,
    pub(crate) named: Option<NamedPort<'a>>,
}

/// What a Sidecar resource says of a port.
pub(crate) struct NamedPort<'a> {
    /// Address that the port is reached by.
    pub(crate) bind: String,
    pub(crate) application: Option<Application>,
    /// The resource.
    pub(crate) rule: &'a SidecarRule,
}

/// `defaultEndpoint`: where the application listens.
pub(crate) struct Application {
    pub(crate) address: String,
    pub(crate) port: u16,
    /// The workload's own address, so that the application must not see the proxy as its caller.
    pub(crate) own_address: bool,
}

impl InboundPort<'_> {
    /// What its filter chains are called.
    pub(crate) fn chain_name(&self) -> String {
        format!("{}_{}", self.named.as_ref().map_or("0.0.0.0", |named| &named.bind), self.number)
    }
}

/// Workload ports with their services, by number. Where several services lead to one port, the oldest decides
/// (reference: semantics 147). The `ingress` of a Sidecar resource replaces them (semantics 102).
pub(crate) fn inbound_ports<'a>(mesh: &'a Mesh, view: &ProxyView) -> Vec<InboundPort<'a>> {
    let sidecar = view.sidecar(mesh).map(|rule| &**rule);
    let mut ports: Vec<InboundPort<'a>> = Vec::new();
    for service in mesh.services_of_workload(&view.namespace, &view.labels) {
        for service_port in &service.ports {
            let Some(number) = workload_port(mesh, view, service, service_port) else { continue };
            if !ports.iter().any(|known| known.number == number) {
                ports.push(InboundPort {
                    number,
                    service: Some(service),
                    service_port: Cow::Borrowed(service_port),
                    connection_pool: sidecar.and_then(|rule| rule.spec.inbound_connection_pool.as_ref()),
                    named: None,
                });
            }
        }
    }
    if let Some(rule) = sidecar.filter(|rule| !rule.spec.ingress.is_empty()) {
        ports = rule.spec.ingress.iter().filter_map(|listener| from_ingress(view, rule, listener, &ports)).collect();
    }
    ports.sort_by_key(|port| port.number);
    ports
}

fn from_ingress<'a>(
    view: &ProxyView,
    rule: &'a SidecarRule,
    listener: &'a IstioIngressListener,
    known: &[InboundPort<'a>],
) -> Option<InboundPort<'a>> {
    let port = listener.port.as_ref().filter(|port| port.number != 0)?;
    let behind = known.iter().find(|known| known.number == port.number);
    let bind = if listener.bind.is_empty() { view.address() } else { &listener.bind };
    Some(InboundPort {
        number: port.number,
        service: behind.and_then(|known| known.service),
        service_port: Cow::Owned(ServicePort {
            number: port.number,
            name: port.name.clone(),
            protocol: Protocol::by_name(&port.protocol).unwrap_or(Protocol::Sniff),
            target: TargetPort::Number(port.number),
        }),
        connection_pool: listener.connection_pool.as_ref().or(rule.spec.inbound_connection_pool.as_ref()),
        named: Some(NamedPort {
            bind: bind.to_owned(),
            application: application(view, &listener.default_endpoint),
            rule,
        }),
    })
}

/// Reads `ADDRESS:PORT`; `0.0.0.0` and `::` stand for the workload's own address. Nothing: wherever the call was meant for.
fn application(view: &ProxyView, endpoint: &str) -> Option<Application> {
    let (address, port) = split_address(endpoint)?;
    let own_address = matches!(address, "0.0.0.0" | "::");
    let address = if own_address { view.address() } else { address }.to_owned();
    Some(Application { address, port, own_address })
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
