//! ProxyConfig, the resource (reference: features 1.7).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::selector::WorkloadSelector;
use crate::wire;

/// Settings of the proxies of some workloads; they are taken when a pod starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Workloads whose labels match; absent means all of the namespace.
    pub selector: Option<WorkloadSelector>,
    /// Worker threads; zero means all cores.
    #[serde(deserialize_with = "wire::opt_int")]
    pub concurrency: Option<u32>,
    /// Environment of the proxy.
    pub environment_variables: BTreeMap<String, String>,
    /// The proxy's image.
    pub image: Option<ProxyImage>,
}

/// The proxy's image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyImage {
    /// `default`, `debug` or `distroless`.
    pub image_type: String,
}
