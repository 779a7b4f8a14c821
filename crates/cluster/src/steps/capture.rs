//! What a pod may ask of the capture of its traffic: its clients' own addresses, and answers to its DNS queries.

use anyhow::{Context, ensure};

use super::services::MESHED;
use crate::applied::Applied;
use crate::apps::{self, CURL};
use crate::call::{from_pod, from_pod_of};
use crate::kube::{SOON, eventually, get, items, rolled_out, text};
use crate::place::Place;
use crate::run::Report;

/// A server in both modes of interception: what each says of its caller.
fn servers() -> String {
    let server = |name: &str, mode: &str| {
        format!(
            r#"
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {MESHED}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {MESHED}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}, annotations: {{sidecar.istio.io/interceptionMode: {mode}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{{}}}]
      {}
---
"#,
            apps::container("server", "\"http:8080\""),
            apps::volumes("serve-caller")
        )
    };
    apps::program(MESHED, "serve-caller") + &server("redirected", "REDIRECT") + &server("transparent", "TPROXY")
}

pub(super) fn tproxy(_: &Place, _: &Report) -> anyhow::Result<()> {
    let _servers = Applied::new(servers())?;
    let clients = items(&["pods", "-n", MESHED, "-l", "app=client"])?;
    let client = text(clients.first().context("no client")?, "/status/podIP").to_owned();
    for (name, wanted) in [("redirected", "127.0.0.6"), ("transparent", &client)] {
        rolled_out(MESHED, &format!("deploy/{name}"))?;
        eventually(SOON, || {
            let answer = from_pod(MESHED, &[&format!("http://{name}:8080/caller")])?.expect(200)?;
            let seen = answer.body.trim();
            ensure!(seen == wanted, "the application behind {name} sees the caller {seen}, not {wanted}");
            // It was a proxy that answered.
            ensure!(answer.headers.contains_key("x-envoy-upstream-service-time"), "{:?}", answer.headers);
            Ok(())
        })
        .context(name)?;
    }
    Ok(())
}

/// Names that no name server but the sidecar's knows: one with an address that no network has, one without any.
const NAME: &str = "only.in-the-mesh.example";
const UNADDRESSED: &str = "unaddressed.in-the-mesh.example";

fn names(endpoint: &str) -> String {
    format!(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: only-in-the-mesh, namespace: {MESHED}}}
spec:
  hosts: [{NAME}]
  addresses: [240.0.0.9]
  ports: [{{name: http, number: 8080, protocol: HTTP, targetPort: 9080}}]
  resolution: STATIC
  endpoints: [{{address: {endpoint}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: unaddressed, namespace: {MESHED}}}
spec:
  hosts: [{UNADDRESSED}]
  ports: [{{name: tcp, number: 8080, protocol: TCP, targetPort: 9080}}]
  resolution: STATIC
  endpoints: [{{address: {endpoint}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: asks-its-sidecar, namespace: {MESHED}}}
spec:
  selector: {{matchLabels: {{app: asks-its-sidecar}}}}
  template:
    metadata:
      labels: {{app: asks-its-sidecar}}
      annotations: {{proxy.istio.io/config: '{{"proxyMetadata": {{"ISTIO_META_DNS_CAPTURE": "true"}}}}'}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: client, image: "{CURL}", command: [sleep, "36000"], imagePullPolicy: IfNotPresent}}]
"#
    )
}

pub(super) fn dns(_: &Place, _: &Report) -> anyhow::Result<()> {
    let pods = items(&["pods", "-n", "ns2", "-l", "app=service2"])?;
    let endpoint = text(pods.first().context("no pod of service2")?, "/status/podIP").to_owned();
    let _names = Applied::new(names(&endpoint))?;
    rolled_out(MESHED, "deploy/asks-its-sidecar")?;
    let call = |host: &str| {
        let url = format!("http://{host}:8080/details/0");
        from_pod_of("deploy/asks-its-sidecar", MESHED, &[&url])?.expect(200)
    };
    eventually(SOON, || call(NAME)).context("a name of a ServiceEntry")?;
    eventually(SOON, || call(UNADDRESSED)).context("a name of a ServiceEntry without addresses")?;
    eventually(SOON, || {
        let entry = get(&["serviceentry", "unaddressed", "-n", MESHED])?;
        let given = text(&entry, "/status/addresses/0/value");
        ensure!(given.starts_with("240.240."), "its status says {:#}", entry["status"]);
        Ok(())
    })?;
    eventually(SOON, || call("service2.ns2")).context("a name of a Service")?;
    let answer = from_pod(MESHED, &[&format!("http://{NAME}:8080/details/0")])?;
    ensure!(answer.status == 0, "{NAME} exists for a pod whose sidecar does not answer: status {}", answer.status);
    Ok(())
}
