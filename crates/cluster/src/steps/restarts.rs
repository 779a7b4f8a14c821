//! Restarts under load: every request is answered.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::bookinfo::{WORKLOADS, gateway_address};
use crate::kube::{kubectl, rolled_out};
use crate::load::Load;
use crate::place::Place;
use crate::run::Report;

/// Puts load on the page while `what` happens; errors are counted and must be none.
pub(super) fn under_load(
    place: &Place,
    report: &Report,
    label: &str,
    what: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let address = format!("{}:80", gateway_address()?);
    let load = Load::begin(place, &address, "istio.k3s.local", "/api/v1/products/0/reviews", 4)?;
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    let outcome = what();
    std::thread::sleep(Duration::from_secs(3));
    let counted = load.end()?;
    report.say(
        format!("requests during {label}"),
        format!(
            "{} in {:.0} s, {} failed, slowest {:?}",
            counted.requests,
            began.elapsed().as_secs_f32(),
            counted.failed,
            counted.slowest
        ),
    );
    outcome?;
    ensure!(
        counted.failed == 0,
        "{} of {} failed during {label}: {:#?}",
        counted.failed,
        counted.requests,
        counted.reasons
    );
    Ok(())
}

/// Restarts Deployments of a namespace side by side.
pub(super) fn restart(namespace: &str, deployments: &[&str]) -> anyhow::Result<()> {
    for deployment in deployments {
        kubectl(&["rollout", "restart", "-n", namespace, "deploy", deployment])?;
    }
    deployments.iter().try_for_each(|deployment| rolled_out(namespace, &format!("deploy/{deployment}")))
}

pub(super) fn rolling(place: &Place, report: &Report) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    let mut note = |outcome: anyhow::Result<()>| failures.extend(outcome.err().map(|error| format!("{error:#}")));
    note(under_load(place, report, "a rolling restart of the application", || restart("default", &WORKLOADS)));
    note(under_load(place, report, "a rolling restart of the gateway", || {
        restart("istio-ingress", &["istio-ingress"])
    }));
    note(under_load(place, report, "a rolling restart of the control plane", || restart("istio-system", &["istiod"])));
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}
