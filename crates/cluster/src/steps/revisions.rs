//! A canary upgrade: a second control plane beside the first, namespaces that follow a tag, and the first one goes.

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::bookinfo::WORKLOADS;
use super::install::image;
use super::restarts::{restart, under_load};
use crate::kube::{SOON, eventually, helm, items, kubectl, list, name, run, text};
use crate::place::Place;
use crate::run::Report;

const WAIT: [&str; 3] = ["--wait", "--timeout", "300s"];

/// `helm upgrade --install` of a control plane.
fn control(place: &Place, release: &str, values: &[&str]) -> anyhow::Result<()> {
    let (chart, image) = (place.chart("control"), image(place));
    let mut arguments = vec!["upgrade", "--install", release, &chart, "-n", "istio-system"];
    for value in [&["meshConfig.accessLogFile=/dev/stdout", &image[0], &image[1]], values].concat() {
        arguments.extend(["--set", value]);
    }
    arguments.extend(WAIT);
    helm(&arguments).map(drop)
}

/// Every workload of Bookinfo was injected by this revision, talks to its control plane, and works.
fn served_by(place: &Place, revision: &str) -> anyhow::Result<()> {
    let pods = items(&["pods", "-n", "default", "-l", "app in (productpage,details,ratings,reviews)"])?;
    let pods: Vec<_> = pods.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()).collect();
    ensure!(pods.len() >= WORKLOADS.len(), "there are {} pods", pods.len());
    let table = run(Command::new(&place.mizzen).arg("proxy-status"))?;
    let address = if revision == "default" { "istiod.".to_owned() } else { format!("istiod-{revision}.") };
    for pod in pods {
        let status: Value = serde_json::from_str(text(pod, "/metadata/annotations/sidecar.istio.io~1status"))?;
        ensure!(status["revision"] == revision, "{} was injected by another revision: {status}", name(pod));
        let authority = list(pod, "/spec/initContainers/1/env").iter().find(|one| one["name"] == "CA_ADDR");
        let authority = authority.map(|one| text(one, "/value")).unwrap_or_default();
        ensure!(authority.starts_with(&address), "{} talks to {authority}", name(pod));
        ensure!(table.contains(name(pod)), "{} is not connected:\n{table}", name(pod));
    }
    Ok(())
}

pub(super) fn canary(place: &Place, report: &Report) -> anyhow::Result<()> {
    // The namespace follows a tag, which is another name of the revision that is there.
    control(place, "istio", &["revisionTags={stable}"])?;
    kubectl(&["label", "namespace", "default", "istio-injection-", "istio.io/rev=stable", "--overwrite"])?;
    under_load(place, report, "a canary upgrade", || {
        control(place, "istio-canary", &["revision=canary"])?;
        eventually(SOON, || served_by(place, "default")).context("before the tag moves")?;
        // The tag moves: first it is taken from the one, then given to the other.
        control(place, "istio", &[])?;
        control(place, "istio-canary", &["revision=canary", "revisionTags={stable}"])?;
        restart("default", &WORKLOADS)?;
        eventually(SOON, || served_by(place, "canary")).context("after the tag has moved")?;

        let (gateway, image) = (place.chart("gateway"), image(place));
        let set = ["--set", "revision=canary", "--set", &image[0], "--set", &image[1]];
        let ingress = ["upgrade", "istio-ingress", &gateway, "-n", "istio-ingress"];
        helm(&[&ingress[..], &set, &WAIT].concat())?;
        let egress =
            ["upgrade", "istio-egressgateway", &gateway, "-n", "istio-system", "--set", "service.type=ClusterIP"];
        helm(&[&egress[..], &set, &WAIT].concat())?;
        helm(&["uninstall", "istio", "-n", "istio-system", "--wait"]).map(drop)
    })?;
    // Without the first one, what is left does all the work.
    under_load(place, report, "a restart after the old control plane is gone", || restart("default", &WORKLOADS[..1]))?;
    eventually(SOON, || served_by(place, "canary")).context("after the old control plane is gone")
}
