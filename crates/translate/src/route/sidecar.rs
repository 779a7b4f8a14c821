//! Route tables of sidecars: one for each port number, one for each service on a port of unknown protocol, and one for
//! the HTTP proxy port.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use mizzen_api::mesh::OutboundTrafficPolicyMode;
use mizzen_mesh::{Attachment, CLUSTER_DOMAIN, Mesh, Registry, Resolution, Service, VirtualServiceRule};
use mizzen_proto::envoy::config::route::v3::RouteAction;
use mizzen_proto::envoy::config::route::v3::route::Action;
use mizzen_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use mizzen_types::{Hostname, Protocol};

use super::action;
use super::memo::{self, Host, Memo};
use super::rule::{self, Place};
use crate::cluster::is_sniffed;
use crate::view::Scope;
use crate::{imports, names, pb};

/// The virtual hosts of a table by its name; `None` when no listener of a sidecar could ask for it.
pub(super) fn virtual_hosts(mesh: &Mesh, scope: &Scope, name: &str, memo: &dyn Memo) -> Option<Vec<Host>> {
    if name == names::HTTP_PROXY_TABLE {
        return Some(proxy_table(mesh, scope, memo));
    }
    if let Ok(port) = name.parse::<u16>() {
        let mut hosts = hosts_of_port(mesh, scope, port, false, memo);
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts.push(unknown_hosts(mesh, scope));
        return Some(hosts);
    }
    // `host:port`: one service on an address of its own, so every host there is that service.
    let (host, port) = name.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    mesh.service_by_host(&Hostname::new(host), &scope.namespace)?.port(port)?;
    let hosts = hosts_of_port(mesh, scope, port, false, memo);
    let mut found = hosts.into_iter().find(|known| known.name == name)?;
    found.domains = vec!["*".to_owned()];
    Some(vec![found])
}

/// All ports in one table: names count with their port, and without for port 80 (reference: semantics 15).
fn proxy_table(mesh: &Mesh, scope: &Scope, memo: &dyn Memo) -> Vec<Host> {
    let services = imports::services(mesh, scope);
    let mut ports: BTreeSet<u16> = services
        .iter()
        .flat_map(|imported| &imported.service.ports)
        .filter(|port| carries_http(port.protocol))
        .map(|p| p.number)
        .collect();
    ports.insert(80);
    let mut all: Vec<Host> = Vec::new();
    let mut taken = HashSet::new();
    for port in ports {
        for mut host in hosts_of_port(mesh, scope, port, true, memo) {
            host.domains.retain(|domain| taken.insert(domain.clone()));
            if !host.domains.is_empty() {
                all.push(host);
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    // The destination of a connection to a proxy is the proxy, so an unknown host cannot be passed on to where it went.
    all.push(blocked_hosts());
    all
}

fn carries_http(protocol: Protocol) -> bool {
    protocol.is_http() || is_sniffed(protocol)
}

/// The service hosts that a VirtualService answers for, and its other hosts.
struct Answers {
    services: BTreeSet<Hostname>,
    others: Vec<Hostname>,
}

fn hosts_of_port(mesh: &Mesh, scope: &Scope, port: u16, with_port: bool, memo: &dyn Memo) -> Vec<Host> {
    let imported = imports::services(mesh, scope);
    let services: BTreeMap<Hostname, &Arc<Service>> = imported
        .iter()
        .map(|imported| &imported.service)
        .filter(|service| service.port(port).is_some())
        .map(|service| (service.key.host.clone(), service))
        .collect();
    let rules = imports::virtual_services(mesh, scope);
    let answers = assign(mesh, &services, &rules);
    let place = Place { mesh, scope, attachment: &Attachment::Mesh, port, one_port: !with_port };
    let mut builder = Builder::new(mesh, scope, port, with_port, &services);
    let mut ruled: HashSet<Hostname> = HashSet::new();
    for (service, answers) in rules.iter().zip(&answers) {
        let http: Vec<&Arc<Service>> = answers
            .services
            .iter()
            .filter_map(|host| services.get(host).copied())
            .filter(|service| service.port(port).is_some_and(|port| carries_http(port.protocol)))
            .collect();
        // Hosts that are no service are only answered for where nobody needs to name a port (reference: semantics 14).
        let others: &[Hostname] = if port == 80 { &answers.others } else { &[] };
        if http.is_empty() && others.is_empty() {
            continue;
        }
        let routes = memo::of_rule(&place, service, memo);
        if routes.is_empty() {
            continue;
        }
        for host in others {
            builder.add_name(host, &routes);
        }
        for service in http {
            ruled.insert(service.key.host.clone());
            builder.add_service(service, &routes);
        }
    }
    for (host, service) in &services {
        let http = service.port(port).is_some_and(|port| carries_http(port.protocol));
        if http && !ruled.contains(host) {
            builder.add_service(service, &memo::of_service(&place, host, memo));
        }
    }
    builder.hosts
}

/// Gives each service to the VirtualService with the most specific host for it, the first of equals
/// (reference: semantics 16).
fn assign(
    mesh: &Mesh,
    services: &BTreeMap<Hostname, &Arc<Service>>,
    rules: &[Arc<VirtualServiceRule>],
) -> Vec<Answers> {
    let mut answers: Vec<Answers> =
        rules.iter().map(|_| Answers { services: BTreeSet::new(), others: Vec::new() }).collect();
    let mut exact: HashMap<Hostname, usize> = HashMap::new();
    let mut wildcards: Vec<(Hostname, usize)> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        for host in &rule.hosts {
            let host = mesh.resolve(host.as_str(), &rule.order.namespace);
            if host.is_wildcard() {
                wildcards.push((host, index));
            } else if services.contains_key(&host) {
                exact.entry(host).or_insert(index);
            } else {
                answers[index].others.push(host);
            }
        }
    }
    // Longer is more specific; sorting keeps the order of equals.
    wildcards.sort_by_key(|(host, _)| std::cmp::Reverse(host.as_str().len()));
    let mut used: HashSet<&Hostname> = HashSet::new();
    for host in services.keys() {
        let covering = || wildcards.iter().filter(|(pattern, _)| host.is_subset_of(pattern));
        used.extend(covering().map(|(pattern, _)| pattern));
        let owner = exact.get(host).copied().or_else(|| covering().map(|(_, index)| *index).next());
        if let Some(index) = owner {
            answers[index].services.insert(host.clone());
        }
    }
    for (pattern, index) in &wildcards {
        if !used.contains(pattern) {
            answers[*index].others.push(pattern.clone());
        }
    }
    answers
}

/// Virtual hosts of one port; no name and no domain twice, the first wins (reference: semantics 11).
struct Builder<'a> {
    mesh: &'a Mesh,
    scope: &'a Scope,
    port: u16,
    with_port: bool,
    hosts: Vec<Host>,
    names: HashSet<String>,
    domains: HashSet<String>,
    /// Hosts of services, which no shorter spelling of another may take.
    known: HashSet<String>,
}

impl<'a> Builder<'a> {
    fn new(
        mesh: &'a Mesh,
        scope: &'a Scope,
        port: u16,
        with_port: bool,
        services: &BTreeMap<Hostname, &Arc<Service>>,
    ) -> Self {
        let known = services.keys().map(|host| host.as_str().to_owned()).collect();
        Self { mesh, scope, port, with_port, hosts: Vec::new(), names: HashSet::new(), domains: HashSet::new(), known }
    }

    fn add_name(&mut self, host: &Hostname, routes: &Bytes) {
        self.add(host, vec![host.as_str().to_owned()], &[], routes);
    }

    fn add_service(&mut self, service: &Service, routes: &Bytes) {
        let mut hosts = vec![service.key.host.clone()];
        hosts.extend(self.mesh.aliases_of(service, &self.scope.namespace));
        let mut domains = Vec::new();
        let mut short = Vec::new();
        for host in &hosts {
            let others = other_spellings(host.as_str(), &self.scope.namespace);
            domains.push(host.as_str().to_owned());
            domains.extend(others.iter().cloned());
            short.extend(others);
        }
        if service.registry == Registry::Kubernetes && service.resolution == Resolution::Passthrough {
            // A pod of a headless service has a name below that of the service (reference: semantics 10).
            let below: Vec<String> = domains.iter().map(|domain| format!("*.{domain}")).collect();
            domains.extend(below);
        }
        let addresses = self.scope.client.given.addresses(service).into_iter();
        domains.extend(addresses.map(|it| if it.contains(':') { format!("[{it}]") } else { it }));
        self.add(&service.key.host, domains, &short, routes);
    }

    fn add(&mut self, host: &Hostname, domains: Vec<String>, short: &[String], routes: &Bytes) {
        let name = format!("{host}:{}", self.port);
        if !self.names.insert(name.clone()) {
            return;
        }
        let own = |domain: &String| !(short.contains(domain) && self.known.contains(domain));
        let domains: Vec<String> = domains.into_iter().filter(own).flat_map(|domain| self.ported(domain)).collect();
        let fresh: Vec<String> = domains.into_iter().filter(|domain| self.domains.insert(domain.clone())).collect();
        if !fresh.is_empty() {
            self.hosts.push(Host { name, domains: fresh, routes: routes.clone() });
        }
    }

    fn ported(&self, domain: String) -> Vec<String> {
        match (self.with_port, self.port) {
            (false, _) => vec![domain],
            (true, 80) => vec![format!("{domain}:80"), domain],
            (true, port) => vec![format!("{domain}:{port}")],
        }
    }
}

/// How clients in `namespace` may also write a host (reference: semantics 8).
fn other_spellings(host: &str, namespace: &str) -> Vec<String> {
    if host.parse::<IpAddr>().is_ok() || host.starts_with('*') {
        return Vec::new();
    }
    let mut spellings = vec![format!("{host}.")];
    let Some(short) = host.strip_suffix(CLUSTER_DOMAIN).and_then(|host| host.strip_suffix('.')) else {
        return spellings;
    };
    match short.split_once('.') {
        Some((name, ns)) if ns == namespace => {
            spellings.extend([name.to_owned(), format!("{short}.svc"), short.to_owned()]);
        }
        _ => spellings.extend([short.to_owned(), format!("{short}.svc")]),
    }
    spellings
}

/// Hosts that the mesh does not know (reference: semantics 53).
#[allow(deprecated)] // The limit of gRPC's own timeout, named as Istio names it.
fn unknown_hosts(mesh: &Mesh, scope: &Scope) -> Host {
    let registry_only = imports::outbound_policy(mesh, scope) == OutboundTrafficPolicyMode::RegistryOnly;
    if registry_only || !scope.client.knows_original_destination() {
        return blocked_hosts();
    }
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(names::PASSTHROUGH.to_owned())),
        timeout: pb::zero(),
        max_grpc_timeout: pb::zero(),
        ..Default::default()
    };
    any_host("allow_any", Action::Route(action))
}

fn blocked_hosts() -> Host {
    any_host("block_all", Action::DirectResponse(action::direct_response(502, None)))
}

fn any_host(name: &str, action: Action) -> Host {
    let routes = memo::encode(&[rule::catch_all(name, action)]);
    Host { name: name.to_owned(), domains: vec!["*".to_owned()], routes }
}

#[cfg(test)]
mod tests {
    use super::other_spellings;

    #[track_caller]
    fn check(host: &str, namespace: &str, expected: &[&str]) {
        assert_eq!(other_spellings(host, namespace), expected, "{host} in {namespace}");
    }

    #[test]
    fn spellings_are_istios() {
        let host = "reviews.shop.svc.cluster.local";
        check(host, "shop", &["reviews.shop.svc.cluster.local.", "reviews", "reviews.shop.svc", "reviews.shop"]);
        check(host, "other", &["reviews.shop.svc.cluster.local.", "reviews.shop", "reviews.shop.svc"]);
        check("www.example.com", "shop", &["www.example.com."]);
        check("*.example.com", "shop", &[]);
        check("10.0.0.1", "shop", &[]);
    }
}
