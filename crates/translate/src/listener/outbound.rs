//! Listeners for calls of the workload beside a sidecar (reference: semantics 53 to 55, 60 to 67).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mizzen_api::mesh::OutboundTrafficPolicyMode;
use mizzen_api::networking::{L4MatchAttributes, TlsMatchAttributes};
use mizzen_mesh::{Attachment, Mesh, Resolution, Service, ServicePort, VirtualServiceRule};
use mizzen_proto::envoy::config::core::v3::{CidrRange, Http1ProtocolOptions, TrafficDirection};
use mizzen_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use mizzen_proto::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use mizzen_types::{Hostname, Protocol};
use prost::Message;

use super::http::{self, Routes, Side};
use super::tcp::{self, Way};
use super::{HANDSHAKE_TIMEOUT, access_log, chain, http_inspector, named, network_filter, plain_http, tls_inspector};
use crate::cluster::is_sniffed;
use crate::imports::{self, Imported};
use crate::view::{Interception, ProxyView};
use crate::{names, pb};

pub(super) fn listeners(mesh: &Mesh, view: &ProxyView) -> Vec<Listener> {
    let mut listeners = Vec::new();
    if view.interception.is_by_kernel() {
        listeners.push(virtual_outbound(mesh, view));
        listeners.extend(service_listeners(mesh, view));
    }
    if let Some(port) = view.http_proxy_port {
        listeners.push(http_proxy(mesh, view, port));
    }
    listeners
}

/// The port that applications are told by `http_proxy`.
fn http_proxy(mesh: &Mesh, view: &ProxyView, port: u16) -> Listener {
    // With redirection the workload itself is on loopback; without it the mesh address is its own.
    let address = match view.interception {
        Interception::Redirect | Interception::Tproxy => "127.0.0.1",
        Interception::None => view.address(),
    };
    let name = format!("{address}_{port}");
    let table = Routes::Named(names::HTTP_PROXY_TABLE.to_owned());
    let mut filter = http::manager(mesh, view, Side::Outbound, &format!("outbound_{name}"), table);
    allow_absolute_urls(&mut filter);
    let mut listener = named(&name, address, port, TrafficDirection::Outbound);
    listener.filter_chains = vec![chain(vec![filter])];
    listener.access_log = access_log::unmatched(mesh);
    listener
}

fn allow_absolute_urls(filter: &mut mizzen_proto::envoy::config::listener::v3::Filter) {
    use mizzen_proto::envoy::config::listener::v3::filter::ConfigType;
    use mizzen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
    let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type else { return };
    if let Ok(mut manager) = HttpConnectionManager::decode(&*any.value) {
        manager.http_protocol_options =
            Some(Http1ProtocolOptions { allow_absolute_url: pb::bool(true), ..Default::default() });
        any.value = manager.encode_to_vec();
    }
}

/// Where connections go that no other listener is for.
fn unknown(mesh: &Mesh, view: &ProxyView) -> Way {
    let allowed = imports::outbound_policy(mesh, &view.scope(mesh)) != OutboundTrafficPolicyMode::RegistryOnly;
    Way::Cluster(if allowed { names::PASSTHROUGH } else { names::BLACK_HOLE }.to_owned())
}

/// Everything that the kernel sends to the outbound port; it is handed on to the listener for its destination.
fn virtual_outbound(mesh: &Mesh, view: &ProxyView) -> Listener {
    let own_port = mesh.config().proxy_listen_port;
    let mut listener = named("virtualOutbound", "0.0.0.0", own_port, TrafficDirection::Outbound);
    let black_hole = Way::Cluster(names::BLACK_HOLE.to_owned());
    listener.filter_chains = vec![
        FilterChain {
            name: "virtualOutbound-blackhole".to_owned(),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: pb::u32(own_port.into()),
                ..Default::default()
            }),
            ..chain(tcp::filters(mesh, view, Side::Outbound, &black_hole))
        },
        FilterChain {
            name: "virtualOutbound-catchall-tcp".to_owned(),
            ..chain(tcp::filters(mesh, view, Side::Outbound, &unknown(mesh, view)))
        },
    ];
    listener.use_original_dst = pb::bool(true);
    listener.max_connections_to_accept_per_socket_event = pb::u32(1);
    listener.access_log = access_log::unmatched(mesh);
    listener
}

const ANYWHERE: &str = "0.0.0.0";

/// What one address and port is for, gathered from all services there.
#[derive(Default)]
struct Draft {
    /// Table for requests.
    http: Option<String>,
    /// Chains by server name.
    tls: Vec<FilterChain>,
    /// Bytes of any other kind. The first service has it (reference: semantics 67).
    tcp: Vec<FilterChain>,
    tcp_taken: bool,
    /// The Sidecar resource names the address: nothing is handed on to it, it is called there.
    bound: bool,
    server_names: BTreeSet<String>,
}

fn service_listeners(mesh: &Mesh, view: &ProxyView) -> Vec<Listener> {
    let scope = view.scope(mesh);
    let mut rules = imports::virtual_services(mesh, &scope);
    // Requests are routed by tables; only rules for bytes show in listeners.
    rules.retain(|rule| !rule.spec.tcp.is_empty() || !rule.spec.tls.is_empty());
    let mut drafts: BTreeMap<(String, u16), Draft> = BTreeMap::new();
    let mut services = imports::services(mesh, &scope);
    services.sort_by_key(|imported| imported.service.created);
    for imported in &services {
        for port in &imported.service.ports {
            add(mesh, view, &rules, imported, port, &mut drafts);
        }
    }
    drafts.into_iter().map(|((address, port), draft)| finish(mesh, view, &address, port, draft)).collect()
}

fn add(
    mesh: &Mesh,
    view: &ProxyView,
    rules: &[Arc<VirtualServiceRule>],
    Imported { service, bind }: &Imported,
    port: &ServicePort,
    drafts: &mut BTreeMap<(String, u16), Draft>,
) {
    let bind = bind.get(&port.number).map(ToString::to_string);
    if port.protocol.is_http() {
        let bound = bind.is_some();
        let draft = drafts.entry((bind.unwrap_or_else(|| ANYWHERE.to_owned()), port.number)).or_default();
        draft.http = Some(port.number.to_string());
        draft.bound |= bound;
        return;
    }
    let bound = bind.is_some();
    let addresses = match bind {
        Some(address) => vec![address],
        None => listening_addresses(mesh, view, service, port),
    };
    for address in addresses {
        let own = address != ANYWHERE;
        let draft = drafts.entry((address, port.number)).or_default();
        draft.bound |= bound;
        if is_sniffed(port.protocol) {
            let table = if own { format!("{}:{}", service.key.host, port.number) } else { port.number.to_string() };
            draft.http.get_or_insert(table);
        }
        let place = ChainPlace { mesh, view, service, port, rules };
        if port.protocol.is_tls() {
            for chain in place.tls_chains(!own) {
                let names = chain.filter_chain_match.iter().flat_map(|m| &m.server_names).cloned();
                let names: Vec<String> = names.collect();
                if names.is_empty() {
                    if !draft.tcp_taken {
                        draft.tcp.push(chain);
                        draft.tcp_taken = true;
                    }
                } else if names.iter().any(|name| draft.server_names.insert(name.clone())) {
                    draft.tls.push(chain);
                }
            }
        } else if !draft.tcp_taken {
            draft.tcp = place.tcp_chains();
            draft.tcp_taken = true;
        }
    }
}

/// The addresses at which a port of a service is called: its own, for a headless one those of its pods, else any
/// (reference: semantics 55 and 66).
fn listening_addresses(mesh: &Mesh, view: &ProxyView, service: &Service, port: &ServicePort) -> Vec<String> {
    let own = view.given().addresses(service);
    if !own.is_empty() {
        return own;
    }
    if service.is_headless() && service.resolution == Resolution::Passthrough {
        let endpoints = mesh.endpoints(&service.key);
        let pods = endpoints.map(|endpoints| endpoints.on_port(port.number)).unwrap_or_default();
        let others = pods.iter().map(|endpoint| endpoint.address.to_string());
        return others
            .filter(|address| !view.addresses.contains(address))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
    }
    vec![ANYWHERE.to_owned()]
}

struct ChainPlace<'a> {
    mesh: &'a Mesh,
    view: &'a ProxyView,
    service: &'a Service,
    port: &'a ServicePort,
    rules: &'a [Arc<VirtualServiceRule>],
}

impl ChainPlace<'_> {
    fn default_way(&self) -> Way {
        Way::Cluster(names::outbound(self.port.number, "", self.service.key.host.as_str()))
    }

    fn passing(&self, way: &Way, chain_match: Option<FilterChainMatch>) -> FilterChain {
        let mut filters = tcp::filters(self.mesh, self.view, Side::Outbound, way);
        if self.port.protocol == Protocol::Mongo {
            // Looks on, for statistics; the bytes are passed on by the last filter.
            let watch = MongoProxy { stat_prefix: way.name().to_owned(), ..Default::default() };
            let last = filters.len().saturating_sub(1);
            filters.insert(last, network_filter("envoy.filters.network.mongo_proxy", &watch));
        }
        FilterChain {
            filter_chain_match: chain_match,
            transport_socket_connect_timeout: pb::duration(HANDSHAKE_TIMEOUT),
            ..chain(filters)
        }
    }

    /// Rules for this very service, exact hosts before wildcards.
    fn rules(&self) -> impl Iterator<Item = &Arc<VirtualServiceRule>> {
        let host = &self.service.key.host;
        let fits = move |rule: &&Arc<VirtualServiceRule>, wildcard: bool| {
            rule.hosts.iter().any(|written| {
                let meant = self.mesh.resolve(written.as_str(), &rule.order.namespace);
                meant.is_wildcard() == wildcard && host.is_subset_of(&meant)
            })
        };
        let exact = self.rules.iter().filter(move |rule| fits(rule, false));
        exact.chain(self.rules.iter().filter(move |rule| fits(rule, true)))
    }

    fn way(&self, rule: &VirtualServiceRule, to: &[mizzen_api::networking::RouteDestination]) -> Option<Way> {
        Way::of_rule(self.mesh, self.view, to, &rule.order.namespace, &rule.order.name, self.port.number)
    }

    /// `by_name`: there are other services at the same place, so the server name has to tell which is meant.
    fn tls_chains(&self, by_name: bool) -> Vec<FilterChain> {
        let mut chains = Vec::new();
        for rule in self.rules() {
            for tls in &rule.spec.tls {
                for wanted in tls.r#match.iter().filter(|wanted| self.tls_applies(wanted, &rule.order.namespace)) {
                    let Some(way) = self.way(rule, &tls.route) else { continue };
                    let asked = wanted.sni_hosts.iter().map(|host| Hostname::new(host));
                    let Some(server_names) = sni_names(asked) else { continue };
                    let chain_match = FilterChainMatch {
                        server_names,
                        prefix_ranges: ranges(&wanted.destination_subnets),
                        ..Default::default()
                    };
                    chains.push(self.passing(&way, Some(chain_match)));
                }
            }
            if !chains.is_empty() {
                return chains;
            }
        }
        if !by_name {
            return self.tcp_chains();
        }
        let Some(names) = sni_names(std::iter::once(self.service.key.host.clone())) else { return Vec::new() };
        let chain_match = FilterChainMatch { server_names: names, ..Default::default() };
        vec![self.passing(&self.default_way(), Some(chain_match))]
    }

    fn tcp_chains(&self) -> Vec<FilterChain> {
        for rule in self.rules() {
            let mut chains = Vec::new();
            for tcp in &rule.spec.tcp {
                let Some(way) = self.way(rule, &tcp.route) else { continue };
                if tcp.r#match.is_empty() {
                    chains.push(self.passing(&way, None));
                    return chains;
                }
                for wanted in tcp.r#match.iter().filter(|wanted| self.tcp_applies(wanted, &rule.order.namespace)) {
                    let ranges = ranges(&wanted.destination_subnets);
                    let last = ranges.is_empty();
                    let chain_match = (!last).then(|| FilterChainMatch { prefix_ranges: ranges, ..Default::default() });
                    chains.push(self.passing(&way, chain_match));
                    // Without subnets nothing is left for later ones (reference: semantics 63).
                    if last {
                        return chains;
                    }
                }
            }
            if !chains.is_empty() {
                chains.push(self.passing(&self.default_way(), None));
                return chains;
            }
        }
        vec![self.passing(&self.default_way(), None)]
    }

    fn tls_applies(&self, wanted: &TlsMatchAttributes, namespace: &str) -> bool {
        applies(
            self.view,
            self.port.number,
            namespace,
            &Attachment::Mesh,
            wanted.port,
            &wanted.source_labels,
            &wanted.source_namespace,
            &wanted.gateways,
        )
    }

    fn tcp_applies(&self, wanted: &L4MatchAttributes, namespace: &str) -> bool {
        applies(
            self.view,
            self.port.number,
            namespace,
            &Attachment::Mesh,
            wanted.port,
            &wanted.source_labels,
            &wanted.source_namespace,
            &wanted.gateways,
        )
    }
}

/// For TCP and TLS all conditions have to hold (reference: semantics 23).
#[allow(clippy::too_many_arguments)] // The fields of two message types that share them without sharing a type.
pub(super) fn applies(
    view: &ProxyView,
    listener_port: u16,
    namespace: &str,
    attachment: &Attachment,
    port: u16,
    source_labels: &mizzen_types::Labels,
    source_namespace: &str,
    gateways: &[String],
) -> bool {
    (port == 0 || port == listener_port)
        && source_labels.selects(&view.labels)
        && (source_namespace.is_empty() || source_namespace == view.namespace)
        && (gateways.is_empty() || gateways.iter().any(|g| Attachment::read(g, namespace) == *attachment))
}

/// Server names for a filter chain; none at all when any is fine. `None` when nothing is left of names that cannot be told
/// apart: a wildcard has to stand for whole labels there.
pub(super) fn sni_names(hosts: impl Iterator<Item = Hostname>) -> Option<Vec<String>> {
    let names: Vec<String> = hosts.map(|host| host.as_str().to_owned()).collect();
    if names.iter().any(|name| name == "*") {
        return Some(Vec::new());
    }
    let whole = |name: &String| name.strip_prefix('*').is_none_or(|rest| rest.starts_with('.'));
    let names: Vec<String> = names.into_iter().filter(whole).collect();
    (!names.is_empty()).then_some(names)
}

pub(super) fn ranges(subnets: &[String]) -> Vec<CidrRange> {
    let read = |subnet: &String| {
        let (address, length) = subnet.split_once('/').unwrap_or((subnet, ""));
        let longest = match address.parse::<IpAddr>().ok()? {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let length = if length.is_empty() { longest } else { length.parse().ok()? };
        Some(CidrRange { address_prefix: address.to_owned(), prefix_len: pb::u32(length) })
    };
    subnets.iter().filter_map(read).collect()
}

fn finish(mesh: &Mesh, view: &ProxyView, address: &str, port: u16, draft: Draft) -> Listener {
    let name = format!("{address}_{port}");
    let mut listener = named(&name, address, port, TrafficDirection::Outbound);
    let Draft { http: table, tls, mut tcp, bound, .. } = draft;
    let own = address != ANYWHERE;
    if !tls.is_empty() {
        listener.listener_filters.push(tls_inspector());
    }
    let fallback = || FilterChain {
        name: "PassthroughFilterChain".to_owned(),
        filter_chain_match: Some(FilterChainMatch::default()),
        ..chain(tcp::filters(mesh, view, Side::Outbound, &unknown(mesh, view)))
    };
    listener.filter_chains = tls;
    match table {
        Some(table) => {
            let manager = http::manager(mesh, view, Side::Outbound, &format!("outbound_{name}"), Routes::Named(table));
            listener.filter_chains.push(FilterChain {
                filter_chain_match: Some(plain_http()),
                transport_socket_connect_timeout: pb::duration(HANDSHAKE_TIMEOUT),
                ..chain(vec![manager])
            });
            listener.listener_filters.push(http_inspector());
            // What is no HTTP goes to the service that has the port, if one has.
            let last = tcp.iter().position(|chain| chain.filter_chain_match.is_none()).map(|index| tcp.remove(index));
            listener.filter_chains.append(&mut tcp);
            listener.default_filter_chain = Some(last.unwrap_or_else(fallback));
        }
        None => {
            let complete = tcp.iter().any(|chain| chain.filter_chain_match.is_none());
            listener.filter_chains.append(&mut tcp);
            if !complete && !own {
                listener.default_filter_chain = Some(fallback());
            }
        }
    }
    listener.listener_filters_timeout = pb::duration(mesh.config().protocol_detection_timeout);
    listener.continue_on_listener_filters_timeout = true;
    if !bound {
        // Only handed connections by `virtualOutbound`.
        listener.bind_to_port = pb::bool(false);
    }
    listener.access_log = access_log::unmatched(mesh);
    listener
}
