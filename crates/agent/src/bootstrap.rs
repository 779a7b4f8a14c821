//! The bootstrap of an agent's proxy: its node, its admin port, and the control plane. In Envoy's format, so that what
//! is printed for people can be tried with an Envoy. Pure.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

/// The control plane and how it is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    pub host: String,
    pub port: u16,
    /// `None`: plaintext.
    pub tls: Option<DiscoveryTls>,
    pub cluster_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryTls {
    /// A DNS name or an address in the control plane's certificate.
    pub server_name: String,
    /// File with its roots (PEM).
    pub roots: String,
}

pub fn bootstrap(node: &Value, admin: SocketAddr, discovery: &Discovery) -> Value {
    json!({
        "node": node,
        "admin": {"address": {"socket_address": {"address": admin.ip().to_string(), "port_value": admin.port()}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{
                    "envoy_grpc": {"cluster_name": "xds-grpc"},
                    // A control plane of several clusters asks the right one about the token.
                    "initial_metadata": [{"key": "clusterid", "value": discovery.cluster_id}],
                }],
            },
            "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [cluster(discovery)]},
    })
}

fn cluster(discovery: &Discovery) -> Value {
    let kind = if discovery.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let mut cluster = json!({
        "name": "xds-grpc",
        "type": kind,
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": "xds-grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": discovery.host, "port_value": discovery.port},
            }}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
    });
    if let Some(tls) = &discovery.tls {
        let kind = if tls.server_name.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": tls.server_name,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": {"ads": {}}}],
                    "validation_context": {
                        "trusted_ca": {"filename": tls.roots},
                        "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": tls.server_name}}],
                    },
                },
            },
        });
    }
    cluster
}
