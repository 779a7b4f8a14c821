//! The genuine `istioctl`, as judge: what it prints of our control plane and our proxies is what a person expects.

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::kube::{SOON, eventually, items, name, run};
use crate::place::Place;
use crate::run::{Report, Skipped};

pub(super) fn istioctl(place: &Place, _: &Report) -> anyhow::Result<()> {
    let Some(program) = &place.istioctl else {
        return Err(Skipped("no istioctl: ISTIOCTL names none, and there is none on the PATH".to_owned()).into());
    };
    let istioctl = |arguments: &[&str]| run(Command::new(program).args(arguments));
    let pods = items(&["pods", "-n", "default", "-l", "app=productpage"])?;
    let pod = format!("{}.default", name(pods.first().context("no productpage")?));

    // Every proxy once, with the replica that serves it.
    let planes = items(&["pods", "-n", "istio-system", "-l", "app=istiod"])?;
    eventually(SOON, || {
        let table = istioctl(&["proxy-status"])?;
        for wanted in
            ["productpage-v1", "details-v1", "ratings-v1", "reviews-v3", "istio-ingress", "istio-egressgateway"]
        {
            let row = table.lines().find(|line| line.contains(&format!("~{wanted}")));
            let row = row.with_context(|| format!("proxy-status does not list {wanted}:\n{table}"))?;
            ensure!(row.contains("CDS,LDS,EDS"), "{row}");
            ensure!(planes.iter().any(|plane| row.contains(name(plane))), "no replica serves it: {row}");
        }
        let table = istioctl(&["proxy-status", "-v", "1"])?;
        let row = table
            .lines()
            .find(|line| line.contains(&format!("~{pod}~")))
            .with_context(|| format!("{pod} is not in:\n{table}"))?;
        ensure!(row.matches("SYNCED").count() >= 4, "{row}");
        Ok(())
    })?;
    // What the control plane would send now, and what the proxy says that it has: the replica is found, and nothing differs.
    for (namespace, label) in
        [("default", "app=productpage"), ("default", "app=reviews"), ("istio-ingress", "istio=ingressgateway")]
    {
        let pods = items(&["pods", "-n", namespace, "-l", label])?;
        let pod = format!("{}.{namespace}", name(pods.first().with_context(|| format!("no pod with {label}"))?));
        eventually(SOON, || {
            let compared = istioctl(&["proxy-status", &pod])?;
            for kind in ["Clusters", "Listeners", "Routes"] {
                ensure!(compared.contains(&format!("{kind} Match")), "proxy-status {pod}:\n{compared:.4000}");
            }
            Ok(())
        })?;
    }
    let dump = istioctl(&["experimental", "internal-debug", &format!("config_dump?proxyID={pod}")])?;
    ensure!(
        dump.contains("outbound|9080||reviews.default.svc.cluster.local"),
        "internal-debug config_dump:\n{dump:.500}"
    );
    let version = istioctl(&["version"])?;
    ensure!(version.contains(&format!("control plane version: {}", env!("CARGO_PKG_VERSION"))), "version: {version}");

    for (what, wanted) in [
        ("cluster", "reviews.default.svc.cluster.local"),
        ("listener", "15006"),
        ("route", "reviews.default.svc.cluster.local:9080"),
        ("endpoint", "outbound|9080||reviews.default.svc.cluster.local"),
        ("bootstrap", "productpage.default"),
        ("secret", "ROOTCA"),
        ("log", "active loggers"),
    ] {
        let text = istioctl(&["proxy-config", what, &pod])?;
        ensure!(text.contains(wanted), "proxy-config {what} {pod} does not name {wanted}:\n{text:.2000}");
    }
    // Not `proxy-config rootca-compare`: it takes certificates for base64 that have been decoded already, and so it fails on
    // every proxy's dump, a stock Envoy's too.
    let clusters: Value = serde_json::from_str(&istioctl(&["proxy-config", "cluster", &pod, "-o", "json"])?)?;
    ensure!(clusters.as_array().is_some_and(|all| all.len() > 10), "proxy-config cluster -o json: {clusters:.500}");
    let secrets = istioctl(&["proxy-config", "secret", &pod])?;
    ensure!(secrets.matches("ACTIVE").count() == 2 && !secrets.contains("false"), "proxy-config secret:\n{secrets}");

    let described = istioctl(&["experimental", "describe", "pod", &pod])?;
    for wanted in ["Service: productpage", "VirtualService: bookinfo", "PERMISSIVE"] {
        ensure!(described.contains(wanted), "describe pod does not say {wanted:?}:\n{described}");
    }
    let injected = istioctl(&["experimental", "check-inject", "-n", "default", "deploy/productpage-v1"])?;
    ensure!(injected.contains("istio-sidecar-injector"), "check-inject:\n{injected}");
    // What it finds is its own affair, but for what it would say of every mesh of ours.
    let analyzed = Command::new(program).args(["analyze", "-n", "default"]).output()?;
    let analyzed = String::from_utf8_lossy(&[analyzed.stdout, analyzed.stderr].concat()).into_owned();
    for ours in ["IST0158", "IST0003"] {
        ensure!(!analyzed.contains(ours), "analyze:\n{analyzed}");
    }
    Ok(())
}
