//! VirtualService.

use std::collections::HashSet;

use mizzen_api::networking::VirtualService;

use super::{Validate, export_to, http_route, l4_route, names};
use crate::check::Check;

impl Validate for VirtualService {
    fn validate(&self, check: &mut Check) {
        let delegate = self.hosts.is_empty();
        if delegate {
            as_delegate(check, self);
        }
        hosts(check, self);
        gateways(check, &self.gateways);
        if self.http.is_empty() && self.tls.is_empty() && self.tcp.is_empty() {
            check.missing("http", "http: [{route: [{destination: {host: …}}]}]");
        }
        check.each("http", &self.http, |check, rule| {
            gateways_of_matches(check, rule.r#match.iter().map(|m| m.gateways.as_slice()));
            http_route::http_route(check, rule, delegate);
        });
        let hosts = l4_route::Hosts::new(&self.hosts);
        check.each("tls", &self.tls, |check, rule| {
            gateways_of_matches(check, rule.r#match.iter().map(|m| m.gateways.as_slice()));
            l4_route::tls_route(check, rule, &hosts);
        });
        check.each("tcp", &self.tcp, |check, rule| {
            gateways_of_matches(check, rule.r#match.iter().map(|m| m.gateways.as_slice()));
            l4_route::tcp_route(check, rule);
        });
        export_to(check, &self.export_to);
    }
}

/// Without hosts it is a delegate of another VirtualService (reference: semantics 68).
fn as_delegate(check: &mut Check, rule: &VirtualService) {
    let alone = !rule.http.is_empty() && rule.gateways.is_empty() && rule.tls.is_empty() && rule.tcp.is_empty();
    if !alone {
        check.missing("hosts", "hosts: [reviews]");
    }
}

fn hosts(check: &mut Check, rule: &VirtualService) {
    let in_mesh = rule.gateways.is_empty() || rule.gateways.iter().any(|gateway| gateway == "mesh");
    let mut seen = HashSet::new();
    check.each("hosts", &rule.hosts, |check, host| {
        names::rule_host(check, host);
        if host == "*" && in_mesh {
            check.not_allowed(
                "`*` as host would catch all traffic inside of the mesh",
                "name the hosts, or name a Gateway in `gateways` and leave `mesh` out",
            );
        }
        if !seen.insert(host.to_ascii_lowercase()) {
            check.conflict(format!("the host `{host}` stands twice in `hosts`"), "remove one of the two");
        }
    });
}

fn gateways(check: &mut Check, list: &[String]) {
    check.each("gateways", list, |check, gateway| names::gateway_reference(check, gateway));
}

fn gateways_of_matches<'l>(check: &mut Check, lists: impl Iterator<Item = &'l [String]>) {
    for (index, list) in lists.enumerate() {
        if !list.is_empty() {
            check.element("match", index, |check| gateways(check, list));
        }
    }
}
