//! Kinds of Services other than a plain ClusterIP: headless with a StatefulSet, ExternalName, NodePort.

use anyhow::{Context, ensure};

use super::services::MESHED;
use crate::applied::Applied;
use crate::apps;
use crate::call::{from_outside, from_pod};
use crate::kube::{SOON, eventually, get, items, kubectl, rolled_out, text};
use crate::place::Place;
use crate::run::Report;

/// Pods `db-0` and `db-1`. A port's name says its protocol, but for 7001: there the sidecar has to find out, and the server
/// speaks first.
fn database() -> String {
    apps::program(MESHED, "serve-db")
        + &format!(
            r#"
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: {MESHED}}}
spec:
  clusterIP: None
  selector: {{app: db}}
  ports: [{{name: tcp-greeting, port: 7000}}, {{name: greeting, port: 7001}}, {{name: http, port: 8080}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: {MESHED}}}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{{}}}]
      {}
"#,
            apps::container("db", "\"greet:7000\", \"greet:7001\", \"http:8080\""),
            apps::volumes("serve-db")
        )
}

/// What a server that speaks first says to curl's FTP.
pub(super) fn greeting(namespace: &str, address: &str) -> anyhow::Result<String> {
    let url = format!("ftp://{address}/");
    // The server ends the conversation after its greeting, which is a failure of curl.
    let arguments = ["exec", "-n", namespace, "deploy/client", "-c", "client", "--", "curl", "-sv", "--max-time", "20"];
    let said = match kubectl(&[&arguments[..], &[&url]].concat()) {
        Ok(said) => said,
        Err(error) => error.to_string(),
    };
    let line = said.lines().find_map(|line| line.split_once("220 hello from "));
    Ok(line.with_context(|| format!("{url} gave no greeting: {said:.600}"))?.1.trim().to_owned())
}

pub(super) fn headless(_: &Place, _: &Report) -> anyhow::Result<()> {
    let _database = Applied::new(database())?;
    rolled_out(MESHED, "statefulset/db")?;
    for pod in ["db-0", "db-1"] {
        for host in [format!("{pod}.db"), format!("{pod}.db.{MESHED}.svc.cluster.local")] {
            eventually(SOON, || {
                let answer = from_pod(MESHED, &[&format!("http://{host}:8080/where")])?.expect(200)?;
                ensure!(answer.body == format!("{pod} /where\n"), "{host}:8080 answered {}", answer.body);
                for port in [7000, 7001] {
                    let name = greeting(MESHED, &format!("{host}:{port}"))?;
                    ensure!(name == pod, "{host}:{port} is {name}");
                }
                Ok(())
            })
            .with_context(|| host.clone())?;
        }
    }
    eventually(SOON, || {
        let answer = from_pod(MESHED, &["http://db:8080/any"])?.expect(200)?;
        ensure!(answer.body.starts_with("db-"), "db:8080 answered {}", answer.body);
        let name = greeting(MESHED, "db:7001")?;
        ensure!(name.starts_with("db-"), "db:7001 is {name}");
        Ok(())
    })
    .context("the Service's own name")
}

const ALIASES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: mizzen-test-ns1}
spec:
  type: ExternalName
  externalName: service2.ns2.svc.cluster.local
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: service2-node, namespace: ns2}
spec:
  type: NodePort
  selector: {app: service2}
  ports: [{name: http, port: 8080, targetPort: 9080}]
"#;

pub(super) fn external_name_and_node_port(place: &Place, _: &Report) -> anyhow::Result<()> {
    let _aliases = Applied::new(ALIASES)?;
    for host in ["alias", "alias.mizzen-test-ns1.svc.cluster.local"] {
        let url = format!("http://{host}:8080/details/0");
        eventually(SOON, || from_pod(MESHED, &[&url])?.expect(200)).context(url.clone())?;
    }
    let service = get(&["service", "service2-node", "-n", "ns2"])?;
    let port = service.pointer("/spec/ports/0/nodePort").context("no node port")?.to_string();
    let pods = items(&["pods", "-n", "ns2", "-l", "app=service2"])?;
    let node = text(pods.first().context("no pod of service2")?, "/status/hostIP").to_owned();
    let url = format!("http://{node}:{port}/details/0");
    eventually(SOON, || from_outside(place, &[&url])?.expect(200)).with_context(|| format!("{url} from outside"))?;
    eventually(SOON, || from_pod(MESHED, &[&url])?.expect(200))
        .with_context(|| format!("{url} from the mesh"))
        .map(drop)
}
