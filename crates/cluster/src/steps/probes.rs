//! Probes of the application: rewritten, so that they work under strict mutual TLS, and still tell of its illness.

use anyhow::{Context, ensure};

use super::services::MESHED;
use crate::applied::Applied;
use crate::apps;
use crate::kube::{SOON, eventually, items, kubectl, list, name, rolled_out, text};
use crate::place::Place;
use crate::run::Report;

/// A container for each kind of probe, in one pod.
fn probed() -> String {
    let probe = "periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 5";
    let container =
        |name: &str, servers: &str, probe: &str| format!("      - {{{}, {probe}}}\n", apps::container(name, servers));
    let containers = [
        container(
            "http",
            "\"http:8081\"",
            &format!(
                "ports: [{{name: web, containerPort: 8081}}], readinessProbe: {{httpGet: {{path: /ready, port: web}}, {probe}}}, livenessProbe: {{httpGet: {{path: /alive, port: 8081}}, {probe}}}, startupProbe: {{httpGet: {{path: /alive, port: 8081}}, periodSeconds: 1, failureThreshold: 60}}"
            ),
        ),
        container("tcp", "\"greet:7002\"", &format!("readinessProbe: {{tcpSocket: {{port: 7002}}, {probe}}}")),
        container("grpc", "\"grpc:9001\"", &format!("readinessProbe: {{grpc: {{port: 9001}}, {probe}}}")),
        container(
            "exec",
            "\"http:8082\"",
            &format!("readinessProbe: {{exec: {{command: [perl, -e, \"exit(-e '/state/ill')\"]}}, {probe}}}"),
        ),
        // Its port is never open.
        container("deaf", "\"http:8083\"", &format!("readinessProbe: {{tcpSocket: {{port: 8084}}, {probe}}}")),
    ];
    let volumes = apps::volumes("serve-probed");
    apps::program(MESHED, "serve-probed")
        + &format!(
            r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: probed, namespace: {MESHED}}}
spec: {{selector: {{matchLabels: {{app: probed}}}}, mtls: {{mode: STRICT}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: probed, namespace: {MESHED}}}
spec:
  selector: {{matchLabels: {{app: probed}}}}
  template:
    metadata: {{labels: {{app: probed}}}}
    spec:
      terminationGracePeriodSeconds: 1
      {}
      containers:
{}---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: deaf, namespace: {MESHED}}}
spec:
  selector: {{matchLabels: {{app: deaf}}}}
  template:
    metadata: {{labels: {{app: deaf}}}}
    spec:
      terminationGracePeriodSeconds: 1
      {}
      containers:
{}"#,
            volumes,
            containers[..4].concat(),
            volumes,
            containers[4],
        )
}

/// Names of the containers that are not ready.
fn ill(app: &str) -> anyhow::Result<Vec<String>> {
    let pods = items(&["pods", "-n", MESHED, "-l", &format!("app={app}")])?;
    let pod = pods.first().with_context(|| format!("no pod of {app}"))?;
    let containers = list(pod, "/status/containerStatuses").iter().filter(|one| one["ready"] != true);
    let mut names: Vec<String> = containers.map(|one| text(one, "/name").to_owned()).collect();
    names.sort();
    Ok(names)
}

pub(super) fn probes(_: &Place, _: &Report) -> anyhow::Result<()> {
    let _applied = Applied::new(probed())?;
    rolled_out(MESHED, "deploy/probed")?;
    let pods = items(&["pods", "-n", MESHED, "-l", "app=probed"])?;
    let pod = pods.first().context("no pod of the Deployment probed")?;
    for (number, wanted) in
        ["/app-health/http/readyz", "/app-health/tcp/readyz", "/app-health/grpc/readyz"].iter().enumerate()
    {
        let path = text(pod, &format!("/spec/containers/{number}/readinessProbe/httpGet/path"));
        ensure!(path == *wanted, "the readiness probe of container {number} asks {path:?} instead of {wanted}");
    }
    for (kind, wanted) in [("livenessProbe", "livez"), ("startupProbe", "startupz")] {
        let path = text(pod, &format!("/spec/containers/0/{kind}/httpGet/path"));
        ensure!(path == format!("/app-health/http/{wanted}"), "the {kind} asks {path:?}");
    }

    // One volume of all containers.
    let run = |program: &str| {
        kubectl(&["exec", "-n", MESHED, name(pod), "-c", "http", "--", "perl", "-e", program]).map(drop)
    };
    for (program, wanted) in
        [("open(F, '>', '/state/ill')", &["exec", "grpc", "http"][..]), ("unlink '/state/ill'", &[])]
    {
        run(program)?;
        eventually(SOON, || {
            let ill = ill("probed")?;
            ensure!(ill == wanted, "after {program} the containers that are not ready are {ill:?}, not {wanted:?}");
            Ok(())
        })?;
    }
    ensure!(ill("deaf")? == ["deaf"], "the probe of a closed port succeeds");
    let restarts: u64 =
        list(pod, "/status/containerStatuses").iter().filter_map(|one| one["restartCount"].as_u64()).sum();
    ensure!(restarts == 0, "containers were restarted: the liveness probe fails");
    Ok(())
}
