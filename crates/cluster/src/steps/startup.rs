//! What the sidecar costs at the start of a pod.

use std::time::{Duration, Instant};

use super::services::{MESHED, PLAIN};
use crate::applied::Applied;
use crate::apps::CURL;
use crate::kube::kubectl;
use crate::place::Place;
use crate::run::Report;

const ROUNDS: usize = 3;

fn pod(namespace: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: mizzen-test-start, namespace: {namespace}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: client, image: "{CURL}", command: ["sleep", "36000"], imagePullPolicy: IfNotPresent}}]
"#
    )
}

/// From `kubectl apply` of a pod until it is ready; the shortest of a few, which other work on the machine disturbed least.
fn time(namespace: &str) -> anyhow::Result<Duration> {
    let mut shortest = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let pod = Applied::new(pod(namespace))?;
        kubectl(&["wait", "-n", namespace, "pod/mizzen-test-start", "--for=condition=Ready", "--timeout=120s"])?;
        shortest = shortest.min(began.elapsed());
        drop(pod);
        kubectl(&["wait", "-n", namespace, "pod/mizzen-test-start", "--for=delete", "--timeout=120s"])?;
    }
    Ok(shortest)
}

pub(super) fn overhead(_: &Place, report: &Report) -> anyhow::Result<()> {
    let (plain, meshed) = (time(PLAIN)?, time(MESHED)?);
    report.say("a pod without a sidecar is ready after", format!("{:.1} s", plain.as_secs_f32()));
    report.say("a pod with a sidecar is ready after", format!("{:.1} s", meshed.as_secs_f32()));
    Ok(())
}
