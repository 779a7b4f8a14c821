//! The form of the sidecar before Kubernetes had native ones: a container beside the application.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::services::MESHED;
use crate::applied::Applied;
use crate::apps::CURL;
use crate::kube::{SOON, eventually, get, items, kubectl, list, name, rolled_out, text};
use crate::place::Place;
use crate::run::Report;

/// The application calls once, as soon as it runs: without a proxy that is ready it ends, and is seen to be restarted.
fn deployment() -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: classic, namespace: {MESHED}}}
spec:
  selector: {{matchLabels: {{app: classic}}}}
  template:
    metadata:
      labels: {{app: classic}}
      annotations:
        sidecar.istio.io/nativeSidecar: "false"
        proxy.istio.io/config: '{{"holdApplicationUntilProxyStarts": true}}'
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: client
        image: {CURL}
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "curl --silent --show-error --fail http://details.default:9080/details/0 && echo && exec sleep 36000"]
---
apiVersion: batch/v1
kind: Job
metadata: {{name: classic, namespace: {MESHED}}}
spec:
  backoffLimit: 0
  template:
    metadata:
      annotations:
        sidecar.istio.io/nativeSidecar: "false"
        proxy.istio.io/config: '{{"holdApplicationUntilProxyStarts": true}}'
    spec:
      restartPolicy: Never
      containers:
      - name: client
        image: {CURL}
        imagePullPolicy: IfNotPresent
        command:
        - sh
        - -c
        - "curl --silent --show-error --fail http://details.default:9080/details/0 && curl --silent --show-error --fail -X POST http://127.0.0.1:15020/quitquitquit"
"#
    )
}

fn names(pod: &Value, path: &str) -> Vec<String> {
    list(pod, path).iter().map(|container| text(container, "/name").to_owned()).collect()
}

pub(super) fn classic(_: &Place, _: &Report) -> anyhow::Result<()> {
    let _applied = Applied::new(deployment())?;
    rolled_out(MESHED, "deploy/classic")?;
    let pods = items(&["pods", "-n", MESHED, "-l", "app=classic"])?;
    let pod = pods.first().context("no pod of the Deployment classic")?;
    ensure!(names(pod, "/spec/initContainers") == ["istio-init"], "{:?}", names(pod, "/spec/initContainers"));
    // First of all: the kubelet starts the next container when its postStart hook has returned.
    ensure!(names(pod, "/spec/containers") == ["istio-proxy", "client"], "{:?}", names(pod, "/spec/containers"));
    ensure!(pod.pointer("/spec/containers/0/lifecycle/postStart").is_some(), "nothing holds the application");
    eventually(SOON, || {
        let log = kubectl(&["logs", "-n", MESHED, name(pod), "-c", "client"])?;
        ensure!(log.contains("\"id\""), "the application's first call gave: {log}");
        Ok(())
    })?;
    let pod = get(&["pod", name(pod), "-n", MESHED])?;
    let restarts: u64 =
        list(&pod, "/status/containerStatuses").iter().filter_map(|one| one["restartCount"].as_u64()).sum();
    ensure!(restarts == 0, "the application was restarted: its first call failed");

    eventually(SOON, || {
        let job = get(&["job", "classic", "-n", MESHED])?;
        ensure!(job.pointer("/status/succeeded").and_then(Value::as_u64) == Some(1), "{:#}", job["status"]);
        Ok(())
    })
    .context("a Job that ends its sidecar by /quitquitquit")
}
