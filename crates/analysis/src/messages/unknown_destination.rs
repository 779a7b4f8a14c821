//! # MZ0101 unknown-destination
//!
//! ## What it does
//!
//! Finds routes and mirrors of a VirtualService that lead to a host which is no service: no Kubernetes Service and no
//! ServiceEntry goes by that name, or it is not exported to the namespace of the VirtualService.
//!
//! ## Why is this bad
//!
//! Requests that take the route are answered with 503 and the response flag `NC` (no cluster).
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
//!         - destination: {host: revews}
//! ```
//!
//! ## Fix
//!
//! Name a service that exists, or add a ServiceEntry for a host outside of the mesh.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http:
//!     - route:
//!         - destination: {host: reviews}
//! ```

use crate::Found;
use crate::destinations::destinations;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    for rule in &view.virtual_services {
        let namespace = rule.namespace();
        for (path, to) in destinations(rule.spec) {
            if view.host_is_known(&to.host, namespace) {
                continue;
            }
            let resolved = view.mesh.resolve(&to.host, namespace);
            let (why, hint) = match view.hidden_service(&to.host, namespace) {
                Some(service) => (
                    format!("the service `{resolved}` is not exported to namespace `{namespace}`"),
                    format!("export {} to `{namespace}`, or move the VirtualService", service.origin),
                ),
                None => {
                    let names = view.mesh.services_in(namespace).map(|service| &*service.name);
                    let near = mizzen_config::nearest(&to.host, names);
                    let hint = near.map_or_else(
                        || "name a service that exists, or add a ServiceEntry for it".to_owned(),
                        |near| format!("did you mean `{near}`?"),
                    );
                    (format!("there is no service `{resolved}`"), hint)
                }
            };
            found.at(rule.object, format!("{path}.host"), format!("{why}; requests get 503"), hint);
        }
    }
}
