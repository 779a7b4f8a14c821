//! # MZ0113 unknown-port
//!
//! ## What it does
//!
//! Finds destinations with a port that their service does not have.
//!
//! ## Why is this bad
//!
//! Requests that take the route are answered with 503 and the response flag `NC` (no cluster). The port is that of the
//! Service, not the container's.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews, port: {number: 8080}}}]}]
//! ```
//!
//! ## Fix
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]
//! ```

use crate::Found;
use crate::destinations::destinations;
use crate::view::{View, listed};

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    for rule in &view.virtual_services {
        for (path, to) in destinations(rule.spec) {
            let Some(number) = to.port_number() else { continue };
            let Some(service) = view.service(&to.host, rule.namespace()) else { continue };
            if service.port(number).is_none() {
                let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
                found.at(
                    rule.object,
                    format!("{path}.port.number"),
                    format!("`{}` has no port {number}; requests get 503", service.key.host),
                    format!("its ports are {}", listed(ports.iter().map(String::as_str))),
                );
            }
        }
    }
}
