//! `/inject`: a pod that is being created gets its sidecar.

use std::collections::BTreeMap;

use mizzen_api::networking::ProxyConfig;
use mizzen_config::{Kind, Object};
use mizzen_inject::{Decision, Request, Settings, environment};
use mizzen_types::ObjectKey;
use serde_json::{Map, Value, json};

use super::Hooks;
use super::review::{Review, Verdict};

pub(super) fn inject(hooks: &Hooks, settings: &Settings, review: &Review<Value>, path: &str) -> Verdict {
    let is_pod = review.kind.group.is_empty() && review.kind.kind == "Pod";
    let Some(pod) = review.object.as_ref().filter(|_| is_pod && review.operation != "DELETE") else {
        return Verdict::ALLOWED;
    };
    let resource = proxy_config(hooks, &review.namespace, pod);
    let environment = environment(path);
    let request =
        Request { environment: &environment, proxy_config: resource.as_ref(), ..Request::new(pod, &review.namespace) };
    let named = pod.pointer("/metadata/generateName").and_then(Value::as_str).unwrap_or(&review.name);
    match mizzen_inject::inject(settings, &request) {
        Ok(Decision::Injected(injected)) => {
            hooks.counters().injected();
            tracing::debug!(namespace = review.namespace, pod = named, "injected");
            Verdict::Allowed { patch: Some(injected.patch(pod)), warnings: injected.warnings }
        }
        Ok(Decision::Skipped { why, warnings }) => {
            hooks.counters().skipped();
            tracing::info!(namespace = review.namespace, pod = named, %why, "not injected");
            Verdict::Allowed { patch: None, warnings }
        }
        Err(error) => {
            hooks.counters().failed();
            tracing::warn!(namespace = review.namespace, pod = named, %error, "cannot be injected");
            Verdict::Denied { message: error.to_string(), warnings: Vec::new() }
        }
    }
}

/// The `spec` of the ProxyConfigs that select a pod: the whole mesh's, the namespace's, the workload's, later ones over
/// earlier ones. Of two that are alike, the older counts.
fn proxy_config(hooks: &Hooks, namespace: &str, pod: &Value) -> Option<Value> {
    let objects = hooks.shared.objects.load();
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let has = |key: &str, value: &str| labels.and_then(|labels| labels.get(key)?.as_str()) == Some(value);
    let mut found: [Option<&Object>; 3] = [None; 3];
    for (rank, of) in [(0, hooks.root_namespace.as_str()), (1, namespace)] {
        let from = ObjectKey::new("ProxyConfig", of, "");
        let here = objects.range(from..).take_while(|(key, _)| &*key.kind == "ProxyConfig" && &*key.namespace == of);
        for (_, object) in here {
            let Kind::ProxyConfig(config) = &object.kind else { continue };
            let rank = match &config.selector {
                None => rank,
                // In the root namespace a selector selects its own pods only, as elsewhere.
                Some(_) if of != namespace => continue,
                Some(selector) if selector.match_labels.iter().all(|(key, value)| has(key, value)) => 2,
                Some(_) => continue,
            };
            let place = &mut found[rank];
            if place.is_none_or(|other| object.age() < other.age()) {
                *place = Some(object);
            }
        }
    }
    let mut specs = found.into_iter().flatten().filter_map(|object| match &object.kind {
        Kind::ProxyConfig(config) => Some(config),
        _ => None,
    });
    let first = specs.next()?;
    Some(specs.fold(written(first), |mut below, above| {
        overlay(&mut below, written(above));
        below
    }))
}

fn written(config: &ProxyConfig) -> Value {
    let mut spec = Map::new();
    if let Some(concurrency) = config.concurrency {
        spec.insert("concurrency".to_owned(), concurrency.into());
    }
    let variables: &BTreeMap<String, String> = &config.environment_variables;
    if !variables.is_empty() {
        spec.insert("environmentVariables".to_owned(), json!(variables));
    }
    if let Some(image) = &config.image {
        spec.insert("image".to_owned(), json!({"imageType": image.image_type}));
    }
    Value::Object(spec)
}

fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                overlay(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}
