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
    /// What stands behind the `*`.
    suffixes: HashSet<String>,
}

impl Hosts {
    pub(super) fn new(hosts: &[String]) -> Self {
        let (wildcards, exact): (Vec<_>, Vec<_>) =
            hosts.iter().map(|host| Hostname::new(host)).partition(Hostname::is_wildcard);
        Self {
            exact: exact.into_iter().collect(),
            suffixes: wildcards.iter().map(|host| host.as_str()[1..].to_owned()).collect(),
        }
    }

    /// Whether some host has it as a subset. Costs its length, however many hosts there are.
    fn cover(&self, sni: &str) -> bool {
        let sni = Hostname::new(sni);
        let text = sni.as_str();
        // A name has to be longer than the suffix, and so has a wildcard, by its `*`.
        self.exact.contains(&sni)
            || text.char_indices().skip(1).any(|(at, _)| self.suffixes.contains(&text[at..]))
            || (!text.is_empty() && self.suffixes.contains(""))
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn sni_hosts_are_covered_as_hostnames_are_subsets(
            hosts in proptest::collection::vec("\\*?\\.?[ab]{0,2}(\\.[ab]{1,2})?", 1..4),
            sni in "\\*?\\.?[ab]{1,2}(\\.[ab]{1,2})?",
        ) {
            let expected = hosts.iter().any(|host| Hostname::new(&sni).is_subset_of(&Hostname::new(host)));
            proptest::prop_assert_eq!(Hosts::new(&hosts).cover(&sni), expected);
        }
    }
}
