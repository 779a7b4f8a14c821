//! # MZ0103 duplicate-host
//!
//! ## What it does
//!
//! Finds VirtualServices for the same host inside of the mesh. At gateways they are joined, so these are not meant.
//!
//! ## Why is this bad
//!
//! A sidecar obeys one VirtualService per host: the oldest, and of the same age the first by name. The rules of the other
//! have no effect.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews-a}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews}}]}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews-b}
//! spec:
//!   hosts: [reviews.default.svc.cluster.local]
//!   http: [{timeout: 5s, route: [{destination: {host: reviews}}]}]
//! ```
//!
//! ## Fix
//!
//! Put all rules of a host into one VirtualService.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews-a}
//! spec:
//!   hosts: [reviews]
//!   http: [{timeout: 5s, route: [{destination: {host: reviews}}]}]
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use mizzen_mesh::{Attachment, VirtualServiceRule};
use mizzen_types::Hostname;

use crate::Found;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    let mut seen: HashMap<Hostname, Vec<Arc<VirtualServiceRule>>> = HashMap::new();
    for rule in &view.virtual_services {
        let key = &rule.object.key;
        let Some(indexed) = view.mesh.virtual_service(&key.namespace, &key.name) else { continue };
        if !indexed.attachments.contains(&Attachment::Mesh) {
            continue;
        }
        for (index, host) in rule.spec.hosts.iter().enumerate() {
            let older = seen.entry(view.mesh.resolve(host, &key.namespace)).or_default();
            let meet = |other: &&Arc<VirtualServiceRule>| {
                // One host may be spelt in several ways by one object.
                other.key() != *key
                    && (other.visibility.shows_to(&key.namespace)
                        || indexed.visibility.shows_to(&other.order.namespace))
            };
            if let Some(first) = older.iter().find(meet) {
                let first = first.key();
                found.at(
                    rule.object,
                    format!("spec.hosts[{index}]"),
                    format!("`{host}` is already the host of {first}, which is older and wins inside of the mesh"),
                    format!("put the rules into {first}, or restrict both with `exportTo`"),
                );
            }
            older.push(Arc::clone(indexed));
        }
    }
}
