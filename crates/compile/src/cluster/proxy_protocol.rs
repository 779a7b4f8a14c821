//! Clusters whose connections begin with who the client is: a transport around another one.

use std::borrow::Cow;

use mizzen_proto::envoy::config::cluster::v3::Cluster as Wire;
use mizzen_proto::envoy::config::core::v3::{
    ProxyProtocolConfig, TransportSocket, proxy_protocol_config, transport_socket,
};
use mizzen_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use mizzen_snapshot::cluster::ProxyVersion;

use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::value;

/// The cluster with the transports that are inside, and the version if there is one. All transports have to be wrapped
/// alike, as Istio writes them.
pub(super) fn unwrap(wire: &Wire) -> Result<(Cow<'_, Wire>, Option<ProxyVersion>)> {
    let sockets = wire.transport_socket_matches.iter().map(|each| each.transport_socket.as_ref());
    let default = wire.transport_socket.as_ref();
    // A default beside matches for all endpoints is never used, and Istio leaves it out.
    let all: Vec<Option<&TransportSocket>> = sockets
        .chain(Some(default).filter(|socket| socket.is_some() || wire.transport_socket_matches.is_empty()))
        .collect();
    if !all.iter().any(|socket| socket.is_some_and(is_wrapped)) {
        return Ok((Cow::Borrowed(wire), None));
    }
    let mut versions = Vec::new();
    let mut inside = |socket: &mut Option<TransportSocket>| -> Result<()> {
        let Some(wrapped) = socket.take().filter(is_wrapped) else {
            return Err(Invalid::not_obeyed("the PROXY protocol for a part of the endpoints"));
        };
        let (version, inner) = read(&wrapped)?;
        *socket = inner;
        versions.push(version);
        Ok(())
    };
    let mut plain = wire.clone();
    for (index, each) in plain.transport_socket_matches.iter_mut().enumerate() {
        inside(&mut each.transport_socket).at_index("transport_socket_matches", index)?;
    }
    if plain.transport_socket.is_some() || plain.transport_socket_matches.is_empty() {
        inside(&mut plain.transport_socket).at("transport_socket")?;
    }
    let first = versions.first().copied();
    if versions.iter().any(|version| Some(*version) != first) {
        return Err(Invalid::not_obeyed("different versions of the PROXY protocol in one cluster"));
    }
    Ok((Cow::Owned(plain), first))
}

fn is_wrapped(socket: &TransportSocket) -> bool {
    match &socket.config_type {
        Some(transport_socket::ConfigType::TypedConfig(any)) => value::is::<ProxyProtocolUpstreamTransport>(any),
        None => false,
    }
}

fn read(socket: &TransportSocket) -> Result<(ProxyVersion, Option<TransportSocket>)> {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        return Err(Invalid::new("a configuration is missing").within("typed_config"));
    };
    let wrapper: ProxyProtocolUpstreamTransport = value::unpack(any).at("typed_config")?;
    not_obeyed!(wrapper, tlv_as_pool_key);
    let config: ProxyProtocolConfig = wrapper.config.unwrap_or_default();
    not_obeyed!(config, pass_through_tlvs, added_tlvs);
    let version = match proxy_protocol_config::Version::try_from(config.version) {
        Ok(proxy_protocol_config::Version::V1) => ProxyVersion::V1,
        Ok(proxy_protocol_config::Version::V2) => ProxyVersion::V2,
        Err(_) => return Err(Invalid::new("this version is not known").within("typed_config.config.version")),
    };
    if wrapper.transport_socket.is_none() {
        return Err(Invalid::new("the transport inside is missing").within("typed_config.transport_socket"));
    }
    Ok((version, wrapper.transport_socket))
}
