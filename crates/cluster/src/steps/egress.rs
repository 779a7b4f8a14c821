//! What leaves the mesh: blocked, opened, sent through the egress gateway, encrypted there.
//!
//! The outside is a server in the host network of a node, which no Service names.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::services::MESHED;
use crate::call::{Answer, from_pod};
use crate::kube::{SOON, apply, delete, eventually, get, kubectl, rolled_out};
use crate::place::Place;
use crate::run::Report;

const OUTSIDE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: mizzen-test-outside, labels: {mizzen-test: "yes"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: outside, namespace: mizzen-test-outside}
spec:
  selector: {matchLabels: {app: outside}}
  template:
    metadata: {labels: {app: outside}}
    spec:
      hostNetwork: true
      containers:
      - name: http
        image: registry.istio.io/release/examples-bookinfo-details-v1:1.20.3
        imagePullPolicy: IfNotPresent
        env: [{name: PORT, value: "9080"}, {name: HOST, value: "0.0.0.0"}]
"#;

/// 9080 is a port that services of the mesh have too: a call there is known as HTTP, and can be answered with a status.
///
/// The outside host, by its address, as a client with a resolver of its own would call it.
fn call(address: &str) -> anyhow::Result<Answer> {
    let resolve = format!("outside.example.test:9080:{address}");
    from_pod(MESHED, &["--resolve", &resolve, "http://outside.example.test:9080/details/0"])
}

fn outside() -> anyhow::Result<String> {
    apply(OUTSIDE)?;
    rolled_out("mizzen-test-outside", "deploy/outside")?;
    let pods = get(&["pods", "-n", "mizzen-test-outside", "-l", "app=outside"])?;
    Ok(pods.pointer("/items/0/status/hostIP").and_then(Value::as_str).context("no host IP")?.to_owned())
}

fn entry(address: &str) -> String {
    format!(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: outside, namespace: {MESHED}}}
spec:
  hosts: [outside.example.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 9080, name: http, protocol: HTTP}}]
  endpoints: [{{address: {address}}}]
"#
    )
}

/// Sets `outboundTrafficPolicy` of the mesh configuration.
fn set_policy(mode: &str) -> anyhow::Result<()> {
    let config = get(&["configmap", "istio", "-n", "istio-system"])?;
    let mesh = config.pointer("/data/mesh").and_then(Value::as_str).context("ConfigMap istio has no key mesh")?;
    let mut lines: Vec<String> = Vec::new();
    let mut inside = false;
    for line in mesh.lines() {
        inside = line.starts_with("outboundTrafficPolicy:") || (inside && line.starts_with(' '));
        if !inside {
            lines.push(line.to_owned());
        }
    }
    lines.push("outboundTrafficPolicy:".to_owned());
    lines.push(format!("  mode: {mode}"));
    let patch = serde_json::json!({"data": {"mesh": lines.join("\n")}}).to_string();
    kubectl(&["patch", "configmap", "istio", "-n", "istio-system", "--type=merge", "-p", &patch]).map(drop)
}

pub(super) fn registry_only(_: &Place, _: &Report) -> anyhow::Result<()> {
    let address = outside()?;
    eventually(SOON, || call(&address)?.expect(200)).context("ALLOW_ANY")?;
    set_policy("REGISTRY_ONLY")?;
    eventually(SOON, || call(&address)?.expect(502)).context("REGISTRY_ONLY")?;
    // Lines are written together, some time after.
    eventually(SOON, || {
        let log = kubectl(&["logs", "-n", MESHED, "deploy/client", "-c", "istio-proxy", "--tail=20"])?;
        ensure!(log.contains("BlackHoleCluster") || log.contains("block_all"), "the log does not say why: {log:.2000}");
        Ok(())
    })?;
    let entry = entry(&address);
    apply(&entry)?;
    eventually(SOON, || call(&address)?.expect(200)).context("with a ServiceEntry")?;
    Ok(())
}

const THROUGH: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress, namespace: mizzen-test-ns1}
spec:
  selector: {istio: egressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [outside.example.test]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: egress, namespace: mizzen-test-ns1}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  subsets: [{name: outside}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside, namespace: mizzen-test-ns1}
spec:
  hosts: [outside.example.test]
  gateways: [egress, mesh]
  http:
  - match: [{gateways: [mesh], port: 9080}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, subset: outside, port: {number: 80}}}]
  - match: [{gateways: [egress], port: 80}]
    route: [{destination: {host: outside.example.test, port: {number: 9080}}}]
"#;

pub(super) fn gateway(_: &Place, _: &Report) -> anyhow::Result<()> {
    let address = outside()?;
    apply(&entry(&address))?;
    apply(THROUGH)?;
    let outcome = eventually(SOON, || {
        call(&address)?.expect(200)?;
        let log = kubectl(&["logs", "-n", "istio-system", "deploy/istio-egressgateway", "--tail=20"])?;
        ensure!(log.contains("outside.example.test"), "the egress gateway has seen no such call: {log:.2000}");
        Ok(())
    });
    delete(THROUGH)?;
    delete(&entry(&address))?;
    set_policy("ALLOW_ANY")?;
    delete(OUTSIDE)?;
    outcome
}
