//! ServiceEntry and WorkloadEntry.

use std::collections::HashSet;
use std::net::IpAddr;

use mizzen_api::networking::{ServiceEntry, ServiceEntryResolution as Resolution, WorkloadEntry};
use mizzen_types::Protocol;

use super::{Validate, export_to, names};
use crate::check::Check;
use crate::code;
use crate::yaml::shortened;

impl Validate for ServiceEntry {
    fn validate(&self, check: &mut Check) {
        if self.hosts.is_empty() {
            check.missing("hosts", "hosts: [api.example.com]");
        }
        check.each("hosts", &self.hosts, |check, host| {
            if host == "*" {
                check.not_allowed("`*` would be every host there is", "name a domain, for instance `*.example.com`");
            } else if !names::is_wildcard_host(host) {
                names::bad_host(check, host);
            }
        });
        check.each("addresses", &self.addresses, |check, text| names::subnet(check, text));
        ports(check, self);
        if self.workload_selector.is_some() && !self.endpoints.is_empty() {
            check.field("endpoints", |check| {
                check.conflict("`endpoints` and `workloadSelector` exclude each other", "remove one of the two");
            });
        }
        resolution(check, self);
        check.each("endpoints", &self.endpoints, |check, endpoint| {
            endpoint_ports(check, endpoint, self);
            if !matches!(self.resolution, Resolution::None) {
                address(check, endpoint, self.resolution == Resolution::Static);
            }
        });
        export_to(check, &self.export_to);
    }
}

fn ports(check: &mut Check, entry: &ServiceEntry) {
    let (mut numbers, mut port_names) = (HashSet::new(), HashSet::new());
    check.each("ports", &entry.ports, |check, port| {
        if port.number == 0 {
            check.missing("number", "number: 443");
        } else if !numbers.insert(port.number) {
            check.field("number", |check| {
                check.conflict(format!("the port {} is given twice", port.number), "remove one of the two");
            });
        }
        if port.name.is_empty() {
            check.missing("name", "name: https");
        } else {
            check.field("name", |check| {
                names::port_name(check, &port.name);
                if !port_names.insert(port.name.clone()) {
                    check.conflict(
                        format!("the port name `{}` is given twice", port.name),
                        "give each port a name of its own",
                    );
                }
            });
        }
        if !port.protocol.is_empty() {
            names::protocol(check, &port.protocol);
        }
    });
}

fn resolution(check: &mut Check, entry: &ServiceEntry) {
    let no_endpoints = entry.endpoints.is_empty();
    let wildcard = entry.hosts.iter().any(|host| host.starts_with('*'));
    let network = entry.addresses.iter().any(|text| text.contains('/'));
    match entry.resolution {
        Resolution::None => {
            if !no_endpoints {
                check.field("endpoints", |check| {
                    check.conflict(
                        "with `resolution: NONE` there are no endpoints",
                        "write `resolution: STATIC` or `DNS`",
                    );
                });
            }
        }
        Resolution::Static => {
            if no_endpoints && entry.workload_selector.is_none() {
                check.missing("endpoints", "endpoints: [{address: 10.0.0.1}]");
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            if no_endpoints && wildcard && entry.workload_selector.is_none() {
                check.field("hosts", |check| {
                    check.conflict(
                        "a wildcard host cannot be looked up in DNS",
                        "name the hosts, give `endpoints`, or write `resolution: NONE`",
                    );
                });
            }
            if network {
                check.field("addresses", |check| {
                    check.conflict(
                        "networks in `addresses` need `resolution: NONE` or `STATIC`",
                        "write single addresses",
                    );
                });
            }
            if entry.resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
                check.field("endpoints", |check| {
                    check.conflict("`DNS_ROUND_ROBIN` takes one endpoint", "write `resolution: DNS`");
                });
            }
        }
        Resolution::DynamicDns => {
            if !wildcard {
                check.field("hosts", |check| {
                    check.conflict("`DYNAMIC_DNS` is for wildcard hosts", "write `resolution: DNS`");
                });
            }
            if !no_endpoints || !entry.addresses.is_empty() {
                check.conflict("`DYNAMIC_DNS` takes neither `addresses` nor `endpoints`", "remove them");
            }
            for port in &entry.ports {
                let named = Protocol::by_name(&port.protocol);
                if !named.is_some_and(|protocol| protocol.is_http() || protocol.is_tls()) {
                    check.conflict(
                        format!("`DYNAMIC_DNS` needs HTTP or TLS on port {}", port.number),
                        "write `protocol: TLS`",
                    );
                }
            }
        }
    }
    if entry.ports.is_empty() && entry.resolution != Resolution::None {
        check.missing("ports", "ports: [{number: 443, name: https, protocol: TLS}]");
    }
}

fn endpoint_ports(check: &mut Check, endpoint: &WorkloadEntry, entry: &ServiceEntry) {
    check.field("ports", |check| {
        for name in endpoint.ports.keys() {
            if !entry.ports.iter().any(|port| port.name == *name) {
                let near = crate::nearest(name, entry.ports.iter().map(|port| port.name.as_str()));
                let hint = near
                    .map_or_else(|| "name a port of `spec.ports`".to_owned(), |word| format!("did you mean `{word}`?"));
                check.field(name, |check| {
                    check.error(code::CONFLICT, format!("the entry has no port named `{}`", shortened(name)), hint);
                });
            }
        }
    });
}

/// An address; with `only_ip` a name does not do.
fn address(check: &mut Check, endpoint: &WorkloadEntry, only_ip: bool) {
    let text = endpoint.address.as_str();
    if text.is_empty() {
        if endpoint.network.is_empty() {
            check.missing("address", "address: 10.0.0.1");
        }
        return;
    }
    let socket = text.strip_prefix("unix://");
    check.field("address", |check| {
        if let Some(path) = socket {
            if !path.starts_with('/') && !path.starts_with('@') {
                check.not_allowed("the path of a unix socket has to be absolute", "write `unix:///path/to/socket`");
            }
        } else if only_ip && text.parse::<IpAddr>().is_err() {
            check.not_allowed(format!("`{}` is no address", shortened(text)), "write an address, or `resolution: DNS`");
        } else if !names::is_fqdn(text) && text.parse::<IpAddr>().is_err() {
            names::bad_host(check, text);
        }
    });
    if socket.is_some() && !endpoint.ports.is_empty() {
        check.conflict("an endpoint on a unix socket has no ports", "remove `ports`");
    }
}

impl Validate for WorkloadEntry {
    fn validate(&self, check: &mut Check) {
        address(check, self, false);
    }
}
