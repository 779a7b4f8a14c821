//! A pod as a JSON value: nothing of it is lost, known or not. Here are the few ways in which it is looked at.

use serde_json::{Map, Value};

use crate::InjectError;
use crate::selector::Labels;
use crate::values::kind;

pub(crate) const CONTAINERS: &str = "containers";
pub(crate) const INIT_CONTAINERS: &str = "initContainers";
pub(crate) const VOLUMES: &str = "volumes";

pub(crate) fn labels(pod: &Value) -> Labels<'_> {
    Labels(pod.pointer("/metadata/labels").and_then(Value::as_object))
}

pub(crate) fn annotations(pod: &Value) -> Labels<'_> {
    Labels(pod.pointer("/metadata/annotations").and_then(Value::as_object))
}

/// A text of a user, made fit for a message.
pub(crate) fn shortened(text: &str) -> String {
    let mut out: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

/// Makes sure that the parts which injection changes have their shape: maps are maps and lists are lists. Absent ones
/// are made where they are always needed.
pub(crate) fn shape(pod: &mut Value) -> Result<(), InjectError> {
    let wrong = |field: &'static str, value: &Value| InjectError::Shape { field, found: kind(value) };
    let Value::Object(root) = pod else { return Err(wrong("pod", pod)) };
    let metadata = root.entry("metadata").or_insert(Value::Null);
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let Value::Object(metadata) = metadata else { return Err(wrong("metadata", metadata)) };
    for (key, field) in [("labels", "metadata.labels"), ("annotations", "metadata.annotations")] {
        let value = metadata.entry(key).or_insert(Value::Null);
        match value {
            Value::Null => *value = Value::Object(Map::new()),
            Value::Object(_) => {}
            other => return Err(wrong(field, other)),
        }
    }
    let Some(Value::Object(spec)) = root.get_mut("spec") else {
        return Err(wrong("spec", root.get("spec").unwrap_or(&Value::Null)));
    };
    for (key, field) in
        [(CONTAINERS, "spec.containers"), (INIT_CONTAINERS, "spec.initContainers"), (VOLUMES, "spec.volumes")]
    {
        match spec.get(key) {
            None => {}
            Some(Value::Null) => drop(spec.shift_remove(key)),
            Some(Value::Array(items)) => {
                if let Some(item) = items.iter().find(|item| !item.is_object()) {
                    return Err(wrong(field, item));
                }
            }
            Some(other) => return Err(wrong(field, other)),
        }
    }
    Ok(())
}

/// The items of a list of the spec; empty when it is absent.
pub(crate) fn list<'p>(pod: &'p Value, key: &str) -> &'p [Value] {
    pod.get("spec").and_then(|spec| spec.get(key)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list itself, made when it is absent; `None` only for what [`shape`] refuses.
pub(crate) fn list_mut<'p>(pod: &'p mut Value, key: &str) -> Option<&'p mut Vec<Value>> {
    let spec = pod.get_mut("spec")?.as_object_mut()?;
    spec.entry(key).or_insert_with(|| Value::Array(Vec::new())).as_array_mut()
}

/// Removes a list that is empty: it was not there before, or need not be.
pub(crate) fn drop_empty(pod: &mut Value, key: &str) {
    if list(pod, key).is_empty()
        && let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.shift_remove(key);
    }
}

pub(crate) fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn position(pod: &Value, key: &str, wanted: &str) -> Option<usize> {
    list(pod, key).iter().position(|item| name(item) == wanted)
}

/// The map of labels or annotations, made when it is absent.
pub(crate) fn metadata_mut<'p>(pod: &'p mut Value, key: &str) -> Option<&'p mut Map<String, Value>> {
    let metadata = pod.get_mut("metadata")?.as_object_mut()?;
    metadata.entry(key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

pub(crate) fn annotate(pod: &mut Value, name: &str, value: impl Into<String>) {
    if let Some(annotations) = metadata_mut(pod, "annotations") {
        annotations.insert(name.to_owned(), Value::String(value.into()));
    }
}

pub(crate) fn label(pod: &mut Value, name: &str, value: impl Into<String>) {
    if let Some(labels) = metadata_mut(pod, "labels") {
        labels.insert(name.to_owned(), Value::String(value.into()));
    }
}

/// The proxy's container, wherever it stands.
pub(crate) fn proxy_mut(pod: &mut Value) -> Option<&mut Value> {
    let key =
        [CONTAINERS, INIT_CONTAINERS].into_iter().find(|key| position(pod, key, crate::names::PROXY).is_some())?;
    let index = position(pod, key, crate::names::PROXY)?;
    list_mut(pod, key)?.get_mut(index)
}

/// Sets a variable of a container; one that is there keeps its place.
pub(crate) fn set_env(container: &mut Value, name: &str, value: String) {
    let entry = serde_json::json!({"name": name, "value": value});
    let Some(container) = container.as_object_mut() else { return };
    let env = container.entry("env").or_insert_with(|| Value::Array(Vec::new()));
    let Some(env) = env.as_array_mut() else { return };
    match env.iter_mut().find(|one| self::name(one) == name) {
        Some(place) => *place = entry,
        None => env.push(entry),
    }
}

/// The text of a variable of a container.
pub(crate) fn env<'c>(container: &'c Value, wanted: &str) -> Option<&'c str> {
    let env = container.get("env")?.as_array()?;
    env.iter().find(|one| name(one) == wanted)?.get("value")?.as_str()
}
