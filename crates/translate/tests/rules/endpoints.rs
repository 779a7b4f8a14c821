//! Endpoints of clusters.

use mizzen_translate::ProxyView;
use serde_json::{Value, json};

use super::{decode, mesh, redirected, sidecar};

#[test]
fn endpoints_say_who_takes_mesh_tls() {
    let marks = |yaml: &str| {
        let mesh = mesh(yaml);
        let scope = sidecar(&mesh, &redirected()).scope(&mesh);
        let made = mizzen_translate::endpoints(&mesh, &scope, "outbound|80||front.shop.svc.cluster.local");
        let assignment = decode(&made.expect("the service is known"));
        let metadata = assignment.pointer("/endpoints/0/lbEndpoints/0/metadata/filterMetadata").cloned();
        metadata.and_then(|metadata| metadata.get("envoy.transport_socket_match").cloned())
    };
    assert_eq!(marks(""), Some(json!({"tlsMode": "istio"})));
    let rule = |mode: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: front, namespace: shop}}, spec: \
             {{host: front, trafficPolicy: {{tls: {{mode: {mode}}}}}}}}}"
        )
    };
    assert_eq!(marks(&rule("ISTIO_MUTUAL")), Some(json!({"tlsMode": "istio"})));
    assert_eq!(marks(&rule("SIMPLE")), None);
    assert_eq!(marks(&rule("DISABLE")), None);
    assert_eq!(
        marks(
            "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: shop}, spec: \
             {mtls: {mode: DISABLE}}}"
        ),
        None
    );
}

#[test]
fn clusters_that_do_not_exist_have_no_endpoints() {
    let mesh = mesh("");
    let scope = sidecar(&mesh, &redirected()).scope(&mesh);
    let made = |name: &str| mizzen_translate::endpoints(&mesh, &scope, name).is_some();
    assert!(made("outbound|9080||reviews.shop.svc.cluster.local"), "without endpoints, but known");
    assert!(!made("outbound|9081||reviews.shop.svc.cluster.local"));
    assert!(!made("outbound|9080|v9|reviews.shop.svc.cluster.local"));
    assert!(!made("outbound|9080||nobody.shop.svc.cluster.local"));
    assert!(!made("inbound|8080||"));
}

/// Region and zone, priority and weight of the localities of a service, for a client in `region-1/zone-1`.
#[track_caller]
fn check_localities(traffic_policy: &str, expected: &[(&str, u64, u64)]) {
    let yaml = format!(
        "
apiVersion: v1
kind: Node
metadata: {{name: node-1, labels: {{topology.kubernetes.io/region: region-1, topology.kubernetes.io/zone: zone-1}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client-1, namespace: shop, labels: {{app: client}}}}
spec: {{nodeName: node-1, containers: [{{name: app, image: app}}]}}
status: {{podIP: 10.0.0.5}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: everywhere, namespace: shop}}
spec:
  hosts: [everywhere.example.com]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints:
    - {{address: 192.0.2.1, locality: region-1/zone-1}}
    - {{address: 192.0.2.2, locality: region-1/zone-2}}
    - {{address: 192.0.2.3, locality: region-2/zone-1}}
    - {{address: 192.0.2.4, locality: region-3/zone-1, weight: 3}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: everywhere, namespace: shop}}
spec: {{host: everywhere.example.com, trafficPolicy: {{{traffic_policy}}}}}
"
    );
    let mesh = mesh(&yaml);
    let view = ProxyView::new("sidecar~10.0.0.5~client-1.shop~x", &redirected(), &mesh).expect("a node");
    let made = mizzen_translate::endpoints(&mesh, &view.scope(&mesh), "outbound|80||everywhere.example.com");
    let assignment = decode(&made.expect("the service is known"));
    let read = |group: &Value| {
        let part = |key: &str| group["locality"][key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| group[key].as_u64().unwrap_or_default();
        (format!("{}/{}", part("region"), part("zone")), number("priority"), number("loadBalancingWeight"))
    };
    let got: Vec<_> = assignment["endpoints"].as_array().into_iter().flatten().map(read).collect();
    let expected: Vec<_> =
        expected.iter().map(|(name, priority, weight)| ((*name).to_owned(), *priority, *weight)).collect();
    assert_eq!(got, expected, "{traffic_policy}");
}

#[test]
fn near_endpoints_are_preferred_where_failures_are_noticed() {
    const OUTLIERS: &str = "outlierDetection: {consecutive5xxErrors: 1}";
    let all = |priorities: [u64; 4]| {
        let names = ["region-1/zone-1", "region-1/zone-2", "region-2/zone-1", "region-3/zone-1"];
        let weights = [1, 1, 1, 3];
        [0, 1, 2, 3].map(|index| (names[index], priorities[index], weights[index]))
    };
    check_localities("loadBalancer: {simple: RANDOM}", &all([0, 0, 0, 0]));
    check_localities(OUTLIERS, &all([0, 1, 2, 2]));
    let setting = |text: &str| format!("{OUTLIERS}, loadBalancer: {{localityLbSetting: {{{text}}}}}");
    check_localities(&setting("failover: [{from: region-1, to: region-3}]"), &all([0, 1, 3, 2]));
    check_localities(&setting("enabled: false"), &all([0, 0, 0, 0]));
    let distribute = "loadBalancer: {localityLbSetting: {distribute: [{from: region-1/*, to: {region-1/*: 60, region-3/*: \
                      40}}]}}";
    check_localities(distribute, &[("region-1/zone-1", 0, 30), ("region-1/zone-2", 0, 30), ("region-3/zone-1", 0, 40)]);
}
