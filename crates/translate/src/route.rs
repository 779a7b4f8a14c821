//! Route tables: which request goes where.

mod action;
mod delegate;
pub(crate) mod gateway;
mod matching;
mod memo;
mod retry;
mod rule;
mod sidecar;

use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

use crate::view::{Role, Scope};

use crate::{Resource, canonical, names, pb, type_url};
use memo::Host;
pub use memo::{Memo, NoMemo, RoutesOf};
use prost::Message;
pub(crate) use rule::destination_cluster;

/// A route table by its name, the same for all proxies of one scope. `None` when proxies of that scope have no listener
/// that could ask for it.
pub fn route_table(mesh: &Mesh, scope: &Scope, name: &str) -> Option<Resource> {
    route_table_with(mesh, scope, name, &NoMemo)
}

/// The same, where routes that were made before need not be made again.
pub fn route_table_with(mesh: &Mesh, scope: &Scope, name: &str, memo: &dyn Memo) -> Option<Resource> {
    let mut table = RouteConfiguration {
        name: name.to_owned(),
        validate_clusters: pb::bool(false),
        max_direct_response_body_size_bytes: pb::u32(1024 * 1024),
        // An HTTP proxy is asked for all ports at once, so there the port decides.
        ignore_port_in_host_matching: name != names::HTTP_PROXY_TABLE,
        ..Default::default()
    };
    match scope.client.role {
        Role::Router => {
            table.virtual_hosts = gateway::virtual_hosts(mesh, scope, name)?;
            Some(Resource::encode(name, type_url::ROUTE, &table, canonical::ROUTE_CONFIGURATION))
        }
        Role::Sidecar => {
            let hosts = sidecar::virtual_hosts(mesh, scope, name, memo)?;
            Some(Resource { name: name.to_owned(), type_url: type_url::ROUTE, body: encode(table, &hosts).into() })
        }
    }
}

/// A table with virtual hosts that are encoded already: name (field 1), virtual hosts (2), the rest.
fn encode(mut table: RouteConfiguration, hosts: &[Host]) -> Vec<u8> {
    let name = std::mem::take(&mut table.name);
    let hosts_len: usize = hosts.iter().map(Host::len_in_table).sum();
    let mut body = Vec::with_capacity(memo::field_len(name.len()) + hosts_len + table.encoded_len());
    memo::put_text(1, &name, &mut body);
    for host in hosts {
        host.put(&mut body);
    }
    // A vector grows as needed.
    let _ = table.encode(&mut body);
    body
}

/// A virtual host as Istio makes them: attempts are counted in a header.
fn virtual_host(name: String, domains: Vec<String>) -> VirtualHost {
    VirtualHost { name, domains, include_request_attempt_count: true, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use mizzen_proto::envoy::config::route::v3::RouteConfiguration;
    use prost::Message;

    use super::memo::{self, Host};
    use super::{encode, virtual_host};
    use crate::{canonical, pb};

    #[test]
    fn a_table_of_encoded_hosts_is_the_table() {
        let metadata = pb::metadata(&serde_json::json!({"istio": {"config": "c", "b": 1}, "mizzen": {"field": "f"}}));
        let routes: Vec<_> = ["one", "two"]
            .map(|name| mizzen_proto::envoy::config::route::v3::Route {
                name: name.to_owned(),
                metadata: metadata.clone(),
                ..Default::default()
            })
            .into();
        let domains = vec!["a".to_owned(), "a.example.com".repeat(20)];
        let table = RouteConfiguration {
            name: "80".to_owned(),
            validate_clusters: pb::bool(false),
            ignore_port_in_host_matching: true,
            ..Default::default()
        };
        let host = Host { name: "a:80".to_owned(), domains: domains.clone(), routes: memo::encode(&routes) };
        let none = Host { name: "b:80".to_owned(), domains: Vec::new(), routes: memo::encode(&[]) };
        let made = encode(table.clone(), &[host, none]);
        let mut whole = table;
        whole.virtual_hosts = vec![virtual_host("a:80".to_owned(), domains), virtual_host("b:80".to_owned(), vec![])];
        whole.virtual_hosts[0].routes = routes;
        let mut expected = whole.encode_to_vec();
        canonical::sort(&mut expected, canonical::ROUTE_CONFIGURATION);
        assert_eq!(made, expected);
        assert_eq!(made.capacity(), made.len(), "nothing was moved while it grew");
    }
}
