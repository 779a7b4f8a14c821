//! Kubernetes kinds, only the fields the mesh reads. Unknown fields are no mistake here.
//!
//! `metadata` is not in these structs: it is the same for every object and is kept beside them.

mod pod;

use std::collections::BTreeMap;

use mizzen_types::Labels;
use serde::Deserialize;

use crate::wire::{self, IntOrString};

pub use pod::*;

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    pub spec: ServiceSpec,
    pub status: ServiceStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    pub ports: Vec<ServicePort>,
    #[serde(deserialize_with = "wire::labels")]
    pub selector: Labels,
    /// `None` means headless; see [`ServiceSpec::is_headless`].
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// `ClusterIP` (also when empty), `NodePort`, `LoadBalancer` or `ExternalName`.
    pub r#type: String,
    pub external_name: String,
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    pub publish_not_ready_addresses: bool,
    pub internal_traffic_policy: String,
    pub traffic_distribution: String,
}

impl ServiceSpec {
    pub fn is_headless(&self) -> bool {
        self.cluster_ip.eq_ignore_ascii_case("none")
    }

    /// All cluster addresses; none for a headless service or before one is assigned.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let single = self.cluster_ips.is_empty().then_some(self.cluster_ip.as_str());
        let listed = self.cluster_ips.iter().map(String::as_str);
        listed.chain(single).filter(|address| !address.is_empty() && !address.eq_ignore_ascii_case("none"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    pub name: String,
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    pub protocol: String,
    /// Absent means the same as `port`.
    pub target_port: Option<IntOrString>,
    pub app_protocol: Option<String>,
    #[serde(deserialize_with = "wire::int")]
    pub node_port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    pub load_balancer: LoadBalancerStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    pub ingress: Vec<LoadBalancerIngress>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    pub ip: String,
    pub hostname: String,
}

/// Its Service is named by the label `kubernetes.io/service-name`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// The label that names the Service.
    pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
}

/// An address that belongs to an object, in practice to a Service; the object's name is the address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IPAddress {
    pub spec: IPAddressSpec,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IPAddressSpec {
    pub parent_ref: ParentReference,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    pub group: String,
    /// In the plural, as in the API's paths: `services`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    pub addresses: Vec<String>,
    pub conditions: EndpointConditions,
    pub hostname: String,
    pub node_name: String,
    pub zone: String,
    pub target_ref: Option<ObjectReference>,
}

/// An absent condition is unknown: `ready` and `serving` then count as true, `terminating` as false.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    pub name: String,
    #[serde(deserialize_with = "wire::int")]
    pub port: u16,
    pub protocol: String,
    pub app_protocol: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAccount {}

/// Its labels are what is read: `topology.kubernetes.io/region` and `…/zone`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {}

#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    pub r#type: String,
    #[serde(deserialize_with = "wire::bytes_map")]
    pub data: BTreeMap<String, Vec<u8>>,
    pub string_data: BTreeMap<String, String>,
}

impl Secret {
    /// A value by key; `stringData` wins over `data`, as in Kubernetes.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.string_data.get(key).map(String::as_bytes).or_else(|| self.data.get(key).map(Vec::as_slice))
    }
}

/// Names the keys only: values are not for logs.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret").field("type", &self.r#type).field("keys", &keys).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMap {
    pub data: BTreeMap<String, String>,
}
