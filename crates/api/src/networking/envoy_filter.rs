//! EnvoyFilter: patches of what is sent to proxies (reference: features 1.8).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::selector::{LabelsSelector, PolicyTargetReference};
use crate::wire::{self, schema};

/// Patches of the configuration that proxies are sent.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyFilter {
    /// Workloads whose proxies are patched; absent means all of the namespace.
    pub workload_selector: Option<LabelsSelector>,
    /// Objects whose proxies are patched; not together with `workloadSelector`.
    pub target_refs: Vec<PolicyTargetReference>,
    /// The patches, in order.
    pub config_patches: Vec<EnvoyConfigObjectPatch>,
    /// Lower runs first.
    #[serde(deserialize_with = "wire::int")]
    pub priority: i32,
}

/// One patch.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyConfigObjectPatch {
    /// Kind of object that is patched.
    #[schemars(extend("enum" = ["INVALID", "LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE", "CLUSTER", "EXTENSION_CONFIG", "BOOTSTRAP", "LISTENER_FILTER"]))]
    pub apply_to: String,
    /// Which objects are patched; absent means all.
    pub r#match: Option<EnvoyConfigObjectMatch>,
    /// What is done to them.
    pub patch: Option<Patch>,
}

/// Which objects are patched.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyConfigObjectMatch {
    /// Direction and place of the configuration.
    pub context: PatchContext,
    /// Proxies that are patched.
    pub proxy: Option<ProxyMatch>,
    /// Listeners that are patched.
    pub listener: Option<ListenerMatch>,
    /// Route tables that are patched.
    pub route_configuration: Option<RouteConfigurationMatch>,
    /// Clusters that are patched.
    pub cluster: Option<ClusterMatch>,
    /// Parts of a waypoint that are patched.
    pub waypoint: Option<WaypointMatch>,
}

/// Direction and place of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PatchContext {
    #[default]
    Any,
    SidecarInbound,
    SidecarOutbound,
    Gateway,
    Waypoint,
}

/// Proxies that are patched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyMatch {
    /// Expression that the proxy's version matches.
    pub proxy_version: String,
    /// Metadata that the proxy must have.
    pub metadata: BTreeMap<String, String>,
}

/// Listeners that are patched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerMatch {
    /// Name of the listener.
    pub name: String,
    /// Port of the listener; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub port_number: u16,
    /// Accepted and read by nobody, as in Istio.
    pub port_name: String,
    /// Listener filter that is patched.
    pub listener_filter: String,
    /// Filter chain that is patched.
    pub filter_chain: Option<FilterChainMatch>,
}

/// A filter chain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterChainMatch {
    /// Name of the chain.
    pub name: String,
    /// Server name that the chain is for.
    pub sni: String,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: String,
    /// Protocols (ALPN) that the chain is for, separated by commas.
    pub application_protocols: String,
    /// Network filter that is patched, or beside which one is put.
    pub filter: Option<FilterMatch>,
    /// Destination port that the chain is for; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub destination_port: u16,
    /// Transport socket that the chain has.
    #[schemars(with = "schema::Anything")]
    pub transport_socket: Option<Value>,
}

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterMatch {
    /// Name of the filter.
    pub name: String,
    /// A filter inside of it, such as an HTTP filter.
    pub sub_filter: Option<SubFilterMatch>,
}

/// A filter inside another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SubFilterMatch {
    /// Name of the filter.
    pub name: String,
}

/// Route tables that are patched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteConfigurationMatch {
    /// Name of the table.
    pub name: String,
    /// Port that the table serves; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub port_number: u16,
    /// Name of the server's port, at a gateway.
    pub port_name: String,
    /// Gateway that the table serves, as `namespace/name`.
    pub gateway: String,
    /// Virtual host that is patched.
    pub vhost: Option<VirtualHostMatch>,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualHostMatch {
    /// Name of the virtual host.
    pub name: String,
    /// A domain that it serves.
    pub domain_name: String,
    /// Route that is patched.
    pub route: Option<RouteMatch>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteMatch {
    /// Name of the route.
    pub name: String,
    /// `ANY`, `ROUTE`, `REDIRECT` or `DIRECT_RESPONSE`.
    #[schemars(extend("enum" = ["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"]))]
    pub action: String,
}

/// Clusters that are patched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterMatch {
    /// Port of the service; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub port_number: u16,
    /// Full name of the service.
    pub service: String,
    /// Name of the subset.
    pub subset: String,
    /// Name of the cluster.
    pub name: String,
}

/// Which part of a waypoint's configuration is patched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WaypointMatch {
    /// Port of the service; zero means any.
    #[serde(deserialize_with = "wire::int")]
    pub port_number: u16,
    /// The filter that is patched, or beside which one is put.
    pub filter: Option<FilterMatch>,
    /// The route that is patched.
    pub route: Option<WaypointRouteMatch>,
}

/// A route of a waypoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WaypointRouteMatch {
    /// Name of the route; empty means any.
    pub name: String,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Patch {
    /// How the value is put there.
    #[schemars(extend("enum" = ["INVALID", "MERGE", "ADD", "REMOVE", "INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST", "REPLACE", "MERGE_AND_REPLACE_LIST"]))]
    pub operation: String,
    /// A partial message of Envoy's API.
    #[schemars(with = "Option<schema::Opaque>")]
    pub value: Option<Value>,
    /// Where a filter is put among Istio's own.
    #[schemars(extend("enum" = ["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"]))]
    pub filter_class: String,
}
