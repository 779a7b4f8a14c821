//! # MZ0108 unknown-rule-host
//!
//! ## What it does
//!
//! Finds DestinationRules for a host that is no service.
//!
//! ## Why is this bad
//!
//! The rule has no effect. A short name is looked up in the namespace of the rule, so a rule in another namespace than the
//! service needs the full name.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: DestinationRule
//! metadata: {name: reviews}
//! spec:
//!   host: revews
//!   trafficPolicy: {loadBalancer: {simple: RANDOM}}
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
//!   trafficPolicy: {loadBalancer: {simple: RANDOM}}
//! ```

use crate::Found;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    for rule in &view.destination_rules {
        let (host, namespace) = (rule.spec.host.as_str(), rule.namespace());
        if view.host_is_known(host, namespace) {
            continue;
        }
        let resolved = view.mesh.resolve(host, namespace);
        let elsewhere = view.mesh.services().find(|service| &*service.name == host).map(|service| &service.key.host);
        let near = || mizzen_config::nearest(host, view.mesh.services_in(namespace).map(|service| &*service.name));
        let hint = match (elsewhere, near()) {
            (Some(full), _) => format!("did you mean `{full}`?"),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => "name a service that exists".to_owned(),
        };
        found.at(
            rule.object,
            "spec.host",
            format!("there is no service `{resolved}`, so the rule has no effect"),
            hint,
        );
    }
}
