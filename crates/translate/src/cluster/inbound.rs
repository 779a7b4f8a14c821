//! Clusters that lead to the sidecar's own workload.

use std::net::IpAddr;

use mizzen_mesh::{DestinationPolicy, Mesh};
use mizzen_proto::envoy::config::cluster::v3::Cluster;
use mizzen_proto::envoy::config::cluster::v3::cluster::{CommonLbConfig, DiscoveryType, LbPolicy};
use mizzen_proto::envoy::config::core::v3::{BindConfig, ExtraSourceAddress};
use mizzen_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use mizzen_proto::google::protobuf as google;
use serde_json::{Value, json};

use super::{original_destination, plain, pool, resource};
use crate::inbound::{InboundPort, inbound_ports};
use crate::traffic_policy::Effective;
use crate::view::{Interception, ProxyView, Role, split_address};
use crate::{Resource, names, pb};

/// The address from which the workload sees requests that came through its sidecar (reference: semantics 219).
const INBOUND_SOURCE: &str = "127.0.0.6";
const INBOUND_SOURCE_6: &str = "::6";

pub(super) fn clusters(mesh: &Mesh, view: &ProxyView) -> Vec<Resource> {
    if view.role != Role::Sidecar {
        return Vec::new();
    }
    let mut clusters = Vec::new();
    if view.interception.is_by_kernel() {
        let mut passthrough = original_destination(mesh, names::INBOUND_PASSTHROUGH);
        passthrough.upstream_bind_config = own_source(view);
        clusters.push(resource(&passthrough));
    }
    clusters.extend(inbound_ports(mesh, view).iter().map(|port| resource(&inbound(mesh, view, port))));
    clusters
}

/// Where the workload does not see its client's address, it sees this one.
fn own_source(view: &ProxyView) -> Option<BindConfig> {
    (view.interception != Interception::Tproxy).then(|| inbound_source(view))
}

fn inbound_source(view: &ProxyView) -> BindConfig {
    let (v4, v6) = view.families();
    let mut sources = [(v4, INBOUND_SOURCE), (v6, INBOUND_SOURCE_6)].into_iter().filter(|(has, _)| *has);
    let mut next = || sources.next().map(|(_, source)| pb::socket_address(source, 0));
    BindConfig {
        source_address: next(),
        extra_source_addresses: next()
            .map(|address| ExtraSourceAddress { address: Some(address), ..Default::default() })
            .into_iter()
            .collect(),
        ..Default::default()
    }
}

fn inbound(mesh: &Mesh, view: &ProxyView, port: &InboundPort<'_>) -> Cluster {
    let name = names::inbound(port.number);
    // The server keeps to the limits of its own service (reference: semantics 104 and 127).
    let policy =
        port.service.and_then(|service| mesh.destination_policy(service, &service.key.namespace, &view.labels));
    let traffic = policy.as_ref().and_then(DestinationPolicy::traffic_policy);
    let mut effective = Effective::new(traffic.map(|(_, policy)| policy), None, port.service_port.number);
    effective.connection_pool = port.connection_pool.or(effective.connection_pool);
    let effective = effective.or_mesh(mesh.config());
    let told = port.named.as_ref().and_then(|named| named.application.as_ref());
    let explicit = view.interception == Interception::None || told.is_some();
    let mut cluster = plain(mesh, &name, if explicit { DiscoveryType::Static } else { DiscoveryType::OriginalDst });
    cluster.circuit_breakers = Some(pool::unlimited());
    cluster.common_lb_config = Some(CommonLbConfig::default());
    if explicit {
        cluster.load_assignment = Some(match told {
            Some(told) => at(&name, &told.address, told.port),
            None => application(view, port, &name),
        });
        if told.is_some_and(|told| told.own_address) {
            cluster.upstream_bind_config = Some(inbound_source(view));
        }
    } else {
        cluster.lb_policy = LbPolicy::ClusterProvided as i32;
        // For ever: the one address must not be forgotten between two requests.
        cluster.cleanup_interval = Some(google::Duration { seconds: 9_223_372_035, nanos: 0 });
        cluster.upstream_bind_config = own_source(view);
    }
    if port.service_port.protocol.is_http2() {
        pool::use_http2(&mut cluster);
    } else if super::is_sniffed(port.service_port.protocol) {
        pool::use_downstream_protocol(&mut cluster, None);
    }
    pool::apply_connection_pool(&mut cluster, mesh, &effective);
    let mut istio = json!({});
    if let Some(service) = port.service {
        istio["services"] = json!([{
            "host": service.key.host.as_str(),
            "name": &*service.name,
            "namespace": &*service.key.namespace,
        }]);
    }
    if let Some((rule, _)) = traffic {
        let path = names::config_path("destination-rule", &rule.order.namespace, &rule.order.name);
        istio["config"] = Value::String(path);
    }
    if istio.as_object().is_some_and(|fields| !fields.is_empty()) {
        cluster.metadata = pb::metadata(&json!({ "istio": istio }));
    }
    cluster
}

/// Where the application really listens: what the node says, else the same port on loopback.
fn application(view: &ProxyView, port: &InboundPort<'_>, name: &str) -> ClusterLoadAssignment {
    let told = view.application.get(&port.number).and_then(|address| split_address(address));
    let loopback = match view.address().parse() {
        Ok(IpAddr::V6(_)) => "::1",
        _ => "127.0.0.1",
    };
    let (address, number) = told.unwrap_or((loopback, port.number));
    at(name, address, number)
}

fn at(name: &str, address: &str, number: u16) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: pb::address(address, number),
            ..Default::default()
        })),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    }
}
