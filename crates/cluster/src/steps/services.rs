//! A Kubernetes Service goes on working as it did, and a VirtualService changes it for meshed callers.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::injection::client;
use crate::call::from_pod;
use crate::kube::{SOON, apply, delete, eventually, get, items, rolled_out};
use crate::place::Place;
use crate::run::Report;

/// Namespace with an injected client.
pub(super) const MESHED: &str = "mizzen-test-ns1";
pub(super) const PLAIN: &str = "mizzen-test-plain";

const SERVICE2: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: ns2, labels: {istio-injection: enabled, mizzen-test: "yes"}}
---
apiVersion: v1
kind: Service
metadata: {name: service2, namespace: ns2}
spec:
  selector: {app: service2}
  ports: [{name: http, port: 8080, targetPort: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: service2, namespace: ns2}
spec:
  selector: {matchLabels: {app: service2}}
  template:
    metadata: {labels: {app: service2, version: v1}}
    spec:
      containers:
      - name: details
        image: registry.istio.io/release/examples-bookinfo-details-v1:1.20.3
        imagePullPolicy: IfNotPresent
"#;

const DELAY: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: service2, namespace: ns2}
spec:
  hosts: [service2.ns2.svc.cluster.local, service2.ns2]
  http:
  - fault: {delay: {fixedDelay: 3s, percentage: {value: 100}}}
    route: [{destination: {host: service2.ns2.svc.cluster.local}}]
"#;

pub(super) fn beside(_: &Place, _: &Report) -> anyhow::Result<()> {
    apply(SERVICE2)?;
    client(MESHED, true)?;
    client(PLAIN, false)?;
    rolled_out("ns2", "deploy/service2")?;
    let service = get(&["service", "service2", "-n", "ns2"])?;
    let cluster_ip = service.pointer("/spec/clusterIP").and_then(Value::as_str).context("no ClusterIP")?.to_owned();
    let pods = items(&["pods", "-n", "ns2", "-l", "app=service2"])?;
    let pod = pods.first().and_then(|pod| pod.pointer("/status/podIP")?.as_str()).context("no pod IP")?;
    for namespace in [MESHED, PLAIN] {
        for address in [
            "service2.ns2:8080",
            "service2.ns2.svc.cluster.local:8080",
            &format!("{cluster_ip}:8080"),
            &format!("{pod}:9080"),
        ] {
            let url = format!("http://{address}/details/0");
            let call = || from_pod(namespace, &[&url])?.expect(200);
            eventually(SOON, call).with_context(|| format!("{url} from {namespace}"))?;
        }
    }
    Ok(())
}

pub(super) fn delay(_: &Place, _: &Report) -> anyhow::Result<()> {
    let took = |namespace: &str, host: &str| -> anyhow::Result<Duration> {
        Ok(from_pod(namespace, &[&format!("http://{host}:8080/details/0")])?.expect(200)?.took)
    };
    apply(DELAY)?;
    let outcome = (|| {
        for host in ["service2.ns2", "service2.ns2.svc.cluster.local"] {
            eventually(SOON, || {
                let meshed = took(MESHED, host)?;
                ensure!(meshed >= Duration::from_millis(2_900), "{host} from the mesh took {meshed:?}");
                Ok(())
            })?;
            let plain = took(PLAIN, host)?;
            ensure!(plain < Duration::from_millis(2_900), "{host} from a pod without a sidecar took {plain:?}");
        }
        Ok(())
    })();
    delete(DELAY)?;
    outcome?;
    eventually(SOON, || {
        let meshed = took(MESHED, "service2.ns2")?;
        ensure!(meshed < Duration::from_millis(2_900), "after the VirtualService was deleted: {meshed:?}");
        Ok(())
    })
}
