//! What injection is told once, and read once: the two keys of the ConfigMap `istio-sidecar-injector` and MeshConfig.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::annotation;
use crate::selector::LabelSelector;
use crate::template::{self, Template};
use crate::values::Values;

/// The texts as they stand in the ConfigMaps; empty ones mean Istio's defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// ConfigMap `istio-sidecar-injector`, key `values`: YAML or JSON.
    pub values: &'a str,
    /// The same ConfigMap, key `config`.
    pub config: &'a str,
    /// ConfigMap `istio`, key `mesh`.
    pub mesh: &'a str,
    /// The revision of this control plane; empty means that of the values, else `default`.
    pub revision: &'a str,
    /// Whether the cluster can run native sidecars; it decides where neither the values nor a pod do.
    pub native: bool,
    /// What the process was told to do (`ENABLE_NATIVE_SIDECARS`): `true`, `false`, or anything else to let the values
    /// decide.
    pub native_asked: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} cannot be read: {reason}")]
pub struct SettingsError {
    place: &'static str,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Enabled,
    Disabled,
    /// Neither word: nothing is injected, as in Istio.
    Off,
}

/// What holds for all pods. Made once per change of the ConfigMaps, not per pod.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) values: Values,
    /// The values as they were written, for templates.
    pub(crate) written: Value,
    pub(crate) policy: Policy,
    pub(crate) never: Vec<LabelSelector>,
    pub(crate) always: Vec<LabelSelector>,
    pub(crate) injected_annotations: BTreeMap<String, String>,
    pub(crate) default_templates: Vec<String>,
    pub(crate) aliases: BTreeMap<String, Vec<String>>,
    pub(crate) templates: BTreeMap<String, Template>,
    pub(crate) mesh: Mesh,
    pub(crate) revision: String,
    pub(crate) native: bool,
}

/// The part of MeshConfig that injection reads.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Mesh {
    pub default_config: Map<String, Value>,
    pub trust_domain: String,
    pub root_namespace: String,
    pub enable_prometheus_merge: bool,
    pub proxy_listen_port: u16,
    pub proxy_inbound_listen_port: u16,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            default_config: Map::new(),
            trust_domain: "cluster.local".to_owned(),
            root_namespace: String::new(),
            enable_prometheus_merge: true,
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    policy: String,
    default_templates: Vec<String>,
    aliases: BTreeMap<String, Vec<String>>,
    templates: BTreeMap<String, String>,
    never_inject_selector: Vec<LabelSelector>,
    always_inject_selector: Vec<LabelSelector>,
    injected_annotations: BTreeMap<String, String>,
}

impl Settings {
    /// Reads everything. The notes say what was read but will not be obeyed.
    pub fn read(sources: Sources<'_>) -> Result<(Self, Vec<String>), SettingsError> {
        let mut notes = Vec::new();
        let written = yaml(VALUES, sources.values)?;
        let values: Values = typed(VALUES, &written)?;
        let config: Config = typed(CONFIG, &yaml(CONFIG, sources.config)?)?;
        let mesh: Mesh = typed(MESH, &yaml(MESH, sources.mesh)?)?;
        let webhook = &values.sidecar_injector_webhook;
        let policy = match first(&config.policy, &values.global.proxy.auto_inject) {
            "enabled" => Policy::Enabled,
            "disabled" => Policy::Disabled,
            other => {
                notes.push(format!("the policy `{other}` is neither `enabled` nor `disabled`: no pod is injected"));
                Policy::Off
            }
        };
        if values.pilot.cni.enabled || values.istio_cni.enabled {
            notes.push("pilot.cni.enabled is not obeyed by this release: pods get the init container".to_owned());
        }
        notes.extend(unused(&written));
        let texts = webhook.templates.iter().chain(&config.templates);
        let templates: BTreeMap<String, Template> =
            texts.map(|(name, text)| (name.clone(), template::read(name, text))).collect();
        for (name, template) in &templates {
            notes.extend(template::note(name, template));
        }
        let either = |one: &[LabelSelector], other: &[LabelSelector]| match one {
            [] => other.to_vec(),
            one => one.to_vec(),
        };
        let default_templates =
            [config.default_templates, webhook.default_templates.clone(), vec![template::SIDECAR.to_owned()]]
                .into_iter()
                .find(|names| !names.is_empty())
                .unwrap_or_default();
        let native = annotation::boolean(sources.native_asked)
            .or_else(|| annotation::boolean(&values.pilot.env.enable_native_sidecars))
            .unwrap_or(sources.native);
        let revision = [sources.revision, &values.revision, "default"].into_iter().find(|name| !name.is_empty());
        let settings = Self {
            policy,
            never: either(&config.never_inject_selector, &webhook.never_inject_selector),
            always: either(&config.always_inject_selector, &webhook.always_inject_selector),
            injected_annotations: match config.injected_annotations {
                annotations if annotations.is_empty() => webhook.injected_annotations.clone(),
                annotations => annotations,
            },
            default_templates,
            aliases: config.aliases,
            templates,
            mesh,
            revision: revision.unwrap_or_default().to_owned(),
            native,
            written,
            values,
        };
        Ok((settings, notes))
    }

    /// The revision of this control plane, `default` when it has no other.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The namespace whose resources hold for the whole mesh.
    pub(crate) fn root_namespace(&self) -> &str {
        first(&self.mesh.root_namespace, &self.values.global.istio_namespace)
    }

    /// The control plane's address for discovery and certificates.
    pub(crate) fn control_plane(&self) -> String {
        let suffix = if self.revision == "default" { String::new() } else { format!("-{}", self.revision) };
        format!("istiod{suffix}.{}.svc:15012", self.values.global.istio_namespace)
    }

    pub(crate) fn trust_domain(&self) -> &str {
        first(&self.mesh.trust_domain, &self.values.global.trust_domain)
    }
}

/// Values that Istio's own template reads and ours does not: path, what says nothing, and what happens instead.
const UNUSED: &[(&str, &[&str], &str)] = &[
    ("global.mountMtlsCerts", &["false"], "certificates are not written into the pod; they are in the proxy's memory"),
    ("global.sts.servicePort", &["0"], "there is no token exchange service"),
    ("global.proxy.enableCoreDump", &["false"], "the proxy leaves no core dumps"),
    ("global.proxy.tracer", &["", "none"], "traces are not sent"),
    ("global.caName", &[""], "certificates come from `global.caAddress`, by Istio's protocol"),
];

/// Says which values are set and change nothing.
fn unused(values: &Value) -> Vec<String> {
    let said = |path: &str| {
        let value = path.split('.').try_fold(values, |value, key| value.get(key))?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let note = |(path, nothing, instead): &(&str, &[&str], &str)| {
        let value = said(path).filter(|value| !nothing.contains(&value.as_str()))?;
        Some(format!("`{path}: {}` is not obeyed by this release: {instead}", crate::pod::shortened(&value)))
    };
    UNUSED.iter().filter_map(note).collect()
}

const VALUES: &str = "the injection values";
const CONFIG: &str = "the injection configuration";
const MESH: &str = "the mesh configuration";

pub(crate) fn first<'a>(one: &'a str, other: &'a str) -> &'a str {
    if one.is_empty() { other } else { one }
}

/// A text as YAML, without the keys that have no value: in Helm's output they mean "the default".
fn yaml(place: &'static str, text: &str) -> Result<Value, SettingsError> {
    let mut value = crate::yaml::one(text).map_err(|reason| SettingsError { place, reason })?;
    without_nulls(&mut value);
    Ok(if value.is_null() { Value::Object(Map::new()) } else { value })
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn typed<T: DeserializeOwned>(place: &'static str, value: &Value) -> Result<T, SettingsError> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| SettingsError { place, reason: format!("{}: {}", error.path(), error.inner()) })
}
