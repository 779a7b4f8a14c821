use mizzen_proto::json::from_json;
use serde_json::json;

use super::*;

fn names(set: &BTreeSet<Arc<str>>) -> Vec<&str> {
    set.iter().map(|name| &**name).collect()
}

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

#[test]
fn a_listener_names_route_tables_and_secrets_of_all_its_chains() {
    let manager =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let http = |routes: &str| json!({"name": "http", "typed_config": {"@type": manager, "rds": {"route_config_name": routes}}});
    let listener = json!({
        "name": "0.0.0.0_443",
        "filter_chains": [
            {
                "filters": [{"name": "x"}, http("https.443.shop")],
                "transport_socket": {"name": "tls", "typed_config": {
                    "@type": format!("{TLS}.DownstreamTlsContext"),
                    "common_tls_context": {
                        "tls_certificate_sds_secret_configs": [{"name": "kubernetes://shop"}],
                        "validation_context_sds_secret_config": {"name": "kubernetes://shop-cacert"},
                    },
                }},
            },
            {"filters": [{"name": "http", "typed_config": {"@type": manager, "route_config": {"name": "own"}}}]},
        ],
        "default_filter_chain": {"filters": [http("http.80")]},
    });
    let mut named = References::default();
    named.listener(&from_json("envoy.config.listener.v3.Listener", &listener).unwrap());
    assert_eq!(names(&named.routes), ["http.80", "https.443.shop"]);
    assert_eq!(names(&named.secrets), ["kubernetes://shop", "kubernetes://shop-cacert"]);
}

#[test]
fn a_cluster_names_endpoints_and_secrets_behind_whatever_wraps_them() {
    let tls = |name: &str| {
        json!({"name": "tls", "typed_config": {
            "@type": format!("{TLS}.UpstreamTlsContext"),
            "common_tls_context": {"combined_validation_context": {
                "default_validation_context": {},
                "validation_context_sds_secret_config": {"name": name},
            }},
        }})
    };
    let wrapped =
        "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
    let cluster = json!({
        "name": "outbound|80||a",
        "type": "EDS",
        "eds_cluster_config": {"service_name": "b"},
        "transport_socket": {"name": "p", "typed_config": {"@type": wrapped, "transport_socket": tls("one")}},
        "transport_socket_matches": [{"name": "m", "transport_socket": tls("two")}],
    });
    let mut named = References::default();
    for cluster in [cluster, json!({"name": "c", "type": "EDS"}), json!({"name": "d", "type": "STATIC"})] {
        named.cluster(&from_json("envoy.config.cluster.v3.Cluster", &cluster).unwrap());
    }
    assert_eq!(names(&named.endpoints), ["b", "c"]);
    assert_eq!(names(&named.secrets), ["one", "two"]);
}

#[test]
fn bytes_that_are_nothing_name_nothing() {
    let mut named = References::default();
    named.listener(b"\xff\xff");
    named.cluster(b"\xff\xff");
    assert_eq!(named, References::default());
}
