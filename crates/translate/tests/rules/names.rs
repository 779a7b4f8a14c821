//! The table of names that a sidecar's name server answers.

use std::collections::HashMap;

use mizzen_proto::istio_nds::NameTable;
use mizzen_proto::istio_nds::name_table::NameInfo;
use prost::Message;
use serde_json::{Value, json};

use super::{decode, mesh, redirected, sidecar};

type Table = HashMap<String, NameInfo>;

/// The table for a sidecar in `shop` whose node says this as well.
fn names(yaml: &str, metadata: &Value) -> Table {
    let mesh = mesh(yaml);
    let mut node = redirected();
    for (key, value) in metadata.as_object().into_iter().flatten() {
        node[key] = value.clone();
    }
    let scope = sidecar(&mesh, &node).scope(&mesh);
    let made = mizzen_translate::name_table(&mesh, &scope);
    NameTable::decode(&*made.body).expect("what is sent can be read").table.into_iter().collect()
}

/// The addresses of a name; `None` when it is not in the table.
fn ips(table: &Table, name: &str) -> Option<Vec<String>> {
    table.get(name).map(|info| info.ips.clone())
}

fn pod(name: &str, spec: &str, address: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: db}}}}, spec: {{{spec}}}, \
         status: {{podIP: {address}, conditions: [{{type: Ready, status: 'True'}}]}}}}"
    )
}

/// A headless Service with three pods in its slice, of which the third is not ready.
fn database(name: &str, more: &str) -> String {
    let endpoint = |pod: &str, address: &str, ready: bool| {
        format!(
            "{{addresses: [{address}], conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: {pod}, namespace: shop}}}}"
        )
    };
    let endpoints = [
        endpoint("db-0", "10.0.1.1", true),
        endpoint("db-1", "10.0.1.2", true),
        endpoint("db-2", "10.0.1.3", false),
        endpoint("other", "10.0.1.4", true),
    ];
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{clusterIP: None, selector: {{app: \
         db}}, ports: [{{name: tcp, port: 5432}}, {{name: http-admin, port: 8080}}]{more}}}}}\n---\n{{apiVersion: \
         discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {name}-1, namespace: shop, labels: \
         {{kubernetes.io/service-name: {name}}}}}, addressType: IPv4, endpoints: [{}], ports: [{{name: tcp, port: 5432}}, \
         {{name: http-admin, port: 8080}}]}}",
        endpoints.join(", ")
    )
}

fn pods() -> String {
    [
        pod("db-0", "hostname: db-0, subdomain: db", "10.0.1.1"),
        pod("db-1", "hostname: first, subdomain: db", "10.0.1.2"),
        pod("db-2", "subdomain: db", "10.0.1.3"),
        pod("other", "hostname: other", "10.0.1.4"),
    ]
    .join("\n---\n")
}

#[test]
fn pods_of_a_headless_service_have_names_of_their_own() {
    let table = names(&[pods(), database("db", "")].join("\n---\n"), &json!({}));
    assert_eq!(
        table["db-0.db.shop.svc.cluster.local"],
        NameInfo {
            ips: vec!["10.0.1.1".to_owned()],
            registry: "Kubernetes".to_owned(),
            shortname: "db-0.db".to_owned(),
            namespace: "shop".to_owned(),
            ..Default::default()
        }
    );
    let all = ["10.0.1.1", "10.0.1.2", "10.0.1.4"].map(str::to_owned);
    assert_eq!(ips(&table, "db.shop.svc.cluster.local"), Some(all.into()));
    // The pod's own word for itself; without a subdomain it has no name; one that is not ready is not answered for, …
    assert_eq!(ips(&table, "first.db.shop.svc.cluster.local"), Some(vec!["10.0.1.2".to_owned()]));
    for name in ["db-1.db", "db-2.db", "other.db", "other"] {
        assert_eq!(ips(&table, &format!("{name}.shop.svc.cluster.local")), None, "{name}");
    }
    // … unless the Service wants that. A pod that names no host is called as it is named.
    let table = names(&[pods(), database("db", ", publishNotReadyAddresses: true")].join("\n---\n"), &json!({}));
    assert_eq!(ips(&table, "db-2.db.shop.svc.cluster.local"), Some(vec!["10.0.1.3".to_owned()]));
}

#[test]
fn a_pod_behind_two_services_has_one_name_and_one_address() {
    let table = names(&[pods(), database("db", ""), database("db-all", "")].join("\n---\n"), &json!({}));
    assert_eq!(ips(&table, "db-0.db.shop.svc.cluster.local"), Some(vec!["10.0.1.1".to_owned()]));
    assert_eq!(ips(&table, "db-0.db-all.shop.svc.cluster.local"), None);
}

#[test]
fn services_with_an_address_do_not_tell_of_their_pods() {
    let with_address = database("db", "").replace("clusterIP: None", "clusterIP: 10.96.0.7");
    let table = names(&[pods(), with_address].join("\n---\n"), &json!({}));
    assert_eq!(ips(&table, "db.shop.svc.cluster.local"), Some(vec!["10.96.0.7".to_owned()]));
    assert_eq!(ips(&table, "db-0.db.shop.svc.cluster.local"), None);
}

#[test]
fn a_pod_counts_more_than_an_entry_for_its_name() {
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: shop}, spec: {hosts: \
                 [db-0.db.shop.svc.cluster.local], addresses: [192.0.2.1], ports: [{name: tcp, number: 5432, protocol: TCP}], \
                 resolution: DNS}}";
    let table = names(&[pods(), database("db", ""), entry.to_owned()].join("\n---\n"), &json!({}));
    assert_eq!(ips(&table, "db-0.db.shop.svc.cluster.local"), Some(vec!["10.0.1.1".to_owned()]));
    let table = names(entry, &json!({}));
    assert_eq!(ips(&table, "db-0.db.shop.svc.cluster.local"), Some(vec!["192.0.2.1".to_owned()]));
}

/// An entry without addresses for `HOST.example.com`.
fn outside(host: &str, protocol: &str, port: u16) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {host}, namespace: shop}}, spec: {{hosts: \
         [{host}.example.com], ports: [{{number: {port}, name: port, protocol: {protocol}}}], resolution: DNS}}}}"
    )
}

/// A node whose names are resolved beside it.
fn captured(more: &Value) -> Value {
    let mut node = redirected();
    node["DNS_CAPTURE"] = json!("true");
    for (key, value) in more.as_object().into_iter().flatten() {
        node[key] = value.clone();
    }
    node
}

#[test]
fn names_of_services_without_addresses_are_answered_where_connections_to_them_are_caught() {
    let yaml = outside("api", "TCP", 3307);
    let of = |metadata: Value| ips(&names(&yaml, &metadata), "api.example.com");
    let four = of(json!({"DNS_CAPTURE": "true"})).unwrap();
    assert!(matches!(&four[..], [one] if one.starts_with("240.240.")), "{four:?}");
    for metadata in [json!({"DNS_CAPTURE": "true", "DNS_AUTO_ALLOCATE": "true"}), json!({"DNS_CAPTURE": "1"})] {
        assert_eq!(of(metadata.clone()), Some(four.clone()), "{metadata}");
    }
    // Nobody would lead on what is sent to such an address.
    for metadata in [json!({}), json!({"DNS_CAPTURE": "false"}), json!({"DNS_AUTO_ALLOCATE": "true"})] {
        assert_eq!(of(metadata.clone()), None, "{metadata}");
    }
    // Of both families where the workload has both.
    let both = of(json!({"DNS_CAPTURE": "true", "INSTANCE_IPS": "10.0.0.1,fd00::1"})).unwrap();
    assert!(matches!(&both[..], [one, two] if *one == four[0] && two.starts_with("2001:2::")), "{both:?}");
}

#[test]
fn two_services_on_one_port_are_told_apart_by_the_addresses_that_they_are_given() {
    let mesh = mesh(&[outside("one", "TCP", 3307), outside("two", "TCP", 3307)].join("\n---\n"));
    let listeners = |node: &Value| {
        let made = mizzen_translate::listeners(&mesh, &sidecar(&mesh, node));
        let on_port: Vec<Value> = made.iter().filter(|it| it.name.ends_with("_3307")).map(decode).collect();
        let way = |it: &Value| {
            let filters = it.pointer("/filterChains/0/filters").and_then(Value::as_array)?;
            filters.last()?.pointer("/typedConfig/cluster").cloned()
        };
        let address = |it: &Value| it["address"]["socketAddress"]["address"].as_str().map(str::to_owned);
        on_port.iter().map(|it| (way(it).unwrap_or_default(), address(it).unwrap_or_default())).collect::<Vec<_>>()
    };
    let node = captured(&json!({}));
    let scope = sidecar(&mesh, &node).scope(&mesh);
    let made = mizzen_translate::name_table(&mesh, &scope);
    let table: Table = NameTable::decode(&*made.body).unwrap().table.into_iter().collect();
    let mut found = listeners(&node);
    found.sort_by_key(|(way, _)| way.to_string());
    let expected = ["one", "two"].map(|host| {
        let address = ips(&table, &format!("{host}.example.com")).unwrap().remove(0);
        (json!(format!("outbound|3307||{host}.example.com")), address)
    });
    assert_eq!(found, expected);
    // Where no names are resolved, the first has the port.
    let found = listeners(&redirected());
    assert_eq!(found, [(json!("outbound|3307||one.example.com"), "0.0.0.0".to_owned())]);
}

#[test]
fn requests_to_a_given_address_are_for_its_service() {
    let mesh = mesh(&outside("api", "HTTP", 80));
    let both = json!({"INSTANCE_IPS": "10.0.0.1,fd00::1"});
    let domains = |node: &Value| {
        let table = super::table(&mesh, &sidecar(&mesh, node), "80");
        let domains = super::host(&table, "api.example.com")["domains"].clone();
        domains.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = domains(&captured(&both));
    let given = |start: &str| all.iter().filter(|domain| domain.starts_with(start)).count();
    assert_eq!((given("240.240."), given("[2001:2::"), all.len()), (1, 1, 4), "{all:?}");
    assert_eq!(domains(&captured(&json!({}))).len(), 3);
    assert_eq!(domains(&redirected()), ["api.example.com", "api.example.com."]);
}
