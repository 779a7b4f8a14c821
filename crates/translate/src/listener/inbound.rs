//! Listeners for calls to the workload beside a sidecar (reference: semantics 143 to 147).

use mizzen_mesh::{Mesh, MtlsMode};
use mizzen_proto::envoy::config::core::v3::{Metadata, TrafficDirection};
use mizzen_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use mizzen_proto::envoy::config::route::v3::route::Action;
use mizzen_proto::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use mizzen_proto::envoy::config::route::v3::{
    Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route_match,
};
use mizzen_types::Protocol;

use super::http::{self, Routes, Side};
use super::{chain, except, http_inspector, named, original_destination, original_source, tcp, tls_inspector};
use crate::cluster::is_sniffed;
use crate::inbound::{InboundPort, inbound_ports};
use crate::view::{Dialect, Interception, ProxyView};
use crate::{istio, names, pb, tls};

/// ALPN names with which a sidecar tells that HTTP is inside its mesh TLS.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// The same for other bytes.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
const MESH_ALL: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

pub(super) fn listeners(mesh: &Mesh, view: &ProxyView) -> Vec<Listener> {
    let policy = mesh.peer_policy(&view.namespace, &view.labels);
    let ports = inbound_ports(mesh, view);
    match view.interception {
        Interception::Redirect | Interception::Tproxy => vec![virtual_inbound(mesh, view, &ports)],
        Interception::None => ports.iter().map(|port| bound(mesh, view, port, policy.on_port(port.number))).collect(),
    }
}

/// One workload port on the address that the mesh knows.
fn bound(mesh: &Mesh, view: &ProxyView, port: &InboundPort<'_>, mode: MtlsMode) -> Listener {
    let name = format!("{}_{}", view.address(), port.number);
    let mut listener = named(&name, view.address(), port.number, TrafficDirection::Inbound);
    let what = Inside::Port(port);
    listener.filter_chains = chains(mesh, view, &what, mode);
    for chain in &mut listener.filter_chains {
        if let Some(chain_match) = &mut chain.filter_chain_match {
            // There is no other port on this listener.
            chain_match.destination_port = None;
        }
    }
    if mode != MtlsMode::Disable {
        listener.listener_filters.push(tls_inspector());
    }
    if is_sniffed(port.service_port.protocol) {
        listener.listener_filters.push(http_inspector());
        sniff_for_ever(&mut listener);
    }
    listener.access_log = super::access_log::unmatched(mesh);
    listener
}

fn sniff_for_ever(listener: &mut Listener) {
    listener.listener_filters_timeout = pb::zero();
    listener.continue_on_listener_filters_timeout = true;
}

/// Everything that the kernel sends to the inbound port: chains of the workload's ports, and for all others.
fn virtual_inbound(mesh: &Mesh, view: &ProxyView, ports: &[InboundPort<'_>]) -> Listener {
    let own_port = mesh.config().proxy_inbound_listen_port;
    let policy = mesh.peer_policy(&view.namespace, &view.labels);
    let mut listener = named("virtualInbound", "0.0.0.0", own_port, TrafficDirection::Inbound);
    let black_hole = tcp::Way::Cluster(names::BLACK_HOLE.to_owned());
    listener.filter_chains.push(FilterChain {
        name: "virtualInbound-blackhole".to_owned(),
        filter_chain_match: Some(FilterChainMatch { destination_port: pb::u32(own_port.into()), ..Default::default() }),
        ..chain(tcp::filters(mesh, view, Side::Inbound, &black_hole))
    });
    listener.filter_chains.extend(chains(mesh, view, &Inside::AnyPort, policy.mode));
    for port in ports {
        listener.filter_chains.extend(chains(mesh, view, &Inside::Port(port), policy.on_port(port.number)));
    }
    let mut without_tls: Vec<u16> =
        ports.iter().map(|port| port.number).filter(|port| policy.on_port(*port) == MtlsMode::Disable).collect();
    let mut known: Vec<u16> =
        ports.iter().filter(|port| !is_sniffed(port.service_port.protocol)).map(|port| port.number).collect();
    for list in [&mut without_tls, &mut known] {
        list.push(own_port);
        list.sort_unstable();
    }
    listener.listener_filters =
        vec![original_destination(), except(tls_inspector(), &without_tls), except(http_inspector(), &known)];
    sniff_for_ever(&mut listener);
    if view.interception == Interception::Tproxy {
        listener.transparent = pb::bool(true);
        listener.listener_filters.push(original_source());
    }
    listener.max_connections_to_accept_per_socket_event = pb::u32(1);
    listener.access_log = super::access_log::unmatched(mesh);
    listener
}

/// What is behind a chain.
enum Inside<'a> {
    Port(&'a InboundPort<'a>),
    /// A port that no service names: the connection goes on to where it was meant for.
    AnyPort,
}

impl Inside<'_> {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Port(port) => port.service_port.protocol,
            Self::AnyPort => Protocol::Sniff,
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Port(port) => port.number,
            Self::AnyPort => 0,
        }
    }

    fn cluster(&self) -> String {
        match self {
            Self::Port(port) => names::inbound(port.number),
            Self::AnyPort => names::INBOUND_PASSTHROUGH.to_owned(),
        }
    }
}

/// What a chain takes, and what it does with it.
struct Kind {
    /// First bytes: TLS, anything else, or not looked at.
    transport: &'static str,
    protocols: Vec<&'static str>,
    http: bool,
    /// Whether mesh TLS ends here.
    mesh_tls: bool,
}

fn kinds(protocol: Protocol, mode: MtlsMode) -> Vec<Kind> {
    let kind = |transport, protocols: &[&'static str], http, mesh_tls| Kind {
        transport,
        protocols: protocols.to_vec(),
        http,
        mesh_tls,
    };
    let (http, sniffed) = (protocol.is_http(), is_sniffed(protocol));
    const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];
    match mode {
        MtlsMode::Permissive if sniffed => vec![
            kind("tls", &MESH_HTTP, true, true),
            kind("raw_buffer", &PLAIN_HTTP, true, false),
            kind("tls", &MESH_TCP, false, true),
            kind("raw_buffer", &[], false, false),
            // TLS of the applications themselves.
            kind("tls", &[], false, false),
        ],
        MtlsMode::Permissive if http => {
            vec![kind("tls", &MESH_ALL, true, true), kind("raw_buffer", &[], true, false)]
        }
        MtlsMode::Permissive => vec![
            kind("tls", &MESH_ALL, false, true),
            kind("raw_buffer", &[], false, false),
            kind("tls", &[], false, false),
        ],
        MtlsMode::Strict if sniffed => {
            vec![kind("tls", &MESH_HTTP, true, true), kind("tls", &[], false, true)]
        }
        MtlsMode::Strict => vec![kind("tls", &[], http, true)],
        MtlsMode::Disable if sniffed => vec![kind("", &PLAIN_HTTP, true, false), kind("", &[], false, false)],
        MtlsMode::Disable => vec![kind("", &[], http, false)],
    }
}

fn chains(mesh: &Mesh, view: &ProxyView, what: &Inside<'_>, mode: MtlsMode) -> Vec<FilterChain> {
    kinds(what.protocol(), mode).iter().map(|kind| filter_chain(mesh, view, what, kind)).collect()
}

fn filter_chain(mesh: &Mesh, view: &ProxyView, what: &Inside<'_>, kind: &Kind) -> FilterChain {
    let config = mesh.config();
    let mut filters = Vec::new();
    if kind.http {
        if view.dialect == Dialect::Istio {
            filters.push(istio::network_metadata_exchange());
        }
        let stat_prefix = match what {
            Inside::Port(port) => format!("inbound_{}", port.chain_name()),
            Inside::AnyPort => names::INBOUND_PASSTHROUGH.to_owned(),
        };
        filters.push(http::manager(mesh, view, Side::Inbound, &stat_prefix, Routes::Inline(Box::new(routes(what)))));
    } else {
        filters = tcp::filters(mesh, view, Side::Inbound, &tcp::Way::Cluster(what.cluster()));
    }
    let trust_domains =
        || std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases).map(String::as_str);
    // Stock Envoy does not exchange metadata, so it must not agree to do so.
    let protocols: &[&str] = match (kind.http, view.dialect) {
        (false, Dialect::Istio) => &["istio-peer-exchange", "h2", "http/1.1"],
        _ => &["h2", "http/1.1"],
    };
    FilterChain {
        name: match what {
            Inside::Port(port) => port.chain_name(),
            Inside::AnyPort if kind.http => "virtualInbound-catchall-http".to_owned(),
            Inside::AnyPort => "virtualInbound".to_owned(),
        },
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(what.port()).filter(|port| *port != 0).and_then(|port| pb::u32(port.into())),
            transport_protocol: kind.transport.to_owned(),
            application_protocols: tls::alpn(&kind.protocols),
            ..Default::default()
        }),
        metadata: what.origin(),
        transport_socket: kind.mesh_tls.then(|| tls::server_socket(&tls::mesh_server(trust_domains(), protocols))),
        ..chain(filters)
    }
}

/// Everything goes to the workload; what was not begun may be tried again (reference: semantics 37).
fn routes(what: &Inside<'_>) -> RouteConfiguration {
    let cluster = what.cluster();
    let operation = match what {
        Inside::Port(port) => {
            // Of a port that a Sidecar resource names, the resource.
            let host = match (&port.named, port.service) {
                (Some(named), _) => format!("{}.{}", named.rule.order.name, named.rule.order.namespace),
                (None, Some(service)) => service.key.host.to_string(),
                (None, None) => String::new(),
            };
            format!("{host}:{}/*", port.service_port.number)
        }
        Inside::AnyPort => ":0/*".to_owned(),
    };
    let grpc = what.protocol() == Protocol::Grpc;
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.clone())),
        timeout: pb::zero(),
        retry_policy: (!grpc).then(|| RetryPolicy {
            retry_on: "reset-before-request".to_owned(),
            num_retries: pb::u32(2),
            ..Default::default()
        }),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: pb::zero(),
            grpc_timeout_header_max: pb::zero(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(Action::Route(action)),
        decorator: Some(Decorator { operation, ..Default::default() }),
        ..Default::default()
    };
    let host = VirtualHost {
        name: format!("inbound|http|{}", what.service_port()),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    };
    RouteConfiguration {
        name: cluster,
        virtual_hosts: vec![host],
        validate_clusters: pb::bool(false),
        ..Default::default()
    }
}

impl Inside<'_> {
    /// The resource that asked for the port.
    fn origin(&self) -> Option<Metadata> {
        let Self::Port(port) = self else { return None };
        let order = &port.named.as_ref()?.rule.order;
        let path = names::config_path("sidecar", &order.namespace, &order.name);
        pb::metadata(&serde_json::json!({ "istio": { "config": path } }))
    }

    fn service_port(&self) -> u16 {
        match self {
            Self::Port(port) => port.service_port.number,
            Self::AnyPort => 0,
        }
    }
}
