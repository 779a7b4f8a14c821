//! The pod template of a Deployment, as far as a local process can follow it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::PortRef;
use super::document::text;
use crate::probe::Probe;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodTemplate {
    pub annotations: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub service_account: String,
    pub containers: Vec<Container>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub ports: Vec<ContainerPort>,
    pub env: Vec<EnvVar>,
    pub readiness: Option<Probe>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ContainerPort {
    pub name: String,
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EnvVar {
    pub name: String,
    pub value: ValueSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    Literal(String),
    /// A field of the pod, such as `metadata.name` or `status.podIP`.
    Field(String),
    /// From a Secret or ConfigMap or the like, which a local process does not get.
    Unsupported(String),
}

pub(super) fn template(value: &Value) -> Result<PodTemplate, String> {
    let account = match text(value, "/spec/serviceAccountName") {
        "" => "default",
        account => account,
    };
    let containers = value.pointer("/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
    let containers = containers.iter().enumerate().map(|(index, value)| {
        container(value).map_err(|what| format!("spec.template.spec.containers[{index}].{what}"))
    });
    Ok(PodTemplate {
        annotations: string_map(value.pointer("/metadata/annotations")),
        labels: string_map(value.pointer("/metadata/labels")),
        service_account: account.to_owned(),
        containers: containers.collect::<Result<_, _>>()?,
    })
}

fn container(value: &Value) -> Result<Container, String> {
    let list = |field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let ports = list("ports")
        .iter()
        .enumerate()
        .map(|(index, port)| {
            let number = port.get("containerPort").and_then(port_number);
            let number =
                number.ok_or_else(|| format!("ports[{index}].containerPort: a number from 1 to 65535 is needed"))?;
            Ok(ContainerPort { name: text(port, "/name").to_owned(), number })
        })
        .collect::<Result<_, String>>()?;
    let readiness = match value.get("readinessProbe") {
        None | Some(Value::Null) => None,
        Some(probe) => Some(Probe::parse(probe).map_err(|what| format!("readinessProbe{what}"))?),
    };
    Ok(Container {
        name: text(value, "/name").to_owned(),
        image: text(value, "/image").to_owned(),
        ports,
        env: list("env").iter().map(env_var).collect(),
        readiness,
    })
}

fn env_var(value: &Value) -> EnvVar {
    let source = match (value.get("valueFrom"), value.pointer("/valueFrom/fieldRef/fieldPath")) {
        (_, Some(Value::String(field))) => ValueSource::Field(field.clone()),
        (Some(Value::Object(source)), _) => {
            ValueSource::Unsupported(source.keys().next().map_or_else(String::new, Clone::clone))
        }
        _ => ValueSource::Literal(scalar(value.get("value"))),
    };
    EnvVar { name: text(value, "/name").to_owned(), value: source }
}

/// Numbers and booleans that were not quoted are taken as they are written.
fn scalar(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

pub(super) fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(map)) = value else { return BTreeMap::new() };
    map.iter().map(|(key, value)| (key.clone(), scalar(Some(value)))).collect()
}

pub(super) fn port_number(value: &Value) -> Option<u16> {
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))?;
    u16::try_from(number).ok().filter(|number| *number > 0)
}

pub(crate) fn port_ref(value: &Value) -> Option<PortRef> {
    match (port_number(value), value) {
        (Some(number), _) => Some(PortRef::Number(number)),
        (None, Value::String(name)) if !name.is_empty() => Some(PortRef::Name(name.clone())),
        _ => None,
    }
}
