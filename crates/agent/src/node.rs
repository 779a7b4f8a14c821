//! The node that the control plane is told: id, cluster, locality and Istio's metadata. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::inputs::Inputs;
use crate::proxy_config::{ClusterNaming, ProxyConfig};
use crate::settings::SettingsError;

/// Variables with this prefix go into the metadata as they are …
const PREFIX: &str = "ISTIO_META_";
/// … and with this one as the JSON that they hold.
const JSON_PREFIX: &str = "ISTIO_METAJSON_";
/// Annotations that only `kubectl` reads, and that may be as large as the pod itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What the node is made of, besides the variables.
pub(crate) struct Facts<'a> {
    pub inputs: &'a Inputs,
    pub config: &'a ProxyConfig,
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
    /// Name that the control plane has to prove.
    pub server_name: &'a str,
    pub health_port: u16,
    pub stats_port: u16,
}

impl Facts<'_> {
    fn pod(&self) -> &str {
        self.inputs.variable("POD_NAME").unwrap_or(&self.inputs.hostname)
    }

    fn namespace(&self) -> &str {
        self.inputs.variable("POD_NAMESPACE").unwrap_or("default")
    }

    /// The main address first.
    fn addresses(&self) -> Result<Vec<IpAddr>, SettingsError> {
        let mut addresses = Vec::new();
        // One address, or all of a pod with two families.
        for text in self.inputs.variable("INSTANCE_IP").unwrap_or_default().split(',').map(str::trim) {
            if !text.is_empty() {
                let address = text.parse().map_err(|_| SettingsError::Variable {
                    name: "INSTANCE_IP",
                    reason: format!("{text:?} is no IP address"),
                })?;
                addresses.push(address);
            }
        }
        for address in &self.inputs.addresses {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        if addresses.is_empty() {
            return Err(SettingsError::NoAddress);
        }
        Ok(addresses)
    }
}

/// The node, as Envoy's bootstrap has it.
pub(crate) fn node(facts: &Facts<'_>) -> Result<Value, SettingsError> {
    let (pod, namespace) = (facts.pod(), facts.namespace());
    let addresses = facts.addresses()?;
    let domain = match &facts.inputs.domain {
        Some(domain) if !domain.is_empty() => domain.clone(),
        _ => format!("{namespace}.svc.cluster.local"),
    };
    let mut node = json!({
        "id": format!("{}~{}~{pod}.{namespace}~{domain}", facts.inputs.role.as_str(), addresses[0]),
        "cluster": cluster(facts),
        "metadata": metadata(facts, &addresses)?,
    });
    if let Some(locality) = locality(facts.labels) {
        node["locality"] = locality;
    }
    Ok(node)
}

fn cluster(facts: &Facts<'_>) -> String {
    let chosen = facts.inputs.service_cluster.as_ref().filter(|name| !name.is_empty());
    if let Some(name) = chosen.or(facts.config.service_cluster.as_ref()) {
        return name.clone();
    }
    let label = |names: &[&str]| names.iter().find_map(|name| facts.labels.get(*name)).filter(|name| !name.is_empty());
    let workload = || facts.inputs.variable("ISTIO_META_WORKLOAD_NAME").unwrap_or("istio-proxy");
    let canonical = || {
        let names = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
        label(&names).map_or_else(workload, String::as_str)
    };
    match facts.config.cluster_naming {
        ClusterNaming::AppLabelAndNamespace => {
            format!("{}.{}", label(&["app"]).map_or_else(workload, String::as_str), facts.namespace())
        }
        ClusterNaming::CanonicalNameOnly => canonical().to_owned(),
        ClusterNaming::CanonicalNameAndNamespace => format!("{}.{}", canonical(), facts.namespace()),
    }
}

fn metadata(facts: &Facts<'_>, addresses: &[IpAddr]) -> Result<Map<String, Value>, SettingsError> {
    let mut metadata = Map::new();
    for (name, value) in &facts.inputs.variables {
        if let Some(key) = name.strip_prefix(PREFIX).filter(|key| !key.is_empty()) {
            metadata.insert(key.to_owned(), value.as_str().into());
        } else if let Some(key) = name.strip_prefix(JSON_PREFIX).filter(|key| !key.is_empty()) {
            let value = serde_json::from_str(value)
                .map_err(|error| SettingsError::MetadataJson { name: name.clone(), reason: error.to_string() })?;
            metadata.insert(key.to_owned(), value);
        }
    }
    let ips: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    metadata.insert("NAME".to_owned(), facts.pod().into());
    metadata.insert("NAMESPACE".to_owned(), facts.namespace().into());
    metadata.insert("INSTANCE_IPS".to_owned(), ips.join(",").into());
    metadata.insert("LABELS".to_owned(), object(facts.labels.clone().into_iter()));
    let annotations = facts.annotations.clone().into_iter().filter(|(key, _)| key != LAST_APPLIED);
    metadata.insert("ANNOTATIONS".to_owned(), object(annotations));
    metadata.insert("PROXY_CONFIG".to_owned(), facts.config.whole.clone().into());
    metadata.insert("PILOT_SAN".to_owned(), json!([facts.server_name]));
    metadata.insert("ENVOY_STATUS_PORT".to_owned(), facts.health_port.into());
    metadata.insert("ENVOY_PROMETHEUS_PORT".to_owned(), facts.stats_port.into());
    metadata.insert("MIZZEN_VERSION".to_owned(), facts.inputs.version.as_str().into());
    for (key, value) in [
        ("SERVICE_ACCOUNT", facts.inputs.variable("SERVICE_ACCOUNT")),
        ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", facts.inputs.variable("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")),
    ] {
        if let Some(value) = value {
            metadata.insert(key.to_owned(), value.into());
        }
    }
    // What injection said wins over what the mesh says for all.
    let mut complete = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            metadata.entry(key).or_insert_with(|| value.into());
        }
    };
    complete("INTERCEPTION_MODE", facts.config.interception_mode.as_deref().or(Some("REDIRECT")));
    complete("MESH_ID", facts.config.mesh_id.as_deref().or(facts.inputs.variable("TRUST_DOMAIN")));
    complete("CLUSTER_ID", Some("Kubernetes"));
    complete("NODE_NAME", facts.inputs.variable("NODE_NAME"));
    Ok(metadata)
}

/// Labels that `ISTIO_METAJSON_LABELS` gives (virtual machines) and those of the pod's file, which win.
pub(crate) fn labels(
    inputs: &Inputs,
    name: &'static str,
    file: Option<&str>,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut all = BTreeMap::new();
    if let Some(text) = inputs.variable(name) {
        let given: BTreeMap<String, String> = serde_json::from_str(text)
            .map_err(|error| SettingsError::MetadataJson { name: name.to_owned(), reason: error.to_string() })?;
        all.extend(given);
    }
    all.extend(crate::podinfo::parse(file.unwrap_or_default()));
    Ok(all)
}

/// `region/zone/subzone`, in the older label with dots.
fn locality(labels: &BTreeMap<String, String>) -> Option<Value> {
    let text = match (labels.get("topology.istio.io/locality"), labels.get("istio-locality")) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) if text.contains('/') => text.clone(),
        (None, text) => text?.replace('.', "/"),
    };
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    Some(json!({"region": part(), "zone": part(), "sub_zone": part()}))
}

fn object(entries: impl Iterator<Item = (String, String)>) -> Value {
    Value::Object(entries.map(|(key, value)| (key, value.into())).collect())
}
