//! Who does not prove to be the workload that it says it is gets neither a certificate nor configuration.
//!
//! The pods of these steps are what the webhook makes of a plain pod, with one thing changed.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::services::MESHED;
use crate::applied::Applied;
use crate::apps::CURL;
use crate::kube::{SOON, eventually, get, items, kubectl, kubectl_with, list, name, text};
use crate::place::Place;
use crate::run::Report;

/// A pod as the webhook would let it in, its injection done.
fn injected(name: &str) -> anyhow::Result<Value> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": MESHED},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "client", "image": CURL, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "36000"]},
            ],
        },
    });
    let text = kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &pod.to_string())?;
    let mut pod: Value = serde_json::from_str(&text)?;
    ensure!(pod.pointer("/spec/initContainers/1/name") == Some(&json!("istio-proxy")), "not injected: {pod:#}");
    let labels = pod["metadata"]["labels"].clone();
    let annotations = pod["metadata"]["annotations"].clone();
    pod["metadata"] = json!({"name": name, "namespace": MESHED, "labels": labels, "annotations": annotations});
    pod["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    pod.as_object_mut().context("not an object")?.remove("status");
    Ok(pod)
}

fn token_volume(pod: &mut Value) -> anyhow::Result<&mut Value> {
    let volumes = pod.pointer_mut("/spec/volumes").and_then(Value::as_array_mut).context("no volumes")?;
    volumes.iter_mut().find(|volume| volume["name"] == "istio-token").context("no volume istio-token")
}

/// A token for nobody: three parts, as a JWT has, and a signature of no one.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6Im5vIn0.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMuY2x1c3Rlci5sb2NhbCIsInN1YiI6InN5c3RlbTpzZXJ2aWNlYWNjb3VudDpkZWZhdWx0OmJvb2tpbmZvLXByb2R1Y3RwYWdlIiwiYXVkIjpbImlzdGlvLWNhIl19.bm8";

fn strangers() -> anyhow::Result<Vec<Value>> {
    let mut elsewhere = injected("stranger-audience")?;
    token_volume(&mut elsewhere)?["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("elsewhere");

    let mut forged = injected("stranger-token")?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "forged", "namespace": MESHED},
        "stringData": {"istio-token": TOKEN},
    });
    *token_volume(&mut forged)? = json!({"name": "istio-token", "secret": {"secretName": "forged"}});

    // Its own token and certificate, and the name of a pod of another namespace.
    let mut impostor = injected("stranger-name")?;
    let victim = items(&["pods", "-n", "default", "-l", "app=productpage"])?;
    let victim = victim.first().context("no productpage")?;
    let proxy = impostor.pointer_mut("/spec/initContainers/1/env").and_then(Value::as_array_mut).context("no env")?;
    for (variable, value) in [("POD_NAME", name(victim)), ("POD_NAMESPACE", "default")] {
        let at = proxy.iter_mut().find(|one| one["name"] == variable).with_context(|| format!("no {variable}"))?;
        *at = json!({"name": variable, "value": value});
    }
    Ok(vec![secret, elsewhere, forged, impostor])
}

pub(super) fn strangers_get_nothing(_: &Place, _: &Report) -> anyhow::Result<()> {
    let strangers = strangers()?;
    let all = json!({"apiVersion": "v1", "kind": "List", "items": strangers});
    let _strangers = Applied::new(all.to_string())?;

    let wanted = [
        ("stranger-audience", "certificate refused"),
        ("stranger-token", "certificate refused"),
        ("stranger-name", "discovery stream refused"),
    ];
    for (pod, line) in wanted {
        eventually(SOON, || {
            let pod = get(&["pod", pod, "-n", MESHED])?;
            let proxy = list(&pod, "/status/initContainerStatuses").iter().find(|one| one["name"] == "istio-proxy");
            let proxy = proxy.context("no status of its proxy")?;
            ensure!(
                proxy.pointer("/state/running").is_some() || proxy["restartCount"].as_u64() > Some(0),
                "its proxy does not run: {proxy}"
            );
            let address = text(&pod, "/status/podIP");
            let log = kubectl(&["logs", "-n", "istio-system", "-l", "app=istiod", "--tail=2000"])?;
            let said = log.lines().any(|one| one.contains(line) && (one.contains(address) || names(one, &pod)));
            ensure!(
                said,
                "no line with {line:?} of the pod with {address} in the control plane's log: {:.3000}",
                tail(&log)
            );
            Ok(())
        })
        .context(pod)?;
    }
    for (pod, _) in wanted {
        let pod = get(&["pod", pod, "-n", MESHED])?;
        if list(&pod, "/status/initContainerStatuses")
            .iter()
            .any(|one| one["name"] == "istio-proxy" && one["ready"] == true)
        {
            bail!("the proxy of {} became ready", name(&pod));
        }
    }
    Ok(())
}

/// The line names the node of the stranger, which may be another than its pod.
fn names(line: &str, pod: &Value) -> bool {
    name(pod) == "stranger-name" && line.contains(&format!("/ns/{MESHED}/sa/default")) && line.contains("productpage")
}

/// What a failure shows of the log: its refusals.
fn tail(log: &str) -> String {
    let refusals: Vec<&str> = log.lines().filter(|line| line.contains("refused")).collect();
    refusals[refusals.len().saturating_sub(10)..].join("\n")
}
