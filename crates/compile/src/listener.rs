//! Listeners and their filter chains.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use mizzen_proto::envoy::config::core::v3::{TrafficDirection, transport_socket};
use mizzen_proto::envoy::config::listener::v3::{
    Filter, FilterChain as WireChain, FilterChainMatch, Listener as Wire, ListenerFilter,
    ListenerFilterChainMatchPredicate, filter, filter_chain_match::ConnectionSourceType, listener, listener_filter,
    listener_filter_chain_match_predicate::Rule,
};
use mizzen_proto::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use mizzen_proto::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use mizzen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use mizzen_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use mizzen_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use mizzen_snapshot::listener::{
    ChainMatch, Direction, Drain, FilterChain, Handler, Inspect, ListenAddress, Listener, Transport,
};
use mizzen_snapshot::tls::ServerTls;

use crate::filters::{self, Known, Place};
use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::limits;
use crate::origin;
use crate::value::{self, Place as Address};
use crate::{access_log, handler, peer, tcp, tls};

pub(crate) fn compile(wire: &Wire, fingerprint: u64) -> Result<Listener> {
    if wire.name.is_empty() {
        return Err(Invalid::new("a name is missing").within("name"));
    }
    not_obeyed!(wire, fcds_config, filter_chain_matcher, udp_listener_config, api_listener, listener_specifier,);
    let address = match value::place(wire.address.as_ref()).at("address")? {
        Address::Socket(address) => ListenAddress::Tcp(address),
        Address::Pipe(path) => ListenAddress::Unix(path.into()),
        Address::Name { .. } => return Err(Invalid::new("has to be an IP address").within("address.socket_address")),
    };
    let address = with_both_families(address, wire)?;
    limits::count("filter chains", wire.filter_chains.len(), limits::CHAINS).at("filter_chains")?;
    let mut notes = Vec::new();
    let mut chains: Vec<Arc<FilterChain>> = Vec::with_capacity(wire.filter_chains.len());
    for (index, wire) in wire.filter_chains.iter().enumerate() {
        let compiled = chain(wire, &mut notes).at_index("filter_chains", index)?;
        if let Some(same) = chains.iter().find(|have| have.matches == compiled.matches) {
            let message = format!("the same conditions as filter chain {:?}", same.name);
            return Err(Invalid::new(message).within("filter_chain_match")).at_index("filter_chains", index);
        }
        chains.push(Arc::new(compiled));
    }
    let default_chain = wire.default_filter_chain.as_ref().map(|wire| chain(wire, &mut notes)).transpose();
    let default_chain = default_chain.at("default_filter_chain")?;
    let unmatched = access_log::unmatched(&wire.access_log, &mut notes)?;
    if chains.is_empty() && default_chain.is_none() {
        return Err(Invalid::new("a listener needs a filter chain").within("filter_chains"));
    }
    Ok(Listener {
        name: wire.name.as_str().into(),
        address,
        bind: value::flag(wire.bind_to_port.as_ref(), true)
            && wire.deprecated_v1.as_ref().is_none_or(|old| value::flag(old.bind_to_port.as_ref(), true)),
        transparent: value::flag(wire.transparent.as_ref(), false),
        use_original_dst: value::flag(wire.use_original_dst.as_ref(), false),
        direction: match TrafficDirection::try_from(wire.traffic_direction) {
            Ok(TrafficDirection::Inbound) => Direction::Inbound,
            Ok(TrafficDirection::Outbound) => Direction::Outbound,
            Ok(TrafficDirection::Unspecified) | Err(_) => Direction::Unspecified,
        },
        inspect: inspect(wire)?,
        chains,
        default_chain: default_chain.map(Arc::new),
        drain: match listener::DrainType::try_from(wire.drain_type) {
            Ok(listener::DrainType::ModifyOnly) => Drain::ModifyOnly,
            Ok(listener::DrainType::Default) | Err(_) => Drain::Default,
        },
        max_connections: None,
        origin: origin::origin(wire.metadata.as_ref()),
        unmatched,
        notes,
        fingerprint,
    })
}

/// A listener on any address of one family may have the same port on any address of the other: then one socket takes
/// both.
fn with_both_families(first: ListenAddress, wire: &Wire) -> Result<ListenAddress> {
    let mut both = first;
    for (index, additional) in wire.additional_addresses.iter().enumerate() {
        let place = value::place(additional.address.as_ref()).at("address");
        both = match (&both, place.at_index("additional_addresses", index)?) {
            (ListenAddress::Tcp(first), Address::Socket(other))
                if first.port() == other.port()
                    && first.ip().is_unspecified()
                    && other.ip().is_unspecified()
                    && additional.socket_options.is_none() =>
            {
                ListenAddress::Tcp((std::net::Ipv6Addr::UNSPECIFIED, first.port()).into())
            }
            _ => {
                let error = Invalid::not_obeyed("an address other than 0.0.0.0 and :: with the listener's port");
                return Err(error).at_index("additional_addresses", index);
            }
        };
    }
    Ok(both)
}

fn inspect(wire: &Wire) -> Result<Inspect> {
    let mut inspect = Inspect {
        timeout: value::limit(wire.listener_filters_timeout.as_ref(), Some(Duration::from_secs(15)))
            .at("listener_filters_timeout")?,
        continue_on_timeout: wire.continue_on_listener_filters_timeout,
        ..Inspect::default()
    };
    for (index, filter) in wire.listener_filters.iter().enumerate() {
        listener_filter(filter, &mut inspect).at_index("listener_filters", index)?;
    }
    Ok(inspect)
}

fn listener_filter(filter: &ListenerFilter, inspect: &mut Inspect) -> Result<()> {
    let config = match &filter.config_type {
        Some(listener_filter::ConfigType::TypedConfig(any)) => Some(any),
        Some(listener_filter::ConfigType::ConfigDiscovery(_)) => {
            return Err(Invalid::not_obeyed("a filter that is discovered").within("config_discovery"));
        }
        None => None,
    };
    let mut disabled = Vec::new();
    if let Some(predicate) = &filter.filter_disabled {
        disabled_ports(predicate, &mut disabled, 0).at("filter_disabled")?;
    }
    match filters::known(&filter.name, config, Place::Listener)? {
        Known::OriginalDst => inspect.original_dst = true,
        Known::OriginalSrc => {
            let source: OriginalSrc = config.map(value::unpack).transpose().at("typed_config")?.unwrap_or_default();
            not_obeyed!(source, bind_port);
            inspect.original_src = Some(source.mark);
        }
        Known::TlsInspector => {
            inspect.tls = true;
            inspect.ports_without_tls = disabled;
            return Ok(());
        }
        Known::HttpInspector => {
            inspect.http = true;
            inspect.ports_without_http = disabled;
            return Ok(());
        }
        Known::ProxyProtocol => {
            if let Some(any) = config {
                let proxy: ProxyProtocol = value::unpack(any).at("typed_config")?;
                not_obeyed!(proxy, allow_requests_without_proxy_protocol, disallowed_versions);
            }
            inspect.proxy_protocol = true;
        }
        _ => {}
    }
    if disabled.is_empty() { Ok(()) } else { Err(Invalid::not_obeyed("this field").within("filter_disabled")) }
}

/// Ports for which a filter is switched off. Istio says it with ranges, alone or in an "or".
fn disabled_ports(
    predicate: &ListenerFilterChainMatchPredicate,
    out: &mut Vec<RangeInclusive<u16>>,
    depth: usize,
) -> Result<()> {
    match &predicate.rule {
        Some(Rule::DestinationPortRange(range)) => {
            // The end is not in the range.
            let port = |port: i32| u16::try_from(port).map_err(|_| Invalid::new("a port is at most 65535"));
            if range.start >= range.end {
                return Err(Invalid::new("the range is empty").within("destination_port_range"));
            }
            out.push(port(range.start)?..=port(range.end - 1)?);
            Ok(())
        }
        Some(Rule::OrMatch(set)) if depth < 8 => {
            let mut each = set.rules.iter().enumerate();
            each.try_for_each(|(index, rule)| disabled_ports(rule, out, depth + 1).at_index("or_match.rules", index))
        }
        Some(Rule::AnyMatch(true)) => {
            out.push(0..=u16::MAX);
            Ok(())
        }
        _ => Err(Invalid::not_obeyed("this condition")),
    }
}

fn chain(wire: &WireChain, notes: &mut Vec<String>) -> Result<FilterChain> {
    if value::flag(wire.use_proxy_proto.as_ref(), false) {
        return Err(Invalid::not_obeyed("this field").within("use_proxy_proto"));
    }
    let matches = wire.filter_chain_match.as_ref().map(conditions).transpose().at("filter_chain_match")?;
    let tls = match &wire.transport_socket {
        None => None,
        Some(socket) => server_tls(socket).at("transport_socket")?,
    };
    Ok(FilterChain {
        name: wire.name.clone(),
        matches: matches.unwrap_or_default(),
        tls: tls.map(Arc::new),
        handler: network(&wire.filters, notes)?,
        handshake_timeout: value::limit(wire.transport_socket_connect_timeout.as_ref(), None)
            .at("transport_socket_connect_timeout")?,
    })
}

fn server_tls(socket: &mizzen_proto::envoy::config::core::v3::TransportSocket) -> Result<Option<ServerTls>> {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        return Err(Invalid::new("a configuration is missing").within("typed_config"));
    };
    if value::is::<RawBuffer>(any) {
        Ok(None)
    } else if value::is::<DownstreamTlsContext>(any) {
        let context: DownstreamTlsContext = value::unpack(any).at("typed_config")?;
        tls::server(&context).at("typed_config").map(Some)
    } else {
        Err(Invalid::not_obeyed(format!("the transport {}", value::message_name(any))).within("typed_config"))
    }
}

fn conditions(wire: &FilterChainMatch) -> Result<ChainMatch> {
    not_obeyed!(wire, address_suffix, suffix_len);
    let port = |number: u32| u16::try_from(number).map_err(|_| Invalid::new("a port is at most 65535"));
    let names = wire.server_names.iter().enumerate().map(|(index, name)| {
        let suffix = name.strip_prefix("*.").unwrap_or(name);
        if suffix.is_empty() || suffix.contains('*') {
            let message = format!("{name:?} is neither a host name nor one that begins with \"*.\"");
            return Err(Invalid::new(message)).at_index("server_names", index);
        }
        Ok(name.to_ascii_lowercase())
    });
    Ok(ChainMatch {
        destination_port: value::number(wire.destination_port.as_ref()).map(port).transpose().at("destination_port")?,
        destination: value::networks(&wire.prefix_ranges).at("prefix_ranges")?,
        server_names: names.collect::<Result<_>>()?,
        transport: match wire.transport_protocol.as_str() {
            "" => None,
            "raw_buffer" => Some(Transport::RawBuffer),
            "tls" => Some(Transport::Tls),
            other => {
                let message = format!("the transport protocol {other:?} is not known");
                return Err(Invalid::new(message).within("transport_protocol"));
            }
        },
        application_protocols: wire.application_protocols.clone(),
        direct_source: value::networks(&wire.direct_source_prefix_ranges).at("direct_source_prefix_ranges")?,
        source: value::networks(&wire.source_prefix_ranges).at("source_prefix_ranges")?,
        source_ports: wire.source_ports.iter().copied().map(port).collect::<Result<_>>().at("source_ports")?,
        same_ip_or_loopback: match ConnectionSourceType::try_from(wire.source_type) {
            Ok(ConnectionSourceType::Any) => None,
            Ok(ConnectionSourceType::SameIpOrLoopback) => Some(true),
            Ok(ConnectionSourceType::External) => Some(false),
            Err(_) => return Err(Invalid::new("this type is not known").within("source_type")),
        },
    })
}

/// The last network filter handles the connection; those before it only observe.
fn network(wire: &[Filter], notes: &mut Vec<String>) -> Result<Handler> {
    let mut handler = None;
    let mut peer_exchange = None;
    for (index, filter) in wire.iter().enumerate() {
        if handler.is_some() {
            return Err(Invalid::new("nothing can stand behind the filter that handles the connection"))
                .at_index("filters", index);
        }
        handler = network_filter(filter, &mut peer_exchange, notes).at_index("filters", index)?;
    }
    handler
        .ok_or_else(|| Invalid::new("the last filter has to be http_connection_manager or tcp_proxy").within("filters"))
}

fn network_filter(
    filter: &Filter,
    peer_exchange: &mut Option<String>,
    notes: &mut Vec<String>,
) -> Result<Option<Handler>> {
    let config = match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(any)) => Some(any),
        Some(filter::ConfigType::ConfigDiscovery(_)) => {
            return Err(Invalid::not_obeyed("a filter that is discovered").within("config_discovery"));
        }
        None => None,
    };
    let known = filters::known(&filter.name, config, Place::Network)?;
    let Some(any) = config else { return Ok(None) };
    match known {
        Known::HttpConnectionManager => {
            let manager: HttpConnectionManager = value::unpack(any).at("typed_config")?;
            access_log::passed_over(&manager.access_log, notes);
            Ok(Some(Handler::Http(Arc::new(handler::compile(&manager).at("typed_config")?))))
        }
        Known::TcpProxy => {
            let proxy: TcpProxy = value::unpack(any).at("typed_config")?;
            access_log::passed_over(&proxy.access_log, notes);
            Ok(Some(Handler::Tcp(Arc::new(tcp::compile(&proxy, peer_exchange.take()).at("typed_config")?))))
        }
        Known::MetadataExchange => {
            *peer_exchange = Some(peer::protocol(any)?);
            Ok(None)
        }
        _ => Ok(None),
    }
}
