//! Where requests from outside enter: servers of Gateways and the first paths of their VirtualServices. Only for what is
//! printed (the address to open) and for the ports of the generated gateway Service; routing is the control plane's.

use serde_json::Value;

use super::document::{namespace, text};

/// One server of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayServer {
    /// `NAMESPACE/NAME` of the Gateway.
    pub gateway: String,
    pub port: u16,
    /// As written: `HTTP`, `HTTPS`, `TLS`, `TCP` …
    pub protocol: String,
    pub hosts: Vec<String>,
    /// The bundled ingress gateway is selected.
    pub ours: bool,
}

/// A host and a path that a VirtualService offers at a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `NAMESPACE/NAME` of each gateway.
    pub gateways: Vec<String>,
    pub host: String,
    /// Of the first match that names a path; `/` without one.
    pub path: String,
}

/// Labels of the bundled gateway's pod, and selector of its Service.
pub fn entry_labels() -> [(&'static str, &'static str); 2] {
    [("app", "istio-ingressgateway"), ("istio", "ingressgateway")]
}

pub(super) fn servers(gateway: &Value) -> Vec<GatewayServer> {
    let key = format!("{}/{}", namespace(gateway), text(gateway, "/metadata/name"));
    let selector = super::pod::string_map(gateway.pointer("/spec/selector"));
    let ours = selector.iter().all(|(key, value)| entry_labels().contains(&(key.as_str(), value.as_str())));
    let servers = gateway.pointer("/spec/servers").and_then(Value::as_array).cloned().unwrap_or_default();
    let server = |server: &Value| {
        Some(GatewayServer {
            gateway: key.clone(),
            port: server.pointer("/port/number").and_then(super::pod::port_number)?,
            protocol: text(server, "/port/protocol").to_ascii_uppercase(),
            hosts: strings(server.get("hosts"))
                .map(|host| host.rsplit('/').next().unwrap_or_default().to_owned())
                .collect(),
            ours,
        })
    };
    servers.iter().filter_map(server).collect()
}

pub(super) fn of_virtual_service(value: &Value) -> Vec<Entry> {
    let home = namespace(value);
    let gateways: Vec<String> = strings(value.pointer("/spec/gateways"))
        .filter(|gateway| *gateway != "mesh")
        .map(|gateway| if gateway.contains('/') { gateway.to_owned() } else { format!("{home}/{gateway}") })
        .collect();
    if gateways.is_empty() {
        return Vec::new();
    }
    let path = first_path(value).unwrap_or_else(|| "/".to_owned());
    let entry = |host: &str| Entry { gateways: gateways.clone(), host: host.to_owned(), path: path.clone() };
    strings(value.pointer("/spec/hosts")).map(entry).collect()
}

fn first_path(value: &Value) -> Option<String> {
    let routes = value.pointer("/spec/http").and_then(Value::as_array)?;
    let matches = routes.iter().filter_map(|route| route.get("match").and_then(Value::as_array)).flatten();
    let path = |one: &Value| {
        let uri = one.get("uri")?;
        uri.get("exact").or_else(|| uri.get("prefix")).and_then(Value::as_str).map(str::to_owned)
    };
    matches.filter_map(path).next()
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
