//! # MZ0116 duplicate-traffic-policy
//!
//! ## What it does
//!
//! Finds two DestinationRules of one namespace that both have a `trafficPolicy` for the same host.
//!
//! ## Why is this bad
//!
//! The rules are joined, but only the traffic policy of the older one counts.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews-a}
//! spec:
//!   host: reviews
//!   trafficPolicy: {loadBalancer: {simple: RANDOM}}
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews-b}
//! spec:
//!   host: reviews
//!   trafficPolicy: {connectionPool: {tcp: {maxConnections: 10}}}
//! ```
//!
//! ## Fix
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews}
//! spec:
//!   host: reviews
//!   trafficPolicy:
//!     loadBalancer: {simple: RANDOM}
//!     connectionPool: {tcp: {maxConnections: 10}}
//! ```

use std::collections::HashMap;

use mizzen_types::{Hostname, ObjectKey};

use crate::Found;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    let mut seen: HashMap<(Hostname, &str), &ObjectKey> = HashMap::new();
    for rule in &view.destination_rules {
        if rule.spec.traffic_policy.is_none() || rule.spec.workload_selector.is_some() {
            continue;
        }
        let key = &rule.object.key;
        let host = view.mesh.resolve(&rule.spec.host, rule.namespace());
        let first = *seen.entry((host, &*key.namespace)).or_insert(key);
        if first != key {
            found.at(
                rule.object,
                "spec.trafficPolicy",
                format!("{first} has a traffic policy for `{}` too; it is older and counts", rule.spec.host),
                format!("put both into {first}"),
            );
        }
    }
}
