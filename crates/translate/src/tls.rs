//! TLS of the mesh: certificates by SDS, who may answer and who may call (reference: semantics 133 to 149).

use mizzen_proto::envoy::config::core::v3 as core;
use mizzen_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
    UpstreamTlsContext, common_tls_context, tls_parameters::TlsProtocol,
};
use mizzen_proto::envoy::r#type::matcher::v3::StringMatcher;

use crate::pb;

/// Name of the secret with the workload's own certificate.
pub(crate) const OWN_CERTIFICATE: &str = "default";
/// Name of the secret with the roots of the mesh.
pub(crate) const ROOTS: &str = "ROOTCA";

const MESH_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// A secret that the agent beside the proxy serves, on the cluster `sds-grpc` of the bootstrap.
pub(crate) fn agent_secret(name: &str) -> SdsSecretConfig {
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(core::grpc_service::EnvoyGrpc {
            cluster_name: "sds-grpc".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    let config = core::ConfigSource {
        initial_fetch_timeout: pb::zero(),
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(source)),
        ..Default::default()
    };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(config) }
}

/// A file that the agent serves as a secret. Unlike a certificate of the mesh it may never come, so it is not waited for.
pub(crate) fn agent_file(name: &str) -> SdsSecretConfig {
    let mut secret = agent_secret(name);
    if let Some(config) = &mut secret.sds_config {
        config.initial_fetch_timeout = None;
    }
    secret
}

/// A secret that the control plane serves, once it exists.
pub(crate) fn control_plane_secret(name: &str) -> SdsSecretConfig {
    let config = pb::ads().map(|config| core::ConfigSource { initial_fetch_timeout: None, ..config });
    SdsSecretConfig { name: name.to_owned(), sds_config: config }
}

pub(crate) fn parameters(minimum: TlsProtocol, maximum: TlsProtocol) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: minimum as i32,
        tls_maximum_protocol_version: maximum as i32,
        ..Default::default()
    }
}

/// Roots from a secret, and names of which one has to be in the certificate.
pub(crate) fn validation(
    roots: SdsSecretConfig,
    names: Vec<StringMatcher>,
) -> Option<common_tls_context::ValidationContextType> {
    #[allow(deprecated)] // What Istio sends; matches a name of any type.
    let default = CertificateValidationContext { match_subject_alt_names: names, ..Default::default() };
    Some(common_tls_context::ValidationContextType::CombinedValidationContext(
        common_tls_context::CombinedCertificateValidationContext {
            default_validation_context: Some(default),
            validation_context_sds_secret_config: Some(roots),
            ..Default::default()
        },
    ))
}

pub(crate) fn alpn(protocols: &[&str]) -> Vec<String> {
    protocols.iter().map(|protocol| (*protocol).to_owned()).collect()
}

/// The client's side of mesh TLS.
pub(crate) fn mesh_client(sni: &str, identities: &[String], protocols: &[&str]) -> UpstreamTlsContext {
    UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(parameters(TlsProtocol::TlSv12, TlsProtocol::TlSv13)),
            tls_certificate_sds_secret_configs: vec![agent_secret(OWN_CERTIFICATE)],
            validation_context_type: validation(
                agent_secret(ROOTS),
                identities.iter().map(|name| pb::exact(name)).collect(),
            ),
            alpn_protocols: alpn(protocols),
            ..Default::default()
        }),
        sni: sni.to_owned(),
        ..Default::default()
    }
}

/// The server's side: only workloads of these trust domains may call.
pub(crate) fn mesh_server<'a>(
    trust_domains: impl Iterator<Item = &'a str>,
    protocols: &[&str],
) -> DownstreamTlsContext {
    let names = trust_domains.map(|domain| pb::prefix(&format!("spiffe://{domain}/"))).collect();
    let mut params = parameters(TlsProtocol::TlSv12, TlsProtocol::TlSv13);
    params.cipher_suites = alpn(&MESH_CIPHERS);
    DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(params),
            tls_certificate_sds_secret_configs: vec![agent_secret(OWN_CERTIFICATE)],
            validation_context_type: validation(agent_secret(ROOTS), names),
            alpn_protocols: alpn(protocols),
            ..Default::default()
        }),
        require_client_certificate: pb::bool(true),
        ..Default::default()
    }
}

pub(crate) fn transport_socket<M: prost::Message + prost::Name>(name: &str, context: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(pb::any(context))),
    }
}

pub(crate) fn client_socket(context: &UpstreamTlsContext) -> core::TransportSocket {
    transport_socket("envoy.transport_sockets.tls", context)
}

pub(crate) fn server_socket(context: &DownstreamTlsContext) -> core::TransportSocket {
    transport_socket("envoy.transport_sockets.tls", context)
}

pub(crate) fn raw_socket() -> core::TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer {})
}
