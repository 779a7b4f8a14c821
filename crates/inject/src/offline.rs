//! Injection into manifests: every kind that carries a pod, for `kube-inject`.

use serde_json::{Map, Value};

use crate::{Decision, InjectError, Request, Resource, Settings, Skip, Workload, inject, resource};

/// What is around the manifests, and in a cluster the API server would know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// Where objects go that name no namespace; empty where that is not known.
    pub namespace: &'a str,
    /// The ProxyConfig resources, the oldest first.
    pub proxy_configs: &'a [Resource<'a>],
}

/// What was done with one object that carries a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// `Deployment default/reviews-v1`.
    pub object: String,
    /// Absent when it was injected.
    pub skipped: Option<Skip>,
    pub warnings: Vec<String>,
}

/// An object that should be injected and cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {error}")]
pub struct ObjectError {
    pub object: String,
    pub error: InjectError,
}

/// Where the pod of a kind is.
fn template(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "Pod" => Some(&[]),
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job"
        | "DeploymentConfig"
        | "Rollout" => Some(&["spec", "template"]),
        "CronJob" => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// Injects the pod of one document in place; lists are gone through, everything else stays as it is.
pub fn document(
    settings: &Settings,
    around: &Surroundings<'_>,
    document: &mut Value,
) -> Result<Vec<Note>, ObjectError> {
    let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind.ends_with("List") {
        let mut notes = Vec::new();
        for item in document.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            notes.extend(self::document(settings, around, item)?);
        }
        return Ok(notes);
    }
    let Some(path) = template(&kind) else { return Ok(Vec::new()) };
    let text = |document: &Value, pointer: &str| {
        document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let api_version = text(document, "/apiVersion");
    let mut namespace = text(document, "/metadata/namespace");
    if namespace.is_empty() {
        around.namespace.clone_into(&mut namespace);
    }
    let name = text(document, "/metadata/name");
    let slash = if namespace.is_empty() { "" } else { "/" };
    let object = format!("{kind} {namespace}{slash}{name}");
    let workload = (kind != "Pod").then(|| Workload::new(&api_version, &kind, &name, &namespace));
    let Some(pod) = path.iter().try_fold(&mut *document, |value, key| value.get_mut(*key)) else {
        return Ok(Vec::new());
    };
    // `kubectl` puts into `default` what names no namespace.
    let of = if namespace.is_empty() { "default" } else { &namespace };
    let proxy_config = resource(settings.root_namespace(), of, pod, around.proxy_configs.iter().copied());
    let request =
        Request { workload: workload.as_ref(), proxy_config: proxy_config.as_ref(), ..Request::new(pod, &namespace) };
    let decision = inject(settings, &request).map_err(|error| ObjectError { object: object.clone(), error })?;
    let note = match decision {
        Decision::Skipped { why, warnings } => Note { object, skipped: Some(why), warnings },
        Decision::Injected(injected) => {
            *pod = tidy(injected.pod);
            Note { object, skipped: None, warnings: injected.warnings }
        }
    };
    Ok(vec![note])
}

/// Without the maps that injection made and did not fill.
fn tidy(mut pod: Value) -> Value {
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| *value != Value::Object(Map::new()));
    }
    pod
}
