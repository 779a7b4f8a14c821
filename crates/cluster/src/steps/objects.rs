//! What the charts can install besides, as the API server sees it; and what `kubectl` teaches.

use anyhow::{Context, bail, ensure};

use super::install::image;
use crate::applied::Applied;
use crate::kube::{SOON, Undo, eventually, get, helm, kubectl, kubectl_with, text};
use crate::place::Place;
use crate::run::Report;

/// Every optional object of the charts is one that this API server accepts.
pub(super) fn optional(place: &Place, _: &Report) -> anyhow::Result<()> {
    let image = image(place);
    let control = place.chart("control");
    let gateway = place.chart("gateway");
    let control: Vec<&str> = vec![
        "template",
        "other",
        &control,
        "-n",
        "istio-system",
        "--set",
        &image[0],
        "--set",
        &image[1],
        "--set",
        "revision=other",
        "--set",
        "autoscaleEnabled=true",
        "--set",
        "autoscaleMin=2",
        "--set",
        "podDisruptionBudget.minAvailable=1",
        "--set",
        "global.networkPolicy.enabled=true",
    ];
    let gateway: Vec<&str> = vec![
        "template",
        "other",
        &gateway,
        "-n",
        "istio-ingress",
        "--set",
        "autoscaling.enabled=true",
        "--set",
        "podDisruptionBudget.minAvailable=1",
        "--set",
        "networkPolicy.enabled=true",
    ];
    for (chart, arguments) in [("control", control), ("gateway", gateway)] {
        let manifest = helm(&arguments)?;
        for kind in ["PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"] {
            ensure!(manifest.contains(&format!("kind: {kind}\n")), "the chart {chart} made no {kind}");
        }
        kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &manifest)
            .with_context(|| format!("the chart {chart}"))?;
    }
    Ok(())
}

/// `kubectl explain` has words for the fields that people write most.
pub(super) fn explain(_: &Place, _: &Report) -> anyhow::Result<()> {
    for (field, word) in [
        ("virtualservice.spec.http", "route"),
        ("virtualservice.spec.http.match.uri", "prefix"),
        ("destinationrule.spec.trafficPolicy.outlierDetection", "baseEjectionTime"),
        ("serviceentry.spec.resolution", "STATIC"),
        ("authorizationpolicy.spec.rules", "from"),
    ] {
        let said = kubectl(&["explain", field])?;
        let description =
            said.split_once("DESCRIPTION:").with_context(|| format!("{field} has no description: {said}"))?.1;
        ensure!(
            !description.trim_start().starts_with("<empty>") && said.contains(word),
            "kubectl explain {field} does not teach: {said:.1500}"
        );
    }
    Ok(())
}

const INVALID: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mizzen-test-came-in, namespace: mizzen-test-ns1}
spec:
  hosts: [db.example.test]
  http:
  - match: [{uri: {regex: "a(b"}}]
    route: [{destination: {host: ratings.default.svc.cluster.local}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mizzen-test-neighbour, namespace: mizzen-test-ns1}
spec:
  hosts: [neighbour.example.test]
  http: [{route: [{destination: {host: ratings.default.svc.cluster.local}}]}]
"#;

/// While the webhooks do not look, an invalid object gets in. It rejects itself alone, and its status says why.
pub(super) fn came_in(_: &Place, _: &Report) -> anyhow::Result<()> {
    let configurations = ["istio-validator-istio-system", "istiod-default-validator"];
    let nobody =
        r#"[{"op": "add", "path": "/webhooks/0/objectSelector", "value": {"matchLabels": {"mizzen-test": "nobody"}}}]"#;
    let all = r#"[{"op": "replace", "path": "/webhooks/0/objectSelector", "value": {}}]"#;
    let mut before = Vec::new();
    for configuration in configurations {
        let object = get(&["validatingwebhookconfiguration", configuration])?;
        let selector = object.pointer("/webhooks/0/objectSelector").cloned().unwrap_or_default();
        before.push((configuration, all.replace("{}", &selector.to_string())));
    }
    let again = Undo(move || {
        for (configuration, patch) in &before {
            kubectl(&["patch", "validatingwebhookconfiguration", configuration, "--type=json", "-p", patch])?;
        }
        Ok(())
    });
    for configuration in configurations {
        kubectl(&["patch", "validatingwebhookconfiguration", configuration, "--type=json", "-p", nobody])?;
    }
    // The API server reads its webhooks anew after a moment.
    let objects = eventually(SOON, || Applied::new(INVALID))?;
    let outcome = eventually(SOON, || {
        let object = get(&["virtualservice", "mizzen-test-came-in", "-n", "mizzen-test-ns1"])?;
        let conditions = object["status"]["conditions"].to_string();
        ensure!(
            conditions.contains("spec.http[0].match[0].uri") && conditions.contains("\"Invalid\""),
            "its status does not name the field: {conditions}"
        );
        let wait = ["wait", "-n", "mizzen-test-ns1", "virtualservice/mizzen-test-came-in", "--timeout=5s"];
        kubectl(&[&wait[..], &["--for=condition=Accepted=false"]].concat())?;
        let other = get(&["virtualservice", "mizzen-test-neighbour", "-n", "mizzen-test-ns1"])?;
        let conditions = other["status"]["conditions"].to_string();
        ensure!(text(&other, "/status/conditions/0/status") == "True", "its neighbour is not accepted: {conditions}");
        kubectl(&[
            "wait",
            "-n",
            "mizzen-test-ns1",
            "virtualservice/mizzen-test-neighbour",
            "--timeout=5s",
            "--for=condition=Reconciled",
        ])
    });
    drop(objects);
    drop(again);
    // For the next steps they look again.
    eventually(SOON, || match kubectl_with(&["apply", "--dry-run=server", "-f", "-"], INVALID) {
        Ok(_) => bail!("the webhooks still let everything pass"),
        Err(_) => Ok(()),
    })?;
    outcome.map(drop)
}
