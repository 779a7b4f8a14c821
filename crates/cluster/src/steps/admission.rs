//! What is sent to the webhooks themselves: too much, too deep, not what it should be. They refuse, and go on.

use anyhow::{Context, ensure};

use super::services::PLAIN;
use crate::call::from_pod_with;
use crate::kube::{get, items, list, name};
use crate::place::Place;
use crate::run::Report;

/// Restarts of the control plane's containers.
fn restarts() -> anyhow::Result<u64> {
    let pods = items(&["pods", "-n", "istio-system", "-l", "app=istiod"])?;
    ensure!(!pods.is_empty(), "no control plane");
    Ok(pods
        .iter()
        .flat_map(|pod| list(pod, "/status/containerStatuses"))
        .filter_map(|one| one["restartCount"].as_u64())
        .sum())
}

fn review(object: &str) -> String {
    format!(
        r#"{{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {{"uid": "1", "kind": {{"group": "", "version": "v1", "kind": "Pod"}}, "resource": {{"group": "", "version": "v1", "resource": "pods"}}, "namespace": "default", "operation": "CREATE", "object": {object}}}}}"#
    )
}

pub(super) fn too_much(_: &Place, _: &Report) -> anyhow::Result<()> {
    let before = restarts()?;
    for (what, body, wanted) in [
        ("20 MiB", review(&format!(r#"{{"a": "{}"}}"#, "x".repeat(20 << 20))), 413),
        ("lists in lists, 200,000 deep", review(&("[".repeat(200_000) + &"]".repeat(200_000))), 400),
        ("objects in objects, 200,000 deep", review(&(r#"{"a":"#.repeat(200_000) + "1" + &"}".repeat(200_000))), 400),
        ("an open bracket, a million times", "[".repeat(1_000_000), 400),
        ("no JSON", "hello".to_owned(), 400),
    ] {
        for path in ["/inject", "/validate"] {
            let url = format!("https://istiod.istio-system.svc{path}");
            // A client that asks first is told before it has sent anything.
            let headers = ["-H", "Content-Type: application/json", "-H", "Expect: 100-continue"];
            let arguments = [&["--insecure", "--data-binary", "@-"][..], &headers, &[&url]].concat();
            let answer = from_pod_with(PLAIN, &arguments, &body).with_context(|| format!("{what} to {path}"))?;
            // What can be read as a review gets an answer of its own, which is no.
            let denied = answer.status == 200 && wanted == 400 && answer.body.contains("\"allowed\":false");
            ensure!(
                answer.status == wanted || denied,
                "{what} to {path}: status {} instead of {wanted}: {:.300}",
                answer.status,
                answer.body
            );
        }
    }

    let after = restarts()?;
    ensure!(after == before, "the control plane was restarted {} times", after - before);
    // And they still do their work.
    let pod = crate::kube::kubectl_with(
        &["create", "--dry-run=server", "-o", "name", "-f", "-"],
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mizzen-test-after", "namespace": "default"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}"#,
    )?;
    ensure!(pod.contains("mizzen-test-after"), "{pod}");
    let deployment = get(&["deploy", "istiod", "-n", "istio-system"])?;
    ensure!(deployment.pointer("/status/readyReplicas").is_some(), "{} is not ready", name(&deployment));
    Ok(())
}
