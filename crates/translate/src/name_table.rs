//! What the name server beside a proxy answers: hosts of the services that the proxy may call, with their addresses.
//!
//! Not here: names of single pods of a headless service, and wildcard hosts without an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mizzen_mesh::{Health, Mesh, Registry, Resolution, Service};
use mizzen_proto::istio_nds::{NameTable, name_table::NameInfo};
use prost::Message;

use crate::imports;
use crate::view::Scope;
use crate::{Resource, type_url};

/// The name of the one resource of this type.
const NAME: &str = "name-table";

/// The table for the proxies of a scope.
pub fn name_table(mesh: &Mesh, scope: &Scope) -> Resource {
    let mut table: BTreeMap<String, NameInfo> = BTreeMap::new();
    for imported in imports::services(mesh, scope) {
        let service = &imported.service;
        let ips = addresses(mesh, service);
        if ips.is_empty() {
            continue;
        }
        let host = service.key.host.as_str().to_owned();
        let of_kubernetes = service.registry == Registry::Kubernetes;
        // A Service counts more than an entry for the same host.
        if !of_kubernetes && table.get(&host).is_some_and(|known| known.registry == KUBERNETES) {
            continue;
        }
        let mut info = NameInfo { ips, registry: EXTERNAL.to_owned(), ..Default::default() };
        if of_kubernetes {
            info.registry = KUBERNETES.to_owned();
            info.shortname = service.name.to_string();
            info.namespace = service.key.namespace.to_string();
        }
        table.insert(host, info);
    }
    let body = NameTable { table }.encode_to_vec().into();
    Resource { name: NAME.to_owned(), type_url: type_url::NAME_TABLE, body }
}

const KUBERNETES: &str = "Kubernetes";
const EXTERNAL: &str = "External";

/// A service's own addresses; of a headless one those of its pods that take connections. Ranges are no address to call.
fn addresses(mesh: &Mesh, service: &Service) -> Vec<String> {
    let is_address = |text: &&str| text.parse::<IpAddr>().is_ok_and(|address| !address.is_unspecified());
    if service.resolution == Resolution::Alias {
        return Vec::new();
    }
    if !service.is_headless() {
        return service.addresses.iter().map(String::as_str).filter(is_address).map(str::to_owned).collect();
    }
    let mut all: Vec<String> = Vec::new();
    for endpoints in mesh.endpoints(&service.key).into_iter().flat_map(|all| all.by_port.values()) {
        let ready = endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy);
        for address in ready.map(|endpoint| &*endpoint.address).filter(is_address) {
            if !all.iter().any(|known| known == address) {
                all.push(address.to_owned());
            }
        }
    }
    all
}
