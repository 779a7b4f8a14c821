//! `/inject`: a pod that is being created gets its sidecar.

use mizzen_config::{Kind, Object};
use mizzen_inject::{Decision, Request, Resource, Settings, environment, resource};
use mizzen_types::ObjectKey;
use serde_json::Value;

use super::Hooks;
use super::review::{Review, Verdict};

pub(super) fn inject(hooks: &Hooks, settings: &Settings, review: &Review<Value>, path: &str) -> Verdict {
    let is_pod = review.kind.group.is_empty() && review.kind.kind == "Pod";
    let Some(pod) = review.object.as_ref().filter(|_| is_pod && review.operation != "DELETE") else {
        return Verdict::ALLOWED;
    };
    let config = proxy_config(hooks, &review.namespace, pod);
    let environment = environment(path);
    let request =
        Request { environment: &environment, proxy_config: config.as_ref(), ..Request::new(pod, &review.namespace) };
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

/// The `spec` of the ProxyConfigs that hold for a pod.
fn proxy_config(hooks: &Hooks, namespace: &str, pod: &Value) -> Option<Value> {
    let objects = hooks.shared.objects.load();
    let root = hooks.root_namespace.as_str();
    let mut found: Vec<(&Object, Resource<'_>)> = Vec::new();
    let own = (namespace != root).then_some(namespace);
    for of in [Some(root), own].into_iter().flatten() {
        let from = ObjectKey::new("ProxyConfig", of, "");
        let here = objects.range(from..).take_while(|(key, _)| &*key.kind == "ProxyConfig" && &*key.namespace == of);
        found.extend(here.filter_map(|(key, object)| match &object.kind {
            Kind::ProxyConfig(spec) => Some((&**object, Resource { namespace: &key.namespace, spec })),
            _ => None,
        }));
    }
    found.sort_by_key(|(object, _)| object.age());
    resource(root, namespace, pod, found.into_iter().map(|(_, resource)| resource))
}
