//! Rules of a VirtualService's `tls` and `tcp`.

use std::collections::HashSet;

use mizzen_api::networking::{RouteDestination, TcpRoute, TlsRoute};
use mizzen_types::Hostname;

use super::http_route::{destination, total_weight, weight};
use super::names;
use crate::check::Check;

/// The hosts of a VirtualService, to look SNI hosts up in.
pub(super) struct Hosts {
    exact: HashSet<Hostname>,
    wildcards: Vec<Hostname>,
}

impl Hosts {
    pub(super) fn new(hosts: &[String]) -> Self {
        let (wildcards, exact): (Vec<_>, Vec<_>) =
            hosts.iter().map(|host| Hostname::new(host)).partition(Hostname::is_wildcard);
        Self { exact: exact.into_iter().collect(), wildcards }
    }

    fn cover(&self, sni: &str) -> bool {
        let sni = Hostname::new(sni);
        self.exact.contains(&sni) || self.wildcards.iter().any(|host| sni.is_subset_of(host))
    }
}

pub(super) fn tls_route(check: &mut Check, rule: &TlsRoute, hosts: &Hosts) {
    if rule.r#match.is_empty() {
        check.missing("match", "match: [{sniHosts: [www.example.com]}]");
    }
    check.each("match", &rule.r#match, |check, value| {
        if value.sni_hosts.is_empty() {
            check.missing("sniHosts", "sniHosts: [www.example.com]");
        }
        check.each("sniHosts", &value.sni_hosts, |check, sni| {
            if !names::is_wildcard_host(sni) {
                names::bad_host(check, sni);
            } else if !hosts.cover(sni) {
                check.conflict(
                    format!("the SNI host `{sni}` is not among the hosts of the VirtualService"),
                    format!("add `{sni}` to `hosts`"),
                );
            }
        });
        check.each("destinationSubnets", &value.destination_subnets, |check, text| names::subnet(check, text));
    });
    routes(check, &rule.route);
}

pub(super) fn tcp_route(check: &mut Check, rule: &TcpRoute) {
    check.each("match", &rule.r#match, |check, value| {
        check.each("destinationSubnets", &value.destination_subnets, |check, text| names::subnet(check, text));
    });
    routes(check, &rule.route);
}

fn routes(check: &mut Check, list: &[RouteDestination]) {
    if list.is_empty() {
        check.missing("route", "route: [{destination: {host: …}}]");
    }
    check.each("route", list, |check, to| {
        check.field("destination", |check| destination(check, &to.destination));
        weight(check, to.weight);
    });
    total_weight(check, list.iter().map(|to| to.weight));
}
