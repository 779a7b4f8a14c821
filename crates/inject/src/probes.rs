//! The application's probes. The kubelet is not in the mesh: under STRICT mTLS its calls would be refused. So they are
//! sent to the agent (`/app-health/CONTAINER/…` on the status port), which asks the application in their place.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::Job;
use crate::annotation::{boolean, items};
use crate::names::*;
use crate::pod;

/// Where a probe or hook stands in a container, and the agent's page for it.
const PLACES: [(&[&str], &str, &str); 5] = [
    (&["readinessProbe"], "app-health", "readyz"),
    (&["livenessProbe"], "app-health", "livez"),
    (&["startupProbe"], "app-health", "startupz"),
    (&["lifecycle", "preStop"], "app-lifecycle", "prestopz"),
    (&["lifecycle", "postStart"], "app-lifecycle", "poststartz"),
];

/// The ways of asking that the agent can take over; it is `exec` and `sleep` that it cannot, and need not.
const ACTIONS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

fn page(folder: &str, container: &str, page: &str) -> String {
    format!("/{folder}/{container}/{page}")
}

/// Whether this pod's probes are rewritten.
fn asked(job: &Job<'_>) -> bool {
    let annotation = job.annotations.get(REWRITE_PROBES).and_then(boolean);
    annotation.unwrap_or(job.settings.values.sidecar_injector_webhook.rewrite_app_http_probe)
}

/// Points the probes of all containers but the proxy's at the agent, and tells the agent what they were.
pub(crate) fn rewrite(pod: &mut Value, job: &Job<'_>, warn: &mut Vec<String>) {
    if !asked(job) || job.status_port == 0 {
        return;
    }
    let captured = Captured::of(job);
    let mut probers = Map::new();
    for key in [pod::INIT_CONTAINERS, pod::CONTAINERS] {
        let Some(containers) = pod.pointer_mut(&format!("/spec/{key}")).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter(|container| pod::name(container) != PROXY) {
            let name = pod::name(container).to_owned();
            let ports = named_ports(container);
            for (place, folder, last) in PLACES {
                let Some(probe) = place.iter().try_fold(&mut *container, |value, key| value.get_mut(*key)) else {
                    continue;
                };
                let path = page(folder, &name, last);
                match take_over(probe, &path, &ports, &captured, job.status_port) {
                    Ok(None) => {}
                    Ok(Some(prober)) => drop(probers.insert(path, prober)),
                    Err(port) => warn.push(format!(
                        "the {} of container {} asks port `{}`, which the container does not name; it is left as it is",
                        place.join("."),
                        pod::shortened(&name),
                        pod::shortened(&port)
                    )),
                }
            }
        }
    }
    if !probers.is_empty()
        && let Some(proxy) = pod::proxy_mut(pod)
    {
        pod::set_env(proxy, APP_PROBERS, Value::Object(probers).to_string());
    }
}

/// Rewrites one probe and returns what the agent has to do; `None` when it needs no help.
fn take_over(
    probe: &mut Value,
    path: &str,
    ports: &HashMap<String, u16>,
    captured: &Captured,
    status_port: u16,
) -> Result<Option<Value>, String> {
    let Some(probe) = probe.as_object_mut() else { return Ok(None) };
    let Some(kind) = ACTIONS.into_iter().find(|kind| probe.get(*kind).is_some_and(Value::is_object)) else {
        return Ok(None);
    };
    let Some(mut action) = probe.get(kind).cloned() else { return Ok(None) };
    let port = match action.get("port") {
        Some(Value::Number(port)) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
        Some(Value::String(name)) => match ports.get(name).copied().or_else(|| name.parse().ok()) {
            Some(port) => Some(port),
            None => return Err(name.clone()),
        },
        _ => None,
    };
    // What is no port, the API server refuses.
    let Some(port) = port else { return Ok(None) };
    let is_agent = port == status_port && action.get("path").and_then(Value::as_str) == Some(path);
    if is_agent || !captured.contains(port) {
        return Ok(None);
    }
    action["port"] = port.into();
    let mut prober = Map::new();
    prober.insert(kind.to_owned(), action.clone());
    if let Some(timeout) = probe.get("timeoutSeconds") {
        prober.insert("timeoutSeconds".to_owned(), timeout.clone());
    }
    // The agent speaks HTTPS or gRPC or only connects; the kubelet speaks HTTP to the agent.
    let mut get = match action {
        Value::Object(action) if kind == "httpGet" => action,
        _ => Map::new(),
    };
    get.insert("path".to_owned(), path.into());
    get.insert("port".to_owned(), status_port.into());
    if get.get("scheme").and_then(Value::as_str) == Some("HTTPS") {
        get.insert("scheme".to_owned(), "HTTP".into());
    }
    // The agent answers at the pod's address only.
    get.shift_remove("host");
    // In the place of the old one.
    let rewritten = probe.iter().map(|(key, value)| match key {
        key if key == kind => ("httpGet".to_owned(), Value::Object(get.clone())),
        key => (key.clone(), value.clone()),
    });
    *probe = rewritten.collect();
    Ok(Some(Value::Object(prober)))
}

fn named_ports(container: &Value) -> HashMap<String, u16> {
    let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
    ports
        .filter_map(|port| {
            let number = u16::try_from(port.get("containerPort")?.as_u64()?).ok()?;
            Some((pod::name(port).to_owned(), number))
        })
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

/// The ports whose connections are redirected to the proxy; probes of others reach the application as ever.
struct Captured {
    all: bool,
    included: Vec<u16>,
    excluded: Vec<u16>,
}

impl Captured {
    fn of(job: &Job<'_>) -> Self {
        let values = &job.settings.values.global.proxy;
        let include = job.annotations.get(INCLUDE_INBOUND).unwrap_or(&values.include_inbound_ports).trim();
        let exclude = job.annotations.get(EXCLUDE_INBOUND).unwrap_or(&values.exclude_inbound_ports);
        let ports = |list: &str| items(list).filter_map(|port| port.parse().ok()).collect();
        Self { all: include == "*", included: ports(include), excluded: ports(exclude) }
    }

    fn contains(&self, port: u16) -> bool {
        if self.all { !self.excluded.contains(&port) } else { self.included.contains(&port) }
    }
}

/// Gives the containers their probes back from what the agent was told. The inverse of [`rewrite`], for a pod that is
/// injected again.
pub(crate) fn restore(pod: &mut Value) {
    let told = pod::proxy_mut(pod).and_then(|proxy| pod::env(proxy, APP_PROBERS).map(str::to_owned));
    let told = told.and_then(|text| serde_json::from_str(&text).ok());
    let Some(Value::Object(probers)) = told else { return };
    for key in [pod::INIT_CONTAINERS, pod::CONTAINERS] {
        let Some(containers) = pod.pointer_mut(&format!("/spec/{key}")).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut() {
            let name = pod::name(container).to_owned();
            for (place, folder, last) in PLACES {
                let path = page(folder, &name, last);
                let prober = probers.get(&path).and_then(Value::as_object);
                let probe = place.iter().try_fold(&mut *container, |value, key| value.get_mut(*key));
                let (Some(prober), Some(Value::Object(probe))) = (prober, probe) else { continue };
                let is_ours = probe.get("httpGet").and_then(|get| get.get("path")) == Some(&json!(path));
                let kind = ACTIONS.into_iter().find(|kind| prober.contains_key(*kind));
                let (true, Some(kind)) = (is_ours, kind) else { continue };
                let restored = probe.iter().map(|(key, value)| match key.as_str() {
                    "httpGet" => (kind.to_owned(), prober.get(kind).cloned().unwrap_or_default()),
                    _ => (key.clone(), value.clone()),
                });
                *probe = restored.collect();
            }
        }
    }
}
