//! Listeners: where a proxy takes connections, and what it does with their first bytes.

mod access_log;
mod gateway;
mod http;
mod inbound;
mod outbound;
mod tcp;

use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::core::v3 as core;
use mizzen_proto::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use mizzen_proto::envoy::config::listener::v3::{
    AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter,
    ListenerFilterChainMatchPredicate, filter, listener_filter,
};
use mizzen_proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use mizzen_proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use mizzen_proto::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use mizzen_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use mizzen_proto::envoy::r#type::v3::Int32Range;
use std::time::Duration;

use crate::view::{ProxyView, Role};
use crate::{Resource, pb, type_url};

/// All listeners of a proxy, by name.
pub fn listeners(mesh: &Mesh, view: &ProxyView) -> Vec<Resource> {
    let mut all = match view.role {
        Role::Router => gateway::listeners(mesh, view),
        Role::Sidecar => {
            let mut all = outbound::listeners(mesh, view);
            all.extend(inbound::listeners(mesh, view));
            all.iter_mut().for_each(|listener| fit_families(listener, view));
            all
        }
    };
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| a.name == b.name);
    all.iter().map(|listener| Resource::encode(&listener.name, type_url::LISTENER, listener, &[])).collect()
}

/// "Any address" is one of each family that the workload has addresses of.
fn fit_families(listener: &mut Listener, view: &ProxyView) {
    let (v4, v6) = view.families();
    let Some(core::address::Address::SocketAddress(address)) =
        listener.address.as_mut().and_then(|address| address.address.as_mut())
    else {
        return;
    };
    if !v6 || address.address != "0.0.0.0" {
        return;
    }
    if v4 {
        let Some(core::socket_address::PortSpecifier::PortValue(port)) = address.port_specifier else { return };
        let any = u16::try_from(port).ok().and_then(|port| pb::address("::", port));
        listener.additional_addresses.push(AdditionalAddress { address: any, ..Default::default() });
    } else {
        address.address = "::".to_owned();
    }
}

/// A TLS handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

fn named(name: &str, address: &str, port: u16, direction: core::TrafficDirection) -> Listener {
    Listener {
        name: name.to_owned(),
        address: pb::address(address, port),
        traffic_direction: direction as i32,
        ..Default::default()
    }
}

fn network_filter<M: prost::Message + prost::Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(pb::any(config))) }
}

fn listener_filter<M: prost::Message + prost::Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pb::any(config))),
        ..Default::default()
    }
}

/// Tells the server name and protocols of TLS.
fn tls_inspector() -> ListenerFilter {
    let config = TlsInspector { initial_read_buffer_size: pb::u32(512), ..Default::default() };
    listener_filter("envoy.filters.listener.tls_inspector", &config)
}

/// Tells HTTP from other bytes.
fn http_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", &HttpInspector::default())
}

fn original_destination() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", &OriginalDst {})
}

/// By this mark the rules of capture know what goes to the workload already, and its answers (reference: features 5.4).
const TPROXY_MARK: u32 = 1337;

/// What the proxy sends to its workload has the client's address, and a mark that leads the answers back.
fn original_source() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_src", &OriginalSrc { mark: TPROXY_MARK, ..Default::default() })
}

/// Switches a listener filter off for some destination ports.
fn except(mut filter: ListenerFilter, ports: &[u16]) -> ListenerFilter {
    let of_port = |port: &u16| {
        let range = Int32Range { start: (*port).into(), end: i32::from(*port) + 1 };
        ListenerFilterChainMatchPredicate { rule: Some(Rule::DestinationPortRange(range)) }
    };
    filter.filter_disabled = match ports {
        [] => None,
        [port] => Some(of_port(port)),
        ports => Some(ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet { rules: ports.iter().map(of_port).collect() })),
        }),
    };
    filter
}

fn chain(filters: Vec<Filter>) -> FilterChain {
    FilterChain { filters, ..Default::default() }
}

/// Requests in the clear, as the HTTP inspector tells them.
fn plain_http() -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: vec!["http/1.1".to_owned(), "h2c".to_owned()],
        ..Default::default()
    }
}
