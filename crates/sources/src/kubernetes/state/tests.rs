use mizzen_config::code::LAST_GOOD;
use mizzen_config::{Document, read_object};
use serde_json::{Value, json};

use super::*;

const SERVICE: usize = 0;
const RULE: usize = 1;

fn state() -> State {
    State::new(["Service", "VirtualService"])
}

fn service(name: &str, port: u32, generation: u32) -> Told {
    let object = json!({"metadata": {"name": name, "namespace": "x", "generation": generation},
        "spec": {"ports": [{"name": "http", "port": port}]}});
    told("v1", "Service", object)
}

fn rule(name: &str, spec: Value) -> Told {
    told(
        "networking.istio.io/v1",
        "VirtualService",
        json!({"metadata": {"name": name, "namespace": "x"}, "spec": spec}),
    )
}

fn good() -> Value {
    json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]})
}

fn told(api_version: &str, kind: &str, object: Value) -> Told {
    let key = ObjectKey::new(kind, "x", object["metadata"]["name"].as_str().unwrap());
    let document: Document = serde_json::from_value(object).unwrap();
    Told::Object(key, Box::new(read_object(api_version, kind, &document)))
}

fn gone(kind: &str, name: &str) -> Told {
    Told::Gone(ObjectKey::new(kind, "x", name))
}

fn list(state: &mut State, kind: usize, objects: Vec<Told>) {
    state.take(kind, Told::Begin);
    objects.into_iter().for_each(|told| state.take(kind, told));
    state.take(kind, Told::End);
}

fn words(batch: &Batch) -> Vec<String> {
    let word = |change: &Change| match change {
        Change::Put(object) => format!("+{}", object.key.name),
        Change::Delete(key) => format!("-{}", key.name),
    };
    batch.changes.iter().map(word).collect()
}

#[track_caller]
fn check(state: &mut State, expected: &[&str]) {
    let found = state.batch().map(|batch| words(&batch)).unwrap_or_default();
    assert_eq!(found, expected);
}

fn started(services: Vec<Told>, rules: Vec<Told>) -> State {
    let mut state = state();
    list(&mut state, SERVICE, services);
    list(&mut state, RULE, rules);
    assert!(state.first().is_some());
    state
}

#[test]
fn nothing_is_told_before_every_kind_was_listed() {
    let mut state = state();
    list(&mut state, SERVICE, vec![service("a", 1, 1), service("b", 1, 1)]);
    // What changes meanwhile is part of the first batch.
    state.take(SERVICE, gone("Service", "b"));
    assert!(state.batch().is_none() && state.first().is_none());
    assert_eq!(state.missing(), ["VirtualService"]);
    state.take(RULE, Told::Begin);
    state.take(RULE, rule("r", good()));
    assert!(state.first().is_none());
    state.take(RULE, Told::End);
    let first = state.first().unwrap();
    assert_eq!(words(&first), ["+a", "+b", "-b", "+r"]);
    assert!(first.findings.is_some());
    check(&mut state, &[]);
}

#[test]
fn a_cluster_without_anything_is_a_first_batch_too() {
    let mut state = state();
    list(&mut state, SERVICE, Vec::new());
    state.take(RULE, Told::Absent);
    assert_eq!(words(&state.first().unwrap()), [""; 0]);
    assert!(state.batch().is_none());
}

#[test]
fn only_what_differs_is_a_change() {
    let mut state = started(vec![service("a", 1, 1)], Vec::new());
    state.take(SERVICE, service("a", 1, 1));
    assert!(state.batch().is_none());
    state.take(SERVICE, service("a", 1, 2));
    let batch = state.batch().unwrap();
    assert_eq!((words(&batch).len(), batch.moved.len(), batch.findings), (0, 1, None));
    assert_eq!(batch.moved[0].meta.version.generation, 2);
    state.take(SERVICE, service("a", 2, 3));
    state.take(SERVICE, service("b", 1, 1));
    check(&mut state, &["+a", "+b"]);
    state.take(SERVICE, gone("Service", "a"));
    state.take(SERVICE, gone("Service", "unheard-of"));
    check(&mut state, &["-a"]);
}

#[test]
fn what_a_new_list_does_not_name_is_gone_when_the_list_has_ended() {
    let mut state = started(vec![service("a", 1, 1), service("b", 1, 1)], vec![rule("r", good())]);
    state.take(SERVICE, Told::Begin);
    state.take(SERVICE, service("b", 2, 2));
    check(&mut state, &["+b"]);
    // The list broke off and is begun again: what it named does not count.
    state.take(SERVICE, Told::Begin);
    state.take(SERVICE, service("c", 1, 1));
    check(&mut state, &["+c"]);
    state.take(SERVICE, Told::End);
    check(&mut state, &["-a", "-b"]);
}

#[test]
fn the_last_good_version_stays_while_an_object_is_broken() {
    let mut state = started(Vec::new(), vec![rule("r", good()), rule("s", good())]);
    state.take(RULE, rule("r", json!({"hosts": 5})));
    let batch = state.batch().unwrap();
    let codes: Vec<_> = batch.findings.as_ref().unwrap().iter().map(|finding| finding.code).collect();
    assert!(words(&batch).is_empty() && codes.contains(&LAST_GOOD), "{batch:?}");
    // The findings are those of all objects, and only told when they change.
    state.take(RULE, rule("s", good()));
    assert!(state.batch().is_none());
    state.take(RULE, rule("r", json!({"hosts": ["b"], "http": [{"route": [{"destination": {"host": "b"}}]}]})));
    let batch = state.batch().unwrap();
    assert_eq!(words(&batch), ["+r"]);
    assert_eq!(batch.findings, Some(Vec::new()));
    // Deleted while it is broken.
    state.take(RULE, rule("r", json!({"hosts": 5})));
    state.take(RULE, gone("VirtualService", "r"));
    check(&mut state, &["-r"]);
}

#[test]
fn a_broken_object_keeps_no_other_from_being_told() {
    let state = &mut started(Vec::new(), vec![rule("broken", json!({"hosts": 5})), rule("good", good())]);
    assert_eq!(state.documents.values().filter(|document| !document.objects.is_empty()).count(), 1);
}

#[test]
fn a_kind_that_vanishes_is_given_up_only_when_it_is_sure() {
    let mut state = started(Vec::new(), vec![rule("r", good())]);
    for _ in 1..ABSENT_TIMES {
        state.take(RULE, Told::Absent);
        check(&mut state, &[]);
    }
    // It was there after all.
    list(&mut state, RULE, vec![rule("r", good())]);
    check(&mut state, &[]);
    for _ in 1..ABSENT_TIMES {
        state.take(RULE, Told::Absent);
    }
    check(&mut state, &[]);
    state.take(RULE, Told::Absent);
    check(&mut state, &["-r"]);
}

#[test]
fn the_mesh_configuration_goes_with_its_config_map() {
    let map =
        |data: Value| told("v1", "ConfigMap", json!({"metadata": {"name": "istio", "namespace": "x"}, "data": data}));
    let mut state = State::new(["ConfigMap"]);
    list(&mut state, 0, vec![map(json!({"mesh": "trustDomain: a"}))]);
    assert_eq!(words(&state.first().unwrap()).len(), 2);
    // A broken one leaves the mesh as it was.
    state.take(0, map(json!({"mesh": "trustDomain: ["})));
    let broken = state.batch().unwrap();
    let deleted = broken.changes.iter().any(|change| matches!(change, Change::Delete(_)));
    assert!(!deleted && !broken.findings.unwrap().is_empty());
    state.take(0, Told::Gone(ObjectKey::new("ConfigMap", "x", "istio")));
    assert_eq!(state.batch().unwrap().changes.iter().filter(|change| matches!(change, Change::Delete(_))).count(), 2);
}
