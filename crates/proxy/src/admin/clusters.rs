//! `/clusters`: endpoints with their health and counters, key by key as Envoy prints them.
//!
//! A cluster that nobody has called has no counters; its endpoints are shown with zeros.

use std::fmt::Write as _;
use std::sync::Arc;

use mizzen_balance::{Balancer, Host, Time};
use mizzen_snapshot::Cluster;
use mizzen_snapshot::cluster::{EndpointAddress, Health, Limits};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::shared::Shared;

struct Shown {
    name: String,
    limits: Limits,
    outliers: bool,
    hosts: Vec<Arc<Host>>,
}

fn shown(shared: &Shared, filter: Option<&Regex>) -> Vec<Shown> {
    let snapshot = shared.snapshot.load();
    let balancers = shared.balancers.all();
    let wanted = snapshot
        .clusters
        .values()
        .filter(|cluster| filter.is_none_or(|filter| filter.is_match(cluster.policy.name.as_str())));
    let mut all: Vec<Shown> = wanted.map(|cluster| one(cluster, &balancers)).collect();
    all.sort_by(|left, right| left.name.cmp(&right.name));
    all
}

fn one(cluster: &Cluster, balancers: &[(mizzen_types::ClusterName, Arc<Balancer>)]) -> Shown {
    let balancer = balancers.iter().find(|(name, _)| *name == cluster.policy.name).map(|(_, balancer)| balancer);
    let hosts = match balancer {
        Some(balancer) => balancer.hosts(),
        None => Balancer::new(Arc::clone(&cluster.policy), &cluster.endpoints, 0, Time::ZERO).hosts(),
    };
    Shown {
        name: cluster.policy.name.to_string(),
        limits: cluster.policy.limits,
        outliers: cluster.policy.outliers.is_some(),
        hosts,
    }
}

pub(super) fn text(shared: &Shared, filter: Option<&Regex>) -> String {
    let mut out = String::new();
    for cluster in shown(shared, filter) {
        let name = &cluster.name;
        let mut line = |rest: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}::{rest}");
        };
        line(format_args!("observability_name::{name}"));
        if cluster.outliers {
            for key in ["success_rate_average", "success_rate_ejection_threshold"] {
                // These detectors are not here: -1 is Envoy's word for "no value".
                line(format_args!("outlier::{key}::-1"));
                line(format_args!("outlier::local_origin_{key}::-1"));
            }
        }
        for (key, value) in thresholds(&cluster.limits) {
            line(format_args!("default_priority::{key}::{value}"));
        }
        line(format_args!("added_via_api::true"));
        for host in &cluster.hosts {
            let address = address(&host.endpoint.address);
            for (key, value) in host_keys(host) {
                line(format_args!("{address}::{key}::{value}"));
            }
        }
    }
    out
}

fn thresholds(limits: &Limits) -> [(&'static str, u32); 4] {
    let number = |limit: Option<u32>| limit.unwrap_or(u32::MAX);
    [
        ("max_connections", number(limits.max_connections)),
        ("max_pending_requests", number(limits.max_pending_requests)),
        ("max_requests", number(limits.max_requests)),
        ("max_retries", number(limits.max_retries)),
    ]
}

fn host_keys(host: &Host) -> Vec<(&'static str, String)> {
    let state = &host.state;
    let endpoint = &host.endpoint;
    let mut keys: Vec<(&str, String)> = vec![
        ("cx_active", state.active_connections().to_string()),
        ("cx_connect_fail", state.connect_failures().to_string()),
        ("cx_total", state.connections().to_string()),
        ("rq_active", state.active_requests().to_string()),
        ("rq_error", state.errors().to_string()),
        ("rq_success", state.successes().to_string()),
        ("rq_timeout", state.timeouts().to_string()),
        ("rq_total", state.requests().to_string()),
    ];
    keys.extend([
        ("hostname", endpoint.hostname.clone().unwrap_or_default()),
        ("health_flags", health_flags(host)),
        ("weight", endpoint.weight.to_string()),
        ("region", host.locality.region.clone()),
        ("zone", host.locality.zone.clone()),
        ("sub_zone", host.locality.subzone.clone()),
        ("canary", "false".to_owned()),
        ("priority", host.priority.to_string()),
        ("success_rate", "-1".to_owned()),
        ("local_origin_success_rate", "-1".to_owned()),
    ]);
    keys
}

fn health_flags(host: &Host) -> String {
    let mut flags = String::new();
    if host.state.is_ejected() {
        flags.push_str("/failed_outlier_check");
    }
    flags.push_str(match host.endpoint.health {
        Health::Healthy => "",
        Health::Unhealthy => "/failed_eds_health",
        Health::Degraded => "/degraded_eds_health",
        Health::Draining => "/eds_status_draining",
    });
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

fn address(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Name { host, port } => format!("{host}:{port}"),
        EndpointAddress::Pipe(path) => path.display().to_string(),
    }
}

pub(super) fn json(shared: &Shared, filter: Option<&Regex>) -> Value {
    let clusters: Vec<Value> = shown(shared, filter)
        .iter()
        .map(|cluster| {
            let limits: Map<String, Value> =
                thresholds(&cluster.limits).into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
            json!({
                "name": cluster.name,
                "added_via_api": true,
                "host_statuses": cluster.hosts.iter().map(|host| host_json(host)).collect::<Vec<_>>(),
                "circuit_breakers": {"thresholds": [limits]},
                "observability_name": cluster.name,
            })
        })
        .collect();
    json!({ "cluster_statuses": clusters })
}

fn host_json(host: &Host) -> Value {
    let state = &host.state;
    // 64-bit numbers are strings in the JSON form of protobuf.
    let counter = |name: &str, value: u64| json!({"value": value.to_string(), "name": name});
    let gauge = |name: &str, value: u32| json!({"type": "GAUGE", "value": value.to_string(), "name": name});
    let mut health = Map::new();
    if state.is_ejected() {
        health.insert("failed_outlier_check".to_owned(), true.into());
    }
    let eds = match host.endpoint.health {
        Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Draining => "DRAINING",
    };
    health.insert("eds_health_status".to_owned(), eds.into());
    let mut value = json!({
        "address": address_json(&host.endpoint.address),
        "stats": [
            counter("cx_connect_fail", state.connect_failures()),
            counter("cx_total", state.connections()),
            counter("rq_error", state.errors()),
            counter("rq_success", state.successes()),
            counter("rq_timeout", state.timeouts()),
            counter("rq_total", state.requests()),
            gauge("cx_active", state.active_connections()),
            gauge("rq_active", state.active_requests()),
        ],
        "health_status": health,
        "weight": host.endpoint.weight,
        "priority": host.priority,
        "locality": {
            "region": host.locality.region,
            "zone": host.locality.zone,
            "sub_zone": host.locality.subzone,
        },
    });
    if let (Some(hostname), Some(object)) = (&host.endpoint.hostname, value.as_object_mut()) {
        object.insert("hostname".to_owned(), hostname.clone().into());
    }
    value
}

fn address_json(address: &EndpointAddress) -> Value {
    match address {
        EndpointAddress::Socket(address) => super::listeners::socket_json(*address),
        EndpointAddress::Name { host, port } => json!({"socket_address": {"address": host, "port_value": port}}),
        EndpointAddress::Pipe(path) => json!({"pipe": {"path": path.display().to_string()}}),
    }
}
