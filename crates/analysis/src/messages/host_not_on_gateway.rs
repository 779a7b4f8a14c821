//! # MZ0107 host-not-on-gateway
//!
//! ## What it does
//!
//! Finds hosts of a VirtualService that no server of its Gateway has.
//!
//! ## Why is this bad
//!
//! The gateway does not answer for that host: requests get 404.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: web}
//! spec:
//!   selector: {istio: ingressgateway}
//!   servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.example.com"]}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: bookinfo}
//! spec:
//!   hosts: [bookinfo.example.org]
//!   gateways: [web]
//!   http: [{route: [{destination: {host: reviews}}]}]
//! ```
//!
//! ## Fix
//!
//! Name the same host at both, or a wildcard at the Gateway.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: web}
//! spec:
//!   selector: {istio: ingressgateway}
//!   servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.example.com"]}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: bookinfo}
//! spec:
//!   hosts: [bookinfo.example.com]
//!   gateways: [web]
//!   http: [{route: [{destination: {host: reviews}}]}]
//! ```

use mizzen_api::networking::Gateway;
use mizzen_types::Hostname;

use crate::Found;
use crate::view::{Of, View, listed};

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    for rule in &view.virtual_services {
        let namespace = rule.namespace();
        // A host for sidecars need not be at a gateway too.
        if rule.spec.gateways.is_empty() || rule.spec.gateways.iter().any(|gateway| gateway == "mesh") {
            continue;
        }
        let gateways: Vec<_> =
            rule.spec.gateways.iter().filter_map(|gateway| view.gateway(gateway, namespace)).collect();
        if gateways.is_empty() {
            continue;
        }
        for (index, host) in rule.spec.hosts.iter().enumerate() {
            let meant = view.mesh.resolve(host, namespace);
            if gateways.iter().any(|gateway| offers(gateway, &meant, namespace)) {
                continue;
            }
            let hosts = gateways.iter().flat_map(|gateway| &gateway.spec.servers).flat_map(|server| &server.hosts);
            let hosts: Vec<&str> = hosts.map(String::as_str).collect();
            found.at(
                rule.object,
                format!("spec.hosts[{index}]"),
                format!("no server of {} has the host `{host}`", listed(rule.spec.gateways.iter().map(String::as_str))),
                format!("the servers have {}; name the host there or change it here", listed(hosts)),
            );
        }
    }
}

/// Whether a server takes VirtualServices of `namespace` for this host (reference: semantics 81 and 82).
fn offers(gateway: &Of<'_, Gateway>, host: &Hostname, namespace: &str) -> bool {
    gateway.spec.servers.iter().flat_map(|server| &server.hosts).any(|entry| {
        let (wanted, dns) = entry.split_once('/').unwrap_or(("*", entry));
        let allowed = match wanted {
            "*" => true,
            "." => gateway.namespace() == namespace,
            other => other == namespace,
        };
        allowed && Hostname::new(dns).overlaps(host)
    })
}
