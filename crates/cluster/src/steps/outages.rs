//! What the mesh does while its control plane, or the API server, is away.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::bookinfo::{GATEWAY, page};
use super::restarts::under_load;
use crate::applied::Applied;
use crate::kube::{SOON, apply, eventually, get, items, kubectl, name, rolled_out, run, text};
use crate::place::Place;
use crate::run::{Report, Skipped};

fn replicas(number: &str) -> anyhow::Result<()> {
    kubectl(&["scale", "-n", "istio-system", "deploy/istiod", "--replicas", number])?;
    rolled_out("istio-system", "deploy/istiod")
}

fn kill(pod: &str) -> anyhow::Result<()> {
    kubectl(&["delete", "pod", "-n", "istio-system", pod, "--grace-period=0", "--force", "--wait=false"]).map(drop)
}

fn leader() -> anyhow::Result<String> {
    Ok(text(&get(&["lease", "istio-leader", "-n", "istio-system"])?, "/spec/holderIdentity").to_owned())
}

const AFTER: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mizzen-test-after-the-leader, namespace: default}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratings}}], timeout: 8s}]
"#;

/// Two replicas: the leader is killed, then both at once.
pub(super) fn control_planes(place: &Place, report: &Report) -> anyhow::Result<()> {
    // Fewer than the autoscaler's least would be made more again, more are left alone.
    replicas("2")?;
    let first = eventually(SOON, || {
        let leader = leader()?;
        ensure!(!leader.is_empty(), "nobody leads");
        Ok(leader)
    })?;
    under_load(place, report, "the death of the leader of 2 control planes", || {
        let began = Instant::now();
        let pods = items(&["pods", "-n", "istio-system", "-l", "app=istiod"])?;
        let pod = pods.iter().map(name).find(|pod| first.contains(pod)).context("the leader is no pod")?;
        kill(pod)?;
        let next = eventually(SOON, || {
            let next = leader()?;
            ensure!(next != first && !next.is_empty(), "{first} still leads");
            Ok(next)
        })?;
        report.say("from the death of the leader to the next one", format!("{:.1} s", began.elapsed().as_secs_f32()));
        // What only the leader does goes on.
        let _after = Applied::new(AFTER)?;
        let wait = ["wait", "-n", "default", "virtualservice/mizzen-test-after-the-leader", "--timeout=90s"];
        kubectl(&[&wait[..], &["--for=condition=Reconciled"]].concat()).with_context(|| format!("{next} leads"))?;
        rolled_out("istio-system", "deploy/istiod")
    })?;
    under_load(place, report, "the death of 2 of 2 control planes", || {
        for pod in items(&["pods", "-n", "istio-system", "-l", "app=istiod"])? {
            kill(name(&pod))?;
        }
        // The rollout counts as done until the pods are seen to be gone.
        std::thread::sleep(Duration::from_secs(2));
        rolled_out("istio-system", "deploy/istiod")
    })?;
    replicas("1")
}

/// Kills it, waits until it is back, and changes something.
pub(super) fn api_server(place: &Place, report: &Report) -> anyhow::Result<()> {
    let Some(mut find) = place.inside("pidof") else {
        return Err(Skipped("there is no way to the API server's process of this cluster".to_owned()).into());
    };
    let process = run(find.arg("kube-apiserver"))?.trim().to_owned();
    ensure!(!process.is_empty() && !process.contains(' '), "the API server's process is {process:?}");
    under_load(place, report, "the death of the API server", || {
        let began = Instant::now();
        run(place.inside("kill").context("no way inside")?.args(["-9", &process]))?;
        // Its process is another one then, and it answers.
        eventually(SOON, || {
            let now = run(place.inside("pidof").context("no way inside")?.arg("kube-apiserver"))?;
            ensure!(now.trim() != process, "it has not ended");
            kubectl(&["get", "--raw", "/readyz"])
        })?;
        report.say("the API server was away for", format!("{:.1} s", began.elapsed().as_secs_f32()));
        eventually(SOON, || apply(&GATEWAY.replace("exact: /login", "exact: /back")))?;
        eventually(SOON, || {
            let answer = page(place, "/back", &[])?;
            ensure!(
                answer.headers.contains_key("x-envoy-upstream-service-time"),
                "the gateway answers /back by itself"
            );
            Ok(())
        })?;
        report.say(
            "from the death of the API server to a change in force",
            format!("{:.1} s", began.elapsed().as_secs_f32()),
        );
        apply(GATEWAY).map(drop)
    })
}
