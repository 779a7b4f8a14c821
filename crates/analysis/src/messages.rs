//! All messages, by code.

mod conflicting_servers;
mod dotted_short_name;
mod duplicate_host;
mod duplicate_subset;
mod duplicate_traffic_policy;
mod gateway_without_workload;
mod host_not_on_gateway;
mod port_without_protocol;
mod subset_without_workload;
mod uneven_weights;
mod unknown_destination;
mod unknown_gateway;
mod unknown_port;
mod unknown_rule_host;
mod unknown_subset;
mod unreachable_route;

use mizzen_types::Severity;

use crate::Message;

macro_rules! message {
    ($code:literal, $name:literal, $severity:ident, $module:ident) => {
        Message {
            code: $code,
            name: $name,
            severity: Severity::$severity,
            source: include_str!(concat!("messages/", stringify!($module), ".rs")),
            check: $module::check,
        }
    };
}

/// Codes are never given to another message.
pub const MESSAGES: &[Message] = &[
    message!("MZ0101", "unknown-destination", Error, unknown_destination),
    message!("MZ0102", "unknown-subset", Error, unknown_subset),
    message!("MZ0103", "duplicate-host", Warning, duplicate_host),
    message!("MZ0104", "unknown-gateway", Error, unknown_gateway),
    message!("MZ0105", "gateway-without-workload", Warning, gateway_without_workload),
    message!("MZ0106", "conflicting-servers", Error, conflicting_servers),
    message!("MZ0107", "host-not-on-gateway", Warning, host_not_on_gateway),
    message!("MZ0108", "unknown-rule-host", Warning, unknown_rule_host),
    message!("MZ0109", "duplicate-subset", Warning, duplicate_subset),
    message!("MZ0110", "dotted-short-name", Info, dotted_short_name),
    message!("MZ0111", "unreachable-route", Warning, unreachable_route),
    message!("MZ0112", "port-without-protocol", Info, port_without_protocol),
    message!("MZ0113", "unknown-port", Error, unknown_port),
    message!("MZ0114", "subset-without-workload", Warning, subset_without_workload),
    message!("MZ0115", "uneven-weights", Info, uneven_weights),
    message!("MZ0116", "duplicate-traffic-policy", Warning, duplicate_traffic_policy),
];
