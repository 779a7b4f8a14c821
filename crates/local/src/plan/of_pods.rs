//! What a pod says about its sidecar in a cluster, and what becomes of it here.

use crate::capture::Capture;
use crate::manifest::Deployment;
use crate::netns::inside::{CAUGHT, OBEYED};

/// What a Deployment asks of its sidecar and does not get.
pub(super) fn notes(deployment: &Deployment, capture: Capture) -> Vec<String> {
    let mut notes = Vec::new();
    let mut say = |name: &str, value: &str, instead: &str| {
        let (namespace, deployment) = (&deployment.namespace, &deployment.name);
        let value: String = value.chars().take(40).collect();
        notes.push(format!("Deployment {namespace}/{deployment}: `{name}: {value}` is not obeyed here: {instead}"));
    };
    let labels = deployment.labels.iter().filter(|(name, _)| *name == "sidecar.istio.io/inject");
    for (name, value) in deployment.annotations.iter().chain(labels) {
        match (name.as_str(), capture) {
            ("sidecar.istio.io/inject", _) if value == "false" => {
                say(name, value, "every workload has its proxy");
            }
            ("sidecar.istio.io/interceptionMode", Capture::Netns) if value != "REDIRECT" => {
                say(name, value, "connections are redirected (REDIRECT)");
            }
            ("sidecar.istio.io/interceptionMode", Capture::Explicit) if value != "NONE" => {
                say(name, value, "nothing is redirected without `--capture netns`");
            }
            ("proxy.istio.io/config", _) => {
                say(name, value, "all proxies run alike");
            }
            (caught, Capture::Explicit) if caught.starts_with(CAUGHT) => {
                say(name, value, "nothing is redirected without `--capture netns`");
            }
            (caught, Capture::Netns) if caught.strip_prefix(CAUGHT).is_some_and(|key| !OBEYED.contains(&key)) => {
                say(name, value, "it has no meaning in the network of this mesh");
            }
            _ => {}
        }
    }
    notes
}
