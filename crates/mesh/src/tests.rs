mod cluster;
mod given;

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_config::Change;
use mizzen_types::{Hostname, Labels, ObjectKey};

use super::{Attachment, Dirty, Mesh, MtlsMode, ServiceKey};

const BASE: &str = include_str!("tests/base.yaml");

fn changes(yaml: &str) -> Vec<Change> {
    let parsed = mizzen_config::parse("test.yaml", yaml);
    assert!(
        !parsed.findings.iter().any(|finding| finding.severity == mizzen_types::Severity::Error),
        "{:?}",
        parsed.findings
    );
    parsed.objects.into_iter().map(Change::Put).collect()
}

fn base() -> Arc<Mesh> {
    Mesh::empty().apply(&changes(BASE)).0
}

fn service(name: &str, namespace: &str) -> ServiceKey {
    ServiceKey { host: super::kubernetes_host(name, namespace), namespace: namespace.into() }
}

fn named(namespace: &str, name: &str) -> super::Named {
    (namespace.into(), name.into())
}

/// What changes of `yaml` touch, on top of the base.
#[track_caller]
fn check_dirty(yaml: &str, expected: Dirty) {
    let (_, dirty) = base().apply(&changes(yaml));
    assert_eq!(dirty, expected, "{yaml}");
}

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

#[test]
fn a_change_says_what_it_touched_and_no_more() {
    check_dirty(BASE, Dirty::default());
    check_dirty(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: r, namespace: shop}, spec: {hosts: \
         [reviews], http: [{route: [{destination: {host: reviews}}]}]}}",
        Dirty { virtual_services: set([Hostname::new("reviews")]), ..Dirty::default() },
    );
    check_dirty(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: shop}, spec: {host: \
         reviews}}",
        Dirty { destination_rules: set([Hostname::new("reviews.shop.svc.cluster.local")]), ..Dirty::default() },
    );
    check_dirty(
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: shop}, spec: {mtls: \
         {mode: STRICT}}}",
        Dirty { peer_authentications: set(["shop".into()]), ..Dirty::default() },
    );
    check_dirty("{apiVersion: v1, kind: ServiceAccount, metadata: {name: s, namespace: shop}}", Dirty::default());
}

/// A slice with some endpoints of `reviews`, all on pods of the base.
fn slice(pods: &[&str]) -> String {
    let endpoint = |pod: &&str| {
        let address = if *pod == "reviews-1" { "10.0.0.1" } else { "10.0.0.2" };
        format!("{{addresses: [{address}], targetRef: {{kind: Pod, name: {pod}, namespace: shop}}}}")
    };
    let endpoints: Vec<String> = pods.iter().map(endpoint).collect();
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: reviews-1, namespace: shop, labels: \
         {{kubernetes.io/service-name: reviews}}}}, addressType: IPv4, endpoints: [{}], ports: [{{name: http, port: \
         9080}}]}}",
        endpoints.join(", ")
    )
}

#[test]
fn endpoints_that_come_and_go_take_the_short_way() {
    let (mesh, dirty) = base().apply(&changes(&slice(&["reviews-1"])));
    assert!(dirty.only_endpoints(), "{dirty:?}");
    assert_eq!(dirty.endpoints, set([service("reviews", "shop")]));
    let reviews = mesh.endpoints(&service("reviews", "shop")).map(|endpoints| endpoints.on_port(9080).len());
    assert_eq!(reviews, Some(1));

    // Without any endpoint nobody may answer any more, and that is said in clusters.
    let (_, dirty) = mesh.apply(&changes(&slice(&[])));
    assert!(!dirty.only_endpoints(), "{dirty:?}");
    assert_eq!(dirty.services, set([service("reviews", "shop")]));
}

#[test]
fn a_step_shares_what_did_not_change() {
    let before = base();
    let (after, _) = before.apply(&changes(&slice(&["reviews-2"])));
    let other = service("ratings", "shop");
    let (old, new) = (before.endpoints(&other), after.endpoints(&other));
    assert!(old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new)));
    // And the mesh before is as it was.
    let reviews = before.endpoints(&service("reviews", "shop")).map(|endpoints| endpoints.on_port(9080).len());
    assert_eq!(reviews, Some(2));
}

#[test]
fn pods_that_come_late_complete_their_endpoints() {
    let pods: Vec<Change> = changes(BASE);
    let (late, early): (Vec<_>, Vec<_>) = pods.into_iter().partition(|change| &*change.key().kind == "Pod");
    let (mesh, _) = Mesh::empty().apply(&early);
    let count = |mesh: &Mesh| mesh.endpoints(&service("reviews", "shop")).map_or(0, |e| e.on_port(9080).len());
    assert_eq!(count(&mesh), 0);
    let (mesh, dirty) = mesh.apply(&late);
    assert_eq!(count(&mesh), 2);
    assert!(dirty.workloads.contains(&named("shop", "reviews-1")));
    let (mesh, _) = mesh.apply(&[Change::Delete(ObjectKey::new("Pod", "shop", "reviews-1"))]);
    assert_eq!(count(&mesh), 1);
}

#[test]
fn what_is_deleted_leaves_nothing() {
    let all: Vec<Change> = changes(BASE).iter().map(|change| Change::Delete(change.key().clone())).collect();
    let (mesh, dirty) = base().apply(&all);
    assert_eq!(mesh.services().count(), 0);
    assert_eq!(mesh.pods().count(), 0);
    assert!(mesh.endpoints(&service("reviews", "shop")).is_none());
    assert!(dirty.services.contains(&service("reviews", "shop")));
    // The mesh configuration went as well, so its defaults hold.
    assert_eq!(mesh.config().trust_domain, "cluster.local");
}

#[test]
fn the_mesh_configuration_is_read_before_anything_else() {
    let config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \
                  'defaultServiceExportTo: [\".\"]'}}";
    let (mesh, dirty) = base().apply(&changes(config));
    assert!(dirty.everything);
    let host = super::kubernetes_host("reviews", "shop");
    assert!(mesh.service_by_host(&host, "shop").is_some());
    assert!(mesh.service_by_host(&host, "other").is_none());
    // In another namespace, or of another name, it is any ConfigMap.
    for other in [config.replace("istio-system", "shop"), config.replace("name: istio,", "name: other,")] {
        assert_eq!(base().apply(&changes(&other)).1, Dirty::default(), "{other}");
    }
}

#[track_caller]
fn check_resolve(host: &str, namespace: &str, expected: &str) {
    assert_eq!(base().resolve(host, namespace), Hostname::new(expected), "{host} in {namespace}");
}

#[test]
fn names_in_rules_mean_what_istio_means_and_one_step_more() {
    check_resolve("reviews", "shop", "reviews.shop.svc.cluster.local");
    check_resolve("reviews", "other", "reviews.other.svc.cluster.local");
    check_resolve("Reviews", "shop", "reviews.shop.svc.cluster.local");
    check_resolve("reviews.shop.svc.cluster.local", "other", "reviews.shop.svc.cluster.local");
    check_resolve("*", "shop", "*");
    check_resolve("*.shop", "shop", "*.shop");
    check_resolve("10.0.0.1", "shop", "10.0.0.1");
    // The step more: there is no host of that name, but a service.
    check_resolve("reviews.shop", "other", "reviews.shop.svc.cluster.local");
    check_resolve("reviews.shop.svc", "other", "reviews.shop.svc.cluster.local");
    check_resolve("nobody.shop", "other", "nobody.shop");
    // A host of that very name comes first.
    check_resolve("ratings.shop", "other", "ratings.shop");
    check_resolve("api.example.com", "shop", "api.example.com");
}

/// The rules that hold when `client` calls `reviews.shop`, by name.
#[track_caller]
fn check_policy(rules: &[(&str, &str)], client: &str, labels: &[(&str, &str)], expected: &[&str]) {
    let written: Vec<String> = rules
        .iter()
        .map(|(place, spec)| {
            let (namespace, name) = place.split_once('/').expect("namespace/name");
            format!(
                "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: \
                 {namespace}}}, spec: {{{spec}}}}}"
            )
        })
        .collect();
    let (mesh, _) = base().apply(&changes(&written.join("\n---\n")));
    let host = super::kubernetes_host("reviews", "shop");
    let service = mesh.service_by_host(&host, client).expect("everybody sees it");
    let labels: Labels = labels.iter().copied().collect();
    let policy = mesh.destination_policy(service, client, &labels);
    let names: Vec<&str> =
        policy.iter().flat_map(|policy| policy.rules.iter()).map(|rule| rule.order.name.as_ref()).collect();
    assert_eq!(names, expected, "{rules:?} for {client}");
}

#[test]
fn destination_rules_are_found_level_by_level() {
    const FULL: &str = "host: reviews.shop.svc.cluster.local";
    check_policy(&[("shop/a", "host: reviews")], "other", &[], &["a"]);
    check_policy(&[("shop/service", FULL), ("other/client", FULL)], "other", &[], &["client"]);
    check_policy(&[("istio-system/root", FULL), ("shop/service", FULL)], "other", &[], &["service"]);
    check_policy(&[("istio-system/root", FULL), ("third/nobody", FULL)], "other", &[], &["root"]);
    check_policy(&[("shop/private", "host: reviews, exportTo: ['.']")], "other", &[], &[]);
    check_policy(&[("shop/private", "host: reviews, exportTo: ['.']")], "shop", &[], &["private"]);
    // Within a level the most specific host wins, and equal hosts are put together.
    check_policy(&[("shop/wide", "host: '*.local'"), ("shop/exact", "host: reviews")], "shop", &[], &["exact"]);
    check_policy(
        &[("shop/wider", "host: '*.local'"), ("shop/wide", "host: '*.cluster.local'")],
        "shop",
        &[],
        &["wide"],
    );
    check_policy(&[("shop/b", "host: reviews"), ("shop/a", "host: reviews")], "shop", &[], &["a", "b"]);
    check_policy(&[("shop/a", "host: reviews"), ("shop/b", "host: reviews, exportTo: ['.']")], "shop", &[], &["a"]);
    // A rule for certain clients beats one for all, and is for its own namespace only.
    let chosen = "host: reviews, workloadSelector: {matchLabels: {app: front}}";
    let rules = [("shop/a", "host: reviews"), ("shop/chosen", chosen)];
    check_policy(&rules, "shop", &[("app", "front")], &["chosen"]);
    check_policy(&rules, "shop", &[("app", "back")], &["a"]);
    check_policy(&[("shop/chosen", chosen)], "other", &[("app", "front")], &[]);
    // Other spellings of the service, where no host has that name.
    check_policy(&[("other/short", "host: reviews.shop")], "other", &[], &["short"]);
}

#[test]
fn virtual_services_count_private_ones_first() {
    let rule = |namespace: &str, name: &str, export: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}, namespace: \
             {namespace}}}, spec: {{hosts: [x.example.com], exportTo: [{export}], http: [{{route: [{{destination: {{host: \
             reviews.shop.svc.cluster.local}}}}]}}]}}}}"
        )
    };
    let yaml = [
        rule("shop", "a-public", "'*'"),
        rule("shop", "b-private", "'.'"),
        rule("other", "c-named", "shop"),
        rule("other", "d-hidden", "'.'"),
        rule("other", "e-nobody", "'~'"),
    ];
    let (mesh, _) = base().apply(&changes(&yaml.join("\n---\n")));
    let rules = mesh.virtual_services("shop", &Attachment::Mesh);
    let names: Vec<&str> = rules.iter().map(|rule| rule.order.name.as_ref()).collect();
    assert_eq!(names, ["b-private", "c-named", "a-public"]);
}

#[track_caller]
fn check_attachment(entry: &str, namespace: &str, name: &str) {
    let expected = Attachment::Gateway { namespace: namespace.into(), name: name.into() };
    assert_eq!(Attachment::read(entry, "own"), expected, "{entry}");
}

#[test]
fn gateways_are_named_in_four_ways() {
    check_attachment("gw", "own", "gw");
    check_attachment("./gw", "own", "gw");
    check_attachment("ns/gw", "ns", "gw");
    check_attachment("gw.ns", "ns", "gw");
    check_attachment("gw.ns.svc.cluster.local", "ns", "gw");
    assert_eq!(Attachment::read("mesh", "own"), Attachment::Mesh);
}

/// The mode on port 9080 of a workload with `app: reviews` in `shop`.
#[track_caller]
fn check_mtls(policies: &[(&str, &str)], expected: MtlsMode) {
    let written: Vec<String> = policies
        .iter()
        .enumerate()
        .map(|(index, (namespace, spec))| {
            format!(
                "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: p{index}, namespace: \
                 {namespace}}}, spec: {{{spec}}}}}"
            )
        })
        .collect();
    let yaml = written.join("\n---\n");
    let (mesh, _) = base().apply(&if yaml.is_empty() { Vec::new() } else { changes(&yaml) });
    let labels: Labels = [("app", "reviews")].into_iter().collect();
    assert_eq!(mesh.peer_policy("shop", &labels).on_port(9080), expected, "{policies:?}");
}

#[test]
fn peer_authentication_goes_from_workload_to_mesh() {
    use MtlsMode::{Disable, Permissive, Strict};
    const REVIEWS: &str = "selector: {matchLabels: {app: reviews}}";
    check_mtls(&[], Permissive);
    check_mtls(&[("istio-system", "mtls: {mode: STRICT}")], Strict);
    check_mtls(&[("istio-system", "mtls: {mode: STRICT}"), ("shop", "mtls: {mode: DISABLE}")], Disable);
    check_mtls(&[("istio-system", "mtls: {mode: STRICT}"), ("shop", "mtls: {mode: UNSET}")], Strict);
    check_mtls(&[("other", "mtls: {mode: STRICT}")], Permissive);
    check_mtls(&[("shop", "mtls: {mode: STRICT}"), ("shop", &format!("{REVIEWS}, mtls: {{mode: DISABLE}}"))], Disable);
    check_mtls(&[("shop", "mtls: {mode: STRICT}"), ("shop", REVIEWS)], Strict);
    check_mtls(
        &[("shop", &format!("{REVIEWS}, mtls: {{mode: STRICT}}, portLevelMtls: {{9080: {{mode: DISABLE}}}}"))],
        Disable,
    );
    check_mtls(
        &[("shop", &format!("{REVIEWS}, mtls: {{mode: STRICT}}, portLevelMtls: {{9080: {{mode: UNSET}}}}"))],
        Strict,
    );
    // A policy for workloads of the root namespace is for that namespace alone.
    check_mtls(&[("istio-system", &format!("{REVIEWS}, mtls: {{mode: STRICT}}"))], Permissive);
    // Of two the first counts.
    check_mtls(&[("shop", "mtls: {mode: STRICT}"), ("shop", "mtls: {mode: DISABLE}")], Strict);
}

#[test]
fn of_two_services_of_one_host_the_nearest_counts() {
    let entry = |namespace: &str, host: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: e, namespace: {namespace}}}, \
             spec: {{hosts: [{host}], ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 81, name: other, \
             protocol: TCP}}], resolution: DNS}}}}"
        )
    };
    let reviews = "reviews.shop.svc.cluster.local";
    let yaml =
        [entry("a", "x.example.com"), entry("b", "x.example.com"), entry("other", reviews), entry("shop", reviews)];
    let (mesh, _) = base().apply(&changes(&yaml.join("\n---\n")));
    let of = |host: &str, client: &str| {
        let service = mesh.service_by_host(&Hostname::new(host), client).expect("there is one");
        (service.key.namespace.to_string(), service.registry)
    };
    assert_eq!(of("x.example.com", "b").0, "b");
    assert_eq!(of("x.example.com", "third").0, "a");
    assert_eq!(of(reviews, "third"), ("shop".to_owned(), super::Registry::Kubernetes));
    assert_eq!(of(reviews, "other").0, "other");
    // In one namespace Kubernetes gives the attributes, the entry adds ports.
    let merged = mesh.service(&service("reviews", "shop")).expect("it is there");
    assert_eq!(merged.ports.iter().map(|port| port.number).collect::<Vec<_>>(), [9080, 80, 81]);
}

#[test]
fn aliases_are_followed_and_rings_end() {
    let alias = |name: &str, target: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{type: ExternalName, \
             externalName: {target}}}}}"
        )
    };
    let local = |name: &str| format!("{name}.shop.svc.cluster.local");
    let yaml = [
        alias("one", &local("reviews")),
        alias("two", &local("one")),
        alias("ring-a", &local("ring-b")),
        alias("ring-b", &local("ring-a")),
    ];
    let (mesh, _) = base().apply(&changes(&yaml.join("\n---\n")));
    let reviews = mesh.service(&service("reviews", "shop")).expect("it is there");
    let names = |mesh: &Mesh| -> Vec<String> {
        mesh.aliases_of(reviews, "shop").iter().map(|host| host.as_str().to_owned()).collect()
    };
    assert_eq!(names(&mesh), [local("one"), local("two")]);
    let ring = mesh.service(&service("ring-a", "shop")).expect("it is there");
    assert_eq!(mesh.aliases_of(ring, "shop").len(), 1);
    let (mesh, _) = mesh.apply(&[Change::Delete(ObjectKey::new("Service", "shop", "one"))]);
    assert!(names(&mesh).is_empty());
}

#[test]
fn workload_entries_answer_for_entries_and_services() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop, labels: {app: reviews}}
spec: {address: 192.0.2.7, ports: {http: 9999}, labels: {app: overridden, version: vm}, serviceAccount: vm, weight: 3}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry, namespace: shop}
spec:
  hosts: [entry.example.com]
  ports: [{number: 80, name: web, protocol: HTTP, targetPort: 8080}]
  resolution: STATIC
  workloadSelector: {labels: {app: reviews}}
";
    let (mesh, _) = base().apply(&changes(yaml));
    let of_service = mesh.endpoints(&service("reviews", "shop")).expect("it has endpoints");
    let vm =
        of_service.on_port(9080).iter().find(|endpoint| &*endpoint.address == "192.0.2.7").expect("it is among them");
    assert_eq!((vm.port, vm.weight, vm.workload.sidecar), (9999, 3, true));
    assert_eq!((vm.workload.labels.get("app"), vm.workload.labels.get("version")), (Some("reviews"), Some("vm")));
    let key = ServiceKey { host: Hostname::new("entry.example.com"), namespace: "shop".into() };
    let of_entry = mesh.endpoints(&key).expect("it has endpoints");
    let mut addresses: Vec<String> =
        of_entry.on_port(80).iter().map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port)).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["10.0.0.1:8080", "10.0.0.2:8080", "192.0.2.7:8080"]);
}
