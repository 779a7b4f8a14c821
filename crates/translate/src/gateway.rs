//! What a gateway listens for: all Gateways that select it, put together (reference: semantics 78 to 84).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mizzen_api::networking::Server;
use mizzen_mesh::{Attachment, GatewayRule, Mesh, TargetPort, VirtualServiceRule};
use mizzen_types::{Hostname, Protocol};

use crate::view::Scope;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// Requests in the clear.
    Http,
    /// Requests in TLS that ends here.
    Https,
    /// Bytes in TLS that ends here.
    TerminatedTls,
    /// TLS that is passed on by the name asked for.
    PassthroughTls,
    Tcp,
}

impl ServerKind {
    fn of(server: &Server) -> Self {
        let mode = server.tls.as_ref().map(|tls| tls.mode);
        match Protocol::by_name(&server.port.protocol).unwrap_or(Protocol::Tcp) {
            Protocol::Https | Protocol::Tls if mode.is_none_or(|mode| !mode.terminates()) => Self::PassthroughTls,
            Protocol::Https => Self::Https,
            Protocol::Tls => Self::TerminatedTls,
            protocol if protocol.is_http() => Self::Http,
            _ => Self::Tcp,
        }
    }

    /// Whether the first bytes are TLS.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::TerminatedTls | Self::PassthroughTls)
    }
}

/// One server of one Gateway.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) gateway: Arc<GatewayRule>,
    pub(crate) index: usize,
    pub(crate) kind: ServerKind,
    /// Server names that are not served by an earlier server of the same listener; only for TLS.
    pub(crate) names: Vec<Hostname>,
}

impl Entry {
    pub(crate) fn server(&self) -> &Server {
        &self.gateway.spec.servers[self.index]
    }

    pub(crate) fn attachment(&self) -> Attachment {
        Attachment::Gateway { namespace: self.gateway.order.namespace.clone(), name: self.gateway.order.name.clone() }
    }

    /// The port that rules see.
    pub(crate) fn port(&self) -> u16 {
        self.server().port.number
    }

    /// Hosts of the server with the namespace whose VirtualServices may serve them; `None` for any.
    pub(crate) fn hosts(&self) -> Vec<(Option<String>, Hostname)> {
        let own = &*self.gateway.order.namespace;
        let read = |entry: &String| match entry.split_once('/') {
            Some(("*", host)) => Some((None, Hostname::new(host))),
            Some((".", host)) => Some((Some(own.to_owned()), Hostname::new(host))),
            Some(("~", _)) => None,
            Some((namespace, host)) => Some((Some(namespace.to_owned()), Hostname::new(host))),
            None => Some((None, Hostname::new(entry))),
        };
        self.server().hosts.iter().filter_map(read).collect()
    }

    /// Whether requests in the clear are sent away to TLS.
    pub(crate) fn redirects_to_https(&self) -> bool {
        self.kind == ServerKind::Http && self.server().tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    /// Name of the table of a server whose requests come in TLS.
    pub(crate) fn https_table(&self) -> String {
        let gateway = &self.gateway.order;
        format!("https.{}.{}.{}.{}", self.port(), self.server().port.name, gateway.name, gateway.namespace)
    }

    /// VirtualServices attached to this server's Gateway, in the order in which they count, each with the hosts that both
    /// name: of two that overlap the narrower.
    pub(crate) fn attached(&self, mesh: &Mesh, scope: &Scope) -> Vec<(Arc<VirtualServiceRule>, Vec<Hostname>)> {
        let hosts = self.hosts();
        let mut attached = Vec::new();
        let mut rules = mesh.virtual_services(&scope.namespace, &self.attachment());
        rules.sort_by(|a, b| a.order.cmp(&b.order));
        for rule in rules {
            let mut both: Vec<Hostname> = Vec::new();
            for written in &rule.hosts {
                let host = mesh.resolve(written.as_str(), &rule.order.namespace);
                for (namespace, server) in &hosts {
                    if namespace.as_ref().is_some_and(|namespace| **namespace != *rule.order.namespace) {
                        continue;
                    }
                    let narrower = match () {
                        () if host.is_subset_of(server) => &host,
                        () if server.is_subset_of(&host) => server,
                        () => continue,
                    };
                    if !both.contains(narrower) {
                        both.push(narrower.clone());
                    }
                }
            }
            if !both.is_empty() {
                attached.push((rule, both));
            }
        }
        attached
    }
}

/// All servers that share one socket.
#[derive(Debug)]
pub(crate) struct Merged {
    /// Empty for every address, or a unix path.
    pub(crate) bind: String,
    /// The port that is listened on.
    pub(crate) bound: u16,
    pub(crate) entries: Vec<Entry>,
}

impl Merged {
    /// Whether it is TLS, requests or bytes: what the first server says, for the others had to agree.
    pub(crate) fn kind(&self) -> ServerKind {
        self.entries.first().map_or(ServerKind::Tcp, |entry| entry.kind)
    }

    /// Name of the table for requests in the clear.
    pub(crate) fn http_table(&self) -> String {
        if self.bind.is_empty() { format!("http.{}", self.bound) } else { format!("http.{}.{}", self.bound, self.bind) }
    }
}

/// The sockets of a gateway, in order of bind and port.
pub(crate) fn merge(mesh: &Mesh, scope: &Scope) -> Vec<Merged> {
    let mut sockets: BTreeMap<(String, u16), Merged> = BTreeMap::new();
    let mut tables: BTreeSet<String> = BTreeSet::new();
    for gateway in mesh.gateways_for(&scope.labels) {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(bound) = bound_port(mesh, scope, server.port.number, &server.bind) else { continue };
            let kind = ServerKind::of(server);
            let socket = sockets.entry((server.bind.clone(), bound)).or_insert_with(|| Merged {
                bind: server.bind.clone(),
                bound,
                entries: Vec::new(),
            });
            let mut entry = Entry { gateway: gateway.clone(), index, kind, names: Vec::new() };
            if socket.entries.first().is_some_and(|first| !share_a_socket(first.kind, kind)) {
                continue;
            }
            if kind.is_tls() {
                let taken: BTreeSet<&Hostname> = socket.entries.iter().flat_map(|entry| &entry.names).collect();
                let mut names: Vec<Hostname> = entry.hosts().into_iter().map(|(_, host)| host).collect();
                names.retain(|name| !taken.contains(name));
                if names.is_empty() || (kind == ServerKind::Https && !tables.insert(entry.https_table())) {
                    continue;
                }
                entry.names = names;
            }
            socket.entries.push(entry);
        }
    }
    sockets.into_values().filter(|socket| !socket.entries.is_empty()).collect()
}

fn share_a_socket(first: ServerKind, second: ServerKind) -> bool {
    (first.is_tls() && second.is_tls()) || first == second
}

/// Where a server of a Gateway really listens: its port is one of the Services in front of the gateway, which lead to a
/// port of the workload; without one it is meant literally (reference: semantics 80).
fn bound_port(mesh: &Mesh, scope: &Scope, port: u16, bind: &str) -> Option<u16> {
    if bind.starts_with("unix://") {
        return Some(0);
    }
    for service in mesh.services_of_workload(&scope.namespace, &scope.labels) {
        let Some(service_port) = service.port(port) else { continue };
        let endpoints = mesh.endpoints(&service.key);
        let first = endpoints.and_then(|endpoints| endpoints.on_port(port).first());
        match (first, &service_port.target) {
            (Some(endpoint), _) => return Some(endpoint.port),
            (None, TargetPort::Number(number)) => return Some(*number),
            (None, TargetPort::Name(_)) => {}
        }
    }
    (!(scope.client.unprivileged && port < 1024)).then_some(port)
}
