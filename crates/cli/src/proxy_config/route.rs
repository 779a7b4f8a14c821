//! Routes: NAME, VHOST NAME, DOMAINS, MATCH, DESTINATION, VIRTUAL SERVICE; one row for each route.

use serde_json::Value;

use super::{Rows, istio_object, resources};

pub(super) fn rows(dump: &Value) -> Rows {
    let mut rows = Rows::new(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "DESTINATION", "VIRTUAL SERVICE"]);
    for table in resources(dump, "RoutesConfigDump", "route_config") {
        let name = table["name"].as_str().unwrap_or_default();
        for host in table["virtual_hosts"].as_array().into_iter().flatten() {
            let domains: Vec<&str> =
                host["domains"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let domains = match domains.as_slice() {
                [first, rest @ ..] if rest.len() > 1 => format!("{first}, {} + {} more...", rest[0], rest.len() - 1),
                few => few.join(", "),
            };
            for route in host["routes"].as_array().into_iter().flatten() {
                rows.add([
                    name.to_owned(),
                    host["name"].as_str().unwrap_or_default().to_owned(),
                    domains.clone(),
                    conditions(&route["match"]),
                    destination(route),
                    istio_object(&route["metadata"]),
                ]);
            }
        }
    }
    rows
}

/// `/reviews*` for a prefix, `/reviews` for a path; a star after it means that headers or parameters are compared too.
fn conditions(matches: &Value) -> String {
    let text = |field: &str| matches[field].as_str();
    let path = text("prefix")
        .map(|prefix| format!("{prefix}*"))
        .or_else(|| text("path_separated_prefix").map(|prefix| format!("{prefix}/*")))
        .or_else(|| text("path").map(str::to_owned))
        .or_else(|| matches["safe_regex"]["regex"].as_str().map(|regex| format!("regex {regex}")))
        .unwrap_or_else(|| "/*".to_owned());
    let named = |list: &str| {
        matches[list].as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()).map(str::to_owned)
    };
    let mut conditions: Vec<String> = vec![path];
    conditions.extend(named("headers").map(|name| format!("[{name}]")));
    conditions.extend(named("query_parameters").map(|name| format!("[?{name}]")));
    conditions.join(" ")
}

fn destination(route: &Value) -> String {
    if let Some(status) = route["direct_response"]["status"].as_u64() {
        return format!("status {status}");
    }
    if let Some(redirect) = route.get("redirect") {
        let place = redirect["path_redirect"].as_str().or_else(|| redirect["host_redirect"].as_str());
        return format!("redirect {}", place.unwrap_or("https"));
    }
    let action = &route["route"];
    let weighted = action["weighted_clusters"]["clusters"].as_array().into_iter().flatten().map(|cluster| {
        let weight = cluster["weight"].as_u64().unwrap_or_default();
        format!("{} ({weight})", cluster["name"].as_str().unwrap_or_default())
    });
    match action["cluster"].as_str() {
        Some(cluster) => cluster.to_owned(),
        None => weighted.collect::<Vec<_>>().join(", "),
    }
}
