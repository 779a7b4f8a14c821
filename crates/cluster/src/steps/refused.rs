//! Resources that are wrong: refused by the webhook, or explained in their status.

use std::process::Command;

use anyhow::{bail, ensure};
use serde_json::Value;

use crate::kube::{SOON, apply, delete, eventually, get, kubectl};
use crate::place::Place;
use crate::run::Report;

const INVALID: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mizzen-test-invalid, namespace: default}
spec:
  hosts: [ratings]
  http:
  - match: [{uri: {regex: "a(b"}}]
    route: [{destination: {host: ratings}}]
"#;

pub(super) fn webhook(place: &Place, _: &Report) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("mizzen-cluster-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("invalid.yaml");
    std::fs::write(&file, INVALID)?;
    let offline = Command::new(&place.mizzen).arg("validate").arg(&file).output()?;
    std::fs::remove_dir_all(&folder)?;
    ensure!(!offline.status.success(), "mizzen validate accepts it");
    let Err(refusal) = apply(INVALID) else {
        delete(INVALID)?;
        bail!("the API server accepted an invalid VirtualService")
    };
    let refusal = refusal.to_string();
    let wanted = "spec.http[0].match[0].uri";
    ensure!(refusal.contains(wanted), "the refusal does not name {wanted}: {refusal}");
    let offline = String::from_utf8_lossy(&offline.stdout).into_owned() + &String::from_utf8_lossy(&offline.stderr);
    ensure!(offline.contains(wanted), "mizzen validate does not name {wanted}: {offline}");
    Ok(())
}

const VALID: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mizzen-test-status, namespace: default}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratings}}], timeout: 9s}]
"#;

fn condition(kind: &str, object: &str, wanted: &str) -> anyhow::Result<Value> {
    let object = get(&[kind, object, "-n", "default"])?;
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let found =
        conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(wanted)).cloned();
    found.ok_or_else(|| anyhow::anyhow!("no condition {wanted} in {:#}", object["status"]))
}

pub(super) fn status(_: &Place, report: &Report) -> anyhow::Result<()> {
    apply(VALID)?;
    let began = std::time::Instant::now();
    let outcome = kubectl(&[
        "wait",
        "-n",
        "default",
        "virtualservice/mizzen-test-status",
        "--for=condition=Reconciled",
        "--timeout=60s",
    ]);
    let took = began.elapsed();
    let outcome = outcome.and_then(|_| condition("virtualservice", "mizzen-test-status", "Reconciled"));
    delete(VALID)?;
    let found = outcome?;
    report.say("from apply to the condition Reconciled", format!("{:.1} s", took.as_secs_f32()));
    report.say("what the condition says", found.get("message").and_then(Value::as_str).unwrap_or_default());
    Ok(())
}

const NO_SUCH: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: mizzen-test-no-such, namespace: default}
spec:
  selector: {istio: ingresgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["a.example.com"]}]
"#;

pub(super) fn no_such_gateway(_: &Place, _: &Report) -> anyhow::Result<()> {
    apply(NO_SUCH)?;
    let outcome = eventually(SOON, || {
        let status =
            get(&["gateways.networking.istio.io", "mizzen-test-no-such", "-n", "default"])?["status"].to_string();
        ensure!(status.contains("ingressgateway"), "the status does not name the labels that exist: {status}");
        Ok(())
    });
    delete(NO_SUCH)?;
    outcome
}
