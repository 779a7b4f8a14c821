//! `/listeners`: names and addresses of listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use mizzen_snapshot::Listener;
use mizzen_snapshot::listener::ListenAddress;
use serde_json::{Value, json};

use crate::shared::Shared;

fn shown(shared: &Shared) -> Vec<Arc<Listener>> {
    let mut all: Vec<_> = shared.snapshot.load().listeners.values().cloned().collect();
    all.sort_by(|left, right| left.name.cmp(&right.name));
    all
}

/// `NAME::ADDRESS`, one a line.
pub(super) fn text(shared: &Shared) -> String {
    let line = |listener: &Arc<Listener>| match &listener.address {
        ListenAddress::Tcp(address) => format!("{}::{address}\n", listener.name),
        ListenAddress::Unix(path) => format!("{}::{}\n", listener.name, path.display()),
    };
    shown(shared).iter().map(line).collect()
}

pub(super) fn json(shared: &Shared) -> Value {
    let statuses: Vec<Value> = shown(shared)
        .iter()
        .map(|listener| {
            let address = match &listener.address {
                ListenAddress::Tcp(address) => socket_json(*address),
                ListenAddress::Unix(path) => json!({"pipe": {"path": path.display().to_string()}}),
            };
            json!({"name": listener.name.as_str(), "local_address": address})
        })
        .collect();
    json!({ "listener_statuses": statuses })
}

pub(super) fn socket_json(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
