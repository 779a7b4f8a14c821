//! # MZ0114 subset-without-workload
//!
//! ## What it does
//!
//! Finds subsets that a VirtualService routes to and whose labels no workload of the service has.
//!
//! ## Why is this bad
//!
//! The subset has no endpoints: requests that are routed to it are answered with 503 and the response flag `UH` (no
//! healthy upstream).
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews}
//! spec:
//!   host: reviews
//!   subsets: [{name: v7, labels: {version: v7}}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews, subset: v7}}]}]
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
//!   subsets: [{name: v2, labels: {version: v2}}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews, subset: v2}}]}]
//! ```

use std::collections::HashSet;

use mizzen_types::{Hostname, Labels};

use crate::Found;
use crate::destinations::destinations;
use crate::view::{View, listed};

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    let used = used_subsets(view);
    for rule in &view.destination_rules {
        let Some(service) = view.service(&rule.spec.host, rule.namespace()) else { continue };
        // Without workloads there is more amiss than one subset; and hosts that DNS resolves have none.
        let Some(selector) = &service.selector else { continue };
        let namespace = Some(&*service.key.namespace);
        if !view.any_workload(selector, namespace) {
            continue;
        }
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            let both: Labels = selector.iter().chain(subset.labels.iter()).collect();
            let routed = used.contains(&(service.key.host.clone(), subset.name.as_str()));
            if !routed || view.any_workload(&both, namespace) {
                continue;
            }
            let values = subset.labels.iter().find_map(|(key, _)| {
                let values = view.values_of(key, namespace, selector);
                (!values.is_empty()).then(|| format!("its workloads have `{key}` as {}", listed(values)))
            });
            found.at(
                rule.object,
                format!("spec.subsets[{index}].labels"),
                format!(
                    "no workload of `{}` has the labels `{}`; requests to the subset get 503",
                    rule.spec.host, subset.labels
                ),
                values.unwrap_or_else(|| "give the pods of that version these labels".to_owned()),
            );
        }
    }
}

/// Subsets that some VirtualService routes to.
fn used_subsets<'o>(view: &View<'o>) -> HashSet<(Hostname, &'o str)> {
    let mut used = HashSet::new();
    for rule in &view.virtual_services {
        for (_, to) in destinations(rule.spec).into_iter().filter(|(_, to)| !to.subset.is_empty()) {
            used.insert((view.mesh.resolve(&to.host, rule.namespace()), to.subset.as_str()));
        }
    }
    used
}
