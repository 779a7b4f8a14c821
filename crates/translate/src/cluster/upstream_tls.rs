//! TLS to a cluster: what the rule says, else mutual TLS to every endpoint that takes it (reference: semantics 133 to 141).

use mizzen_api::networking::{ClientTlsMode, ClientTlsSettings, ProxyProtocolVersion};
use mizzen_mesh::endpoint::takes_mtls;
use mizzen_proto::envoy::config::cluster::v3::Cluster;
use mizzen_proto::envoy::config::cluster::v3::cluster::{DiscoveryType, TransportSocketMatch};
use mizzen_proto::envoy::config::core::v3::{
    self as core, DataSource, ProxyProtocolConfig, TransportSocket, data_source::Specifier, proxy_protocol_config,
};
use mizzen_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, TlsCertificate, UpstreamTlsContext, certificate_validation_context,
    tls_parameters::TlsProtocol,
};
use serde_json::json;

use super::{Target, pool};
use crate::traffic_policy::Effective;
use crate::view::{Dialect, Role};
use crate::{names, pb, tls};

pub(super) fn apply(cluster: &mut Cluster, target: &Target<'_>, policy: &Effective<'_>) {
    let wrap = |socket: TransportSocket| match policy.proxy_protocol {
        Some(protocol) => proxy_protocol(protocol.version, socket),
        None => socket,
    };
    match policy.tls {
        Some(settings) => {
            if let Some(context) = explicit(cluster, target, policy, settings) {
                cluster.transport_socket = Some(wrap(tls::client_socket(&context)));
                return;
            }
        }
        None if is_automatic(target) => {
            let name = names::sni(target.port.number, target.subset_name(), target.service.key.host.as_str());
            let context = tls::mesh_client(&name, &identities(target), &mesh_protocols(target, policy));
            let socket = wrap(tls::client_socket(&context));
            if target.discovery() == DiscoveryType::OriginalDst {
                // No endpoint is known that could say what it takes (reference: semantics 136).
                if all_take_mtls(target) {
                    cluster.transport_socket = Some(socket);
                    return;
                }
            } else {
                cluster.transport_socket_matches = vec![
                    TransportSocketMatch {
                        name: "tlsMode-istio".to_owned(),
                        r#match: Some(pb::structure(&json!({"tlsMode": "istio"}))),
                        transport_socket: Some(socket),
                    },
                    TransportSocketMatch {
                        name: "tlsMode-disabled".to_owned(),
                        r#match: Some(Default::default()),
                        transport_socket: Some(wrap(tls::raw_socket())),
                    },
                ];
                return;
            }
        }
        None => {}
    }
    if policy.proxy_protocol.is_some() {
        cluster.transport_socket = Some(wrap(tls::raw_socket()));
    }
}

fn is_automatic(target: &Target<'_>) -> bool {
    target.mesh.config().enable_auto_mtls && !target.service.external
}

fn all_take_mtls(target: &Target<'_>) -> bool {
    let endpoints = target.mesh.endpoints(&target.service.key);
    let endpoints = endpoints.map(|endpoints| endpoints.on_port(target.port.number)).unwrap_or_default();
    let takes = |endpoint: &mizzen_mesh::Endpoint| {
        let policy = target.mesh.peer_policy(&endpoint.workload.namespace, &endpoint.workload.labels);
        takes_mtls(endpoint, policy.on_port(endpoint.port))
    };
    !endpoints.is_empty() && endpoints.iter().all(takes)
}

/// Who may answer: the service accounts of the endpoints in every trust domain of the mesh, and what a ServiceEntry says.
fn identities(target: &Target<'_>) -> Vec<String> {
    let config = target.mesh.config();
    let domains = || std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases);
    let mut all: Vec<String> = Vec::new();
    if let Some(endpoints) = target.mesh.endpoints(&target.service.key) {
        for (namespace, account) in endpoints.service_accounts(target.port.number) {
            all.extend(domains().map(|domain| format!("spiffe://{domain}/ns/{namespace}/sa/{account}")));
        }
    }
    all.extend(target.service.subject_alt_names.iter().cloned());
    all.sort_unstable();
    all.dedup();
    all
}

/// ALPN names of mesh TLS. In Istio's dialect a filter replaces them per request for HTTP; stock Envoy has no such filter,
/// so there the cluster's protocol decides.
fn mesh_protocols(target: &Target<'_>, policy: &Effective<'_>) -> Vec<&'static str> {
    let http2 = pool::speaks_http2(target, policy);
    match target.client.dialect {
        Dialect::Istio if http2 => vec!["istio-peer-exchange", "istio", "h2"],
        Dialect::Istio => vec!["istio-peer-exchange", "istio"],
        Dialect::Envoy if http2 => vec!["istio-h2", "istio", "h2"],
        Dialect::Envoy if target.port.protocol.is_http() => vec!["istio-http/1.1", "istio", "http/1.1"],
        // Neither side may wait for a metadata exchange that stock Envoy does not make.
        Dialect::Envoy => vec!["istio"],
    }
}

/// `None` when the rule asks for no TLS, or for one that cannot be had.
fn explicit(
    cluster: &mut Cluster,
    target: &Target<'_>,
    policy: &Effective<'_>,
    settings: &ClientTlsSettings,
) -> Option<UpstreamTlsContext> {
    match settings.mode {
        ClientTlsMode::Disable => None,
        ClientTlsMode::IstioMutual => {
            let name = if settings.sni.is_empty() {
                names::sni(target.port.number, target.subset_name(), target.service.key.host.as_str())
            } else {
                settings.sni.clone()
            };
            let listed = &settings.subject_alt_names;
            let names = if listed.is_empty() { identities(target) } else { listed.clone() };
            Some(tls::mesh_client(&name, &names, &mesh_protocols(target, policy)))
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            let own = own_certificate(target, settings)?;
            let validated = validation(target, settings);
            let mut common = CommonTlsContext {
                tls_params: Some(tls::parameters(TlsProtocol::TlSv12, TlsProtocol::TlSv13)),
                validation_context_type: validated,
                ..own
            };
            if pool::speaks_http2(target, policy) {
                common.alpn_protocols = tls::alpn(&["h2"]);
            }
            name_from_request(cluster, target, settings);
            Some(UpstreamTlsContext {
                common_tls_context: Some(common),
                sni: settings.sni.clone(),
                ..Default::default()
            })
        }
    }
}

fn may_use_credentials(target: &Target<'_>) -> bool {
    let for_this_client =
        target.policy.is_some_and(|policy| policy.rules.iter().any(|rule| rule.spec.workload_selector.is_some()));
    target.client.role == Role::Router || for_this_client
}

/// The client's certificate of `MUTUAL`; `None` when there is none, for then TLS cannot be had (reference: semantics 141).
fn own_certificate(target: &Target<'_>, settings: &ClientTlsSettings) -> Option<CommonTlsContext> {
    let mut common = CommonTlsContext::default();
    if settings.credential_name.is_empty() {
        if settings.mode == ClientTlsMode::Mutual {
            let (certificate, key) = (&settings.client_certificate, &settings.private_key);
            if certificate.is_empty() || key.is_empty() {
                return None;
            }
            match target.client.dialect {
                Dialect::Istio => {
                    let name = format!("file-cert:{certificate}~{key}");
                    common.tls_certificate_sds_secret_configs = vec![tls::agent_file(&name)];
                }
                Dialect::Envoy => {
                    common.tls_certificates = vec![TlsCertificate {
                        certificate_chain: file(certificate),
                        private_key: file(key),
                        ..Default::default()
                    }];
                }
            }
        }
        return Some(common);
    }
    if !may_use_credentials(target) {
        return None;
    }
    if settings.mode == ClientTlsMode::Mutual {
        let name = format!("kubernetes://{}", settings.credential_name);
        common.tls_certificate_sds_secret_configs = vec![tls::control_plane_secret(&name)];
    }
    Some(common)
}

fn file(path: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..Default::default() })
}

fn validation(target: &Target<'_>, settings: &ClientTlsSettings) -> Option<ValidationContextType> {
    if settings.insecure_skip_verify == Some(true) {
        return None;
    }
    let listed = &settings.subject_alt_names;
    let names = if listed.is_empty() { &target.service.subject_alt_names } else { listed };
    let names: Vec<_> = names.iter().map(|name| pb::exact(name)).collect();
    if !settings.credential_name.is_empty() {
        let roots = tls::control_plane_secret(&format!("kubernetes://{}-cacert", settings.credential_name));
        return tls::validation(roots, names);
    }
    let file_name = &settings.ca_certificates;
    match target.client.dialect {
        Dialect::Istio => {
            let roots = if file_name.is_empty() { "system" } else { file_name };
            tls::validation(tls::agent_file(&format!("file-root:{roots}")), names)
        }
        Dialect::Envoy => {
            #[allow(deprecated)] // As Istio says it: a name of any type.
            let mut context = CertificateValidationContext { match_subject_alt_names: names, ..Default::default() };
            if file_name.is_empty() {
                context.system_root_certs = Some(certificate_validation_context::SystemRootCerts {});
            } else {
                context.trusted_ca = file(file_name);
            }
            Some(ValidationContextType::ValidationContext(context))
        }
    }
}

/// Without a name in the rule, the request's host is the name that is asked for and verified (reference: semantics 139).
fn name_from_request(cluster: &mut Cluster, target: &Target<'_>, settings: &ClientTlsSettings) {
    if !settings.sni.is_empty() {
        return;
    }
    let verified = settings.insecure_skip_verify == Some(true);
    let named = !settings.subject_alt_names.is_empty() || !target.service.subject_alt_names.is_empty();
    pool::change_http_options(cluster, |options| {
        options.upstream_http_protocol_options = Some(core::UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: !verified && !named,
            ..Default::default()
        });
    });
}

fn proxy_protocol(version: ProxyProtocolVersion, inner: TransportSocket) -> TransportSocket {
    let version = match version {
        ProxyProtocolVersion::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => proxy_protocol_config::Version::V2,
    };
    let transport = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig { version: version as i32, ..Default::default() }),
        transport_socket: Some(inner),
        ..Default::default()
    };
    tls::transport_socket("envoy.transport_sockets.upstream_proxy_protocol", &transport)
}

/// Whether endpoints of a cluster are marked as taking mutual TLS, so that one of the sockets above is chosen.
pub(crate) fn marks_endpoints(policy: &Effective<'_>) -> bool {
    policy.tls.is_none_or(|tls| tls.mode == ClientTlsMode::IstioMutual)
}
