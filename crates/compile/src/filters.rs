//! Which filters there are, and what is done with those that do not route.
//!
//! A filter that only observes is accepted. One that decides on traffic and is not obeyed is refused together with its
//! listener: to serve without it would let through what it was to stop.

use mizzen_proto::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use mizzen_proto::google::protobuf::Any;
use mizzen_proto::typed_struct::TypedStruct;
use prost::Message;

use crate::invalid::{At, Invalid, Result};
use crate::value;

/// Where a filter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Listener,
    Network,
    Http,
    Upstream,
}

/// What a filter is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Only observes; nothing to do.
    Observer,
    /// Exchanges the peers' metadata (Istio), in headers or on TCP.
    PeerHeaders,
    MetadataExchange,
    /// Records Istio's metrics.
    IstioStats,
    /// Chooses the ALPN for mutual TLS (Istio).
    IstioAlpn,
    Fault,
    Cors,
    Router,
    HttpConnectionManager,
    TcpProxy,
    OriginalDst,
    OriginalSrc,
    TlsInspector,
    HttpInspector,
    ProxyProtocol,
}

/// The filter that a configuration is for, or why it cannot be obeyed.
pub(crate) fn known(name: &str, config: Option<&Any>, place: Place) -> Result<Known> {
    let Some(any) = config else {
        return Err(Invalid::new(format!("the filter {name:?} has no configuration")).within("typed_config"));
    };
    let message = kind(any)?;
    let known = match (place, message.as_str()) {
        (Place::Http, "envoy.extensions.filters.http.router.v3.Router") => Known::Router,
        (Place::Http, "envoy.extensions.filters.http.fault.v3.HTTPFault") => Known::Fault,
        (Place::Http, "envoy.extensions.filters.http.cors.v3.Cors") => Known::Cors,
        (Place::Http, "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig") => Known::Observer,
        (Place::Http, "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig") => Known::IstioAlpn,
        (Place::Http, "io.istio.http.peer_metadata.Config") => Known::PeerHeaders,
        (Place::Http | Place::Network, "stats.PluginConfig") => Known::IstioStats,
        (Place::Network | Place::Upstream, "envoy.tcp.metadataexchange.config.MetadataExchange") => {
            Known::MetadataExchange
        }
        (Place::Network, "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager") => {
            Known::HttpConnectionManager
        }
        (Place::Network, "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy") => Known::TcpProxy,
        (Place::Network, "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy") => {
            let mongo: MongoProxy = value::unpack(any).at("typed_config")?;
            if mongo.delay.is_some() {
                return Err(Invalid::not_obeyed("a delay").within("typed_config.delay"));
            }
            Known::Observer
        }
        (Place::Listener, "envoy.extensions.filters.listener.original_dst.v3.OriginalDst") => Known::OriginalDst,
        (Place::Listener, "envoy.extensions.filters.listener.original_src.v3.OriginalSrc") => Known::OriginalSrc,
        (Place::Listener, "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector") => Known::TlsInspector,
        (Place::Listener, "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector") => Known::HttpInspector,
        (Place::Listener, "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol") => Known::ProxyProtocol,
        _ => {
            let message = format!(
                "the filter {name:?} ({message}) is not obeyed by this proxy yet, and it is not safe to serve without it"
            );
            return Err(Invalid::new(message));
        }
    };
    Ok(known)
}

/// The message type of a configuration; one in a struct says its type beside it.
fn kind(any: &Any) -> Result<String> {
    match value::message_name(any) {
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => {
            let inner = TypedStruct::decode(any.value.as_slice()).map_err(|error| {
                Invalid::new(format!("bytes that are no TypedStruct: {error}")).within("typed_config")
            })?;
            Ok(inner.type_url.rsplit('/').next().unwrap_or_default().to_owned())
        }
        name => Ok(name.to_owned()),
    }
}
