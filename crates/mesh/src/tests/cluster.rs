//! What only clusters have: kinds of Services, conditions of endpoints, nodes, pods that share or give back addresses.

use std::sync::Arc;

use mizzen_config::Change;
use mizzen_types::ObjectKey;

use super::{base, changes, named, service};
use crate::{Dirty, Health, Mesh, Resolution};

fn after(mesh: &Mesh, yaml: &str) -> Arc<Mesh> {
    mesh.apply(&changes(yaml)).0
}

#[track_caller]
fn check_kind(spec: &str, resolution: Resolution, addresses: &[&str]) {
    let yaml = format!("{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: shop}}, spec: {{{spec}}}}}");
    let mesh = after(&base(), &yaml);
    let found = mesh.service(&service("s", "shop")).unwrap();
    let found_addresses: Vec<&str> = found.addresses.iter().map(String::as_str).collect();
    assert_eq!((found.resolution, found_addresses.as_slice()), (resolution, addresses), "{spec}");
}

#[test]
fn services_of_all_kinds_are_what_kubernetes_says() {
    let port = "ports: [{name: http, port: 80, nodePort: 30080}]";
    check_kind(&format!("clusterIP: 10.96.0.9, {port}"), Resolution::Endpoints, &["10.96.0.9"]);
    check_kind(
        &format!("clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd00::9'], {port}"),
        Resolution::Endpoints,
        &["10.96.0.9", "fd00::9"],
    );
    for kind in ["NodePort", "LoadBalancer"] {
        check_kind(&format!("type: {kind}, clusterIP: 10.96.0.9, {port}"), Resolution::Endpoints, &["10.96.0.9"]);
    }
    check_kind(&format!("clusterIP: None, {port}"), Resolution::Passthrough, &[]);
    check_kind(&format!("type: ExternalName, externalName: example.com, {port}"), Resolution::Alias, &[]);
    // Before the API server has given it an address.
    check_kind(port, Resolution::Endpoints, &[]);
}

/// The endpoints of `reviews` with one of these conditions: how many there are, and how many of them are healthy.
#[track_caller]
fn check_conditions(conditions: &str, publish: bool, expected: (usize, usize)) {
    let declared = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: reviews, namespace: shop}}, spec: {{clusterIP: 10.96.0.1, \
         selector: {{app: reviews}}, ports: [{{name: http, port: 9080}}], publishNotReadyAddresses: {publish}}}}}\n---\n\
         {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: reviews-1, namespace: shop, labels: \
         {{kubernetes.io/service-name: reviews}}}}, addressType: IPv4, endpoints: [{{addresses: [10.0.0.1], conditions: \
         {{{conditions}}}, targetRef: {{kind: Pod, name: reviews-1, namespace: shop}}}}], ports: [{{name: http, port: \
         9080}}]}}"
    );
    let mesh = after(&base(), &declared);
    let endpoints = mesh.endpoints(&service("reviews", "shop")).map(|all| all.on_port(9080)).unwrap_or_default();
    let healthy = endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy).count();
    assert_eq!((endpoints.len(), healthy), expected, "{conditions} {publish}");
}

#[test]
fn conditions_say_who_is_called() {
    check_conditions("", false, (1, 1));
    check_conditions("ready: true, serving: true, terminating: false", false, (1, 1));
    check_conditions("ready: false, serving: false, terminating: false", false, (1, 0));
    check_conditions("ready: false, serving: true, terminating: true", false, (0, 0));
    check_conditions("ready: false, serving: false, terminating: true", false, (0, 0));
    check_conditions("ready: false, serving: false, terminating: false", true, (1, 1));
    check_conditions("ready: true, serving: true, terminating: true", true, (1, 1));
}

fn locality(mesh: &Mesh, pod: &str) -> String {
    mesh.pod("shop", pod).unwrap().workload.locality.to_string()
}

#[test]
fn a_workload_is_where_its_node_is() {
    let node =
        |labels: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: node-1, labels: {{{labels}}}}}}}");
    let topology = "topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s";
    assert_eq!(locality(&base(), "reviews-1"), "region-1/zone-1");
    let (mesh, dirty) = base().apply(&changes(&node(topology)));
    assert_eq!(locality(&mesh, "reviews-1"), "r/z/s");
    assert!(dirty.workloads.contains(&named("shop", "reviews-1")));
    let endpoint = mesh.endpoints(&service("reviews", "shop")).unwrap().on_port(9080)[0].clone();
    assert_eq!(endpoint.workload.locality.to_string(), "r/z/s");
    // Other labels of a node are nobody's business.
    assert_eq!(mesh.apply(&changes(&node(&format!("{topology}, other: x")))).1, Dirty::default());
    // A node that goes, or comes after its pods.
    let (mesh, _) = mesh.apply(&[Change::Delete(ObjectKey::new("Node", "", "node-1"))]);
    assert_eq!(locality(&mesh, "reviews-1"), "");
    assert_eq!(locality(&after(&mesh, &node(topology)), "reviews-2"), "r/z/s");
}

fn pod(name: &str, more: &str, status: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: x}}}}, spec: {{{more}}}, \
         status: {{{status}}}}}"
    )
}

#[test]
fn addresses_lead_to_the_one_pod_that_has_them() {
    let of = |mesh: &Mesh, address: &str| mesh.pod_at(address).is_some();
    // A node's address is shared by the pods on its network.
    let mesh = after(&base(), &pod("agent", "hostNetwork: true", "podIP: 192.168.0.1"));
    assert!(!of(&mesh, "192.168.0.1"));
    // A pod that has ended has no address any more, whatever its status says.
    let mesh = after(&mesh, &pod("job", "", "phase: Running, podIP: 10.0.0.77"));
    assert!(of(&mesh, "10.0.0.77"));
    let mesh = after(&mesh, &pod("job", "", "phase: Succeeded, podIP: 10.0.0.77"));
    assert!(!of(&mesh, "10.0.0.77"));
    // And another may have it before the first is gone.
    let mesh = after(&mesh, &pod("next", "", "phase: Running, podIPs: [{ip: 10.0.0.77}, {ip: 'fd00::7'}]"));
    let (mesh, _) = mesh.apply(&[Change::Delete(ObjectKey::new("Pod", "shop", "job"))]);
    assert_eq!(mesh.pod_at("10.0.0.77"), mesh.pod("shop", "next"));
    assert_eq!(mesh.pod_at("fd00::7"), mesh.pod("shop", "next"));
}

#[test]
fn the_root_namespace_may_be_another() {
    let config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: mesh}, data: {mesh: '{rootNamespace: \
                  mesh, trustDomain: own}'}}";
    let mesh = after(&Mesh::empty(), config);
    assert_eq!((&*mesh.config().root_namespace, &*mesh.config().trust_domain), ("mesh", "own"));
    let stranger = config.replace("rootNamespace: mesh, ", "");
    assert_eq!(after(&Mesh::empty(), &stranger).config().trust_domain, "cluster.local");
}
