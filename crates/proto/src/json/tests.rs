use serde_json::json;

use super::*;
use crate::envoy::config::cluster::v3::Cluster;

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

#[test]
fn both_spellings_of_names_are_read() {
    let json = Json::new();
    for value in [
        json!({"name": "a", "connectTimeout": "0.250s", "lbPolicy": "RANDOM"}),
        json!({"name": "a", "connect_timeout": "0.25s", "lb_policy": "RANDOM"}),
    ] {
        let cluster: Cluster = json.read(CLUSTER, &value).unwrap();
        assert_eq!(cluster.name, "a");
        assert_eq!(cluster.connect_timeout.map(|timeout| timeout.nanos), Some(250_000_000));
        assert_eq!(cluster.lb_policy, 3);
    }
}

#[test]
fn messages_in_any_go_there_and_back() {
    let json = Json::new();
    let value = json!({
        "name": "a",
        "transportSocket": {
            "name": "tls",
            "typedConfig": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "x",
            },
        },
    });
    let bytes = json.encode(CLUSTER, &value).unwrap();
    assert_eq!(json.decode(CLUSTER, &bytes).unwrap(), value);
    let any = json.decode_any(&format!("type.googleapis.com/{CLUSTER}"), &bytes).unwrap();
    assert_eq!(any["@type"], format!("type.googleapis.com/{CLUSTER}"));
    let (url, again) = json.encode_any(&any).unwrap();
    assert_eq!((url, again), (format!("type.googleapis.com/{CLUSTER}"), bytes));
}

#[track_caller]
fn refused(value: Value, path: &str) {
    match Json::new().encode(CLUSTER, &value) {
        Err(JsonError::Field { path: found, .. }) => assert_eq!(found, path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    refused(json!({"name": 1}), "name");
    refused(json!({"nam": "a"}), "nam");
    refused(
        json!({"loadAssignment": {"endpoints": [{}, {"lb_endpoints": [{"x": 1}]}]}}),
        "loadAssignment.endpoints[1].lb_endpoints[0].x",
    );
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    // The type need not come first.
    refused(
        json!({"transport_socket": {"typed_config": {"nope": 1, "@type": tls}}}),
        "transport_socket.typed_config.nope",
    );
    refused(
        json!({"transport_socket": {"typed_config": {"@type": "type.googleapis.com/x.Y"}}}),
        "transport_socket.typed_config.@type",
    );
}

#[test]
fn s28_deep_nesting_is_refused() {
    let mut value = json!({});
    for _ in 0..200 {
        value = json!({ "fields": { "x": { "structValue": value } } });
    }
    assert_eq!(Json::new().encode("google.protobuf.Struct", &value), Err(JsonError::TooDeep));
}

/// When this fails, `cargo xtask protos` has to be run.
#[test]
fn descriptions_are_those_of_the_compiled_types() {
    let cluster = Json::message(CLUSTER).unwrap();
    // A field of the newest version in use.
    assert!(cluster.field("lrs_report_endpoint_metrics").is_some());
    for name in [
        "envoy.config.bootstrap.v3.Bootstrap",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "stats.PluginConfig",
        "udpa.type.v1.TypedStruct",
    ] {
        assert!(Json::message(name).is_ok(), "{name}");
    }
}

/// The same bytes mean the same to a library that links the descriptions.
#[test]
fn another_implementation_reads_and_writes_the_same() {
    let pool = prost_reflect::DescriptorPool::decode(&include_bytes!("../../descriptors/envoy.bin")[..]).unwrap();
    let name = "envoy.config.bootstrap.v3.Bootstrap";
    let value = json!({
        "node": {
            "id": "x",
            "metadata": {"a": {"b": [1, "c", null, true, {"d": 1.5}]}, "e": -0.25},
            "listening_addresses": [{"socketAddress": {"address": "::1", "portValue": 0}}],
        },
        "statsFlushInterval": "0.000000001s",
        "static_resources": {
            "clusters": [{
                "name": "a",
                "type": "EDS",
                "metadata": {"filterMetadata": {"": {}, "k": {"x": "y"}}},
                "connectTimeout": "5s",
                "outlier_detection": {"consecutive_5xx": 0, "maxEjectionPercent": 4294967295u32},
                "ring_hash_lb_config": {"minimum_ring_size": "1024"},
                "common_lb_config": {"healthy_panic_threshold": {"value": 33.25}, "zone_aware_lb_config": {}},
                "circuit_breakers": {"thresholds": [{"priority": "HIGH", "max_retries": 3}, {}]},
                "typed_extension_protocol_options": {
                    "o": {
                        "@type": "type.googleapis.com/google.protobuf.UInt32Value",
                        "value": 7,
                    },
                },
            }],
            "secrets": [{"name": "s", "tls_certificate": {"private_key": {"inline_bytes": "AAEC/w=="}}}],
        },
        "stats_server_version_override": 18446744073709551615u64,
    });
    let descriptor = pool.get_message_by_name(name).unwrap();
    let theirs = prost_reflect::DynamicMessage::deserialize(descriptor.clone(), &value).unwrap();
    let ours = prost_reflect::DynamicMessage::decode(descriptor, Json::new().encode(name, &value).unwrap().as_slice())
        .unwrap();
    assert_eq!(ours, theirs);
    let written = Json::new().decode(name, &theirs.encode_to_vec()).unwrap();
    assert_eq!(Json::new().encode(name, &written).unwrap(), Json::new().encode(name, &value).unwrap());
    assert_eq!(written["staticResources"]["clusters"][0]["ringHashLbConfig"]["minimumRingSize"], "1024");
    assert_eq!(written["statsServerVersionOverride"], "18446744073709551615");
}

#[test]
fn what_excludes_each_other_is_refused() {
    refused(json!({"type": "EDS", "clusterType": {"name": "x"}}), "clusterType");
    refused(json!({"connect_timeout": "1s", "connectTimeout": "1s"}), "connectTimeout");
    refused(json!({"type": "SOMETIMES"}), "type");
    refused(json!({"connectTimeout": 5}), "connectTimeout");
    refused(json!({"maxRequestsPerConnection": -1}), "maxRequestsPerConnection");
    refused(json!({"maxRequestsPerConnection": 4294967296u64}), "maxRequestsPerConnection");
    refused(
        json!({"circuitBreakers": {"thresholds": [{}, {"maxRetries": "x"}]}}),
        "circuitBreakers.thresholds[1].maxRetries",
    );
    refused(json!({"circuitBreakers": []}), "circuitBreakers");
    refused(json!({"typedExtensionProtocolOptions": {"o": {"x": 1}}}), "typedExtensionProtocolOptions[o]");
}

proptest::proptest! {
    /// No bytes make it panic.
    #[test]
    fn any_bytes_are_written_or_refused(bytes: Vec<u8>) {
        let _ = Json::new().decode(CLUSTER, &bytes);
        let _ = Json::new().decode("google.protobuf.Any", &bytes);
        let _ = Json::new().decode("google.protobuf.Struct", &bytes);
    }
}

#[test]
fn names_are_written_in_either_spelling() {
    let bytes = Json::new().encode(CLUSTER, &json!({"connectTimeout": "1s"})).unwrap();
    assert_eq!(Json::new().decode(CLUSTER, &bytes).unwrap(), json!({"connectTimeout": "1s"}));
    assert_eq!(Json::new().with_proto_names().decode(CLUSTER, &bytes).unwrap(), json!({"connect_timeout": "1s"}));
}
