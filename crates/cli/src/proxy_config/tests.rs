use serde_json::json;

use super::*;

/// A dump as a stock Envoy gives it, cut down.
fn dump() -> Value {
    json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {"id": "n"}}},
        {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
         "static_clusters": [{"cluster": {"name": "xds-grpc", "type": "STATIC", "load_assignment": {"cluster_name": "xds-grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15010}}}}]}]}}}],
         "dynamic_active_clusters": [{"cluster": {"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS",
            "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"}}}}}],
         "dynamic_warming_clusters": [{"cluster": {"name": "cold"}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
         "dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "outbound|9080|v1|reviews.default.svc.cluster.local",
            "endpoints": [{"locality": {"region": "r", "zone": "z"}, "lb_endpoints": [{"health_status": "UNHEALTHY",
                "endpoint": {"address": {"socket_address": {"address": "127.64.1.3", "port_value": 9080}}}}]}]}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
         "dynamic_listeners": [{"name": "l", "active_state": {"listener": {"name": "l",
            "address": {"socket_address": {"address": "127.64.1.1", "port_value": 15002}},
            "filter_chains": [
               {"filter_chain_match": {"transport_protocol": "tls", "application_protocols": ["istio"]},
                "filters": [{"typed_config": {"@type": "type.googleapis.com/x.HttpConnectionManager", "rds": {"route_config_name": "15002"}}}]},
               {"filters": [{"typed_config": {"@type": "type.googleapis.com/x.TcpProxy", "cluster": "inbound|9080||"}}]}]}}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
         "dynamic_route_configs": [{"route_config": {"name": "15002", "virtual_hosts": [{"name": "reviews:9080", "domains": ["reviews", "a", "b"],
            "routes": [
               {"match": {"prefix": "/", "headers": [{"name": "end-user"}]}, "route": {"cluster": "c"},
                "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"}}}},
               {"match": {"path": "/x"}, "route": {"weighted_clusters": {"clusters": [{"name": "p", "weight": 80}, {"name": "q", "weight": 20}]}}}]}]}}]}
    ]})
}

fn text(part: Part) -> String {
    Answer { part, value: dump() }.text(None)
}

#[track_caller]
fn check(part: Part, expected: &[&[&str]]) {
    let text = text(part);
    let rows: Vec<Vec<&str>> =
        text.lines().map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(rows[1..], expected.iter().map(|row| row.to_vec()).collect::<Vec<_>>(), "\n{text}");
}

#[test]
fn clusters() {
    check(
        Part::Clusters,
        &[
            &["reviews.default.svc.cluster.local", "9080", "v1", "outbound", "EDS", "reviews.default"],
            &["xds-grpc", "-", "-", "-", "STATIC"],
        ],
    );
}

#[test]
fn endpoints() {
    check(
        Part::Endpoints,
        &[
            &["127.64.1.3:9080", "UNHEALTHY", "r/z", "1", "outbound|9080|v1|reviews.default.svc.cluster.local"],
            &["127.0.0.1:15010", "HEALTHY", "1", "xds-grpc"],
        ],
    );
}

#[test]
fn listeners() {
    check(
        Part::Listeners,
        &[
            &["127.64.1.1", "15002", "Trans: tls; App: istio", "Route: 15002"],
            &["127.64.1.1", "15002", "ALL", "Cluster: inbound|9080||"],
        ],
    );
}

#[test]
fn routes() {
    check(
        Part::Routes,
        &[
            &["15002", "reviews:9080", "reviews, a + 1 more...", "/* [end-user]", "c", "reviews.default"],
            &["15002", "reviews:9080", "reviews, a + 1 more...", "/x", "p (80), q (20)"],
        ],
    );
}

#[test]
fn secrets() {
    let certificate = json!({"serial_number": "ab", "subject_alt_names": [{"uri": "spiffe://cluster.local/ns/a/sa/b"}],
        "days_until_expiration": "0", "valid_from": "v", "expiration_time": "e"});
    let value = json!({"certificates": [{"cert_chain": [certificate], "ca_cert": []}]});
    let text = Answer { part: Part::Secrets, value }.text(None);
    assert!(
        text.contains("Cert Chain") && text.contains("spiffe://cluster.local/ns/a/sa/b") && text.contains("true"),
        "{text}"
    );
}

#[test]
fn rows_can_be_filtered() {
    let answer = Answer { part: Part::Clusters, value: dump() };
    assert_eq!(answer.text(Some("reviews")).lines().count(), 2);
    assert!(answer.text(Some("nothing")).contains("No SERVICE FQDN matches"));
    assert_eq!(answer.json().as_array().map(Vec::len), Some(2));
}
