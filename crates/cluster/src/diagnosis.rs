//! What a person would look at first when a step has failed.

use serde_json::Value;

use crate::kube::{items, kubectl, name};

/// Pods that are not ready, and the last complaints of the control plane. Best effort: the cluster may be what fails.
pub(crate) fn of_the_cluster() -> String {
    let mut text = String::new();
    for pod in items(&["pods", "-A"]).unwrap_or_default().iter().filter(|pod| !well(pod)) {
        let namespace = pod.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        text += &format!("    pod {namespace}/{} is not ready: {}\n", name(pod), waits(pod).join("; "));
    }
    let log =
        kubectl(&["logs", "-n", "istio-system", "-l", "app=istiod", "--tail=200", "--prefix"]).unwrap_or_default();
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    for line in complaints.iter().skip(complaints.len().saturating_sub(10)) {
        text += &format!("    {line:.400}\n");
    }
    text
}

fn well(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    phase == "Succeeded" || conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// What each container that does not run waits for, or ended of.
fn waits(pod: &Value) -> Vec<String> {
    ["/status/initContainerStatuses", "/status/containerStatuses"]
        .iter()
        .filter_map(|path| pod.pointer(path)?.as_array())
        .flatten()
        .filter(|container| container["ready"] != true)
        .map(|container| format!("{} {}", container["name"].as_str().unwrap_or_default(), container["state"]))
        .collect()
}
