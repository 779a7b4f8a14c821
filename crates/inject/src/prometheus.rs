//! Metrics: Prometheus asks the agent, which adds the application's own to the proxy's.

use serde_json::{Value, json};

use crate::Job;
use crate::annotation::boolean;
use crate::names::*;
use crate::pod;

/// Prometheus takes `prometheus.io/port`, `prometheus-io/port` and the like for one and the same.
fn part(annotation: &str) -> Option<&'static str> {
    let folded: String = annotation.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match folded.as_str() {
        "prometheus_io_scrape" => Some("scrape"),
        "prometheus_io_path" => Some("path"),
        "prometheus_io_port" => Some("port"),
        _ => None,
    }
}

fn of(pod: &Value, wanted: &str) -> Option<String> {
    let annotations = pod::annotations(pod).0?;
    let (_, value) = annotations.iter().find(|(name, _)| part(name) == Some(wanted))?;
    value.as_str().map(str::to_owned)
}

fn clear(pod: &mut Value) {
    if let Some(annotations) = pod::metadata_mut(pod, "annotations") {
        annotations.retain(|name, _| part(name).is_none());
    }
}

/// Points the pod's annotations at the agent, and tells the agent what they were.
pub(crate) fn merge(pod: &mut Value, job: &Job<'_>) {
    let wanted =
        job.annotations.get(MERGE_METRICS).and_then(boolean).unwrap_or(job.settings.mesh.enable_prometheus_merge);
    let scraped = of(pod, "scrape").and_then(|text| boolean(&text)).unwrap_or(true);
    let port = job.status_port.to_string();
    // A port that is the agent's was set by the user for this very purpose.
    if !wanted || !scraped || job.status_port == 0 || of(pod, "port").as_ref() == Some(&port) {
        return;
    }
    let own = ["scrape", "path", "port"].map(|key| of(pod, key).unwrap_or_default());
    if own.iter().any(|value| !value.is_empty())
        && let Some(proxy) = pod::proxy_mut(pod)
    {
        let [scrape, path, port] = own;
        let told = json!({"scrape": scrape, "path": path, "port": port});
        pod::set_env(proxy, PROMETHEUS_ANNOTATIONS, told.to_string());
    }
    clear(pod);
    pod::annotate(pod, "prometheus.io/port", port);
    pod::annotate(pod, "prometheus.io/path", "/stats/prometheus");
    pod::annotate(pod, "prometheus.io/scrape", "true");
}

/// The inverse of [`merge`], for a pod that is injected again.
pub(crate) fn restore(pod: &mut Value) {
    if of(pod, "path").as_deref() != Some("/stats/prometheus") {
        return;
    }
    let told = pod::proxy_mut(pod).and_then(|proxy| pod::env(proxy, PROMETHEUS_ANNOTATIONS).map(str::to_owned));
    clear(pod);
    let Some(told) = told.and_then(|text| serde_json::from_str::<Value>(&text).ok()) else { return };
    for key in ["scrape", "path", "port"] {
        match told.get(key).and_then(Value::as_str) {
            Some(value) if !value.is_empty() => pod::annotate(pod, &format!("prometheus.io/{key}"), value),
            _ => {}
        }
    }
}
