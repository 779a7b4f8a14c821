//! # MZ0110 dotted-short-name
//!
//! ## What it does
//!
//! Finds hosts such as `reviews.default` that are taken for the Kubernetes service `reviews` of namespace `default`,
//! because nothing goes by that name itself.
//!
//! ## Why is this bad
//!
//! It works here, but Istio takes every name with a dot for a full name: there the same rule leads nowhere. And as soon as a
//! ServiceEntry has that very host, that is what is meant.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews.default}}]}]
//! ```
//!
//! ## Fix
//!
//! Write the full name.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews.default.svc.cluster.local}}]}]
//! ```

use mizzen_config::Object;

use crate::Found;
use crate::destinations::destinations;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    let mut report = |object: &Object, path: String, host: &str| {
        let namespace = &object.key.namespace;
        if view.mesh.is_stretched(host, namespace) {
            let meant = view.mesh.resolve(host, namespace);
            let message = format!("`{host}` is taken for `{meant}`; Istio would take it for a literal host");
            found.at(object, path, message, format!("write `{meant}`"));
        }
    };
    for rule in &view.virtual_services {
        for (index, host) in rule.spec.hosts.iter().enumerate() {
            report(rule.object, format!("spec.hosts[{index}]"), host);
        }
        for (path, to) in destinations(rule.spec) {
            report(rule.object, format!("{path}.host"), &to.host);
        }
    }
    for rule in &view.destination_rules {
        report(rule.object, "spec.host".to_owned(), &rule.spec.host);
    }
}
