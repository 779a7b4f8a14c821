//! How soon a change is in the traffic, and how much memory all of it takes.

use std::time::SystemTime;

use anyhow::{Context, ensure};

use super::bookinfo::gateway_address;
use crate::kube::{SOON, apply, eventually, items, kubectl, name};
use crate::place::Place;
use crate::poll::Poll;
use crate::run::Report;

/// Changes of one VirtualService, each followed until the first answer that obeys it.
const CHANGES: usize = 50;

fn marked(mark: usize) -> String {
    super::bookinfo::GATEWAY.replace(
        "  gateways: [bookinfo-gateway]\n  http:\n",
        &format!(
            "  gateways: [bookinfo-gateway]\n  http:\n    - match: [{{uri: {{exact: /mark}}}}]\n      directResponse: {{status: 200, body: {{string: \"mark {mark}.\"}}}}\n"
        ),
    )
}

pub(super) fn latency(place: &Place, report: &Report) -> anyhow::Result<()> {
    let poll = Poll::begin(place, &format!("{}:80", gateway_address()?), "istio.k3s.local", "/mark")?;
    let (mut whole, mut after) = (Vec::new(), Vec::new());
    for mark in 0..CHANGES {
        let began = SystemTime::now();
        apply(&marked(mark))?;
        let applied = SystemTime::now();
        let obeyed = poll.until(&format!("mark {mark}."), SOON)?;
        whole.push(obeyed.duration_since(began).unwrap_or_default());
        // None at all when it was obeyed before kubectl had come back.
        after.push(obeyed.duration_since(applied).unwrap_or_default());
    }
    apply(super::bookinfo::GATEWAY)?;
    for (since, mut times) in [("start", whole), ("end", after)] {
        times.sort_unstable();
        report.say(
            format!("from the {since} of kubectl apply to the first request that obeys, {CHANGES} changes"),
            format!("p50 {:.1?}, p99 {:.1?}", times[CHANGES / 2], times[CHANGES - 1]),
        );
    }
    Ok(())
}

/// Resident memory of a pod's program in MiB, as its own metrics say it.
fn resident(namespace: &str, pod: &str, port: u16, path: &str, metric: &str) -> anyhow::Result<f64> {
    let text = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}")])?;
    let line = text.lines().find(|line| line.starts_with(metric)).with_context(|| format!("{pod} has no {metric}"))?;
    let bytes: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
    Ok(bytes / f64::from(1 << 20))
}

pub(super) fn memory(_: &Place, report: &Report) -> anyhow::Result<()> {
    let mut sidecars = Vec::new();
    for pod in items(&["pods", "-n", "default", "-l", "app in (productpage,details,ratings,reviews)"])? {
        sidecars.push(eventually(SOON, || {
            resident("default", name(&pod), 15090, "/stats/prometheus", "envoy_server_memory_physical_size")
        })?);
    }
    let most = sidecars.iter().copied().fold(0.0, f64::max);
    report.say("resident memory of a sidecar", format!("{most:.1} MiB at most"));
    for pod in items(&["pods", "-n", "istio-system", "-l", "app=istiod"])? {
        let control = resident("istio-system", name(&pod), 15014, "/metrics", "process_resident_memory_bytes")?;
        report.say("resident memory of the control plane", format!("{control:.1} MiB"));
    }
    ensure!(most <= 30.0, "a sidecar takes {most:.1} MiB");
    Ok(())
}
