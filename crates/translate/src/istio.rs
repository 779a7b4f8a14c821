//! The messages and filters that only Istio's dialect has.

use mizzen_proto::envoy::config::cluster::v3::Filter as ClusterFilter;
use mizzen_proto::envoy::config::listener::v3::{Filter, filter};
use mizzen_proto::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use mizzen_proto::google::protobuf as google;
use mizzen_proto::istio_alpn::FilterConfig;
use mizzen_proto::istio_alpn::filter_config::{AlpnOverride, Protocol};
use mizzen_proto::istio_stats::PluginConfig;
use prost::Message;
use serde_json::json;

use crate::pb;

fn message<M: Message>(type_name: &str, message: &M) -> google::Any {
    google::Any { type_url: format!("type.googleapis.com/{type_name}"), value: message.encode_to_vec() }
}

fn network_exchange() -> google::Any {
    let config = json!({"enable_discovery": true, "protocol": "istio-peer-exchange"});
    pb::typed_struct("type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange", &config)
}

const EXCHANGE: &str = "istio.metadata_exchange";

/// Tells and learns who the peer is, on TCP.
pub(crate) fn network_metadata_exchange() -> Filter {
    Filter { name: EXCHANGE.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(network_exchange())) }
}

pub(crate) fn cluster_metadata_exchange() -> ClusterFilter {
    ClusterFilter { name: EXCHANGE.to_owned(), typed_config: Some(network_exchange()), ..Default::default() }
}

fn http(name: &str, config: google::Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// Tells and learns who the peer is, by headers. `inbound` is the side of the workload.
pub(crate) fn http_metadata_exchange(inbound: bool) -> HttpFilter {
    let side = if inbound { "downstream" } else { "upstream" };
    let config = json!({
        format!("{side}_discovery"): [{"istio_headers": {}}, {"workload_discovery": {}}],
        format!("{side}_propagation"): [{"istio_headers": {}}],
    });
    http(EXCHANGE, pb::typed_struct("type.googleapis.com/io.istio.http.peer_metadata.Config", &config))
}

/// Names the HTTP version in mesh TLS, so that the server can tell it before decrypting.
pub(crate) fn alpn_filter() -> HttpFilter {
    let entry = |protocol: Protocol, names: [&str; 3]| AlpnOverride {
        upstream_protocol: protocol as i32,
        alpn_override: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let config = FilterConfig {
        alpn_override: vec![
            entry(Protocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
            entry(Protocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
            entry(Protocol::Http2, ["istio-h2", "istio", "h2"]),
        ],
    };
    http("istio.alpn", message("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", &config))
}

fn stats_config(server_side: bool) -> google::Any {
    message("stats.PluginConfig", &PluginConfig { disable_host_header_fallback: server_side, ..Default::default() })
}

const STATS: &str = "istio.stats";

/// Istio's metrics. At gateways and on the server's side the Host header does not name the destination.
pub(crate) fn http_stats(server_side: bool) -> HttpFilter {
    http(STATS, stats_config(server_side))
}

pub(crate) fn network_stats(server_side: bool) -> Filter {
    Filter { name: STATS.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(stats_config(server_side))) }
}
