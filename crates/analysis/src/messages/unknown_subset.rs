//! # MZ0102 unknown-subset
//!
//! ## What it does
//!
//! Finds destinations with a subset that no DestinationRule defines for their host.
//!
//! ## Why is this bad
//!
//! There is no fall-back to the whole service: requests that take the route are answered with 503 and the response flag
//! `NC` (no cluster).
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http:
//!     - route:
//!         - destination: {host: reviews, subset: v2}
//! ```
//!
//! ## Fix
//!
//! Define the subset.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http:
//!     - route:
//!         - destination: {host: reviews, subset: v2}
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews}
//! spec:
//!   host: reviews
//!   subsets:
//!     - name: v2
//!       labels: {version: v2}
//! ```

use crate::Found;
use crate::destinations::destinations;
use crate::view::{View, listed};

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    for rule in &view.virtual_services {
        let namespace = rule.namespace();
        for (path, to) in destinations(rule.spec) {
            // An unknown host is another message.
            if to.subset.is_empty() || !view.host_is_known(&to.host, namespace) {
                continue;
            }
            let rules: Vec<_> = view.rules_for(&to.host, namespace).collect();
            let names: Vec<&str> =
                rules.iter().flat_map(|rule| &rule.spec.subsets).map(|subset| subset.name.as_str()).collect();
            if names.contains(&to.subset.as_str()) {
                continue;
            }
            let message = match rules.first() {
                None => {
                    format!("no DestinationRule defines the subset `{}` of `{}`; requests get 503", to.subset, to.host)
                }
                Some(rule) => {
                    format!("the subset `{}` is not defined by {}; requests get 503", to.subset, rule.object.key)
                }
            };
            let hint = match (mizzen_config::nearest(&to.subset, names.iter().copied()), names.is_empty()) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, false) => format!("there are the subsets {}", listed(names)),
                (None, true) => format!(
                    "add a DestinationRule for `{}` with `subsets: [{{name: {}, labels: {{…}}}}]`",
                    to.host, to.subset
                ),
            };
            found.at(rule.object, format!("{path}.subset"), message, hint);
        }
    }
}
