//! What injection does to pods, and to which it does nothing.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::kube::{SOON, apply, delete, eventually, get, items, name, rolled_out};
use crate::place::Place;
use crate::run::Report;

/// Of every pod of Bookinfo: capture first, then the proxy, then the application.
pub(super) fn order(_: &Place, report: &Report) -> anyhow::Result<()> {
    let mut waits = Vec::new();
    for pod in items(&["pods", "-n", "default", "-l", "app in (productpage,details,ratings,reviews)"])? {
        let names = |path: &str| -> Vec<String> {
            let containers = pod.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
            containers.iter().filter_map(|one| one.get("name")?.as_str().map(str::to_owned)).collect()
        };
        ensure!(names("/spec/initContainers") == ["istio-init", "istio-proxy"], "{}: {pod:#}", name(&pod));
        ensure!(names("/spec/containers").len() == 1, "{} has containers {:?}", name(&pod), names("/spec/containers"));
        let started = |path: &str| seconds(&pod, path);
        let (Some(init), Some(application)) = (
            started("/status/initContainerStatuses/0/state/terminated/startedAt"),
            started("/status/containerStatuses/0/state/running/startedAt"),
        ) else {
            bail!("{} does not say when its containers started", name(&pod));
        };
        waits.push(application - init);
    }
    waits.sort_unstable();
    let longest = waits.last().context("no pod")?;
    report.say(
        "from the start of the init container to the start of the application",
        format!("{} s at most (whole seconds)", longest),
    );
    Ok(())
}

/// A Kubernetes time as seconds of its day.
fn seconds(pod: &Value, path: &str) -> Option<i64> {
    let (_, time) = pod.pointer(path)?.as_str()?.split_once('T')?;
    let mut parts = time.trim_end_matches('Z').split(':').map(|part| part.parse::<i64>().ok());
    Some(parts.next()?? * 3600 + parts.next()?? * 60 + parts.next()??)
}

const LEFT_ALONE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: mizzen-test-host-network, namespace: default}
spec:
  hostNetwork: true
  containers: [{name: client, image: "curlimages/curl:8.10.1", command: ["sleep", "3600"], imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Pod
metadata:
  name: mizzen-test-not-wanted
  namespace: default
  labels: {sidecar.istio.io/inject: "false"}
spec:
  containers: [{name: client, image: "curlimages/curl:8.10.1", command: ["sleep", "3600"], imagePullPolicy: IfNotPresent}]
"#;

pub(super) fn left_alone(_: &Place, _: &Report) -> anyhow::Result<()> {
    apply(LEFT_ALONE)?;
    let outcome = (|| {
        for name in ["mizzen-test-host-network", "mizzen-test-not-wanted"] {
            let pod = get(&["pod", name, "-n", "default"])?;
            ensure!(pod.pointer("/spec/initContainers").is_none(), "{name} was injected");
        }
        for pod in items(&["pods", "-n", "kube-system"])? {
            ensure!(!pod.to_string().contains("\"istio-proxy\""), "kube-system/{} was injected", name(&pod));
        }
        Ok(())
    })();
    delete(LEFT_ALONE)?;
    outcome
}

const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: mizzen-test-job, namespace: default}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: client
        image: curlimages/curl:8.10.1
        imagePullPolicy: IfNotPresent
        command: ["curl", "--silent", "--fail", "http://details:9080/details/0"]
"#;

/// The first call of a Job goes through the mesh, and the sidecar ends when the Job's own container does.
pub(super) fn jobs(_: &Place, _: &Report) -> anyhow::Result<()> {
    apply(JOB)?;
    let outcome = eventually(SOON, || {
        let job = get(&["job", "mizzen-test-job", "-n", "default"])?;
        ensure!(job.pointer("/status/succeeded").and_then(Value::as_u64) == Some(1), "{:#}", job["status"]);
        Ok(())
    });
    delete(JOB)?;
    outcome
}

/// A client's Deployment `client` in a namespace.
pub(super) fn client(namespace: &str, injected: bool) -> anyhow::Result<()> {
    let label = if injected { "enabled" } else { "disabled" };
    apply(&format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}, labels: {{istio-injection: {label}, mizzen-test: "yes"}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: client, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: client}}}}
  template:
    metadata: {{labels: {{app: client}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: client, image: "curlimages/curl:8.10.1", command: ["sleep", "36000"], imagePullPolicy: IfNotPresent}}]
"#
    ))?;
    rolled_out(namespace, "deploy/client")
}
