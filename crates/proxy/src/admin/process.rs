//! `/server_info`, `/memory`, and what `/logging` is asked for.

use serde_json::{Value, json};

use super::Admin;
use super::serve::Ask;
use crate::stats;

pub(super) fn server_info(admin: &Admin) -> Value {
    let uptime = format!("{}s", admin.shared.origin.elapsed().as_secs());
    json!({
        "version": admin.about.version,
        "state": admin.health.state().as_str(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "command_line_options": {
            "concurrency": admin.about.concurrency,
            "drain_time": format!("{}s", admin.about.drain_time.as_secs_f64()),
        },
        "node": admin.about.node,
    })
}

pub(super) fn memory() -> Value {
    let memory = stats::memory();
    // 64-bit numbers are strings in the JSON form of protobuf.
    json!({
        "allocated": memory.anonymous.to_string(),
        "heap_size": memory.data.to_string(),
        "total_physical_bytes": memory.resident.to_string(),
    })
}

/// The log filter that the parameters ask for: `level=` for everything, `paths=NAME:LEVEL,…` or `NAME=LEVEL` for parts.
/// `None` when they only ask what it is.
pub(super) fn log_filter(ask: &Ask, current: &str) -> Result<Option<String>, String> {
    let mut wanted: Option<String> = None;
    for (key, value) in ask.parameters() {
        let parts: Vec<(String, String)> = match key.as_str() {
            "level" => {
                // A whole filter is taken as it is; a word alone is Envoy's or ours.
                wanted = Some(value.split(',').map(envoy_word).collect::<Vec<_>>().join(","));
                continue;
            }
            "paths" | "group" => value
                .split(',')
                .map(|part| part.split_once(':').map(|(name, level)| (name.to_owned(), level.to_owned())))
                .collect::<Option<_>>()
                .ok_or_else(|| format!("{key} wants NAME:LEVEL pairs, separated by commas"))?,
            _ => vec![(key, value)],
        };
        for (name, level) in parts {
            let kept = wanted
                .as_deref()
                .unwrap_or(current)
                .split(',')
                .filter(|one| one.split_once('=').is_none_or(|(target, _)| target != name));
            wanted = Some(
                kept.map(str::to_owned).chain([format!("{name}={}", envoy_word(&level))]).collect::<Vec<_>>().join(","),
            );
        }
    }
    Ok(wanted)
}

/// Envoy's `warning` and `critical` in our words.
fn envoy_word(level: &str) -> String {
    match level {
        "warning" => "warn".to_owned(),
        "critical" => "error".to_owned(),
        other => other.to_owned(),
    }
}
