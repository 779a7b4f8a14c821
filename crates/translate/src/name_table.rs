//! What the name server beside a proxy answers: hosts of the services that the proxy may call, with their addresses, and
//! the pods of headless services by their own names (reference: features 5.6, semantics 207).
//!
//! Not here: other spellings of a name, which the name server makes itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mizzen_mesh::{Endpoint, Health, Mesh, Registry, Resolution, Service};
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
    let services = imports::services(mesh, scope);
    for service in services.iter().map(|imported| &imported.service).filter(|service| service.is_headless()) {
        add_pods(mesh, service, &mut table);
    }
    for imported in &services {
        let service = &imported.service;
        let ips = addresses(mesh, scope, service);
        if ips.is_empty() {
            continue;
        }
        let host = service.key.host.as_str().to_owned();
        let of_kubernetes = service.registry == Registry::Kubernetes;
        // Kubernetes counts more than an entry for the same name.
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

/// The pods of a headless service that have a subdomain, each below the domain of the service. More than one service may
/// have a pod, and a pod may be reached at some ports of it only: it is the same pod.
fn add_pods(mesh: &Mesh, service: &Service, table: &mut BTreeMap<String, NameInfo>) {
    let Some((_, domain)) = service.key.host.as_str().split_once('.') else { return };
    for endpoint in ready(mesh, service) {
        let Some(name) = &endpoint.workload.own_name else { continue };
        let info = table.entry(format!("{name}.{domain}")).or_insert_with(|| NameInfo {
            registry: KUBERNETES.to_owned(),
            shortname: name.to_string(),
            namespace: service.key.namespace.to_string(),
            ..Default::default()
        });
        add(&mut info.ips, &endpoint.address);
    }
}

/// Endpoints of a headless service that take connections, at addresses that can be answered.
fn ready<'a>(mesh: &'a Mesh, service: &Service) -> impl Iterator<Item = &'a Endpoint> {
    let all = mesh.endpoints(&service.key).into_iter().flat_map(|all| all.by_port.values()).flatten();
    all.filter(|endpoint| endpoint.health == Health::Healthy && is_address(&endpoint.address))
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|address| !address.is_unspecified())
}

fn add(all: &mut Vec<String>, address: &str) {
    if !all.iter().any(|known| known == address) {
        all.push(address.to_owned());
    }
}

/// A service's own addresses; of a headless one those of its pods that take connections. Ranges are no address to call,
/// and who has none may have been given some.
fn addresses(mesh: &Mesh, scope: &Scope, service: &Service) -> Vec<String> {
    if service.resolution == Resolution::Alias {
        return Vec::new();
    }
    if !service.is_headless() {
        let mut addresses = scope.client.given.addresses(service);
        addresses.retain(|address| is_address(address));
        return addresses;
    }
    let mut all = Vec::new();
    for endpoint in ready(mesh, service) {
        add(&mut all, &endpoint.address);
    }
    all
}
