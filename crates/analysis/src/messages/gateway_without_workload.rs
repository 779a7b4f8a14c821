//! # MZ0105 gateway-without-workload
//!
//! ## What it does
//!
//! Finds Gateways whose selector fits no workload.
//!
//! ## Why is this bad
//!
//! Nobody listens for what the Gateway describes; connections are refused.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: bookinfo-gateway}
//! spec:
//!   selector: {istio: ingress}
//!   servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
//! ```
//!
//! ## Fix
//!
//! Select labels that the gateway's pods have.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: bookinfo-gateway}
//! spec:
//!   selector: {istio: ingressgateway}
//!   servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
//! ```

use mizzen_types::Labels;

use crate::Found;
use crate::view::{View, listed};

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    // Where no workload is known at all, none can be missed.
    if view.workloads.is_empty() {
        return;
    }
    for gateway in &view.gateways {
        let selector = &gateway.spec.selector;
        if view.any_workload(selector, None) {
            continue;
        }
        let existing = selector.iter().find_map(|(key, _)| {
            let values = view.values_of(key, None, &Labels::default());
            (!values.is_empty()).then(|| format!("workloads have `{key}` as {}", listed(values)))
        });
        let hint = existing.unwrap_or_else(|| {
            let keys = selector.iter().map(|(key, _)| key);
            format!("give the gateway's pods the label {}", listed(keys))
        });
        found.at(
            gateway.object,
            "spec.selector",
            format!("no workload has the labels `{selector}`, so nobody listens"),
            hint,
        );
    }
}
