//! The values that injection reads: the key `values` of the ConfigMap `istio-sidecar-injector`, named as Istio's chart
//! names them. Keys that are not here belong to others (the chart, mostly) and are passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::selector::LabelSelector;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Values {
    #[serde(deserialize_with = "text")]
    pub revision: String,
    pub global: Global,
    pub sidecar_injector_webhook: SidecarInjectorWebhook,
    pub pilot: Pilot,
    #[serde(rename = "istio_cni")]
    pub istio_cni: Cni,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Global {
    #[serde(deserialize_with = "text")]
    pub istio_namespace: String,
    #[serde(deserialize_with = "text")]
    pub hub: String,
    #[serde(deserialize_with = "text")]
    pub tag: String,
    #[serde(deserialize_with = "text")]
    pub variant: String,
    #[serde(deserialize_with = "text")]
    pub image: String,
    #[serde(deserialize_with = "text")]
    pub image_pull_policy: String,
    pub image_pull_secrets: Vec<SecretName>,
    pub logging: Logging,
    #[serde(deserialize_with = "flag")]
    pub log_as_json: bool,
    #[serde(deserialize_with = "text")]
    pub ca_address: String,
    #[serde(deserialize_with = "text")]
    pub pilot_cert_provider: String,
    pub multi_cluster: MultiCluster,
    #[serde(deserialize_with = "text")]
    pub network: String,
    #[serde(rename = "meshID", deserialize_with = "text")]
    pub mesh_id: String,
    #[serde(deserialize_with = "text")]
    pub trust_domain: String,
    pub sds: Sds,
    #[serde(rename = "podDNSSearchNamespaces")]
    pub pod_dns_search_namespaces: Vec<String>,
    #[serde(deserialize_with = "flag")]
    pub native_nftables: bool,
    pub proxy: Proxy,
    #[serde(rename = "proxy_init")]
    pub proxy_init: ProxyInit,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            istio_namespace: "istio-system".to_owned(),
            hub: "docker.io/mizzen".to_owned(),
            tag: env!("CARGO_PKG_VERSION").to_owned(),
            variant: String::new(),
            image: "mizzen".to_owned(),
            image_pull_policy: String::new(),
            image_pull_secrets: Vec::new(),
            logging: Logging::default(),
            log_as_json: false,
            ca_address: String::new(),
            pilot_cert_provider: "istiod".to_owned(),
            multi_cluster: MultiCluster::default(),
            network: String::new(),
            mesh_id: String::new(),
            trust_domain: String::new(),
            sds: Sds::default(),
            pod_dns_search_namespaces: Vec::new(),
            native_nftables: false,
            proxy: Proxy::default(),
            proxy_init: ProxyInit::default(),
        }
    }
}

/// Istio takes plain names; Kubernetes' own form is understood too.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum SecretName {
    Name(String),
    Reference { name: String },
}

impl SecretName {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::Reference { name } => name,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Logging {
    #[serde(deserialize_with = "text")]
    pub level: String,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "default:info".to_owned() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MultiCluster {
    #[serde(deserialize_with = "text")]
    pub cluster_name: String,
}

impl Default for MultiCluster {
    fn default() -> Self {
        Self { cluster_name: "Kubernetes".to_owned() }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Sds {
    pub token: SdsToken,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct SdsToken {
    #[serde(deserialize_with = "text")]
    pub aud: String,
}

impl Default for SdsToken {
    fn default() -> Self {
        Self { aud: "istio-ca".to_owned() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Proxy {
    #[serde(deserialize_with = "text")]
    pub image: String,
    #[serde(deserialize_with = "text")]
    pub auto_inject: String,
    #[serde(deserialize_with = "text")]
    pub cluster_domain: String,
    #[serde(deserialize_with = "text")]
    pub log_level: String,
    #[serde(deserialize_with = "text")]
    pub component_log_level: String,
    #[serde(rename = "includeIPRanges", deserialize_with = "text")]
    pub include_ip_ranges: String,
    #[serde(rename = "excludeIPRanges", deserialize_with = "text")]
    pub exclude_ip_ranges: String,
    #[serde(deserialize_with = "text")]
    pub include_inbound_ports: String,
    #[serde(deserialize_with = "text")]
    pub exclude_inbound_ports: String,
    #[serde(deserialize_with = "text")]
    pub include_outbound_ports: String,
    #[serde(deserialize_with = "text")]
    pub exclude_outbound_ports: String,
    #[serde(deserialize_with = "number")]
    pub status_port: u16,
    #[serde(deserialize_with = "flag")]
    pub privileged: bool,
    pub resources: Map<String, Value>,
    #[serde(deserialize_with = "number")]
    pub readiness_initial_delay_seconds: u32,
    #[serde(deserialize_with = "number")]
    pub readiness_period_seconds: u32,
    #[serde(deserialize_with = "number")]
    pub readiness_failure_threshold: u32,
    pub startup_probe: StartupProbe,
    pub lifecycle: Map<String, Value>,
    pub seccomp_profile: Map<String, Value>,
    #[serde(deserialize_with = "flag")]
    pub hold_application_until_proxy_starts: bool,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            image: String::new(),
            auto_inject: "enabled".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            log_level: "warning".to_owned(),
            component_log_level: "misc:error".to_owned(),
            include_ip_ranges: "*".to_owned(),
            exclude_ip_ranges: String::new(),
            include_inbound_ports: "*".to_owned(),
            exclude_inbound_ports: String::new(),
            include_outbound_ports: String::new(),
            exclude_outbound_ports: String::new(),
            status_port: 15020,
            privileged: false,
            resources: Map::new(),
            readiness_initial_delay_seconds: 0,
            readiness_period_seconds: 15,
            readiness_failure_threshold: 4,
            startup_probe: StartupProbe::default(),
            lifecycle: Map::new(),
            seccomp_profile: Map::new(),
            hold_application_until_proxy_starts: false,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StartupProbe {
    #[serde(deserialize_with = "flag")]
    pub enabled: bool,
    #[serde(deserialize_with = "number")]
    pub failure_threshold: u32,
}

impl Default for StartupProbe {
    fn default() -> Self {
        Self { enabled: true, failure_threshold: 600 }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ProxyInit {
    #[serde(deserialize_with = "text")]
    pub image: String,
    pub resources: Map<String, Value>,
    #[serde(deserialize_with = "flag")]
    pub force_apply_iptables: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SidecarInjectorWebhook {
    #[serde(rename = "rewriteAppHTTPProbe", deserialize_with = "flag")]
    pub rewrite_app_http_probe: bool,
    pub never_inject_selector: Vec<LabelSelector>,
    pub always_inject_selector: Vec<LabelSelector>,
    pub injected_annotations: BTreeMap<String, String>,
    pub templates: BTreeMap<String, String>,
    pub default_templates: Vec<String>,
}

impl Default for SidecarInjectorWebhook {
    fn default() -> Self {
        Self {
            rewrite_app_http_probe: true,
            never_inject_selector: Vec::new(),
            always_inject_selector: Vec::new(),
            injected_annotations: BTreeMap::new(),
            templates: BTreeMap::new(),
            default_templates: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pilot {
    pub env: PilotEnv,
    pub cni: Cni,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PilotEnv {
    #[serde(rename = "ENABLE_NATIVE_SIDECARS", deserialize_with = "text")]
    pub enable_native_sidecars: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cni {
    #[serde(deserialize_with = "flag")]
    pub enabled: bool,
}

/// A string; numbers and booleans are taken as they are written (a tag such as `1.2` is a number in YAML).
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        other => Err(serde::de::Error::custom(format!("has to be a string, not {}", kind(&other)))),
    }
}

fn number<'de, D: Deserializer<'de>, N: TryFrom<u64>>(deserializer: D) -> Result<N, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| serde::de::Error::custom(format!("has to be a number in range, not {value}")))
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let flag = match &value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => crate::annotation::boolean(text),
        _ => None,
    };
    flag.ok_or_else(|| serde::de::Error::custom(format!("has to be true or false, not {value}")))
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
