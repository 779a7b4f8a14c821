//! A pod that was injected before: what was added is taken away first, so that injecting twice is injecting once, and a
//! newer control plane replaces what an older one gave.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::names::*;
use crate::pod::{self, CONTAINERS, INIT_CONTAINERS, VOLUMES};
use crate::{probes, prometheus};

/// The annotation [`STATUS`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    init_containers: Option<Vec<String>>,
    containers: Option<Vec<String>>,
    volumes: Option<Vec<String>>,
    image_pull_secrets: Option<Vec<String>>,
}

/// The user's own words on containers that injection fills in, kept for the next time.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Overrides {
    containers: Vec<Value>,
    init_containers: Vec<Value>,
}

/// Gives back the pod as it was before it was injected; one that was not stays as it is.
pub(crate) fn undo(pod: &mut Value) {
    let annotations = pod::annotations(pod);
    let status = annotations.get(STATUS).and_then(|text| serde_json::from_str::<Status>(text).ok());
    let Some(status) = status else { return };
    let overrides: Overrides =
        annotations.get(OVERRIDES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    probes::restore(pod);
    prometheus::restore(pod);
    for (list, added, own) in [
        (CONTAINERS, status.containers, overrides.containers),
        (INIT_CONTAINERS, status.init_containers, overrides.init_containers),
    ] {
        let added = added.unwrap_or_default();
        let Some(items) = pod::list_mut(pod, list) else { continue };
        // In its place, so that the order of all others stays.
        for item in items.iter_mut() {
            if let Some(own) = own.iter().find(|own| pod::name(own) == pod::name(item)) {
                *item = own.clone();
            }
        }
        items.retain(|item| {
            let name = pod::name(item);
            !added.iter().any(|added| added == name) || own.iter().any(|own| pod::name(own) == name)
        });
    }
    for (list, added) in [(VOLUMES, status.volumes), ("imagePullSecrets", status.image_pull_secrets)] {
        let added = added.unwrap_or_default();
        if let Some(Value::Array(items)) = pod.pointer_mut(&format!("/spec/{list}")) {
            items.retain(|item| !added.iter().any(|added| added == pod::name(item)));
            pod::drop_empty(pod, list);
        }
    }
    if let Some(annotations) = pod::metadata_mut(pod, "annotations") {
        annotations.shift_remove(STATUS);
        annotations.shift_remove(OVERRIDES);
    }
}

/// Notes what the templates added, for [`undo`].
pub(crate) fn note(
    pod: &mut Value,
    before: &Value,
    added: &Value,
    overrides: (Vec<Value>, Vec<Value>),
    revision: &str,
) {
    // Go writes an empty list as `null`, and tools have come to expect it.
    let or_null = |names: Vec<&str>| if names.is_empty() { Value::Null } else { names.into() };
    let names = |list: &str| or_null(pod::list(added, list).iter().map(pod::name).collect());
    // What the user had already is not ours to take away.
    let new = |list: &str| {
        let names = pod::list(added, list).iter().map(pod::name);
        or_null(names.filter(|name| pod::position(before, list, name).is_none()).collect())
    };
    let status = json!({
        "initContainers": names(INIT_CONTAINERS),
        "containers": names(CONTAINERS),
        "volumes": new(VOLUMES),
        "imagePullSecrets": new("imagePullSecrets"),
        "revision": revision,
    });
    pod::annotate(pod, STATUS, status.to_string());
    let (containers, init_containers) = overrides;
    if containers.is_empty() && init_containers.is_empty() {
        return;
    }
    let mut kept = serde_json::Map::new();
    for (key, list) in [(CONTAINERS, containers), (INIT_CONTAINERS, init_containers)] {
        if !list.is_empty() {
            kept.insert(key.to_owned(), list.into());
        }
    }
    pod::annotate(pod, OVERRIDES, Value::Object(kept).to_string());
}
