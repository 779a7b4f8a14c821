//! Which templates a pod gets, and the users' own: plain YAML with a few placeholders, laid over the pod.
//!
//! `sidecar` and `gateway` are built in; an entry of that name in the configuration is laid over the built-in one. In
//! the strings of an own template stand placeholders, which are replaced by data and never parsed again:
//!
//! | placeholder | is |
//! |---|---|
//! | `${pod.name}`, `${pod.namespace}` | the pod's; the name may be empty |
//! | `${pod.labels['KEY']}`, `${pod.annotations['KEY']}` | one label or annotation, empty when absent |
//! | `${workload.name}` | the Deployment, Job, … |
//! | `${revision}` | the control plane's |
//! | `${proxy.image}` | the proxy's image for this pod |
//! | `${values.PATH}` | a value of the ConfigMap, for instance `${values.global.hub}` |
//! | `${proxyConfig.PATH}` | a field of the pod's ProxyConfig |
//!
//! `$${` stands for `${`. A string that is one placeholder and nothing else takes the type of what it stands for. Go
//! templates (Istio's own form) are not interpreted: a pod that asks for one is refused, and told so.

use serde_json::Value;

use crate::{InjectError, Job};

pub(crate) const SIDECAR: &str = "sidecar";
pub(crate) const GATEWAY: &str = "gateway";

/// Templates of Istio's that this release does not have.
const NOT_OBEYED: [&str; 4] = ["grpc-agent", "grpc-simple", "kube-gateway", "waypoint"];

/// A template of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Template {
    Plain(Value),
    Go,
    /// Neither YAML nor a Go template.
    Broken(String),
}

pub(crate) fn read(name: &str, text: &str) -> Template {
    if text.contains("{{") {
        return Template::Go;
    }
    match crate::yaml::one(text) {
        Ok(Value::Object(map)) => Template::Plain(Value::Object(map)),
        Ok(Value::Null) => Template::Plain(Value::Object(serde_json::Map::new())),
        Ok(other) => Template::Broken(format!("template `{name}` is {}, not a map", crate::values::kind(&other))),
        Err(reason) => Template::Broken(format!("template `{name}` is not YAML: {reason}")),
    }
}

/// What an operator should know about a template.
pub(crate) fn note(name: &str, template: &Template) -> Option<String> {
    match template {
        Template::Plain(_) => None,
        Template::Go if name == SIDECAR || name == GATEWAY => {
            Some(format!("template `{name}` is a Go template and is passed over: the built-in one is used"))
        }
        Template::Go => Some(format!(
            "template `{name}` is a Go template, which is not interpreted; write it as plain YAML with ${{…}} placeholders"
        )),
        Template::Broken(reason) => Some(reason.clone()),
    }
}

/// The names of the templates for a pod, aliases resolved (once: they are not recursive).
pub(crate) fn chosen<'s>(job: &Job<'s>) -> Vec<&'s str> {
    let asked: Vec<&str> = match job.annotations.get(crate::names::TEMPLATES) {
        Some(list) => crate::annotation::items(list).collect(),
        None => job.settings.default_templates.iter().map(String::as_str).collect(),
    };
    let resolve = |name: &'s str| match job.settings.aliases.get(name) {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => vec![name],
    };
    asked.into_iter().flat_map(resolve).collect()
}

/// The partial pods that a template of that name lays over the pod, in order.
pub(crate) fn overlays(job: &Job<'_>, name: &str) -> Result<Vec<Value>, InjectError> {
    let mut overlays = Vec::new();
    let built_in = match name {
        SIDECAR => Some(crate::sidecar::overlay(job)),
        GATEWAY => Some(crate::gateway::overlay(job)),
        _ => None,
    };
    let is_built_in = built_in.is_some();
    overlays.extend(built_in);
    match job.settings.templates.get(name) {
        Some(Template::Plain(template)) => overlays.push(filled(template, job)),
        Some(_) if is_built_in => {}
        Some(Template::Go) => return Err(InjectError::GoTemplate(name.to_owned())),
        Some(Template::Broken(reason)) => return Err(InjectError::BrokenTemplate(reason.clone())),
        None if is_built_in => {}
        None if NOT_OBEYED.contains(&name) => return Err(InjectError::TemplateNotObeyed(name.to_owned())),
        None => {
            let mut known = vec![SIDECAR, GATEWAY];
            known.extend(job.settings.templates.keys().map(String::as_str));
            known.sort_unstable();
            known.dedup();
            return Err(InjectError::UnknownTemplate { name: crate::pod::shortened(name), known: known.join(", ") });
        }
    }
    Ok(overlays)
}

fn filled(value: &Value, job: &Job<'_>) -> Value {
    match value {
        Value::String(text) => fill(text, job),
        Value::Array(items) => items.iter().map(|item| filled(item, job)).collect(),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| (key.clone(), filled(value, job));
            Value::Object(map.iter().map(entry).collect())
        }
        other => other.clone(),
    }
}

fn fill(text: &str, job: &Job<'_>) -> Value {
    if let Some(whole) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
        && !whole.contains(['{', '}'])
    {
        return meaning(whole, job);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some(end) = after.find('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        match meaning(&after[..end], job) {
            Value::Null => {}
            Value::String(text) => out.push_str(&text),
            other => out.push_str(&other.to_string()),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Value::String(out)
}

fn meaning(name: &str, job: &Job<'_>) -> Value {
    let keyed = |prefix: &str| {
        let key = name.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(key)
    };
    if let Some(key) = keyed("pod.labels['") {
        return job.labels.get(key).unwrap_or_default().into();
    }
    if let Some(key) = keyed("pod.annotations['") {
        return job.annotations.get(key).unwrap_or_default().into();
    }
    if let Some(path) = name.strip_prefix("values.") {
        let found = path.split('.').try_fold(&job.settings.written, |value, key| value.get(key));
        return found.cloned().unwrap_or_default();
    }
    if let Some(path) = name.strip_prefix("proxyConfig.") {
        let path: Vec<&str> = path.split('.').collect();
        return job.proxy_config.get(&path).cloned().unwrap_or_default();
    }
    match name {
        "pod.name" => job.pod.pointer("/metadata/name").cloned().unwrap_or_else(|| "".into()),
        "pod.namespace" => job.namespace.into(),
        "workload.name" => job.workload.name.as_str().into(),
        "revision" => job.settings.revision.as_str().into(),
        "proxy.image" => crate::container::proxy_image(job).into(),
        // Not one of ours: perhaps the shell's, so it stays as it is.
        other => Value::String(format!("${{{other}}}")),
    }
}
