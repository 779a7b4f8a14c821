//! `proxy-config`: what one proxy has, asked of the proxy itself. Columns as in `istioctl proxy-config`; ours and stock
//! Envoys alike, since both answer in Envoy's shapes.

mod cluster;
mod endpoint;
mod listener;
mod route;
mod secret;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use mizzen_local::table::Table;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::ask;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Listeners,
    Routes,
    Clusters,
    Endpoints,
    Secrets,
    Bootstrap,
    All,
}

/// An answer of a proxy.
#[derive(Debug)]
pub struct Answer {
    part: Part,
    value: Value,
}

const DUMP: &str = "/config_dump?include_eds";

/// Asks the admin port `admin` for `part`.
pub async fn fetch(admin: SocketAddr, part: Part) -> Result<Answer> {
    let path = if part == Part::Secrets { "/certs" } else { DUMP };
    let value =
        ask::json(admin, path).await.with_context(|| format!("the proxy's admin port {admin} cannot be asked"))?;
    Ok(Answer { part, value })
}

impl Answer {
    /// Tables; only rows with `filter` in them, when given.
    pub fn text(&self, filter: Option<&str>) -> String {
        let text = |rows: Rows| rows.text(filter);
        match self.part {
            Part::Listeners => text(listener::rows(&self.value)),
            Part::Routes => text(route::rows(&self.value)),
            Part::Clusters => text(cluster::rows(&self.value)),
            Part::Endpoints => text(endpoint::rows(&self.value)),
            Part::Secrets => text(secret::rows(&self.value)),
            Part::Bootstrap => format!("{:#}\n", self.json()),
            Part::All => [cluster::rows, listener::rows, route::rows, endpoint::rows]
                .map(|rows| text(rows(&self.value)))
                .join("\n"),
        }
    }

    /// The resources as they came.
    pub fn json(&self) -> Value {
        let section = |message: &str| section(&self.value, message).cloned().unwrap_or_default();
        match self.part {
            Part::Listeners => resources(&self.value, "ListenersConfigDump", "listener").collect(),
            Part::Routes => resources(&self.value, "RoutesConfigDump", "route_config").collect(),
            Part::Clusters => resources(&self.value, "ClustersConfigDump", "cluster").collect(),
            Part::Endpoints => resources(&self.value, "EndpointsConfigDump", "endpoint_config").collect(),
            Part::Bootstrap => section("BootstrapConfigDump"),
            Part::Secrets | Part::All => self.value.clone(),
        }
    }
}

/// The log level of a proxy, as its admin port tells it.
pub async fn log_level(admin: SocketAddr) -> Result<String> {
    logging(admin, "/logging").await
}

/// Changes the log level of a running proxy.
pub async fn set_log_level(admin: SocketAddr, level: &str) -> Result<String> {
    // A comma separates filters of ours, and loggers of a stock Envoy; both take one word for all.
    let level = utf8_percent_encode(level, NON_ALPHANUMERIC);
    logging(admin, &format!("/logging?level={level}")).await
}

async fn logging(admin: SocketAddr, path: &str) -> Result<String> {
    match ask::request(Method::POST, admin, path).await? {
        (StatusCode::OK, body) => Ok(String::from_utf8_lossy(&body).into_owned()),
        (_, body) => anyhow::bail!("the proxy refuses: {}", String::from_utf8_lossy(&body).trim()),
    }
}

/// Headings and rows of one table.
struct Rows {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    fn add<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn text(self, filter: Option<&str>) -> String {
        let wanted = |row: &Vec<String>| filter.is_none_or(|filter| row.iter().any(|cell| cell.contains(filter)));
        let mut table = Table::of(self.headings.iter().map(|heading| (*heading).to_owned()).collect());
        self.rows.into_iter().filter(wanted).for_each(|row| table.add(row));
        if table.is_empty() {
            return format!("No {} {}.\n", self.headings[0], if filter.is_some() { "matches" } else { "is there" });
        }
        table.to_string()
    }
}

/// The part of a dump that a message of this name holds.
fn section<'d>(dump: &'d Value, message: &str) -> Option<&'d Value> {
    let configs = dump["configs"].as_array()?;
    configs.iter().find(|config| config["@type"].as_str().is_some_and(|name| name.ends_with(&format!(".{message}"))))
}

/// All resources of a section, static and dynamic ones, by their names; those that are warming are left out.
fn resources<'d>(dump: &'d Value, message: &str, key: &'static str) -> impl Iterator<Item = Value> + 'd {
    let lists = section(dump, message).and_then(Value::as_object).into_iter().flatten();
    let entries = lists.filter(|(name, _)| !name.contains("warming")).filter_map(|(_, list)| list.as_array()).flatten();
    let mut found: Vec<Value> = entries
        .filter_map(|entry| match &entry["active_state"][key] {
            Value::Null => entry.get(key),
            resource => Some(resource),
        })
        .cloned()
        .collect();
    let name = |resource: &Value| {
        resource["name"].as_str().or_else(|| resource["cluster_name"].as_str()).unwrap_or_default().to_owned()
    };
    found.sort_by_key(name);
    found.into_iter()
}

/// `host:port` of an `Address`.
fn address(value: &Value) -> String {
    let socket = &value["socket_address"];
    match (socket["address"].as_str(), socket["port_value"].as_u64()) {
        (Some(host), port) => format!("{host}:{}", port.unwrap_or_default()),
        (None, _) => match value["pipe"]["path"].as_str() {
            Some(path) => format!("unix://{path}"),
            None => value["envoy_internal_address"]["server_listener_name"]
                .as_str()
                .map_or_else(String::new, |name| format!("envoy://{name}")),
        },
    }
}

/// `NAME.NAMESPACE` of the Istio resource that the metadata names.
fn istio_object(metadata: &Value) -> String {
    let path = metadata["filter_metadata"]["istio"]["config"].as_str().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "namespaces", namespace, _kind, name] => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
