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

#[test]
fn a_service_without_an_address_has_the_one_that_it_was_given() {
    let given = "{apiVersion: networking.k8s.io/v1, kind: IPAddress, metadata: {name: 10.96.0.7}, spec: {parentRef: \
                 {resource: services, namespace: shop, name: s}}}";
    let declared = |spec: &str| {
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: shop}}, spec: {{{spec}}}}}")
    };
    let addresses = |mesh: &Mesh| mesh.service(&service("s", "shop")).unwrap().addresses.clone();
    let plain = declared("ports: [{port: 80}]");
    // In either order.
    let mesh = after(&after(&base(), &plain), given);
    assert_eq!(addresses(&mesh), ["10.96.0.7"]);
    assert_eq!(addresses(&after(&after(&base(), given), &plain)), ["10.96.0.7"]);
    let gone = ObjectKey { kind: "IPAddress".into(), namespace: "".into(), name: "10.96.0.7".into() };
    assert!(addresses(&mesh.apply(&[Change::Delete(gone)]).0).is_empty());
    for own in ["clusterIP: 10.96.0.1, ports: [{port: 80}]", "clusterIP: None, ports: [{port: 80}]"] {
        assert!(!addresses(&after(&mesh, &declared(own))).contains(&"10.96.0.7".to_owned()), "{own}");
    }
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

#[test]
fn a_pod_of_two_families_is_one_endpoint_at_its_first_address() {
    let slice = |name: &str, family: &str, first: &str, second: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {name}, namespace: shop, labels: \
             {{kubernetes.io/service-name: reviews}}}}, addressType: {family}, endpoints: [{{addresses: ['{first}'], \
             targetRef: {{kind: Pod, name: reviews-1, namespace: shop}}}}, {{addresses: ['{second}'], targetRef: {{kind: \
             Pod, name: reviews-2, namespace: shop}}}}], ports: [{{name: http, port: 9080}}]}}"
        )
    };
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: reviews-1, namespace: shop, labels: {app: reviews}}, spec: \
               {containers: [{name: app, image: app}]}, status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], \
               conditions: [{type: Ready, status: 'True'}]}}";
    let (six, four) = (slice("a-6", "IPv6", "fd00::1", "fd00::2"), slice("reviews-1", "IPv4", "10.0.0.1", "10.0.0.2"));
    let mesh = after(&base(), &[pod, &six, &four].join("\n---\n"));
    let addresses = |mesh: &Mesh| {
        let endpoints = mesh.endpoints(&service("reviews", "shop")).unwrap();
        endpoints.on_port(9080).iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&mesh), ["10.0.0.1", "10.0.0.2"]);
    // Where only the second family is listed, that is where it is.
    let gone = ObjectKey { kind: "EndpointSlice".into(), namespace: "shop".into(), name: "reviews-1".into() };
    assert_eq!(addresses(&mesh.apply(&[Change::Delete(gone)]).0), ["fd00::1", "fd00::2"]);
}

#[test]
fn an_endpoint_without_a_pod_is_where_its_node_or_its_slice_says() {
    let yaml = "{apiVersion: v1, kind: Service, metadata: {name: outside, namespace: shop}, spec: {clusterIP: 10.96.0.8, ports: \
                [{name: http, port: 80}]}}\n---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: \
                outside-1, namespace: shop, labels: {kubernetes.io/service-name: outside}}, addressType: IPv4, endpoints: \
                [{addresses: [192.0.2.1], nodeName: node-1}, {addresses: [192.0.2.2], nodeName: node-9}, {addresses: \
                [192.0.2.3], zone: zone-1}, {addresses: [192.0.2.4], zone: zone-7}], ports: [{name: http, port: 80}]}";
    let mesh = after(&base(), yaml);
    let places = |mesh: &Mesh| {
        let endpoints = mesh.endpoints(&service("outside", "shop")).unwrap();
        let place = |it: &crate::Endpoint| format!("{}/{}", it.workload.locality.region, it.workload.locality.zone);
        endpoints.on_port(80).iter().map(place).collect::<Vec<_>>()
    };
    assert_eq!(places(&mesh), ["region-1/zone-1", "/", "region-1/zone-1", "/zone-7"]);
    // A node that comes later.
    let node = "{apiVersion: v1, kind: Node, metadata: {name: node-9, labels: {topology.kubernetes.io/region: region-9, \
                topology.kubernetes.io/zone: zone-7}}}";
    let (mesh, dirty) = mesh.apply(&changes(node));
    assert_eq!(places(&mesh), ["region-1/zone-1", "region-9/zone-7", "region-1/zone-1", "region-9/zone-7"]);
    assert!(dirty.endpoints.contains(&service("outside", "shop")), "{dirty:?}");
    // And what subsets may select by.
    let endpoints = mesh.endpoints(&service("outside", "shop")).unwrap();
    let labels = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into_iter().collect();
    let selected = |key: &str, value: &str| {
        let wanted = labels(key, value);
        endpoints.on_port(80).iter().filter(|it| it.workload.is_selected_by(&wanted, "east")).count()
    };
    assert_eq!(selected("topology.kubernetes.io/zone", "zone-7"), 2);
    assert_eq!((selected("topology.istio.io/cluster", "east"), selected("topology.istio.io/cluster", "west")), (4, 0));
    assert_eq!(selected("app", "x"), 0);
}
