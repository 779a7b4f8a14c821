//! ProxyConfig, the resource (reference: features 1.7).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::selector::WorkloadSelector;
use crate::wire;

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    pub selector: Option<WorkloadSelector>,
    /// Worker threads; zero means all cores.
    #[serde(deserialize_with = "wire::opt_int")]
    pub concurrency: Option<u32>,
    pub environment_variables: BTreeMap<String, String>,
    pub image: Option<ProxyImage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyImage {
    pub image_type: String,
}
