//! Clusters: SERVICE FQDN, PORT, SUBSET, DIRECTION, TYPE, DESTINATION RULE.

use serde_json::Value;

use super::{Rows, istio_object, resources};

pub(super) fn rows(dump: &Value) -> Rows {
    let mut rows = Rows::new(&["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"]);
    for cluster in resources(dump, "ClustersConfigDump", "cluster") {
        let name = cluster["name"].as_str().unwrap_or_default();
        let kind = match cluster["type"].as_str() {
            Some(kind) => kind.to_owned(),
            None => cluster["cluster_type"]["name"].as_str().unwrap_or("STATIC").to_owned(),
        };
        let rule = istio_object(&cluster["metadata"]);
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let parts: Vec<&str> = name.split('|').collect();
        match parts.as_slice() {
            [direction, port, subset, host] => {
                // An inbound cluster has no host: it is the workload itself.
                let host = if host.is_empty() { "(this workload)" } else { host };
                rows.add([host.to_owned(), dash(port), dash(subset), (*direction).to_owned(), kind, rule]);
            }
            _ => rows.add([name.to_owned(), dash(""), dash(""), dash(""), kind, rule]),
        }
    }
    rows
}
