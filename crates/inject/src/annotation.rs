//! The values that annotations may have. They are data: whatever a user writes goes into one field, never into a text
//! that is parsed again.

use serde_json::Value;

use crate::InjectError;
use crate::names::*;
use crate::pod::shortened;
use crate::selector::Labels;

type Check = fn(&str) -> Result<(), String>;

const CHECKS: &[(&str, Check)] = &[
    (INTERCEPTION, interception),
    (STATUS_PORT, port),
    (READY_DELAY, number),
    (READY_PERIOD, number),
    (READY_FAILURES, number),
    (INCLUDE_RANGES, ranges_or_all),
    (EXCLUDE_RANGES, ranges),
    (INCLUDE_INBOUND, ports_or_all),
    (EXCLUDE_INBOUND, ports),
    (INCLUDE_OUTBOUND, ports_or_all),
    (EXCLUDE_OUTBOUND, ports),
    (EXCLUDE_INTERFACES, words),
    (KUBEVIRT_INTERFACES, words),
    (REROUTE_INTERFACES, words),
    (MERGE_METRICS, flag),
    (NATIVE, flag),
    (PROXY_CPU, quantity),
    (PROXY_CPU_LIMIT, quantity),
    (PROXY_MEMORY, quantity),
    (PROXY_MEMORY_LIMIT, quantity),
    (USER_VOLUME, map_of_maps),
    (USER_VOLUME_MOUNT, map_of_maps),
    (PROXY_CONFIG, yaml_map),
];

/// Annotations of Istio's that mean something to its injector and nothing to this one.
const NOT_OBEYED: &[&str] = &[
    "sidecar.istio.io/bootstrapOverride",
    "sidecar.istio.io/discoveryAddress",
    "sidecar.istio.io/enableCoreDump",
    "sidecar.istio.io/extraStatTags",
    "sidecar.istio.io/statsCompression",
    "sidecar.istio.io/statsEvictionInterval",
    "sidecar.istio.io/statsFlushInterval",
    "sidecar.istio.io/statsHistogramBins",
    "sidecar.istio.io/statsHistogramBuckets",
    "sidecar.istio.io/statsInclusionPrefixes",
    "sidecar.istio.io/statsInclusionRegexps",
    "sidecar.istio.io/statsInclusionSuffixes",
    "readiness.status.sidecar.istio.io/applicationPorts",
    "prometheus.istio.io/scrape-targets",
    "prometheus.istio.io/secure-port",
    "apm.datadoghq.com/env",
];

/// Refuses values that could not be obeyed, and warns of annotations that are not.
pub(crate) fn check(annotations: Labels<'_>, warn: &mut Vec<String>) -> Result<(), InjectError> {
    for (name, check) in CHECKS {
        if let Some(value) = annotations.get(name) {
            check(value).map_err(|reason| InjectError::Annotation { name, value: shortened(value), reason })?;
        }
    }
    for name in NOT_OBEYED.iter().filter(|name| annotations.get(name).is_some()) {
        warn.push(format!("annotation {name} is not obeyed by this release"));
    }
    if let Some(value) = annotations.get(REWRITE_PROBES)
        && boolean(value).is_none()
    {
        let value = shortened(value);
        warn.push(format!("annotation {REWRITE_PROBES} is `{value}`, neither true nor false: it is passed over"));
    }
    Ok(())
}

/// What Go's `ParseBool` takes for a boolean, as all of Kubernetes does.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The items of a list with commas, without the spaces around them and without empty ones.
pub(crate) fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn interception(mode: &str) -> Result<(), String> {
    if ["REDIRECT", "TPROXY", "NONE"].contains(&mode) {
        return Ok(());
    }
    Err("write REDIRECT, TPROXY or NONE".to_owned())
}

fn port(text: &str) -> Result<(), String> {
    match text.trim().parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{}` is no port; write a number up to 65535", shortened(text))),
    }
}

fn ports(list: &str) -> Result<(), String> {
    if list.trim().is_empty() { Ok(()) } else { list.split(',').try_for_each(port) }
}

fn ports_or_all(list: &str) -> Result<(), String> {
    if list == "*" { Ok(()) } else { ports(list) }
}

fn number(text: &str) -> Result<(), String> {
    text.parse::<u32>().map(drop).map_err(|_| "write a number that is not negative".to_owned())
}

fn flag(text: &str) -> Result<(), String> {
    boolean(text).map(drop).ok_or_else(|| "write true or false".to_owned())
}

fn ranges(list: &str) -> Result<(), String> {
    if list.trim().is_empty() {
        return Ok(());
    }
    list.split(',').try_for_each(|range| match range.trim().parse::<ipnet::IpNet>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{}` is no range; write for instance 10.0.0.0/8", shortened(range))),
    })
}

fn ranges_or_all(list: &str) -> Result<(), String> {
    if list == "*" { Ok(()) } else { ranges(list) }
}

fn words(list: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:@+*".contains(c);
    match items(list).find(|name| !name.chars().all(fits)) {
        None => Ok(()),
        Some(name) => Err(format!("`{}` is no name of an interface", shortened(name))),
    }
}

/// Kubernetes' quantities: a decimal number with a suffix or an exponent.
fn quantity(text: &str) -> Result<(), String> {
    const SUFFIXES: [&str; 15] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - digits.len()];
    let exponent = digits.strip_prefix(['e', 'E']).is_some_and(|power| power.parse::<i8>().is_ok());
    if number.parse::<f64>().is_ok() && (SUFFIXES.contains(&digits) || digits == "Ei" || exponent) {
        return Ok(());
    }
    Err("write a quantity, for instance 100m or 128Mi".to_owned())
}

fn map_of_maps(text: &str) -> Result<(), String> {
    let example = "write JSON such as {\"name\": {\"mountPath\": \"/path\"}}";
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(map)) if map.values().all(Value::is_object) => Ok(()),
        Ok(_) => Err(example.to_owned()),
        Err(error) => Err(format!("this is not JSON ({error}); {example}")),
    }
}

fn yaml_map(text: &str) -> Result<(), String> {
    match crate::yaml::one(text) {
        Ok(Value::Object(_) | Value::Null) => Ok(()),
        Ok(_) => Err("write YAML such as `concurrency: 2`".to_owned()),
        Err(reason) => Err(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECKS, NOT_OBEYED};

    /// The page for people names every annotation that is checked or warned of.
    #[test]
    fn the_page_names_all_annotations() {
        let page = include_str!("../../../docs/injection.md");
        let checked = CHECKS.iter().map(|(name, _)| *name);
        let others = include_str!("names.rs").split('"').skip(1).step_by(2).filter(|name| name.contains("istio.io/"));
        let written_by_us = ["proxy.istio.io/overrides"];
        for name in checked.chain(NOT_OBEYED.iter().copied()).chain(others) {
            assert!(
                page.contains(&format!("`{name}`"))
                    || written_by_us.contains(&name)
                    || page.contains(&format!("`{name}=")),
                "{name}"
            );
        }
    }
}
