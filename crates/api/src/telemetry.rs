//! `telemetry.istio.io` Telemetry (reference: features 1.12).

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::selector::{PolicyTargetReference, WorkloadSelector};
use crate::wire::{self, schema};

/// Says what proxies count, log and trace, and where they send it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// Workloads whose labels match; absent means all of the namespace, or of the mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    /// Deprecated form of `targetRefs` with one entry.
    pub target_ref: Option<PolicyTargetReference>,
    /// Objects that this is attached to; not together with `selector`.
    pub target_refs: Vec<PolicyTargetReference>,
    /// Traces.
    pub tracing: Vec<Tracing>,
    /// Metrics.
    pub metrics: Vec<Metrics>,
    /// Access logs.
    pub access_logging: Vec<AccessLogging>,
}

/// Names an extension provider of the mesh's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct ProviderRef {
    /// Name of the provider.
    pub name: String,
}

/// The workload's part in the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    #[default]
    #[serde(alias = "UNDEFINED")]
    ClientAndServer,
    Client,
    Server,
}

/// Which exchanges this is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModeMatch {
    /// The workload's part in the exchange.
    pub mode: WorkloadMode,
}

/// Traces.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// Which exchanges this is for; absent means all.
    pub r#match: Option<ModeMatch>,
    /// Where spans are sent; the first counts.
    pub providers: Vec<ProviderRef>,
    /// Share of requests that are traced, in percent.
    #[serde(deserialize_with = "wire::opt_bare_percent")]
    #[schemars(with = "schema::BarePercent")]
    pub random_sampling_percentage: Option<mizzen_types::Percent>,
    /// Passes trace headers on without sending spans.
    pub disable_span_reporting: Option<bool>,
    /// More tags of spans, by name.
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Whether `x-request-id` carries the decision to trace; absent means yes.
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Whether spans get Istio's tags; absent means yes.
    pub enable_istio_tags: Option<bool>,
    /// Does not write trace headers.
    pub disable_context_propagation: Option<bool>,
}

/// Where the value of a tag comes from; one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomTag {
    /// Always the same.
    pub literal: Option<LiteralTag>,
    /// An environment variable of the proxy.
    pub environment: Option<NamedTag>,
    /// A request header.
    pub header: Option<NamedTag>,
    /// A text with Envoy's format words.
    pub formatter: Option<LiteralTag>,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["value"]))]
pub struct LiteralTag {
    /// The value.
    pub value: String,
}

/// A name, and a value for its absence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct NamedTag {
    /// The name.
    pub name: String,
    /// The value when it is absent.
    pub default_value: String,
}

/// Metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Where metrics go.
    pub providers: Vec<ProviderRef>,
    /// Changes of single metrics, in order.
    pub overrides: Vec<MetricsOverrides>,
    /// How often open TCP connections are counted; absent means 5s.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub reporting_interval: Option<Duration>,
}

/// A change of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricsOverrides {
    /// Which metrics; absent means all.
    pub r#match: Option<MetricSelector>,
    /// Leaves them out.
    pub disabled: Option<bool>,
    /// Changes of tags, by name.
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// Which metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSelector {
    /// One of Istio's metrics.
    pub metric: Option<IstioMetric>,
    /// A metric by its name.
    pub custom_metric: Option<String>,
    /// The workload's part in the exchange.
    pub mode: WorkloadMode,
}

/// One of Istio's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IstioMetric {
    AllMetrics,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

/// A change of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TagOverride {
    /// Sets or removes the tag.
    pub operation: TagOperation,
    /// The new value, an expression in CEL.
    pub value: String,
}

/// Sets or removes a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    #[default]
    Upsert,
    Remove,
}

/// Access logs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogging {
    /// Which exchanges this is for; absent means all.
    pub r#match: Option<ModeMatch>,
    /// Where logs go.
    pub providers: Vec<ProviderRef>,
    /// Writes none.
    pub disabled: Option<bool>,
    /// Which requests are logged.
    pub filter: Option<AccessLogFilter>,
}

/// Which requests are logged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogFilter {
    /// A condition in CEL; only requests for which it holds are logged.
    pub expression: String,
}
