//! `extensions.istio.io`: the `spec` of each kind (reference: features 1.13).

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::selector::{PolicyTargetReference, WorkloadSelector};
use crate::telemetry::WorkloadMode;
use crate::wire::{self, schema};

/// WasmPlugin runs a WebAssembly module in the proxies of the workloads it selects.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["url"]))]
pub struct WasmPlugin {
    /// Workloads whose labels match; absent means all of the namespace.
    pub selector: Option<WorkloadSelector>,
    /// Deprecated form of `targetRefs` with one entry.
    pub target_ref: Option<PolicyTargetReference>,
    /// Objects that the plugin is attached to; not together with `selector`.
    pub target_refs: Vec<PolicyTargetReference>,
    /// The direction and ports that the plugin sees; absent means all.
    pub r#match: Vec<TrafficSelector>,
    /// Place in the chain of filters; absent means after Istio's own, before the router.
    #[schemars(extend("enum" = ["UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"]))]
    pub phase: String,
    /// Within a phase, higher runs earlier; absent is the lowest.
    #[serde(deserialize_with = "wire::opt_int")]
    pub priority: Option<i32>,
    /// `oci://`, `http://`, `https://` or `file://`; without a scheme it is an OCI image.
    pub url: String,
    /// Checksum that the module must have, in hexadecimal.
    pub sha256: String,
    /// When the module is fetched again; absent means `IfNotPresent`, for the tag `latest` `Always`.
    #[schemars(extend("enum" = ["UNSPECIFIED_POLICY", "IfNotPresent", "Always"]))]
    pub image_pull_policy: String,
    /// Secret of the same namespace with the registry's credentials.
    pub image_pull_secret: String,
    /// Accepted and read by nobody, as in Istio.
    pub verification_key: String,
    /// Handed to the plugin as it is.
    #[schemars(with = "Option<schema::Opaque>")]
    pub plugin_config: Option<Value>,
    /// Name under which the module registers its root context.
    pub plugin_name: String,
    /// What happens to traffic when the module cannot be loaded or dies; absent means `FAIL_CLOSE`.
    #[schemars(extend("enum" = ["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"]))]
    pub fail_strategy: String,
    /// Settings of the virtual machine.
    pub vm_config: Option<VmConfig>,
    /// Whether it is a filter of HTTP (when absent) or of connections.
    #[schemars(extend("enum" = ["UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"]))]
    pub r#type: String,
}

/// The same fields as in [`WasmPlugin`], where a TrafficExtension nests them.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["url"]))]
pub struct WasmModule {
    /// `oci://`, `http://`, `https://` or `file://`; without a scheme it is an OCI image.
    pub url: String,
    /// Checksum that the module must have, in hexadecimal.
    pub sha256: String,
    /// When the module is fetched again; absent means `IfNotPresent`, for the tag `latest` `Always`.
    #[schemars(extend("enum" = ["UNSPECIFIED_POLICY", "IfNotPresent", "Always"]))]
    pub image_pull_policy: String,
    /// Secret of the same namespace with the registry's credentials.
    pub image_pull_secret: String,
    /// Accepted and read by nobody, as in Istio.
    pub verification_key: String,
    /// Handed to the plugin as it is.
    #[schemars(with = "Option<schema::Opaque>")]
    pub plugin_config: Option<Value>,
    /// Name under which the module registers its root context.
    pub plugin_name: String,
    /// What happens to traffic when the module cannot be loaded or dies; absent means `FAIL_CLOSE`.
    #[schemars(extend("enum" = ["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"]))]
    pub fail_strategy: String,
    /// Settings of the virtual machine.
    pub vm_config: Option<VmConfig>,
    /// Whether it is a filter of HTTP (when absent) or of connections.
    #[schemars(extend("enum" = ["UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"]))]
    pub r#type: String,
}

/// Settings of the virtual machine that runs a module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VmConfig {
    /// Environment variables that the module sees.
    pub env: Vec<VmEnv>,
}

/// One environment variable of a module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct VmEnv {
    /// Name of the variable.
    pub name: String,
    /// `INLINE` (when absent): `value`; `HOST`: the proxy's own variable of that name.
    #[schemars(extend("enum" = ["INLINE", "HOST"]))]
    pub value_from: String,
    /// The value, with `valueFrom: INLINE`.
    pub value: String,
}

/// Traffic by direction and port; both have to match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficSelector {
    /// Whether the workload is client or server of the traffic; absent means both.
    #[schemars(extend("x-also" = ["UNDEFINED"]))]
    pub mode: WorkloadMode,
    /// Ports of the destination; empty means all.
    pub ports: Vec<TrafficSelectorPort>,
}

/// A port that is selected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["number"]))]
pub struct TrafficSelectorPort {
    /// The port's number.
    #[serde(deserialize_with = "wire::int")]
    pub number: u16,
}

/// TrafficExtension runs a WebAssembly module or a Lua script in the proxies of the workloads it selects.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficExtension {
    /// Workloads whose labels match; absent means all of the namespace.
    pub selector: Option<WorkloadSelector>,
    /// Objects that the extension is attached to; not together with `selector`.
    pub target_refs: Vec<PolicyTargetReference>,
    /// The direction and ports that the extension sees; absent means all.
    pub r#match: Vec<TrafficSelector>,
    /// Place in the chain of filters; absent means after Istio's own, before the router.
    #[schemars(extend("enum" = ["UNSPECIFIED", "UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"]))]
    pub phase: String,
    /// Within a phase, higher runs earlier; absent is the lowest.
    #[serde(deserialize_with = "wire::opt_int")]
    pub priority: Option<i32>,
    /// A WebAssembly module; not together with `lua`.
    pub wasm: Option<WasmModule>,
    /// A Lua script; not together with `wasm`.
    pub lua: Option<LuaScript>,
}

/// A Lua script for Envoy's Lua filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["inlineCode"]))]
pub struct LuaScript {
    /// The script, at most 64 KiB.
    pub inline_code: String,
}
