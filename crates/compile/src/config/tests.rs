use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use mizzen_proto::json::Json;
use mizzen_proto::type_url::{self, CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET};
use mizzen_snapshot::Snapshot;
use mizzen_snapshot::route::{Action, Target};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

static JSON: LazyLock<Json> = LazyLock::new(Json::new);

fn resource(kind: &str, value: &Value) -> Resource {
    let name = value.get("name").or(value.get("cluster_name")).and_then(Value::as_str).unwrap_or_default();
    let message = kind.rsplit('/').next().unwrap();
    Resource { name: name.to_owned(), version: "1".to_owned(), body: Bytes::from(JSON.encode(message, value).unwrap()) }
}

fn update(kind: &str, values: &[Value], full: bool) -> Update {
    let resources = values.iter().map(|value| resource(kind, value)).collect();
    Update { type_url: kind.to_owned(), resources, removed: Vec::new(), full }
}

fn removal(kind: &str, names: &[&str]) -> Update {
    let removed = names.iter().map(|name| (*name).to_owned()).collect();
    Update { type_url: kind.to_owned(), removed, ..Update::default() }
}

fn eds(name: &str) -> Value {
    json!({"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}, "service_name": name}})
}

fn fixed(name: &str, port: u16) -> Value {
    json!({"name": name, "type": "STATIC", "load_assignment": endpoints(name, port)})
}

fn endpoints(name: &str, port: u16) -> Value {
    let address = json!({"socket_address": {"address": "10.0.0.1", "port_value": port}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

fn table(name: &str, clusters: &[&str]) -> Value {
    let route = |cluster: &&str| json!({"match": {"prefix": format!("/{cluster}")}, "route": {"cluster": cluster}});
    let routes: Vec<_> = clusters.iter().map(route).collect();
    json!({"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]})
}

fn listener(name: &str, port: u16, table: &str) -> Value {
    listener_with(name, port, &json!({"rds": {"route_config_name": table, "config_source": {"ads": {}}}}))
}

fn listener_with(name: &str, port: u16, part: &Value) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    for (key, value) in part.as_object().unwrap() {
        manager[key] = value.clone();
    }
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    })
}

fn names<K: std::fmt::Display + Eq + std::hash::Hash, V>(map: &rpds_map::Map<K, V>) -> Vec<String> {
    let mut names: Vec<_> = map.keys().map(ToString::to_string).collect();
    names.sort();
    names
}

mod rpds_map {
    pub(super) type Map<K, V> = rpds::HashTrieMapSync<K, V>;
}

#[track_caller]
fn visible(config: &Config, clusters: &[&str], tables: &[&str], listeners: &[&str]) {
    let snapshot = config.snapshot();
    assert_eq!(names(&snapshot.clusters), clusters, "clusters");
    assert_eq!(names(&snapshot.routes), tables, "tables");
    assert_eq!(names(&snapshot.listeners), listeners, "listeners");
}

#[test]
fn things_become_visible_when_what_they_name_is() {
    let mut config = Config::new();
    let outcome = config.apply(update(CLUSTER, &[eds("a"), fixed("b", 1)], true));
    assert_eq!(outcome.refused, []);
    assert!(outcome.wanted_changed);
    assert_eq!(config.wanted().endpoints, ["a"]);
    visible(&config, &["b"], &[], &[]);
    let outcome = config.apply(update(LISTENER, &[listener("l", 80, "t")], true));
    assert_eq!(config.wanted().routes, ["t"]);
    assert!(outcome.wanted_changed && outcome.listeners_changed.is_empty());
    config.apply(update(ROUTE, &[table("t", &["a", "b"])], true));
    visible(&config, &["b"], &[], &[]);
    // The endpoints free the cluster, it the table, and that the listener.
    let outcome = config.apply(update(ENDPOINT, &[endpoints("a", 1)], true));
    visible(&config, &["a", "b"], &["t"], &["l"]);
    assert_eq!(outcome.listeners_changed, ["l".into()]);
    assert_eq!(outcome.clusters_changed, ["a".into()]);
    assert!(!outcome.wanted_changed);
}

#[test]
fn endpoints_go_a_short_way() {
    let mut config = Config::new();
    config.apply(update(CLUSTER, &[eds("a"), fixed("b", 1)], true));
    config.apply(update(ENDPOINT, &[endpoints("a", 1)], true));
    config.apply(update(LISTENER, &[listener("l", 80, "t")], true));
    config.apply(update(ROUTE, &[table("t", &["a"])], true));
    let before = Arc::clone(config.snapshot());
    let outcome = config.apply(update(ENDPOINT, &[endpoints("a", 2)], true));
    let after = &outcome.snapshot;
    let part = |snapshot: &Snapshot, name: &str| Arc::clone(snapshot.clusters.get(name).unwrap());
    assert!(Arc::ptr_eq(&part(&before, "b"), &part(after, "b")));
    assert!(Arc::ptr_eq(&part(&before, "a").policy, &part(after, "a").policy));
    assert_eq!(part(after, "a").endpoints.iter().next().unwrap().address.to_string(), "10.0.0.1:2");
    assert!(Arc::ptr_eq(before.routes.get("t").unwrap(), after.routes.get("t").unwrap()));
    assert!(Arc::ptr_eq(before.listeners.get("l").unwrap(), after.listeners.get("l").unwrap()));
}

#[test]
fn the_same_bytes_change_nothing() {
    let mut config = Config::new();
    let all = [
        update(CLUSTER, &[eds("a")], true),
        update(ENDPOINT, &[endpoints("a", 1)], true),
        update(LISTENER, &[listener("l", 80, "t")], true),
        update(ROUTE, &[table("t", &["a"])], true),
    ];
    all.iter().for_each(|update| drop(config.apply(update.clone())));
    let before = Arc::clone(config.snapshot());
    for update in all {
        let outcome = config.apply(update);
        assert!(Arc::ptr_eq(&outcome.snapshot, &before));
        assert!(outcome.clusters_changed.is_empty() && outcome.listeners_changed.is_empty() && !outcome.wanted_changed);
    }
}

#[test]
fn a_removed_cluster_stays_while_a_route_names_it() {
    let mut config = Config::new();
    config.apply(update(CLUSTER, &[fixed("a", 1), fixed("b", 1)], true));
    config.apply(update(LISTENER, &[listener("l", 80, "t")], true));
    config.apply(update(ROUTE, &[table("t", &["a"])], true));
    // The wrong order: first the cluster goes, then the route to it.
    let outcome = config.apply(update(CLUSTER, &[fixed("b", 1)], true));
    assert!(outcome.clusters_removed.is_empty() && config.has_retained());
    visible(&config, &["a", "b"], &["t"], &["l"]);
    let outcome = config.apply(update(ROUTE, &[table("t", &["b"])], true));
    assert_eq!(outcome.clusters_removed, ["a".into()]);
    visible(&config, &["b"], &["t"], &["l"]);
    assert!(!config.has_retained());
}

#[test]
fn settling_ends_the_life_of_what_was_removed() {
    let mut config = Config::new();
    config.apply(update(CLUSTER, &[fixed("a", 1)], true));
    config.apply(update(LISTENER, &[listener("l", 80, "t")], true));
    config.apply(update(ROUTE, &[table("t", &["a"])], true));
    config.apply(removal(CLUSTER, &["a"]));
    visible(&config, &["a"], &["t"], &["l"]);
    let outcome = config.settle();
    assert_eq!(outcome.clusters_removed, ["a".into()]);
    visible(&config, &[], &["t"], &["l"]);
}

#[test]
fn a_route_to_a_cluster_that_is_not_configured_is_shown() {
    let mut config = Config::new();
    config.apply(update(LISTENER, &[listener("l", 80, "t")], true));
    config.apply(update(ROUTE, &[table("t", &["nowhere"])], true));
    visible(&config, &[], &["t"], &["l"]);
}

#[test]
fn waiting_for_endpoints_can_be_ended() {
    let mut config = Config::new();
    config.apply(update(CLUSTER, &[eds("a")], true));
    let waiting: Vec<_> = config.warming().map(|(name, limit)| (name.clone(), limit)).collect();
    assert_eq!(waiting, [("a".into(), Some(Duration::from_secs(15)))]);
    let outcome = config.expire(&"a".into());
    assert_eq!(outcome.clusters_changed, ["a".into()]);
    assert!(outcome.snapshot.clusters.get("a").unwrap().endpoints.is_empty());
    assert_eq!(config.warming().count(), 0);
    config.apply(update(ENDPOINT, &[endpoints("a", 1)], true));
    assert!(!config.snapshot().clusters.get("a").unwrap().endpoints.is_empty());
}

#[test]
fn a_bad_resource_rejects_itself_only() {
    let mut config = Config::new();
    config.apply(update(CLUSTER, &[fixed("a", 1), fixed("b", 1)], true));
    let mut bad = fixed("a", 2);
    bad["lb_policy"] = json!("LOAD_BALANCING_POLICY_CONFIG");
    // State of the world: what is refused is not gone, and what is missing is.
    let outcome = config.apply(update(CLUSTER, &[bad, fixed("c", 1)], true));
    let [refused] = outcome.refused.as_slice() else { panic!("{:?}", outcome.refused) };
    assert_eq!((refused.name.as_str(), refused.field.as_str()), ("a", "lb_policy"));
    assert_eq!(refused.to_string(), "CDS \"a\" at lb_policy: load_balancing_policy is not obeyed by this proxy yet");
    visible(&config, &["a", "c"], &[], &[]);
    let port =
        |config: &Config| config.snapshot().clusters.get("a").unwrap().endpoints.iter().next().unwrap().address.clone();
    assert_eq!(port(&config).to_string(), "10.0.0.1:1");
    config.apply(update(CLUSTER, &[fixed("a", 3)], false));
    assert_eq!(port(&config).to_string(), "10.0.0.1:3");
}

#[test]
fn s27_garbage_is_refused_by_name() {
    let mut config = Config::new();
    for kind in [CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, "type.googleapis.com/x.Y"] {
        for body in [&b"\xff\xff\xff"[..], b"\x0a\x05ab", b""] {
            let resource = Resource { name: "x".to_owned(), version: String::new(), body: Bytes::from_static(body) };
            let update = Update { type_url: kind.to_owned(), resources: vec![resource], ..Update::default() };
            let outcome = config.apply(update);
            assert_eq!(outcome.refused.len(), 1, "{}: {body:?}", type_url::short(kind));
            assert_eq!(outcome.refused[0].name, "x");
        }
    }
    visible(&config, &[], &[], &[]);
}

#[test]
fn names_that_disagree_and_duplicates_are_refused() {
    let mut config = Config::new();
    let mut other = resource(CLUSTER, &fixed("a", 1));
    other.name = "b".to_owned();
    let mut unnamed = resource(CLUSTER, &fixed("a", 1));
    unnamed.name.clear();
    let twice = resource(CLUSTER, &fixed("a", 2));
    let update = Update { type_url: CLUSTER.to_owned(), resources: vec![other, unnamed, twice], ..Update::default() };
    let outcome = config.apply(update);
    let messages: Vec<_> = outcome.refused.iter().map(|refused| refused.message.as_str()).collect();
    assert_eq!(messages, ["the message calls itself \"a\"", "the same name is in this update twice"]);
    visible(&config, &["a"], &[], &[]);
}

#[test]
fn static_resources_stay() {
    let mut config = Config::new();
    config.apply_static(update(CLUSTER, &[fixed("xds-grpc", 15010)], false));
    let outcome = config.apply(update(CLUSTER, &[fixed("xds-grpc", 1), fixed("a", 1)], true));
    assert_eq!(outcome.refused.len(), 1);
    config.apply(update(CLUSTER, &[], true));
    config.apply(removal(CLUSTER, &["xds-grpc"]));
    visible(&config, &["xds-grpc"], &[], &[]);
    let endpoints = &config.snapshot().clusters.get("xds-grpc").unwrap().endpoints;
    assert_eq!(endpoints.iter().next().unwrap().address.to_string(), "10.0.0.1:15010");
}

#[test]
fn listeners_hold_on_to_their_tables_and_let_go() {
    let mut config = Config::new();
    config.apply(update(LISTENER, &[listener("l", 80, "old")], true));
    config.apply(update(ROUTE, &[table("old", &[])], true));
    // The next version waits for another table; until then the old one serves with its own.
    config.apply(update(LISTENER, &[listener("l", 80, "new")], true));
    visible(&config, &[], &["old"], &["l"]);
    assert_eq!(config.wanted().routes, ["new", "old"]);
    config.apply(removal(ROUTE, &["old"]));
    visible(&config, &[], &["old"], &["l"]);
    let outcome = config.apply(update(ROUTE, &[table("new", &[])], true));
    visible(&config, &[], &["new"], &["l"]);
    assert_eq!(config.wanted().routes, ["new"]);
    assert_eq!(outcome.unwanted, [(ROUTE, "old".to_owned())]);
    let outcome = config.apply(update(LISTENER, &[], true));
    assert_eq!(outcome.listeners_removed, ["l".into()]);
    assert_eq!(outcome.unwanted, [(ROUTE, "new".to_owned())]);
    visible(&config, &[], &[], &[]);
    assert_eq!(config.wanted(), Wanted::default());
}

#[test]
fn endpoints_go_with_the_last_cluster_that_asks_for_them() {
    let mut config = Config::new();
    let mut other = eds("b");
    other["eds_cluster_config"]["service_name"] = json!("a");
    config.apply(update(CLUSTER, &[eds("a"), other.clone()], true));
    config.apply(update(ENDPOINT, &[endpoints("a", 1)], true));
    let outcome = config.apply(update(CLUSTER, &[other], true));
    assert_eq!((outcome.unwanted, config.wanted().endpoints), (vec![], vec!["a".to_owned()]));
    let outcome = config.apply(update(CLUSTER, &[], true));
    assert_eq!(outcome.unwanted, [(ENDPOINT, "a".to_owned())]);
    assert!(config.accepted(ENDPOINT).is_empty());
}

#[test]
fn secrets_are_asked_for_and_kept() {
    let mut config = Config::new();
    let mut cluster = fixed("a", 1);
    cluster["transport_socket"] = json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_certificate_sds_secret_configs": [{"name": "mine"}],
                "validation_context_sds_secret_config": {"name": "roots"},
            },
        },
    });
    config.apply(update(CLUSTER, &[cluster], true));
    assert_eq!(config.wanted().secrets, ["mine", "roots"]);
    let secret = json!({"name": "roots", "validation_context": {"trusted_ca": {"inline_string": "PEM"}}});
    let outcome = config.apply(update(SECRET, &[secret], false));
    assert_eq!(outcome.refused, []);
    assert!(
        matches!(outcome.secrets_changed.as_slice(), [(name, Some(Secret::Validation(_)))] if name.as_str() == "roots")
    );
    let outcome = config.apply(removal(SECRET, &["roots"]));
    assert!(matches!(outcome.secrets_changed.as_slice(), [(_, None)]));
    config.apply(update(CLUSTER, &[], true));
    assert!(config.wanted().secrets.is_empty());
}

#[test]
fn logs_that_write_nothing_are_named_and_hold_nothing_up() {
    let mut config = Config::new();
    // Stands for a sink whose messages nobody here knows: these tests are written in JSON.
    let other = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let file = json!({
        "name": "file",
        "filter": {"response_flag_filter": {"flags": ["NR"]}},
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
        },
    });
    let elsewhere = json!({"name": "otel", "typed_config": {"@type": other}});
    let route = json!({"route_config": {"name": "x"}, "access_log": [&file, &elsewhere]});
    let mut wire = listener_with("l", 80, &route);
    wire["access_log"] = json!([&file]);
    let outcome = config.apply(update(LISTENER, &[wire.clone()], true));
    assert_eq!(outcome.refused, []);
    let listener = outcome.snapshot.listeners.get("l").unwrap();
    assert_eq!(listener.unmatched.as_ref().unwrap().access_log.len(), 1);
    let [note] = listener.notes.as_slice() else { panic!("{:?}", listener.notes) };
    assert!(note.starts_with("access_log[1]") && note.contains("router.v3.Router"), "{note}");
    // A listener's log without that filter would tell of all connections.
    wire["access_log"][0].as_object_mut().unwrap().remove("filter");
    let outcome = config.apply(update(LISTENER, &[wire], true));
    assert_eq!(outcome.snapshot.listeners.get("l").unwrap().notes.len(), 2);
}

#[test]
fn callers_whose_orders_would_be_taken_are_refused() {
    let mut config = Config::new();
    let ranges = json!({"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]});
    let route = json!({"route_config": {"name": "x"}, "internal_address_config": ranges});
    let outcome = config.apply(update(LISTENER, &[listener_with("l", 80, &route)], true));
    let [refused] = outcome.refused.as_slice() else { panic!("{:?}", outcome.refused) };
    assert!(refused.field.ends_with("internal_address_config.cidr_ranges"), "{refused}");
}

#[derive(Debug, Clone)]
enum Step {
    Clusters(Vec<(u8, bool)>),
    Endpoints(u8, u16),
    Table(u8, Vec<u8>),
    Listeners(Vec<u8>),
    RemoveCluster(u8),
    RemoveTable(u8),
    Expire(u8),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let few = 0..4_u8;
    prop_oneof![
        prop::collection::vec((few.clone(), any::<bool>()), 0..4).prop_map(Step::Clusters),
        (few.clone(), 1..4_u16).prop_map(|(name, port)| Step::Endpoints(name, port)),
        (few.clone(), prop::collection::vec(few.clone(), 0..3)).prop_map(|(name, to)| Step::Table(name, to)),
        prop::collection::vec(few.clone(), 0..3).prop_map(Step::Listeners),
        few.clone().prop_map(Step::RemoveCluster),
        few.clone().prop_map(Step::RemoveTable),
        few.prop_map(Step::Expire),
        Just(Step::Settle),
    ]
}

fn once<T: PartialEq + Copy>(items: &[T]) -> Vec<T> {
    let mut seen = Vec::new();
    items.iter().for_each(|item| {
        if !seen.contains(item) {
            seen.push(*item)
        }
    });
    seen
}

fn play(config: &mut Config, step: &Step) -> Outcome {
    match step {
        Step::Clusters(list) => {
            let mut seen = Vec::new();
            let mut values = Vec::new();
            for (name, by_eds) in list {
                if !seen.contains(name) {
                    seen.push(*name);
                    let name = format!("c{name}");
                    values.push(if *by_eds { eds(&name) } else { fixed(&name, 9) });
                }
            }
            config.apply(update(CLUSTER, &values, true))
        }
        Step::Endpoints(name, port) => config.apply(update(ENDPOINT, &[endpoints(&format!("c{name}"), *port)], true)),
        Step::Table(name, to) => {
            let to: Vec<String> = once(to).iter().map(|to| format!("c{to}")).collect();
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            config.apply(update(ROUTE, &[table(&format!("t{name}"), &to)], true))
        }
        Step::Listeners(list) => {
            let values: Vec<_> = once(list)
                .iter()
                .map(|name| listener(&format!("l{name}"), 80 + u16::from(*name), &format!("t{name}")))
                .collect();
            config.apply(update(LISTENER, &values, true))
        }
        Step::RemoveCluster(name) => config.apply(removal(CLUSTER, &[&format!("c{name}")])),
        Step::RemoveTable(name) => config.apply(removal(ROUTE, &[&format!("t{name}")])),
        Step::Expire(name) => config.expire(&format!("c{name}").as_str().into()),
        Step::Settle => config.settle(),
    }
}

/// Route table, and cluster that one of its routes names.
fn named(snapshot: &Snapshot) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, table) in &snapshot.routes {
        for route in table.hosts.iter().flat_map(|host| &host.routes) {
            if let Action::Forward(forward) = &route.action
                && let Target::Cluster(cluster) = &forward.target
            {
                pairs.push((name.to_string(), cluster.to_string()));
            }
        }
    }
    pairs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever order updates come in: a route never loses a cluster that it had (but by settling), a table is never
    /// shown before the configured clusters that it names, and a visible listener has its tables.
    #[test]
    fn nothing_dangles_in_any_order(steps in prop::collection::vec(step(), 1..40)) {
        let mut config = Config::new();
        for step in &steps {
            let before = Arc::clone(config.snapshot());
            let outcome = play(&mut config, step);
            prop_assert_eq!(&outcome.refused, &[]);
            let after = &outcome.snapshot;
            let settled = matches!(step, Step::Settle);
            let known = named(&before);
            for (table, cluster) in named(after) {
                let there = after.clusters.contains_key(cluster.as_str());
                let new = !known.contains(&(table.clone(), cluster.clone()))
                    || !Arc::ptr_eq(before.routes.get(table.as_str()).unwrap(), after.routes.get(table.as_str()).unwrap());
                if new && config.clusters.contains_key(cluster.as_str()) {
                    prop_assert!(there, "{table} was shown before its cluster {cluster}");
                }
                if before.clusters.contains_key(cluster.as_str()) && !settled {
                    prop_assert!(there, "{table} lost its cluster {cluster}");
                }
            }
            for listener in after.listeners.keys() {
                let table = listener.as_str().replace('l', "t");
                prop_assert!(after.routes.contains_key(table.as_str()), "{listener} without {table}");
            }
        }
        // Once everything is removed, nothing is left behind.
        config.apply(update(LISTENER, &[], true));
        config.apply(update(CLUSTER, &[], true));
        config.settle();
        visible(&config, &[], &[], &[]);
        prop_assert_eq!(config.wanted(), Wanted::default());
        prop_assert!(config.tables.is_empty() && config.services.is_empty() && config.expired.is_empty());
        prop_assert!(config.pending_clusters.is_empty() && config.pending_tables.is_empty());
        prop_assert!(config.retained_clusters.is_empty() && config.retained_tables.is_empty());
    }
}
