//! `proxy-status`: who is connected to the control plane, and what each proxy has acknowledged or refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mizzen_local::table::Table;
use serde_json::Value;

use crate::ask;
use crate::duration::age;
use crate::target::Mesh;

/// As the control plane tells it: an array of proxies, those of all its replicas.
pub async fn fetch(mesh: &Mesh) -> Result<Value> {
    let mut all = Vec::new();
    for address in mesh.debug_of_all() {
        let status = ask::json(address, "/debug/syncz").await;
        match status.context("the control plane cannot be asked who is connected")? {
            Value::Array(proxies) => all.extend(proxies),
            other => {
                anyhow::bail!("the control plane answers with something else than a list of proxies: {other:.200}")
            }
        }
    }
    Ok(Value::Array(all))
}

/// Types in the order of `istioctl proxy-status`.
const TYPES: [&str; 5] = ["cds", "lds", "eds", "rds", "sds"];

/// A table of all proxies, or of those whose name begins with `only`; below it, what was refused and why.
pub fn render(status: &Value, only: Option<&str>, now: SystemTime) -> String {
    let mut table = Table::new(["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "SDS", "VERSION", "CONNECTED"]);
    let mut refusals = String::new();
    let all: &[Value] = status.as_array().map_or(&[], Vec::as_slice);
    let proxies = all.iter().filter(|proxy| only.is_none_or(|only| text(proxy, "proxy").starts_with(only)));
    for proxy in proxies {
        let states = TYPES.map(|kind| state(proxy, kind, now));
        let [cds, lds, eds, rds, sds] = states;
        let version = match text(proxy, "proxy_version") {
            "" => text(proxy, "istio_version"),
            version => version,
        };
        let connected = since(&proxy["connected_at"], now).map_or_else(String::new, age);
        table.row([
            text(proxy, "proxy").to_owned(),
            text(proxy, "cluster_id").to_owned(),
            cds,
            lds,
            eds,
            rds,
            sds,
            version.to_owned(),
            connected,
        ]);
        for kind in TYPES {
            if let Some(message) = proxy["types"][kind]["refused"]["message"].as_str() {
                refusals.push_str(&format!(
                    "\n{} refused {}: {message}\n",
                    text(proxy, "proxy"),
                    kind.to_ascii_uppercase()
                ));
            }
        }
    }
    match (table.is_empty(), only) {
        (true, None) => "No proxy is connected.\n".to_owned(),
        (true, Some(only)) => format!("No proxy whose name begins with `{only}` is connected.\n"),
        (false, _) => format!("{table}{refusals}"),
    }
}

/// Whether any proxy refused something or lags behind.
pub fn all_synced(status: &Value) -> bool {
    let proxies: &[Value] = status.as_array().map_or(&[], Vec::as_slice);
    proxies
        .iter()
        .all(|proxy| TYPES.iter().all(|kind| !["NACK", "STALE"].contains(&text(&proxy["types"][kind], "state"))))
}

/// `SYNCED (12s)`: the state, and how long it has been so.
fn state(proxy: &Value, kind: &str, now: SystemTime) -> String {
    let entry = &proxy["types"][kind];
    let word = text(entry, "state");
    let at = match word {
        "SYNCED" => &entry["acked"]["at"],
        "NACK" => &entry["refused"]["at"],
        "STALE" => &entry["sent"]["at"],
        _ => &Value::Null,
    };
    match since(at, now) {
        Some(duration) => format!("{word} ({})", age(duration)),
        None if word.is_empty() => "-".to_owned(),
        None => word.to_owned(),
    }
}

fn since(millis: &Value, now: SystemTime) -> Option<Duration> {
    let at = UNIX_EPOCH + Duration::from_millis(millis.as_u64()?);
    Some(now.duration_since(at).unwrap_or_default())
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!([
            {"proxy": "reviews-v1-0.default", "cluster_id": "Kubernetes", "proxy_version": "0.1.0", "connected_at": 1_000_000,
             "types": {
                "cds": {"state": "SYNCED", "acked": {"at": 1_055_000}},
                "lds": {"state": "NACK", "refused": {"at": 1_000_000, "message": "listener a: no such filter"}},
                "eds": {"state": "NOT SENT"}}},
            {"proxy": "details-v1-0.default", "cluster_id": "Kubernetes", "connected_at": 1_000_000, "types": {}}
        ])
    }

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn a_refusal_is_shown_with_its_reason() {
        let text = render(&sample(), None, at(1_060_000));
        assert!(text.contains("SYNCED (5s)") && text.contains("NACK (60s)") && text.contains("NOT SENT"), "{text}");
        assert!(text.contains("reviews-v1-0.default refused LDS: listener a: no such filter"), "{text}");
        assert!(!all_synced(&sample()));
    }

    #[test]
    fn one_proxy_can_be_named() {
        let text = render(&sample(), Some("details"), at(0));
        assert!(text.contains("details-v1-0.default") && !text.contains("reviews"), "{text}");
        assert!(render(&sample(), Some("nobody"), at(0)).contains("nobody"));
        assert!(render(&json!([]), None, at(0)).contains("No proxy"));
    }
}
