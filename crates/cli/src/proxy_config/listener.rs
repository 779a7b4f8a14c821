//! Listeners: ADDRESSES, PORT, MATCH, DESTINATION; one row for each filter chain.

use serde_json::Value;

use super::{Rows, address, resources};

pub(super) fn rows(dump: &Value) -> Rows {
    let mut rows = Rows::new(&["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    for listener in resources(dump, "ListenersConfigDump", "listener") {
        let place = address(&listener["address"]);
        let (host, port) = place.rsplit_once(':').unwrap_or((place.as_str(), ""));
        let chains = listener["filter_chains"].as_array().into_iter().flatten();
        let fallback = listener.get("default_filter_chain").map(|chain| (chain, "ALL (default)".to_owned()));
        for (chain, matches) in chains.map(|chain| (chain, conditions(&chain["filter_chain_match"]))).chain(fallback) {
            rows.add([host.to_owned(), port.to_owned(), matches, destination(chain)]);
        }
    }
    rows
}

/// `Trans: tls; App: istio; Addr: 10.0.0.1/32`.
fn conditions(matches: &Value) -> String {
    let mut parts = Vec::new();
    let words = |field: &str| -> Vec<String> {
        matches[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if let names @ [_, ..] = words("server_names").as_slice() {
        parts.push(format!("SNI: {}", names.join(",")));
    }
    if let Some(transport) = matches["transport_protocol"].as_str() {
        parts.push(format!("Trans: {transport}"));
    }
    if let protocols @ [_, ..] = words("application_protocols").as_slice() {
        parts.push(format!("App: {}", protocols.join(",")));
    }
    if let Some(port) = matches["destination_port"].as_u64() {
        parts.push(format!("Port: {port}"));
    }
    for range in matches["prefix_ranges"].as_array().into_iter().flatten() {
        let length = range["prefix_len"].as_u64().unwrap_or_default();
        parts.push(format!("Addr: {}/{length}", range["address_prefix"].as_str().unwrap_or_default()));
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

fn destination(chain: &Value) -> String {
    for filter in chain["filters"].as_array().into_iter().flatten() {
        let config = &filter["typed_config"];
        let kind = config["@type"].as_str().unwrap_or_default();
        if kind.ends_with(".HttpConnectionManager") {
            return match config["rds"]["route_config_name"].as_str() {
                Some(name) => format!("Route: {name}"),
                None => format!("Inline Route: {}", inline(&config["route_config"])),
            };
        }
        if kind.ends_with(".TcpProxy") {
            let clusters = config["weighted_clusters"]["clusters"].as_array().into_iter().flatten();
            let names: Vec<&str> = match config["cluster"].as_str() {
                Some(name) => vec![name],
                None => clusters.filter_map(|cluster| cluster["name"].as_str()).collect(),
            };
            return format!("Cluster: {}", names.join(", "));
        }
    }
    "Non-HTTP/Non-TCP".to_owned()
}

/// Where the routes of an inline table lead, once each.
fn inline(table: &Value) -> String {
    let hosts = table["virtual_hosts"].as_array().into_iter().flatten();
    let routes = hosts.filter_map(|host| host["routes"].as_array()).flatten();
    let mut targets: Vec<&str> = routes.filter_map(|route| route["route"]["cluster"].as_str()).collect();
    targets.dedup();
    if targets.is_empty() { table["name"].as_str().unwrap_or("-").to_owned() } else { targets.join(", ") }
}
