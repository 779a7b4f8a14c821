use std::net::Ipv4Addr;

use super::*;
use crate::instance::tests::instance;

fn written(ready: bool, leaving: bool) -> Files {
    let mut manifests = Manifests::default();
    manifests.add_text(
        &std::path::Path::new("test.yaml").into(),
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    );
    let (gateway, sidecar) =
        (Instance::gateway(Ipv4Addr::new(127, 64, 0, 2), Ipv4Addr::LOCALHOST, vec![8080]), instance());
    let placed =
        [Placed { instance: &gateway, ready: true, leaving: false }, Placed { instance: &sidecar, ready, leaving }];
    objects(&manifests, &placed, &BTreeMap::from([(80, 8080), (443, 8443)]), "cluster.local")
}

fn parsed(files: &Files, name: &str) -> Vec<Value> {
    let text = files.get(name).unwrap_or_else(|| panic!("{name} of {:?}", files.keys()));
    serde_saphyr::from_multiple(text).expect("what we write can be read")
}

#[test]
fn endpoints_follow_readiness() {
    for (ready, leaving, expected) in [(true, false, true), (false, false, false), (true, true, false)] {
        let slices = parsed(&written(ready, leaving), "endpoints-web.shop.yaml");
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0]["metadata"]["labels"]["kubernetes.io/service-name"], "web");
        assert_eq!(slices[0]["endpoints"][0]["conditions"]["ready"], expected);
        assert_eq!(slices[0]["endpoints"][0]["addresses"][0], "127.64.1.1");
        // The name of the target port is looked up in the pod.
        assert_eq!(slices[0]["ports"][0]["port"], 9080);
    }
}

#[test]
fn the_gateway_service_maps_ports() {
    let mesh = parsed(&written(true, false), "mesh.yaml");
    let service = mesh.iter().find(|object| object["kind"] == "Service").expect("the gateway's service");
    assert_eq!(
        service["spec"]["ports"][0],
        json!({"name": "port-80", "port": 80, "protocol": "TCP", "targetPort": 8080})
    );
    let namespaces: Vec<&str> = mesh
        .iter()
        .filter(|object| object["kind"] == "Namespace")
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect();
    assert_eq!(namespaces, ["default", "istio-system"], "shop is the user's own");
}

#[test]
fn pods_say_where_they_are() {
    let pods = parsed(&written(true, false), "pod-web-v1-3.shop.yaml");
    assert_eq!(pods[0]["status"]["podIP"], "127.64.1.1");
    assert_eq!(pods[0]["status"]["conditions"][0]["status"], "True");
    assert_eq!(pods[0]["spec"]["containers"][0]["ports"][0], json!({"containerPort": 9080, "name": "http"}));
}
