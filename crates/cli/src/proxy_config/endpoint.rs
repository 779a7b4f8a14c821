//! Endpoints: ENDPOINT, STATUS, LOCALITY, WEIGHT, CLUSTER.

use serde_json::Value;

use super::{Rows, address, resources};

pub(super) fn rows(dump: &Value) -> Rows {
    let mut rows = Rows::new(&["ENDPOINT", "STATUS", "LOCALITY", "WEIGHT", "CLUSTER"]);
    let discovered = resources(dump, "EndpointsConfigDump", "endpoint_config");
    let inline = resources(dump, "ClustersConfigDump", "cluster").map(|cluster| cluster["load_assignment"].clone());
    let mut seen = std::collections::BTreeSet::new();
    for assignment in discovered.chain(inline) {
        let cluster = assignment["cluster_name"].as_str().unwrap_or_default();
        for group in list(&assignment["endpoints"]) {
            let locality =
                ["region", "zone", "sub_zone"].map(|part| group["locality"][part].as_str().unwrap_or_default());
            let locality = locality.join("/");
            for endpoint in list(&group["lb_endpoints"]) {
                let place = address(&endpoint["endpoint"]["address"]);
                // A stock Envoy shows static endpoints in both sections.
                if !seen.insert((place.clone(), cluster.to_owned())) {
                    continue;
                }
                let status = endpoint["health_status"].as_str().unwrap_or("HEALTHY").replace("UNKNOWN", "HEALTHY");
                let weight = endpoint["load_balancing_weight"].as_u64().unwrap_or(1).to_string();
                rows.add([place, status, locality.trim_end_matches('/').to_owned(), weight, cluster.to_owned()]);
            }
        }
    }
    rows
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
