//! Whether one resource is right in itself: the rules of Istio's admission webhook, one file per kind.

mod destination_rule;
mod gateway;
mod http_route;
mod kubernetes;
mod l4_route;
pub(crate) mod names;
mod peer_authentication;
mod service_entry;
mod string_match;
mod traffic_policy;
mod virtual_service;

use std::time::Duration;

use mizzen_api::{networking, security, telemetry};

use crate::check::Check;

pub(crate) trait Validate {
    /// Adds what is wrong with the value that the check stands at.
    fn validate(&self, check: &mut Check);
}

/// Kinds that are read so that they can be named, but that nothing obeys yet: see `obeyed`.
macro_rules! not_validated {
    ($($kind:ty),* $(,)?) => {
        $(impl Validate for $kind {
            fn validate(&self, _: &mut Check) {}
        })*
    };
}

not_validated! {
    networking::EnvoyFilter,
    networking::ProxyConfig,
    networking::Sidecar,
    networking::WorkloadGroup,
    security::AuthorizationPolicy,
    security::RequestAuthentication,
    telemetry::Telemetry,
}

/// Durations are whole milliseconds of at least one, as in Istio.
fn duration(check: &mut Check, value: Duration) {
    if value < Duration::from_millis(1) {
        check.not_allowed(format!("{value:?} is shorter than 1 ms"), "write at least `1ms`, or leave the field out");
    }
}

/// As [`duration`], where zero means none.
fn duration_or_zero(check: &mut Check, value: Duration) {
    if !value.is_zero() {
        duration(check, value);
    }
}

/// `.`, `*`, `~` or names of namespaces.
fn export_to(check: &mut Check, list: &[String]) {
    let mut seen = std::collections::HashSet::new();
    check.each("exportTo", list, |check, item| {
        if !seen.insert(item.clone()) {
            check.conflict(format!("`{item}` stands twice in `exportTo`"), "remove one of the two");
        }
        match item.as_str() {
            "*" | "~" if list.len() > 1 => check.conflict(
                format!("`{item}` in `exportTo` leaves nothing for the other entries to say"),
                format!("write `exportTo: [\"{item}\"]` alone, or only namespaces"),
            ),
            "." | "*" | "~" => {}
            other => names::label(check, other),
        }
    });
}
