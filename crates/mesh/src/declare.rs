//! From the objects that people write to services: Kubernetes Service and ServiceEntry.

use std::net::IpAddr;

use mizzen_api::kubernetes::Service as ServiceObject;
use mizzen_api::mesh::MeshConfig;
use mizzen_api::networking::{ServiceEntry, ServiceEntryLocation, ServiceEntryResolution};
use mizzen_api::wire::IntOrString;
use mizzen_types::{Hostname, Labels, ObjectKey, Protocol};

use crate::service::{Registry, Resolution, Service, ServiceKey, ServicePort, TargetPort};
use crate::visibility::Visibility;

/// Names of all Kubernetes services end in this.
pub const CLUSTER_DOMAIN: &str = "svc.cluster.local";

const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// `NAME.NAMESPACE.svc.cluster.local`.
pub fn kubernetes_host(name: &str, namespace: &str) -> Hostname {
    Hostname::new(&format!("{name}.{namespace}.{CLUSTER_DOMAIN}"))
}

pub(crate) fn kubernetes(
    origin: &ObjectKey,
    created: i64,
    export_annotation: Option<&str>,
    object: &ServiceObject,
    config: &MeshConfig,
) -> Service {
    let spec = &object.spec;
    let alias = spec.r#type == "ExternalName";
    let resolution = match () {
        () if alias => Resolution::Alias,
        () if spec.is_headless() => Resolution::Passthrough,
        () => Resolution::Endpoints,
    };
    let exports: Vec<&str> =
        export_annotation.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    let port = |port: &mizzen_api::kubernetes::ServicePort| ServicePort {
        number: port.port,
        name: port.name.clone(),
        protocol: Protocol::of_service_port(port.port, &port.name, &port.protocol, port.app_protocol.as_deref()),
        target: match &port.target_port {
            None => TargetPort::Number(port.port),
            Some(target) => match (target, target.as_port()) {
                (_, Some(0)) => TargetPort::Number(port.port),
                (_, Some(number)) => TargetPort::Number(number),
                (IntOrString::String(name), None) => TargetPort::Name(name.clone()),
                (IntOrString::Int(_), None) => TargetPort::Number(port.port),
            },
        },
    };
    Service {
        key: ServiceKey { host: kubernetes_host(&origin.name, &origin.namespace), namespace: origin.namespace.clone() },
        name: origin.name.clone(),
        registry: Registry::Kubernetes,
        created,
        ports: spec.ports.iter().map(port).filter(|port| port.protocol != Protocol::Udp).collect(),
        addresses: spec.addresses().map(str::to_owned).collect(),
        wants_addresses: None,
        given_addresses: Vec::new(),
        resolution,
        alias_of: alias.then(|| Hostname::new(&spec.external_name)),
        external: alias,
        visibility: Visibility::read(&exports, &config.default_service_export_to, &origin.namespace),
        selector: (!spec.selector.is_empty()).then(|| spec.selector.clone()),
        subject_alt_names: Vec::new(),
        publish_not_ready: spec.publish_not_ready_addresses,
        origin: origin.clone(),
    }
}

/// One service per host of the entry.
pub(crate) fn service_entry(
    origin: &ObjectKey,
    created: i64,
    labels: &Labels,
    entry: &ServiceEntry,
    config: &MeshConfig,
) -> Vec<Service> {
    let resolution = match entry.resolution {
        ServiceEntryResolution::None => Resolution::Passthrough,
        ServiceEntryResolution::Static => Resolution::Endpoints,
        ServiceEntryResolution::Dns => Resolution::Dns,
        ServiceEntryResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        ServiceEntryResolution::DynamicDns => Resolution::DynamicDns,
    };
    let port = |port: &mizzen_api::networking::ServicePort| ServicePort {
        number: port.number,
        name: port.name.clone(),
        protocol: Protocol::by_name(&port.protocol).unwrap_or(Protocol::Sniff),
        target: TargetPort::Number(if port.target_port == 0 { port.number } else { port.target_port }),
    };
    let of_host = |host: &String| {
        let host = Hostname::new(host);
        Service {
            name: host.as_str().into(),
            key: ServiceKey { host: host.clone(), namespace: origin.namespace.clone() },
            registry: Registry::ServiceEntry,
            origin: origin.clone(),
            created,
            ports: entry.ports.iter().map(port).filter(|port| port.protocol != Protocol::Udp).collect(),
            addresses: entry.addresses.iter().map(|address| plain_address(address)).collect(),
            wants_addresses: wants_addresses(labels, entry, &host),
            given_addresses: Vec::new(),
            resolution,
            alias_of: None,
            external: entry.location == ServiceEntryLocation::MeshExternal,
            visibility: Visibility::read(&entry.export_to, &config.default_service_export_to, &origin.namespace),
            selector: entry.workload_selector.as_ref().map(|selector| selector.labels.clone()),
            subject_alt_names: entry.subject_alt_names.clone(),
            publish_not_ready: false,
        }
    };
    entry.hosts.iter().map(of_host).collect()
}

/// The label by which a ServiceEntry says that its hosts get no addresses.
const AUTOMATIC_ADDRESSES: &str = "networking.istio.io/enable-autoallocate-ip";

/// Whether a host of an entry is to be given addresses, and which it was given before (reference: features 5.6). Where
/// connections go to wherever the client wanted, nobody would be at a given one; a wildcard has no single name to ask for.
fn wants_addresses(labels: &Labels, entry: &ServiceEntry, host: &Hostname) -> Option<Vec<IpAddr>> {
    let refused = labels.get(AUTOMATIC_ADDRESSES).is_some_and(|value| value.eq_ignore_ascii_case("false"));
    let fits = matches!(
        entry.resolution,
        ServiceEntryResolution::Static | ServiceEntryResolution::Dns | ServiceEntryResolution::DnsRoundRobin
    );
    if refused || !fits || !entry.addresses.is_empty() || host.is_wildcard() {
        return None;
    }
    let of_host = entry.given.iter().filter(|given| Hostname::new(&given.host) == *host);
    Some(of_host.filter_map(|given| given.value.parse().ok()).collect())
}

pub(crate) fn export_annotation() -> &'static str {
    EXPORT_TO
}

/// A range of a single address is that address (reference: semantics 197).
fn plain_address(address: &str) -> String {
    match address.split_once('/') {
        Some((ip, bits)) => match ip.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) if bits == "32" => ip.to_owned(),
            Ok(IpAddr::V6(_)) if bits == "128" => ip.to_owned(),
            _ => address.to_owned(),
        },
        None => address.to_owned(),
    }
}
