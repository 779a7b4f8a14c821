//! Whether a pod is injected: Istio's order of questions.

use std::fmt;

use serde_json::Value;

use crate::names::INJECT;
use crate::pod;
use crate::settings::{Policy, Settings};

/// Pods of these namespaces are left alone, whatever they are labelled.
pub const SYSTEM_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Why a pod is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// The redirection would be the node's.
    HostNetwork,
    SystemNamespace(String),
    /// Its own label or annotation says so.
    Asked {
        annotation: bool,
    },
    NeverSelector(usize),
    Policy,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("the pod uses the network of its node (hostNetwork: true)"),
            Self::SystemNamespace(name) => write!(f, "{name} is a namespace of the system"),
            Self::Asked { annotation: false } => write!(f, "its label {INJECT} says so"),
            Self::Asked { annotation: true } => write!(f, "its annotation {INJECT} says so"),
            Self::NeverSelector(index) => write!(f, "its labels match neverInjectSelector[{index}]"),
            Self::Policy => f.write_str("the policy is `disabled` and the pod does not ask for a sidecar"),
        }
    }
}

/// `None` means that it is injected. `warn` is told what is odd.
pub(crate) fn skip(settings: &Settings, pod: &Value, namespace: &str, warn: &mut Vec<String>) -> Option<Skip> {
    if pod.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or_default() {
        return Some(Skip::HostNetwork);
    }
    if SYSTEM_NAMESPACES.contains(&namespace) {
        return Some(Skip::SystemNamespace(namespace.to_owned()));
    }
    let labels = pod::labels(pod);
    // The label is the newer form, and wins where both stand.
    let (asked, annotation) = match labels.get(INJECT) {
        Some(label) => (label, false),
        None => (pod::annotations(pod).get(INJECT).unwrap_or_default(), true),
    };
    let off = settings.policy == Policy::Off;
    match asked {
        "true" => return off.then_some(Skip::Policy),
        "false" => return Some(Skip::Asked { annotation }),
        "" => {}
        other => warn.push(format!(
            "{} {INJECT} is `{}`; only `true` and `false` have a meaning, so the policy decides",
            if annotation { "annotation" } else { "label" },
            pod::shortened(other)
        )),
    }
    let matching = |selector: &crate::LabelSelector| !selector.is_empty() && selector.matches(labels);
    if let Some(index) = settings.never.iter().position(matching) {
        return Some(Skip::NeverSelector(index));
    }
    let always = settings.always.iter().any(matching);
    match settings.policy {
        Policy::Enabled => None,
        Policy::Disabled => (!always).then_some(Skip::Policy),
        Policy::Off => Some(Skip::Policy),
    }
}
