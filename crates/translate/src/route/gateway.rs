//! Route tables of gateways: `http.PORT` for requests in the clear, `https.PORT.NAME.GATEWAY.NAMESPACE` for each server
//! that ends TLS (reference: semantics 18, 81 to 84).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::route::v3::virtual_host::TlsRequirementType;
use mizzen_proto::envoy::config::route::v3::{Route, VirtualHost};
use mizzen_types::Hostname;

use super::rule::{self, Place};
use super::{matching, virtual_host};
use crate::gateway::{Entry, ServerKind, merge};
use crate::view::Scope;

/// The virtual hosts of a table by its name; `None` when the gateway has no such server.
pub(super) fn virtual_hosts(mesh: &Mesh, scope: &Scope, name: &str) -> Option<Vec<VirtualHost>> {
    let sockets = merge(mesh, scope);
    for socket in &sockets {
        if socket.kind() == ServerKind::Http && socket.http_table() == name {
            return Some(table(mesh, scope, &socket.entries));
        }
        let https = socket.entries.iter().find(|e| e.kind == ServerKind::Https && e.https_table() == name);
        if let Some(entry) = https {
            return Some(table(mesh, scope, std::slice::from_ref(entry)));
        }
    }
    None
}

/// A virtual host in the making.
struct Draft {
    port: u16,
    routes: Vec<Route>,
    require_tls: bool,
}

/// Sorts the most specific host first: no wildcard, then the longer.
fn specificity(host: &Hostname) -> (bool, Reverse<usize>, &str) {
    (host.is_wildcard(), Reverse(host.as_str().len()), host.as_str())
}

fn table(mesh: &Mesh, scope: &Scope, entries: &[Entry]) -> Vec<VirtualHost> {
    let mut drafts: BTreeMap<Hostname, Draft> = BTreeMap::new();
    for entry in entries {
        let attachment = entry.attachment();
        let place = Place { mesh, scope, attachment: &attachment, port: entry.port(), one_port: false };
        let draft = || Draft { port: entry.port(), routes: Vec::new(), require_tls: false };
        for (rule, hosts) in entry.attached(mesh, scope) {
            let routes = rule::routes(&place, &rule);
            if routes.is_empty() {
                continue;
            }
            for host in hosts {
                let draft = drafts.entry(host).or_insert_with(draft);
                // One Gateway may be named by several servers of one table.
                for route in &routes {
                    if !draft.routes.contains(route) {
                        draft.routes.push(route.clone());
                    }
                }
                draft.require_tls |= entry.redirects_to_https();
            }
        }
        if entry.redirects_to_https() {
            for (_, host) in entry.hosts() {
                drafts.entry(host).or_insert_with(draft).require_tls = true;
            }
        }
    }
    if drafts.is_empty() {
        let port = entries.first().map_or(0, Entry::port);
        // No route at all: everything there is a 404.
        return vec![virtual_host(format!("blackhole:{port}"), vec!["*".to_owned()])];
    }
    collapse(drafts)
}

/// Hosts with the same routes share a virtual host, named by the most specific of them.
fn collapse(drafts: BTreeMap<Hostname, Draft>) -> Vec<VirtualHost> {
    let mut sorted: Vec<(Hostname, Draft)> = drafts.into_iter().collect();
    sorted.sort_by(|(a, _), (b, _)| specificity(a).cmp(&specificity(b)));
    let mut hosts: Vec<VirtualHost> = Vec::new();
    for (host, mut draft) in sorted {
        // What leaves nothing for others comes last, whichever VirtualService it is from (reference: semantics 18).
        draft.routes.sort_by_key(|route| route.r#match.as_ref().is_some_and(matching::is_catch_all));
        let require_tls = if draft.require_tls { TlsRequirementType::All } else { TlsRequirementType::None } as i32;
        let same = hosts.iter_mut().find(|known| known.routes == draft.routes && known.require_tls == require_tls);
        match same {
            Some(known) => known.domains.push(host.as_str().to_owned()),
            None => hosts.push(VirtualHost {
                routes: draft.routes,
                require_tls,
                ..virtual_host(format!("{host}:{}", draft.port), vec![host.as_str().to_owned()])
            }),
        }
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}
