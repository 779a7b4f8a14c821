//! The services and rules that a proxy is told of: all that its namespace sees, or what its Sidecar resource imports
//! (reference: semantics 97 to 103).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mizzen_api::mesh::OutboundTrafficPolicyMode;
use mizzen_api::networking::SidecarOutboundTrafficPolicyMode;
use mizzen_mesh::{Attachment, Egress, Mesh, Resolution, Service, SidecarRule, VirtualServiceRule};
use mizzen_types::Hostname;

use crate::view::Scope;

/// A service with the ports that are imported of it.
#[derive(Debug, Clone)]
pub struct Imported {
    pub service: Arc<Service>,
    /// Address of a listener that the Sidecar resource names, by port.
    pub(crate) bind: BTreeMap<u16, Arc<str>>,
}

fn sidecar<'a>(mesh: &'a Mesh, scope: &Scope) -> Option<&'a SidecarRule> {
    let (namespace, name) = scope.sidecar.as_ref()?;
    mesh.sidecar(namespace, name).map(AsRef::as_ref)
}

/// Services that the proxies of a scope may call, one per host, in order of hosts.
pub fn services(mesh: &Mesh, scope: &Scope) -> Vec<Imported> {
    let Some(rule) = sidecar(mesh, scope) else {
        let all = mesh.visible_services(&scope.namespace);
        return all.map(|service| Imported { service: service.clone(), bind: BTreeMap::new() }).collect();
    };
    // What a listener for one port names is callable on that port there, and hidden from all others.
    let own_ports: BTreeSet<u16> = rule.egress.iter().filter_map(|egress| egress.port).collect();
    let mut found: BTreeMap<Hostname, Imported> = BTreeMap::new();
    for egress in &rule.egress {
        let named = |service: &Service| egress.imports(&service.key.host, &service.key.namespace, &scope.namespace);
        for service in mesh.visible_services_where(&scope.namespace, named) {
            match egress.port {
                Some(port) => add(&mut found, service, |it| it == port, egress.bind.as_ref()),
                None => add(&mut found, service, |it| !own_ports.contains(&it), None),
            }
        }
    }
    for host in destinations(mesh, scope, rule) {
        if !found.contains_key(&host)
            && let Some(service) = mesh.service_by_host(&host, &scope.namespace)
            && !matches!(service.resolution, Resolution::Alias | Resolution::DynamicDns)
        {
            add(&mut found, service, |_| true, None);
        }
    }
    found.into_values().collect()
}

fn add(
    found: &mut BTreeMap<Hostname, Imported>,
    service: &Arc<Service>,
    wanted: impl Fn(u16) -> bool,
    bind: Option<&Arc<str>>,
) {
    let wanted: Vec<_> = service.ports.iter().filter(|port| wanted(port.number)).cloned().collect();
    if wanted.is_empty() && !service.ports.is_empty() {
        return;
    }
    let bound = wanted.iter().filter_map(|port| Some((port.number, bind?.clone())));
    match found.get_mut(&service.key.host) {
        Some(known) => {
            known.bind.extend(bound);
            let more: Vec<_> = wanted.into_iter().filter(|port| known.service.port(port.number).is_none()).collect();
            // Another declaration of the host does not add to the one that was found first.
            if !more.is_empty() && known.service.key == service.key {
                Arc::make_mut(&mut known.service).ports.extend(more);
            }
        }
        None => {
            let bind = bound.collect();
            let service = if wanted.len() == service.ports.len() {
                service.clone()
            } else {
                Arc::new(Service { ports: wanted, ..(**service).clone() })
            };
            found.insert(service.key.host.clone(), Imported { service, bind });
        }
    }
}

/// Hosts to which imported rules send requests: they are imported with them.
fn destinations(mesh: &Mesh, scope: &Scope, rule: &SidecarRule) -> BTreeSet<Hostname> {
    let mut hosts = BTreeSet::new();
    for found in virtual_services_of(mesh, scope, Some(rule)) {
        let delegates = found.spec.http.iter().filter_map(|http| http.delegate.as_ref()).filter_map(|delegate| {
            let namespace = Some(delegate.namespace.as_str()).filter(|namespace| !namespace.is_empty());
            mesh.virtual_service(namespace.unwrap_or(&found.order.namespace), &delegate.name)
        });
        for rule in std::iter::once(&found).chain(delegates) {
            let http = rule.spec.http.iter().flat_map(|http| {
                let routes = http.route.iter().map(|route| &route.destination);
                let mirrors = http.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref());
                routes.chain(&http.mirror).chain(mirrors)
            });
            let tls = rule.spec.tls.iter().flat_map(|tls| &tls.route);
            let tcp = rule.spec.tcp.iter().flat_map(|tcp| &tcp.route);
            let bytes = tls.chain(tcp).map(|route| &route.destination);
            hosts.extend(http.chain(bytes).map(|to| mesh.resolve(&to.host, &rule.order.namespace)));
        }
    }
    hosts
}

/// VirtualServices that the proxies of a scope obey for calls, in the order in which they count.
pub(crate) fn virtual_services(mesh: &Mesh, scope: &Scope) -> Vec<Arc<VirtualServiceRule>> {
    virtual_services_of(mesh, scope, sidecar(mesh, scope))
}

fn virtual_services_of(mesh: &Mesh, scope: &Scope, rule: Option<&SidecarRule>) -> Vec<Arc<VirtualServiceRule>> {
    let mut rules = mesh.virtual_services(&scope.namespace, &Attachment::Mesh);
    if let Some(sidecar) = rule {
        let imports = |egress: &Egress, rule: &VirtualServiceRule| {
            rule.hosts.iter().any(|host| {
                let host = mesh.resolve(host.as_str(), &rule.order.namespace);
                egress.imports(&host, &rule.order.namespace, &scope.namespace)
            })
        };
        rules.retain(|rule| sidecar.egress.iter().any(|egress| imports(egress, rule)));
    }
    rules
}

/// What happens to calls of hosts that are not known.
pub(crate) fn outbound_policy(mesh: &Mesh, scope: &Scope) -> OutboundTrafficPolicyMode {
    match sidecar(mesh, scope).and_then(|rule| rule.spec.outbound_traffic_policy.as_ref()) {
        None => mesh.config().outbound_traffic_policy.mode,
        Some(own) => match own.mode {
            SidecarOutboundTrafficPolicyMode::RegistryOnly => OutboundTrafficPolicyMode::RegistryOnly,
            SidecarOutboundTrafficPolicyMode::AllowAny => OutboundTrafficPolicyMode::AllowAny,
        },
    }
}
