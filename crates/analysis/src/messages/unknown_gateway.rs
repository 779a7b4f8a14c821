//! # MZ0104 unknown-gateway
//!
//! ## What it does
//!
//! Finds VirtualServices that name a Gateway which does not exist.
//!
//! ## Why is this bad
//!
//! The routes are offered nowhere: the gateway answers with 404.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: bookinfo}
//! spec:
//!   hosts: [bookinfo.example.com]
//!   gateways: [bookinfo-gateway]
//!   http: [{route: [{destination: {host: reviews}}]}]
//! ```
//!
//! ## Fix
//!
//! Add the Gateway, or name one that exists as `name` or `namespace/name`.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: bookinfo}
//! spec:
//!   hosts: [bookinfo.example.com]
//!   gateways: [bookinfo-gateway]
//!   http: [{route: [{destination: {host: reviews}}]}]
//! ---
//! apiVersion: networking.istio.io/v1
//! kind: Gateway
//! metadata: {name: bookinfo-gateway}
//! spec:
//!   selector: {istio: ingressgateway}
//!   servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
//! ```

use crate::Found;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    for rule in &view.virtual_services {
        let own = rule.spec.gateways.iter().enumerate().map(|(index, name)| (format!("spec.gateways[{index}]"), name));
        let in_matches = rule.spec.http.iter().enumerate().flat_map(|(r, http)| {
            http.r#match.iter().enumerate().flat_map(move |(m, one)| {
                let path = move |g| format!("spec.http[{r}].match[{m}].gateways[{g}]");
                one.gateways.iter().enumerate().map(move |(g, name)| (path(g), name))
            })
        });
        for (path, reference) in own.chain(in_matches) {
            if reference == "mesh" || view.gateway(reference, rule.namespace()).is_some() {
                continue;
            }
            let full = |gateway: &crate::view::Of<'_, _>| {
                format!("{}/{}", gateway.object.key.namespace, gateway.object.key.name)
            };
            let wanted = reference.rsplit('/').next().unwrap_or(reference);
            let elsewhere = view.gateways.iter().find(|gateway| &*gateway.object.key.name == wanted).map(full);
            let near = || {
                let names = view.gateways.iter().map(|gateway| &*gateway.object.key.name);
                mizzen_config::nearest(wanted, names).map(str::to_owned)
            };
            let hint = elsewhere.or_else(near).map_or_else(
                || "add the Gateway, or name one as `namespace/name`".to_owned(),
                |name| format!("did you mean `{name}`?"),
            );
            let message = format!("there is no Gateway `{reference}`, so nothing of this is offered there");
            found.at(rule.object, path, message, hint);
        }
    }
}
