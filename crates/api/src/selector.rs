//! Which workloads a resource applies to.

use mizzen_types::Labels;
use serde::Deserialize;

use crate::wire;

/// `workloadSelector` of the networking API: `labels`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelsSelector {
    #[serde(deserialize_with = "wire::labels")]
    pub labels: Labels,
}

/// `selector` of the security and telemetry APIs, and of DestinationRule: `matchLabels`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    #[serde(deserialize_with = "wire::labels")]
    pub match_labels: Labels,
}

/// `targetRef` and `targetRefs[]`: an object that a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTargetReference {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}
