//! # MZ0109 duplicate-subset
//!
//! ## What it does
//!
//! Finds subsets that two DestinationRules of one namespace define for the same host.
//!
//! ## Why is this bad
//!
//! The rules are joined; of two subsets with one name that of the older rule counts.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews-a}
//! spec:
//!   host: reviews
//!   subsets: [{name: v1, labels: {version: v1}}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews-b}
//! spec:
//!   host: reviews
//!   subsets: [{name: v1, labels: {version: v2}}]
//! ```
//!
//! ## Fix
//!
//! Give each subset a name of its own, best in one rule.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews}
//! spec:
//!   host: reviews
//!   subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
//! ```

use std::collections::HashMap;

use mizzen_types::{Hostname, ObjectKey};

use crate::Found;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    let mut seen: HashMap<(Hostname, &str, &str), &ObjectKey> = HashMap::new();
    for rule in &view.destination_rules {
        // Rules for chosen clients are not joined with others.
        if rule.spec.workload_selector.is_some() {
            continue;
        }
        let host = view.mesh.resolve(&rule.spec.host, rule.namespace());
        let key = &rule.object.key;
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            let first = *seen.entry((host.clone(), &*key.namespace, &subset.name)).or_insert(key);
            if first != key {
                found.at(
                    rule.object,
                    format!("spec.subsets[{index}].name"),
                    format!(
                        "the subset `{}` of `{}` is already defined by {first}, which is older and counts",
                        subset.name, rule.spec.host
                    ),
                    "give it another name, or remove one of the two",
                );
            }
        }
    }
}
