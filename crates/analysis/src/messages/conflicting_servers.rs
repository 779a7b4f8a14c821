//! # MZ0106 conflicting-servers
//!
//! ## What it does
//!
//! Finds servers of Gateways for the same workloads that want one port to speak two protocols.
//!
//! ## Why is this bad
//!
//! The server of the older Gateway is in force, the other is left out.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: a}
//! spec:
//!   selector: {istio: ingressgateway}
//!   servers: [{port: {number: 443, name: http, protocol: HTTP}, hosts: [a.example.com]}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: b}
//! spec:
//!   selector: {istio: ingressgateway}
//!   servers:
//!     - port: {number: 443, name: https, protocol: HTTPS}
//!       hosts: [b.example.com]
//!       tls: {mode: SIMPLE, credentialName: b}
//! ```
//!
//! ## Fix
//!
//! Give each protocol a port of its own.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: a}
//! spec:
//!   selector: {istio: ingressgateway}
//!   servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.example.com]}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: b}
//! spec:
//!   selector: {istio: ingressgateway}
//!   servers:
//!     - port: {number: 443, name: https, protocol: HTTPS}
//!       hosts: [b.example.com]
//!       tls: {mode: SIMPLE, credentialName: b}
//! ```

use std::collections::HashMap;

use mizzen_types::{ObjectKey, Protocol};

use crate::Found;
use crate::view::View;

/// What one listener can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Http,
    Tls,
    Tcp,
}

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    let mut seen: HashMap<(String, u16, &str), (Family, &str, &ObjectKey)> = HashMap::new();
    for gateway in &view.gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(protocol) = Protocol::by_name(&server.port.protocol) else { continue };
            let family = match protocol {
                protocol if protocol.is_http() => Family::Http,
                protocol if protocol.is_tls() => Family::Tls,
                _ => Family::Tcp,
            };
            let place = (gateway.spec.selector.to_string(), server.port.number, server.bind.as_str());
            let name = server.port.protocol.as_str();
            let (first, first_name, owner) = *seen.entry(place).or_insert((family, name, &gateway.object.key));
            if first != family {
                found.at(
                    gateway.object,
                    format!("spec.servers[{index}].port"),
                    format!(
                        "port {} already speaks {first_name} for {owner}; this server is left out",
                        server.port.number
                    ),
                    "give it another port",
                );
            }
        }
    }
}
