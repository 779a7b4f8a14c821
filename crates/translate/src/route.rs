//! Route tables: which request goes where.

mod action;
mod delegate;
pub(crate) mod gateway;
mod matching;
mod retry;
mod rule;
mod sidecar;

use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

use crate::view::{Role, Scope};

use crate::{Resource, canonical, names, pb, type_url};
pub(crate) use rule::destination_cluster;

/// A route table by its name, the same for all proxies of one scope. `None` when proxies of that scope have no listener
/// that could ask for it.
pub fn route_table(mesh: &Mesh, scope: &Scope, name: &str) -> Option<Resource> {
    let hosts = match scope.role {
        Role::Router => gateway::virtual_hosts(mesh, scope, name)?,
        Role::Sidecar => sidecar::virtual_hosts(mesh, scope, name)?,
    };
    let table = RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: hosts,
        validate_clusters: pb::bool(false),
        max_direct_response_body_size_bytes: pb::u32(1024 * 1024),
        // An HTTP proxy is asked for all ports at once, so there the port decides.
        ignore_port_in_host_matching: name != names::HTTP_PROXY_TABLE,
        ..Default::default()
    };
    Some(Resource::encode(name, type_url::ROUTE, &table, canonical::ROUTE_CONFIGURATION))
}

/// A virtual host as Istio makes them: attempts are counted in a header.
fn virtual_host(name: String, domains: Vec<String>) -> VirtualHost {
    VirtualHost { name, domains, include_request_attempt_count: true, ..Default::default() }
}
