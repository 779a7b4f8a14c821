//! Which workloads a resource applies to.

use mizzen_types::Labels;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::wire::{self, schema};

/// `workloadSelector` of the networking API: `labels`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelsSelector {
    /// All of these labels have to match.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub labels: Labels,
}

/// `selector` of the security and telemetry APIs, and of DestinationRule: `matchLabels`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// All of these labels have to match.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub match_labels: Labels,
}

/// `targetRef` and `targetRefs[]`: an object that a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct PolicyTargetReference {
    /// Group of the object; empty means Kubernetes' own.
    pub group: String,
    /// Kind of the object, such as `Gateway` or `Service`.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Must be empty: the object is of the same namespace.
    pub namespace: String,
}
