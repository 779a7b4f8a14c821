use super::*;
use crate::config::Config;

const YAML: &str = r#"
node:
  id: sidecar~127.64.0.2~productpage-v1.default~default.svc.cluster.local
  cluster: productpage.default
  metadata: {NAMESPACE: default, INSTANCE_IPS: "127.64.0.2"}
admin:
  address: {socket_address: {address: 127.64.0.2, port_value: 15000}}
stats_flush_interval: 5s
dynamic_resources:
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services:
      - envoy_grpc: {cluster_name: xds-grpc}
        initial_metadata: [{key: Authorization, value: Bearer x}]
static_resources:
  clusters:
    - name: xds-grpc
      type: STATIC
      connectTimeout: 1s
      load_assignment:
        cluster_name: xds-grpc
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: 127.64.0.1, port_value: 15010}}}
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
  listeners:
    - address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
      filter_chains:
        - filters:
            - name: tcp
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: x
                cluster: xds-grpc
"#;

#[test]
fn an_envoy_bootstrap_is_read() {
    let bootstrap = bootstrap(YAML).unwrap();
    assert_eq!(bootstrap.node.cluster, "productpage.default");
    assert_eq!(bootstrap.admin, Some("127.64.0.2:15000".parse().unwrap()));
    assert!(bootstrap.listeners_by_ads && bootstrap.clusters_by_ads);
    assert_eq!(bootstrap.without_effect, ["stats_flush_interval"]);
    let ads = bootstrap.ads.unwrap();
    assert!(ads.delta && ads.tls.is_none());
    assert_eq!(ads.addresses, [EndpointAddress::Socket("127.64.0.1:15010".parse().unwrap())]);
    assert_eq!(ads.initial_metadata, [("authorization".to_owned(), "Bearer x".to_owned())]);
    let mut config = Config::new();
    for update in bootstrap.resources {
        assert_eq!(config.apply_static(update).refused, []);
    }
    assert_eq!(config.snapshot().clusters.size(), 1);
    assert!(config.snapshot().listeners.contains_key("static_resources.listeners[0]"));
}

#[test]
fn words_that_were_booleans_once_are_names() {
    assert_eq!(bootstrap("node: {id: y, cluster: no}").unwrap().node.cluster, "no");
}

#[test]
fn json_is_yaml_too() {
    let bootstrap = bootstrap(r#"{"node": {"id": "x"}, "staticResources": {"clusters": []}}"#).unwrap();
    assert_eq!(bootstrap.node.id, "x");
    assert!(bootstrap.ads.is_none() && bootstrap.admin.is_none());
}

#[track_caller]
fn refused(text: &str, expect: &str) {
    match bootstrap(text) {
        Err(error) => assert!(error.to_string().starts_with(expect), "{error}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    refused(&YAML.replace("stats_flush_interval", "stats_flush"), "stats_flush: there is no such field");
    refused(
        &YAML.replace("stat_prefix: x", "prefix: x"),
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.prefix: there is no such field",
    );
    refused(
        &YAML.replace("cluster_name: xds-grpc}", "cluster_name: other}"),
        "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: there is no static cluster \"other\"",
    );
    refused(&YAML.replace("DELTA_GRPC", "REST"), "dynamic_resources.ads_config.api_type: has to be GRPC or DELTA_GRPC");
    refused(&YAML.replace("DELTA_GRPC", "NEVER"), "dynamic_resources.ads_config.api_type: ");
    refused("a: [", "not valid YAML or JSON: ");
    refused(&"a".repeat(MAX_BYTES + 1), "the file has ");
}

#[test]
fn bombs_and_depth_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = level - 1;
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", "));
    }
    assert!(bootstrap(&bomb).is_err());
    assert!(bootstrap(&format!("{}{}", "[".repeat(5000), "]".repeat(5000))).is_err());
}
