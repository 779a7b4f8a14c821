//! From the text of a file to objects: one document at a time, so that a bad one spoils only itself.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{Deployment, Manifests, Namespace, PortRef, Problem, Service, ServicePort, Skipped, entry, pod};

impl Manifests {
    /// Adds all documents of one file.
    pub fn add_text(&mut self, file: &Arc<Path>, text: &str) {
        for (line, document) in documents(text) {
            match serde_saphyr::from_str::<Value>(document) {
                Ok(value) => self.add_value(file, value),
                Err(error) => {
                    let first = error.to_string().lines().next().unwrap_or_default().to_owned();
                    let message = format!("the document that begins in line {line} is no valid YAML: {first}");
                    self.problems.push(Problem { file: file.clone(), message });
                }
            }
        }
    }

    fn add_value(&mut self, file: &Arc<Path>, value: Value) {
        if value.is_null() {
            return;
        }
        let kind = text(&value, "/kind").to_owned();
        let group = text(&value, "/apiVersion").rsplit_once('/').map_or("", |(group, _)| group).to_owned();
        if kind == "List" {
            let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            items.into_iter().for_each(|item| self.add_value(file, item));
            return;
        }
        self.objects += 1;
        let name = text(&value, "/metadata/name").to_owned();
        let result = match (group.as_str(), kind.as_str()) {
            ("apps", "Deployment") => deployment(file, &value).map(|deployment| self.deployments.push(deployment)),
            ("", "Service") => service(&value).map(|service| self.services.push(service)),
            ("", "Namespace") => {
                self.namespaces.push(Namespace { name: name.clone() });
                Ok(())
            }
            ("networking.istio.io", "Gateway") => {
                self.gateways.extend(entry::servers(&value));
                Ok(())
            }
            ("networking.istio.io", "VirtualService") => {
                self.entries.extend(entry::of_virtual_service(&value));
                Ok(())
            }
            ("", "ConfigMap") if namespace(&value) == "istio-system" && name == "istio" => {
                self.has_mesh_config = true;
                Ok(())
            }
            (group, kind) if of_control_plane(group, kind) => Ok(()),
            _ if kind.is_empty() => {
                Err("it has no `kind`: every document needs apiVersion, kind and metadata.name".into())
            }
            _ => {
                self.skipped.push(Skipped { kind: kind.clone(), name: name.clone(), file: file.clone() });
                Ok(())
            }
        };
        if let Err(message) = result {
            let what = if kind.is_empty() { "a document".to_owned() } else { format!("{kind} {name}") };
            self.problems.push(Problem { file: file.clone(), message: format!("{what}: {message}") });
        }
    }
}

/// Kinds that the control plane reads, or for which it says itself that it does not obey them.
fn of_control_plane(group: &str, kind: &str) -> bool {
    match group {
        "" => ["ServiceAccount", "Secret", "ConfigMap", "Pod", "Node", "Endpoints"].contains(&kind),
        "discovery.k8s.io" => kind == "EndpointSlice",
        "gateway.networking.k8s.io" => true,
        _ => group == "istio.io" || group.ends_with(".istio.io"),
    }
}

/// The documents of a stream, each with the line at which it begins (from 1).
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut begin, mut begin_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") {
            documents.push((begin_line, &text[begin..at]));
            begin = if bare == "---" { at + line.len() } else { at + 4 };
            begin_line = index + 1;
        }
        at += line.len();
    }
    documents.push((begin_line, &text[begin..]));
    documents
}

fn deployment(file: &Arc<Path>, value: &Value) -> Result<Deployment, String> {
    let template = pod::template(value.pointer("/spec/template").unwrap_or(&Value::Null))?;
    let replicas = match value.pointer("/spec/replicas") {
        None | Some(Value::Null) => 1,
        Some(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| format!("spec.replicas: {number} is no number of replicas"))?,
    };
    let mut annotations = template.annotations;
    annotations.extend(pod::string_map(value.pointer("/metadata/annotations")));
    Ok(Deployment {
        namespace: namespace(value),
        name: required(value, "/metadata/name", "metadata.name")?,
        file: file.clone(),
        replicas,
        annotations,
        labels: template.labels,
        service_account: template.service_account,
        readiness: template.containers.first().and_then(|container| container.readiness.clone()),
        containers: template.containers,
    })
}

fn service(value: &Value) -> Result<Service, String> {
    let ports = value.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let ports = ports
        .iter()
        .enumerate()
        .map(|(index, port)| service_port(port).map_err(|what| format!("spec.ports[{index}]{what}")));
    Ok(Service {
        namespace: namespace(value),
        name: required(value, "/metadata/name", "metadata.name")?,
        selector: pod::string_map(value.pointer("/spec/selector")),
        ports: ports.collect::<Result<_, _>>()?,
        cluster_ip: text(value, "/spec/clusterIP").to_owned(),
        external_name: text(value, "/spec/type") == "ExternalName",
    })
}

fn service_port(value: &Value) -> Result<ServicePort, String> {
    let number = value.get("port").and_then(pod::port_number).ok_or(".port: a number from 1 to 65535 is needed")?;
    let target = match value.get("targetPort") {
        None | Some(Value::Null) => PortRef::Number(number),
        Some(target) => pod::port_ref(target).ok_or(".targetPort: a port number or name is needed")?,
    };
    Ok(ServicePort {
        name: text(value, "/name").to_owned(),
        number,
        target,
        transport: value.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned(),
        app_protocol: value.get("appProtocol").and_then(Value::as_str).map(str::to_owned),
    })
}

pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn namespace(value: &Value) -> String {
    let namespace = text(value, "/metadata/namespace");
    if namespace.is_empty() { "default".to_owned() } else { namespace.to_owned() }
}

fn required(value: &Value, pointer: &str, field: &str) -> Result<String, String> {
    match text(value, pointer) {
        "" => Err(format!("{field} is missing")),
        found => Ok(found.to_owned()),
    }
}
