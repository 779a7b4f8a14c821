//! Kubernetes' strategic merge for pods: maps are merged, and so are the lists whose items have a name.
//!
//! Of the directives, `$patch: delete` and `$patch: replace` are obeyed. Where Kubernetes' own merge would make something
//! that its API refuses (a variable with two values, a probe that asks in two ways, a volume from two sources), the patch
//! replaces what it cannot be merged with.

use serde_json::{Map, Value};

/// By which field the items of a list are told apart; lists that are not here are replaced whole.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets" => {
            Some("name")
        }
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        _ => None,
    }
}

const DIRECTIVE: &str = "$patch";

/// Of these fields an object has one.
const ALTERNATIVES: [&[&str]; 2] = [&["value", "valueFrom"], &["httpGet", "tcpSocket", "grpc", "exec", "sleep"]];

/// Lays `patch` over `target`; what the patch says wins, `null` removes.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => merge_maps(target, patch),
        (target, patch) => *target = without_directives(patch),
    }
}

fn merge_maps(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    if patch.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") {
        target.clear();
    }
    for others in ALTERNATIVES {
        let Some(chosen) = others.iter().find(|key| patch.get(**key).is_some_and(|value| !value.is_null())) else {
            continue;
        };
        others.iter().filter(|key| *key != chosen).for_each(|key| drop(target.shift_remove(*key)));
    }
    for (key, value) in patch.iter().filter(|(key, _)| *key != DIRECTIVE) {
        if value.is_null() {
            target.shift_remove(key);
            continue;
        }
        let Some(place) = target.get_mut(key) else {
            target.insert(key.clone(), without_directives(value));
            continue;
        };
        match (place, value, merge_key(key)) {
            (Value::Array(items), Value::Array(patches), Some(by)) => merge_lists(key, items, patches, by),
            (place, value, _) => merge(place, value),
        }
    }
}

fn merge_lists(list: &str, items: &mut Vec<Value>, patches: &[Value], by: &str) {
    if patches.iter().any(|patch| patch.get(DIRECTIVE).and_then(Value::as_str) == Some("replace")) {
        items.clear();
    }
    for patch in patches {
        let directive = patch.get(DIRECTIVE).and_then(Value::as_str);
        let key = patch.get(by);
        let same = |item: &Value| key.is_some() && item.get(by) == key;
        match (items.iter().position(same), directive) {
            (Some(index), Some("delete")) => drop(items.remove(index)),
            (Some(index), _) if list == "volumes" && !same_source(&items[index], patch) => {
                items[index] = without_directives(patch);
            }
            (Some(index), _) => merge(&mut items[index], patch),
            // A replacement of the whole list stands beside its items and is none itself.
            (None, Some(_)) if key.is_none() => {}
            (None, Some("delete")) => {}
            (None, _) => items.push(without_directives(patch)),
        }
    }
}

/// Whether two volumes are of the same kind.
fn same_source(one: &Value, other: &Value) -> bool {
    let source = |volume: &Value| -> Option<String> { volume.as_object()?.keys().find(|key| *key != "name").cloned() };
    source(one) == source(other)
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(key, value)| *key != DIRECTIVE && !value.is_null())
                .map(|(key, value)| (key.clone(), without_directives(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_directives).collect()),
        other => other.clone(),
    }
}
