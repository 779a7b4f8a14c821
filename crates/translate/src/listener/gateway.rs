//! Listeners of gateways (reference: semantics 65, 78 to 94).

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_api::networking::{ServerTlsMode, ServerTlsSettings, TlsProtocol as WrittenProtocol};
use mizzen_mesh::{DestinationPolicy, Mesh, Service};
use mizzen_proto::envoy::config::core::v3::{DataSource, TrafficDirection, data_source::Specifier};
use mizzen_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsCertificate,
    TlsParameters, tls_parameters::TlsProtocol,
};

use super::http::{self, Routes, Side};
use super::outbound::{applies, ranges, sni_names};
use super::tcp::{self, Way};
use super::{HANDSHAKE_TIMEOUT, access_log, chain, named, tls_inspector};
use crate::gateway::{Entry, Merged, ServerKind, merge};
use crate::view::{Dialect, ProxyView};
use crate::{names, pb, tls};

pub(super) fn listeners(mesh: &Mesh, view: &ProxyView) -> Vec<Listener> {
    merge(mesh, &view.scope(mesh)).iter().filter_map(|socket| listener(mesh, view, socket)).collect()
}

/// `None` when no rule says where connections go.
fn listener(mesh: &Mesh, view: &ProxyView, socket: &Merged) -> Option<Listener> {
    let (address, name) = if socket.bind.is_empty() {
        // The name is Istio's wherever the socket is bound.
        (view.bind.as_str(), format!("0.0.0.0_{}", socket.bound))
    } else {
        (socket.bind.as_str(), format!("{}_{}", socket.bind, socket.bound))
    };
    let mut listener = named(&name, address, socket.bound, TrafficDirection::Outbound);
    let stat_prefix = format!("outbound_{name}");
    let mut taken = BTreeSet::new();
    match socket.kind() {
        ServerKind::Http => {
            let routes = Routes::Named(socket.http_table());
            let manager = http::manager(mesh, view, Side::Gateway, &stat_prefix, routes);
            listener.filter_chains = vec![timed(chain(vec![manager]))];
        }
        ServerKind::Tcp => {
            listener.filter_chains = socket.entries.iter().find_map(|entry| tcp_chains(mesh, view, entry))?;
        }
        ServerKind::Https | ServerKind::TerminatedTls | ServerKind::PassthroughTls => {
            for entry in &socket.entries {
                listener.filter_chains.extend(tls_chains(mesh, view, entry, &stat_prefix, &mut taken));
            }
            listener.listener_filters = vec![tls_inspector()];
        }
    }
    if listener.filter_chains.is_empty() {
        return None;
    }
    listener.max_connections_to_accept_per_socket_event = pb::u32(1);
    listener.access_log = access_log::unmatched(mesh);
    Some(listener)
}

fn timed(chain: FilterChain) -> FilterChain {
    FilterChain { transport_socket_connect_timeout: pb::duration(HANDSHAKE_TIMEOUT), ..chain }
}

/// Connections of a plain server: what the first VirtualService with a fitting rule says.
fn tcp_chains(mesh: &Mesh, view: &ProxyView, entry: &Entry) -> Option<Vec<FilterChain>> {
    for (rule, _) in entry.attached(mesh, &view.scope(mesh)) {
        let namespace = &*rule.order.namespace;
        let mut chains = Vec::new();
        for tcp in &rule.spec.tcp {
            let Some(way) = Way::of_rule(mesh, view, &tcp.route, namespace, &rule.order.name, entry.port()) else {
                continue;
            };
            let passing = |chain_match| {
                let filters = tcp::filters(mesh, view, Side::Gateway, &way);
                timed(FilterChain { filter_chain_match: chain_match, ..chain(filters) })
            };
            if tcp.r#match.is_empty() {
                chains.push(passing(None));
                return Some(chains);
            }
            for wanted in &tcp.r#match {
                let fits = applies(
                    view,
                    entry.port(),
                    namespace,
                    &entry.attachment(),
                    wanted.port,
                    &wanted.source_labels,
                    &wanted.source_namespace,
                    &wanted.gateways,
                );
                if !fits {
                    continue;
                }
                let ranges = ranges(&wanted.destination_subnets);
                if ranges.is_empty() {
                    chains.push(passing(None));
                    return Some(chains);
                }
                chains.push(passing(Some(FilterChainMatch { prefix_ranges: ranges, ..Default::default() })));
            }
        }
        if !chains.is_empty() {
            return Some(chains);
        }
    }
    None
}

fn tls_chains(
    mesh: &Mesh,
    view: &ProxyView,
    entry: &Entry,
    stat_prefix: &str,
    taken: &mut BTreeSet<String>,
) -> Vec<FilterChain> {
    let named = |names: Vec<String>| {
        // A chain without any condition says so by having none.
        (!names.is_empty()).then(|| FilterChainMatch { server_names: names, ..Default::default() })
    };
    let settings = entry.server().tls.as_ref();
    let ended_here = |filters| {
        let settings = settings?;
        Some(timed(FilterChain {
            filter_chain_match: named(sni_names(entry.names.iter().cloned())?),
            transport_socket: Some(tls::server_socket(&server_context(mesh, view, settings)?)),
            ..chain(filters)
        }))
    };
    match entry.kind {
        ServerKind::Https => {
            let routes = Routes::Named(entry.https_table());
            let manager = http::manager(mesh, view, Side::Gateway, stat_prefix, routes);
            ended_here(vec![manager]).into_iter().collect()
        }
        ServerKind::TerminatedTls => {
            let found = tcp_chains(mesh, view, entry).and_then(|chains| chains.into_iter().next());
            found.and_then(|chain| ended_here(chain.filters)).into_iter().collect()
        }
        ServerKind::PassthroughTls if settings.is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough) => {
            auto_passthrough(mesh, view, entry)
        }
        ServerKind::PassthroughTls => passthrough(mesh, view, entry, taken),
        ServerKind::Http | ServerKind::Tcp => Vec::new(),
    }
}

/// TLS that goes on as it is, by the server name asked for (reference: semantics 61, 62).
fn passthrough(mesh: &Mesh, view: &ProxyView, entry: &Entry, taken: &mut BTreeSet<String>) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for (rule, hosts) in entry.attached(mesh, &view.scope(mesh)) {
        let namespace = &*rule.order.namespace;
        for tls in &rule.spec.tls {
            for wanted in &tls.r#match {
                let fits = applies(
                    view,
                    entry.port(),
                    namespace,
                    &entry.attachment(),
                    wanted.port,
                    &wanted.source_labels,
                    &wanted.source_namespace,
                    &wanted.gateways,
                );
                let Some(way) =
                    Way::of_rule(mesh, view, &tls.route, namespace, &rule.order.name, entry.port()).filter(|_| fits)
                else {
                    continue;
                };
                let asked = wanted.sni_hosts.iter().map(|host| mizzen_types::Hostname::new(host));
                let shared = asked.filter(|host| hosts.iter().any(|server| host.is_subset_of(server)));
                let fresh = shared.filter(|host| taken.insert(host.as_str().to_owned()));
                let Some(server_names) = sni_names(fresh) else { continue };
                let chain_match = FilterChainMatch {
                    server_names,
                    prefix_ranges: ranges(&wanted.destination_subnets),
                    ..Default::default()
                };
                chains.push(timed(FilterChain {
                    filter_chain_match: Some(chain_match),
                    ..chain(tcp::filters(mesh, view, Side::Gateway, &way))
                }));
            }
        }
    }
    chains
}

/// Mesh TLS of other gateways and sidecars, to any service, by the mesh's own server names (reference: semantics 91).
fn auto_passthrough(mesh: &Mesh, view: &ProxyView, entry: &Entry) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    let wanted = |service: &&Arc<Service>| {
        let host = &service.key.host;
        !host.is_wildcard() && entry.names.iter().any(|name| host.is_subset_of(name))
    };
    for service in mesh.visible_services(&view.namespace).filter(wanted) {
        let policy = mesh.destination_policy(service, &view.namespace, &view.labels);
        let subsets: Vec<String> =
            policy.iter().flat_map(DestinationPolicy::subsets).map(|(_, _, subset)| subset.name.clone()).collect();
        for port in &service.ports {
            let host = service.key.host.as_str();
            for subset in std::iter::once("").chain(subsets.iter().map(String::as_str)) {
                let way = Way::Cluster(names::outbound(port.number, subset, host));
                let chain_match = FilterChainMatch {
                    server_names: vec![names::sni(port.number, subset, host)],
                    application_protocols: tls::alpn(&[
                        "istio",
                        "istio-peer-exchange",
                        "istio-http/1.0",
                        "istio-http/1.1",
                        "istio-h2",
                    ]),
                    ..Default::default()
                };
                chains.push(timed(FilterChain {
                    filter_chain_match: Some(chain_match),
                    ..chain(tcp::filters(mesh, view, Side::Gateway, &way))
                }));
            }
        }
    }
    chains
}

/// TLS that ends at the gateway; `None` when the server has no certificate, for then it cannot be served.
fn server_context(mesh: &Mesh, view: &ProxyView, settings: &ServerTlsSettings) -> Option<DownstreamTlsContext> {
    let config = mesh.config();
    if settings.mode == ServerTlsMode::IstioMutual {
        let domains = std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases);
        return Some(tls::mesh_server(domains.map(String::as_str), &["h2", "http/1.1"]));
    }
    let mut common = CommonTlsContext {
        tls_params: parameters(settings),
        alpn_protocols: tls::alpn(&["h2", "http/1.1"]),
        ..Default::default()
    };
    own_certificates(view, settings, &mut common)?;
    let asks = matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    if asks && settings.insecure_skip_verify != Some(true) {
        common.validation_context_type = client_validation(view, settings);
    }
    Some(DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: pb::bool(settings.mode == ServerTlsMode::Mutual),
        ..Default::default()
    })
}

fn parameters(settings: &ServerTlsSettings) -> Option<TlsParameters> {
    let version = |written: WrittenProtocol| match written {
        WrittenProtocol::Auto => TlsProtocol::TlsAuto,
        WrittenProtocol::V1_0 => TlsProtocol::TlSv10,
        WrittenProtocol::V1_1 => TlsProtocol::TlSv11,
        WrittenProtocol::V1_2 => TlsProtocol::TlSv12,
        WrittenProtocol::V1_3 => TlsProtocol::TlSv13,
    };
    let mut seen = BTreeSet::new();
    let mut ciphers = settings.cipher_suites.clone();
    ciphers.retain(|cipher| seen.insert(cipher.clone()));
    let params = TlsParameters {
        cipher_suites: ciphers,
        ecdh_curves: settings.ecdh_curves.clone(),
        ..tls::parameters(version(settings.min_protocol_version), version(settings.max_protocol_version))
    };
    (params != TlsParameters::default()).then_some(params)
}

/// A name that SDS is asked for; without a scheme it is a Secret of Kubernetes.
fn credential(name: &str, suffix: &str) -> SdsSecretConfig {
    let name = if name.contains("://") { format!("{name}{suffix}") } else { format!("kubernetes://{name}{suffix}") };
    tls::control_plane_secret(&name)
}

fn own_certificates(view: &ProxyView, settings: &ServerTlsSettings, common: &mut CommonTlsContext) -> Option<()> {
    let named: Vec<&String> = if settings.credential_names.is_empty() {
        Some(&settings.credential_name).filter(|name| !name.is_empty()).into_iter().collect()
    } else {
        settings.credential_names.iter().collect()
    };
    if !named.is_empty() {
        common.tls_certificate_sds_secret_configs = named.into_iter().map(|name| credential(name, "")).collect();
        return Some(());
    }
    let listed = settings.tls_certificates.iter().map(|pair| (&pair.server_certificate, &pair.private_key));
    let mut pairs: Vec<(&String, &String)> = listed.collect();
    if pairs.is_empty() {
        pairs.push((&settings.server_certificate, &settings.private_key));
    }
    for (certificate, key) in pairs.into_iter().filter(|(cert, key)| !cert.is_empty() && !key.is_empty()) {
        match view.dialect {
            Dialect::Istio => common
                .tls_certificate_sds_secret_configs
                .push(tls::agent_file(&format!("file-cert:{certificate}~{key}"))),
            Dialect::Envoy => common.tls_certificates.push(TlsCertificate {
                certificate_chain: file(certificate),
                private_key: file(key),
                ..Default::default()
            }),
        }
    }
    let any = !common.tls_certificate_sds_secret_configs.is_empty() || !common.tls_certificates.is_empty();
    any.then_some(())
}

fn file(path: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..Default::default() })
}

fn client_validation(view: &ProxyView, settings: &ServerTlsSettings) -> Option<ValidationContextType> {
    let names: Vec<_> = settings.subject_alt_names.iter().map(|name| pb::exact(name)).collect();
    #[allow(deprecated)] // As Istio says it: a name of any type.
    let default = CertificateValidationContext {
        match_subject_alt_names: names.clone(),
        verify_certificate_spki: settings.verify_certificate_spki.clone(),
        verify_certificate_hash: settings.verify_certificate_hash.clone(),
        ..Default::default()
    };
    let first = settings.credential_names.first().unwrap_or(&settings.credential_name);
    let roots = if !settings.ca_cert_credential_name.is_empty() {
        credential(&settings.ca_cert_credential_name, "")
    } else if !first.is_empty() {
        credential(first, "-cacert")
    } else if settings.ca_certificates.is_empty() {
        return Some(ValidationContextType::ValidationContext(default));
    } else if view.dialect == Dialect::Envoy {
        let trusted_ca = file(&settings.ca_certificates);
        return Some(ValidationContextType::ValidationContext(CertificateValidationContext { trusted_ca, ..default }));
    } else {
        tls::agent_file(&format!("file-root:{}", settings.ca_certificates))
    };
    let mut combined = tls::validation(roots, names);
    if let Some(ValidationContextType::CombinedValidationContext(combined)) = &mut combined {
        combined.default_validation_context = Some(default);
    }
    combined
}
