//! Istio's `ProxyConfig`: the mesh's defaults, what injection wrote into `PROXY_CONFIG`, and the pod's own annotation.
//!
//! It is kept as JSON, since the control plane is told all of it; what the agent itself needs is read out once. Pure.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::duration;
use crate::inputs::Inputs;
use crate::settings::SettingsError;

/// The annotation with which a pod overrides its proxy configuration.
pub const ANNOTATION: &str = "proxy.istio.io/config";

/// What the agent obeys, and the whole for the control plane.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyConfig {
    pub discovery_address: String,
    /// Plaintext discovery was asked for (`controlPlaneAuthPolicy: NONE`).
    pub plaintext: bool,
    pub status_port: u16,
    pub admin_port: u16,
    pub drain: Duration,
    pub termination_drain: Duration,
    /// Absent: by the processor limit. 0: one thread for each processor.
    pub concurrency: Option<u32>,
    pub service_cluster: Option<String>,
    pub cluster_naming: ClusterNaming,
    /// `REDIRECT`, `TPROXY` or `NONE`.
    pub interception_mode: Option<String>,
    pub mesh_id: Option<String>,
    /// Further environment.
    pub metadata: Vec<(String, String)>,
    /// More roots that the control plane may be recognised by.
    pub further_roots: Vec<String>,
    /// Everything, as it goes into the node's metadata.
    pub whole: Map<String, Value>,
}

/// What the node's `cluster` is made of (`tracingServiceName`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterNaming {
    AppLabelAndNamespace,
    CanonicalNameOnly,
    CanonicalNameAndNamespace,
}

fn defaults() -> Map<String, Value> {
    let defaults = json!({
        "configPath": "./etc/istio/proxy",
        "binaryPath": "/usr/local/bin/envoy",
        "serviceCluster": "istio-proxy",
        "drainDuration": "45s",
        "terminationDrainDuration": "5s",
        "proxyAdminPort": 15000,
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "discoveryAddress": "istiod.istio-system.svc:15012",
        "statNameLength": 189,
        "statusPort": 15020,
        "tracing": {},
    });
    match defaults {
        Value::Object(defaults) => defaults,
        _ => Map::new(),
    }
}

/// Puts the layers on top of each other and reads the result.
pub fn read(inputs: &Inputs, annotation: Option<&str>) -> Result<ProxyConfig, SettingsError> {
    let mut whole = defaults();
    if let Some(mesh) = &inputs.mesh {
        let mesh = object("the mesh configuration file", mesh)?;
        if let Some(Value::Object(default)) = mesh.get("defaultConfig") {
            overlay(&mut whole, default.clone());
        }
    }
    if let Some(text) = inputs.variable("PROXY_CONFIG") {
        overlay(&mut whole, object("PROXY_CONFIG", text)?);
    }
    if let Some(text) = annotation.filter(|text| !text.trim().is_empty()) {
        overlay(&mut whole, object("the annotation proxy.istio.io/config", text)?);
    }
    of(whole)
}

/// JSON is YAML, so one reader does for both.
fn object(source: &'static str, text: &str) -> Result<Map<String, Value>, SettingsError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(SettingsError::Text { source_name: source, reason: "it is no object".to_owned() }),
        Err(error) => Err(SettingsError::Text { source_name: source, reason: error.to_string() }),
    }
}

/// Fields replace each other; the entries of `proxyMetadata` and `runtimeValues` add up.
fn overlay(whole: &mut Map<String, Value>, above: Map<String, Value>) {
    for (name, value) in above {
        // Protobuf's JSON takes both spellings.
        let name = camel_case(&name);
        match (whole.get_mut(&name), value) {
            (Some(Value::Object(below)), Value::Object(entries))
                if name == "proxyMetadata" || name == "runtimeValues" =>
            {
                below.extend(entries);
            }
            (_, Value::Null) => {}
            (_, value) => {
                // The two are alternatives: the upper layer's choice replaces the other's.
                let other = match name.as_str() {
                    "serviceCluster" => Some("tracingServiceName"),
                    "tracingServiceName" => Some("serviceCluster"),
                    _ => None,
                };
                if let Some(other) = other {
                    whole.shift_remove(other);
                }
                whole.insert(name, value);
            }
        }
    }
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut name, part| {
        let mut letters = part.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

fn of(whole: Map<String, Value>) -> Result<ProxyConfig, SettingsError> {
    let wrong = |field: &'static str, reason: String| SettingsError::Field { field, reason };
    let text = |field: &'static str| match whole.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(other) => Err(wrong(field, format!("{other} is no text"))),
    };
    let number = |field: &'static str| match whole.get(field) {
        None => Ok(None),
        Some(value) => {
            let read = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
            read.and_then(|number| u32::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| wrong(field, format!("{value} is no number that fits")))
        }
    };
    let port = |field: &'static str, default: u16| {
        let number = number(field)?;
        number.map_or(Ok(default), |port| {
            u16::try_from(port).map_err(|_| wrong(field, format!("{port} is no port; the largest is 65535")))
        })
    };
    let time = |field: &'static str| {
        text(field)?.map_or(Ok(Duration::ZERO), |text| duration::parse(&text).map_err(|reason| wrong(field, reason)))
    };
    let metadata = match whole.get("proxyMetadata") {
        None => Vec::new(),
        Some(Value::Object(entries)) => {
            let entry = |(key, value): (&String, &Value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                Value::Bool(_) | Value::Number(_) => Ok((key.clone(), value.to_string())),
                other => Err(wrong("proxyMetadata", format!("the value of {key:?} is no text: {other}"))),
            };
            entries.iter().map(entry).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong("proxyMetadata", format!("{other} is no object"))),
    };
    let further_roots = match whole.get("caCertificatesPem") {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(other) => return Err(wrong("caCertificatesPem", format!("{other} is no list"))),
    };
    let interception_mode = match text("interceptionMode")?.as_deref() {
        None => None,
        Some(mode @ ("REDIRECT" | "TPROXY" | "NONE")) => Some(mode.to_owned()),
        Some(other) => {
            return Err(wrong("interceptionMode", format!("{other:?} is not one of REDIRECT, TPROXY, NONE")));
        }
    };
    let plaintext = match text("controlPlaneAuthPolicy")?.as_deref() {
        None | Some("MUTUAL_TLS") => false,
        Some("NONE") => true,
        Some(other) => {
            return Err(wrong("controlPlaneAuthPolicy", format!("{other:?} is neither MUTUAL_TLS nor NONE")));
        }
    };
    let cluster_naming = match text("tracingServiceName")?.as_deref() {
        None | Some("APP_LABEL_AND_NAMESPACE") => ClusterNaming::AppLabelAndNamespace,
        Some("CANONICAL_NAME_ONLY") => ClusterNaming::CanonicalNameOnly,
        Some("CANONICAL_NAME_AND_NAMESPACE") => ClusterNaming::CanonicalNameAndNamespace,
        Some(other) => return Err(wrong("tracingServiceName", format!("{other:?} is not known"))),
    };
    Ok(ProxyConfig {
        discovery_address: text("discoveryAddress")?
            .ok_or_else(|| wrong("discoveryAddress", "it is empty".to_owned()))?,
        plaintext,
        status_port: port("statusPort", 15020)?,
        admin_port: port("proxyAdminPort", 15000)?,
        drain: time("drainDuration")?,
        termination_drain: time("terminationDrainDuration")?,
        concurrency: number("concurrency")?,
        // Istio's default is no choice.
        service_cluster: text("serviceCluster")?.filter(|name| name != "istio-proxy"),
        cluster_naming,
        interception_mode,
        mesh_id: text("meshId")?,
        metadata,
        further_roots,
        whole,
    })
}
