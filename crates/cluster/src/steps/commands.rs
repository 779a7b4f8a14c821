//! The commands for people, with the person's kubeconfig.

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::kube::{SOON, eventually, items, name, run};
use crate::place::Place;
use crate::run::Report;

pub(super) fn answer(place: &Place, _: &Report) -> anyhow::Result<()> {
    let mizzen = |arguments: &[&str]| run(Command::new(&place.mizzen).args(arguments));
    let pods = items(&["pods", "-n", "default", "-l", "app=productpage"])?;
    let pod = format!("{}.default", name(pods.first().context("no productpage")?));

    eventually(SOON, || {
        let table = mizzen(&["proxy-status"])?;
        for wanted in [pod.as_str(), "istio-ingress", "istio-egressgateway"] {
            ensure!(table.contains(wanted), "proxy-status does not list {wanted}:\n{table}");
        }
        Ok(())
    })?;
    let clusters = mizzen(&["proxy-config", "clusters", &pod])?;
    ensure!(clusters.contains("reviews.default.svc.cluster.local"), "proxy-config clusters {pod}:\n{clusters}");
    let listeners: Value = serde_json::from_str(&mizzen(&["proxy-config", "listeners", &pod, "-o", "json"])?)?;
    ensure!(listeners.to_string().contains("virtualInbound"), "proxy-config listeners {pod} -o json: {listeners:.500}");
    for what in ["routes", "endpoints", "secrets"] {
        let text = mizzen(&["proxy-config", what, &pod])?;
        ensure!(text.lines().count() > 1, "proxy-config {what} {pod}:\n{text}");
    }
    let explained = mizzen(&[
        "explain",
        "--from",
        "deploy/productpage-v1",
        "GET",
        "http://reviews:9080/reviews/0",
        "-H",
        "end-user: jason",
    ])?;
    ensure!(explained.contains("reviews.default.svc.cluster.local"), "explain:\n{explained}");
    Ok(())
}
