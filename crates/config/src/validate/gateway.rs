//! Gateway.

use std::collections::HashSet;

use mizzen_api::networking::{Gateway, Server, ServerTlsMode, ServerTlsSettings};
use mizzen_types::Protocol;

use super::{Validate, names};
use crate::check::Check;
use crate::code;
use crate::yaml::shortened;

impl Validate for Gateway {
    fn validate(&self, check: &mut Check) {
        if self.servers.is_empty() {
            check.missing("servers", "servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]");
        }
        if self.selector.is_empty() {
            check.field("selector", |check| {
                check.warn(
                    code::DUBIOUS,
                    "without `selector` the Gateway applies to every gateway of every namespace",
                    "write for instance `selector: {istio: ingressgateway}`",
                );
            });
        }
        let mut port_names = HashSet::new();
        check.each("servers", &self.servers, |check, server| {
            let name = &server.port.name;
            if !name.is_empty() && !port_names.insert(name.clone()) {
                check.field("port", |check| {
                    check.field("name", |check| {
                        check.conflict(
                            format!("the port name `{name}` is given to two servers"),
                            "give each port a name of its own",
                        );
                    });
                });
            }
            validate_server(check, server);
        });
    }
}

fn validate_server(check: &mut Check, server: &Server) {
    let protocol = check_port(check, server);
    if server.hosts.is_empty() {
        check.missing("hosts", "hosts: [\"*\"]");
    }
    check.each("hosts", &server.hosts, |check, host| check_host(check, host));
    if !server.bind.is_empty()
        && server.bind.parse::<std::net::IpAddr>().is_err()
        && !server.bind.starts_with("unix://")
    {
        check.field("bind", |check| {
            check.not_allowed(
                format!("`{}` is no address", shortened(&server.bind)),
                "write an address such as `127.0.0.1`",
            );
        });
    }
    let Some(protocol) = protocol else { return };
    match &server.tls {
        Some(tls) => check.field("tls", |check| check_tls(check, protocol, tls)),
        None if protocol.is_tls() => {
            check.missing("tls", "tls: {mode: SIMPLE, credentialName: my-cert}");
        }
        None => {}
    }
}

fn check_port(check: &mut Check, server: &Server) -> Option<Protocol> {
    let port = &server.port;
    let mut protocol = None;
    check.field("port", |check| {
        if port.number == 0 && !server.bind.starts_with("unix://") {
            check.missing("number", "number: 80");
        }
        if port.name.is_empty() {
            check.missing("name", "name: http");
        } else {
            check.field("name", |check| names::port_name(check, &port.name));
        }
        if port.target_port.is_some() {
            check.field("targetPort", |check| {
                check.not_allowed("a Gateway's port has no `targetPort`; the gateway's Service maps it", "remove it");
            });
        }
        if port.protocol.is_empty() {
            check.missing("protocol", "protocol: HTTP");
        } else {
            names::protocol(check, &port.protocol);
            protocol = Protocol::by_name(&port.protocol);
        }
    });
    protocol
}

/// `dns` or `namespace/dns`.
fn check_host(check: &mut Check, host: &str) {
    let (namespace, dns) = match host.split_once('/') {
        Some((namespace, dns)) => (namespace, dns),
        None => ("*", host),
    };
    if !matches!(namespace, "*" | "." | "~") && !names::is_label(namespace) {
        check.not_allowed(
            format!("`{}` is no namespace", shortened(namespace)),
            "write `namespace/host`, `./host` or the host alone",
        );
    }
    let address = dns.parse::<std::net::IpAddr>().is_ok();
    if !names::is_wildcard_host(dns) && !address {
        names::bad_host(check, dns);
    }
}

fn check_tls(check: &mut Check, protocol: Protocol, tls: &ServerTlsSettings) {
    if tls.https_redirect && protocol.is_tls() {
        return check.field("httpsRedirect", |check| {
            check.conflict("`httpsRedirect` is for a server that speaks plain HTTP", "remove it here");
        });
    }
    if protocol.is_http() {
        let other = *tls != ServerTlsSettings { https_redirect: tls.https_redirect, ..Default::default() };
        if other {
            check.conflict(
                format!("a server of protocol {protocol} cannot have TLS beside `httpsRedirect`"),
                "write `protocol: HTTPS`",
            );
        }
        return;
    }
    let credentials =
        !tls.credential_name.is_empty() || !tls.credential_names.is_empty() || !tls.tls_certificates.is_empty();
    let files = !tls.server_certificate.is_empty() || !tls.private_key.is_empty();
    if !tls.credential_name.is_empty() && !tls.credential_names.is_empty() {
        check.conflict("`credentialName` and `credentialNames` exclude each other", "remove one of the two");
    }
    match tls.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough | ServerTlsMode::IstioMutual => {
            if credentials || files {
                check.conflict(
                    format!(
                        "with mode {:?} the gateway needs no certificate, so the one given has no effect",
                        tls.mode
                    ),
                    "remove it, or write `mode: SIMPLE`",
                );
            }
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            if !credentials {
                if !files {
                    check.missing("credentialName", "credentialName: my-cert");
                } else {
                    for (name, path) in
                        [("serverCertificate", &tls.server_certificate), ("privateKey", &tls.private_key)]
                    {
                        if path.is_empty() {
                            check.missing(name, "credentialName: my-cert");
                        }
                    }
                    if tls.mode != ServerTlsMode::Simple
                        && tls.ca_certificates.is_empty()
                        && tls.ca_cert_credential_name.is_empty()
                    {
                        check.missing("caCertificates", "caCertificates: /etc/certs/ca.pem");
                    }
                }
            } else if files {
                check.conflict("`credentialName` and certificate files exclude each other", "remove one of the two");
            }
        }
    }
    if tls.max_protocol_version != mizzen_api::networking::TlsProtocol::Auto
        && tls.min_protocol_version > tls.max_protocol_version
    {
        check.field("minProtocolVersion", |check| {
            check.conflict("the lowest version is above the highest", "exchange the two");
        });
    }
}
