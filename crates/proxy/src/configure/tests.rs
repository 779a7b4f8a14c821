use mizzen_proto::json::Json;
use mizzen_proto::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};
use serde_json::{Value, json};

use super::*;
use crate::config::Limits;
use crate::shared::NoRecorder;

const BOOTSTRAP: &str = r#"{
  "node": {"id": "sidecar~10.0.0.1~a.b~b.svc.cluster.local"},
  "dynamic_resources": {
    "ads_config": {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
    "cds_config": {"ads": {}}, "lds_config": {"ads": {}}
  },
  "static_resources": {"clusters": [{
    "name": "xds", "http2_protocol_options": {},
    "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {
      "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}]}]}
  }]}
}"#;

fn full(kind: &str, values: &[Value]) -> Update {
    let json = Json::new();
    let resources = values.iter().map(|value| Resource {
        name: value["name"].as_str().unwrap().to_owned(),
        version: "1".to_owned(),
        body: json.encode(kind.rsplit('/').next().unwrap(), value).unwrap().into(),
    });
    Update { type_url: kind.to_owned(), resources: resources.collect(), removed: Vec::new(), full: true }
}

fn configurator(bootstrap: &Bootstrap, held: Arc<Held>) -> Configurator {
    let recorder: Arc<dyn crate::shared::Recorder> = Arc::new(NoRecorder);
    let secrets = mizzen_identity::Secrets::new();
    let shared = Arc::new(Shared::new(secrets, recorder, Limits::default(), Duration::from_secs(1)));
    let publisher = Publisher::new(Arc::clone(&shared), Vec::new());
    Configurator::new(bootstrap, shared, publisher, Health::new(), held, false, None)
}

/// A control plane that was started anew says first which clusters there are, and that may be before it knows all.
#[test]
fn what_a_new_stream_removes_stays_until_it_has_said_everything() {
    let bootstrap = mizzen_compile::bootstrap(BOOTSTRAP).unwrap();
    let mut configurator = configurator(&bootstrap, Arc::new(Held::default()));
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "x", "cluster": "a",
    });
    let listener = json!({
        "name": "l", "bind_to_port": false,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    });
    configurator.config.apply(full(CLUSTER, &[json!({"name": "a"})]));
    configurator.config.apply(full(LISTENER, &[listener]));

    assert!(bootstrap.ads.as_ref().is_some_and(|ads| !ads.delta));
    configurator.owed = configurator.asked(&bootstrap);
    assert_eq!(configurator.owed, [ResourceType::Cluster, ResourceType::Listener].into());
    configurator.config.apply(full(CLUSTER, &[]));
    configurator.owed.remove(&ResourceType::Cluster);
    configurator.last_update = Instant::now() - 2 * SETTLE;
    configurator.tick();
    assert!(configurator.config.snapshot().clusters.contains_key("a"), "the listeners are not said yet");

    // They do name it, and so it is missing for good.
    configurator.owed.remove(&ResourceType::Listener);
    configurator.tick();
    assert!(!configurator.config.snapshot().clusters.contains_key("a"));
}

#[test]
fn what_nothing_asks_for_any_more_is_not_shown() {
    let bootstrap = mizzen_compile::bootstrap(BOOTSTRAP).unwrap();
    let held = Arc::new(Held::default());
    let mut configurator = configurator(&bootstrap, Arc::clone(&held));
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x", "rds": {"config_source": {"ads": {}}, "route_config_name": "t"},
        "http_filters": [{"name": "r", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    let listener = json!({
        "name": "l", "bind_to_port": false,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    });
    let cluster = json!({"name": "a", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}});
    let mut take = |update: Update| {
        let outcome = configurator.config.apply(update.clone());
        configurator.note(&update, &outcome, Origin::Discovered);
    };
    take(full(CLUSTER, &[cluster]));
    let mut endpoints = full(ENDPOINT, &[]);
    endpoints.resources.push(Resource {
        name: "a".to_owned(),
        version: "1".to_owned(),
        body: b"\x0a\x01a".as_slice().into(),
    });
    take(endpoints);
    take(full(LISTENER, &[listener]));
    take(full(ROUTE, &[json!({"name": "t"})]));
    assert_eq!(held.names(), ["a", "a", "l", "t", "xds"]);
    take(full(LISTENER, &[]));
    take(full(CLUSTER, &[]));
    assert_eq!(held.names(), ["xds"]);
}
