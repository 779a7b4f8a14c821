//! TLS contexts: what is terminated, and what is originated.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mizzen_proto::envoy::config::core::v3::DataSource;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsCertificate, TlsParameters, UpstreamTlsContext, certificate_validation_context::TrustChainVerification,
    common_tls_context::ValidationContextType, subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
};
use mizzen_snapshot::tls::{
    CertificateSource, ClientAuth, ClientTls, Pins, Roots, SanKind, SanMatch, ServerTls, TlsVersions, Validation,
};
use mizzen_types::SecretName;

use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::limits;
use crate::matcher;
use crate::value::{self, Source};

pub(crate) fn server(wire: &DownstreamTlsContext) -> Result<ServerTls> {
    not_obeyed!(wire, require_sni, session_ticket_keys_type);
    let common = wire.common_tls_context.as_ref().ok_or_else(|| Invalid::new("a TLS context is missing"))?;
    let context = Common::read(common).at("common_tls_context")?;
    if context.certificates.is_empty() {
        return Err(Invalid::new("a server needs a certificate").within("common_tls_context"));
    }
    let wanted = value::flag(wire.require_client_certificate.as_ref(), false);
    let client = match (context.validation, wanted) {
        (Some(validation), true) => ClientAuth::Required(validation),
        (None, true) => ClientAuth::Required(Validation::default()),
        (Some(validation), false) => ClientAuth::Optional(validation),
        (None, false) => ClientAuth::None,
    };
    Ok(ServerTls {
        certificates: context.certificates,
        client,
        alpn: context.alpn,
        versions: context.versions,
        cipher_suites: context.cipher_suites,
    })
}

pub(crate) fn client(wire: &UpstreamTlsContext) -> Result<ClientTls> {
    not_obeyed!(wire, allow_renegotiation);
    let empty = CommonTlsContext::default();
    let common = wire.common_tls_context.as_ref().unwrap_or(&empty);
    let mut context = Common::read(common).at("common_tls_context")?;
    if context.certificates.len() > 1 {
        return Err(Invalid::new("a client has at most one certificate").within("common_tls_context"));
    }
    if wire.sni.len() > 255 {
        return Err(Invalid::new("a server name has at most 255 characters").within("sni"));
    }
    Ok(ClientTls {
        certificate: context.certificates.pop(),
        // Without a validation context the server's certificate is not looked at, as in Envoy.
        validation: context.validation.unwrap_or(Validation { insecure: true, ..Validation::default() }),
        sni: Some(wire.sni.clone()).filter(|sni| !sni.is_empty()),
        auto_sni: wire.auto_host_sni,
        auto_san_validation: wire.auto_sni_san_validation,
        alpn: context.alpn,
        versions: context.versions,
    })
}

struct Common {
    certificates: Vec<CertificateSource>,
    validation: Option<Validation>,
    alpn: Vec<String>,
    versions: TlsVersions,
    cipher_suites: Vec<String>,
}

impl Common {
    fn read(wire: &CommonTlsContext) -> Result<Self> {
        not_obeyed!(
            wire,
            tls_certificate_provider_instance,
            custom_tls_certificate_selector,
            tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance,
            custom_handshaker,
            key_log,
        );
        let sds = wire.tls_certificate_sds_secret_configs.iter().map(|config| certificate_secret(&config.name));
        let direct = wire.tls_certificates.iter().enumerate();
        let direct = direct.map(|(index, wire)| certificate(wire).at_index("tls_certificates", index));
        let versions = wire.tls_params.as_ref().map(versions).transpose().at("tls_params")?;
        Ok(Self {
            certificates: sds.map(Ok).chain(direct).collect::<Result<_>>()?,
            validation: wire.validation_context_type.as_ref().map(validation).transpose()?,
            alpn: wire.alpn_protocols.clone(),
            versions: versions.unwrap_or_default(),
            cipher_suites: wire.tls_params.as_ref().map(|params| params.cipher_suites.clone()).unwrap_or_default(),
        })
    }
}

/// Istio's agent serves files by names of this form.
fn certificate_secret(name: &str) -> CertificateSource {
    match name.strip_prefix("file-cert:").and_then(|files| files.split_once('~')) {
        Some((certificate, key)) => {
            CertificateSource::Files { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        None => CertificateSource::Secret(SecretName::from(name)),
    }
}

fn roots_secret(config: &SdsSecretConfig) -> Roots {
    match config.name.strip_prefix("file-root:") {
        Some("system") => Roots::System,
        Some(path) => Roots::File(path.to_owned()),
        None => Roots::Secret(SecretName::from(config.name.as_str())),
    }
}

pub(crate) fn certificate(wire: &TlsCertificate) -> Result<CertificateSource> {
    not_obeyed!(wire, pkcs12, private_key_provider, password, tls_params);
    let source = |source: Option<&DataSource>, field: &str| match source {
        Some(source) => value::data_source(source).at(field),
        None => Err(Invalid::new("is missing").within(field)),
    };
    let chain = source(wire.certificate_chain.as_ref(), "certificate_chain")?;
    let key = source(wire.private_key.as_ref(), "private_key")?;
    match (chain, key) {
        (Source::File(certificate), Source::File(key)) => Ok(CertificateSource::Files { certificate, key }),
        (Source::Inline(certificate), Source::Inline(key)) => Ok(CertificateSource::Inline { certificate, key }),
        _ => Err(Invalid::not_obeyed("a certificate in a file with its key inline, or the other way round,")),
    }
}

fn versions(wire: &TlsParameters) -> Result<TlsVersions> {
    let version = |number: i32, field: &str| {
        TlsProtocol::try_from(number).map_err(|_| Invalid::new("this TLS version is not known").within(field))
    };
    let oldest = version(wire.tls_minimum_protocol_version, "tls_minimum_protocol_version")?;
    let newest = version(wire.tls_maximum_protocol_version, "tls_maximum_protocol_version")?;
    let versions = TlsVersions {
        tls12: !matches!(oldest, TlsProtocol::TlSv13) && !matches!(newest, TlsProtocol::TlSv10 | TlsProtocol::TlSv11),
        tls13: matches!(newest, TlsProtocol::TlsAuto | TlsProtocol::TlSv13),
    };
    if !versions.tls12 && !versions.tls13 {
        return Err(Invalid::new("no TLS version is left; TLS 1.0 and 1.1 are never spoken"));
    }
    Ok(versions)
}

fn validation(wire: &ValidationContextType) -> Result<Validation> {
    match wire {
        ValidationContextType::ValidationContext(context) => validation_context(context).at("validation_context"),
        ValidationContextType::ValidationContextSdsSecretConfig(config) => {
            Ok(Validation { roots: roots_secret(config), ..Validation::default() })
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            not_obeyed!(
                combined,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance
            );
            let own = combined.default_validation_context.as_ref().map(validation_context).transpose();
            let mut validation = own.at("combined_validation_context.default_validation_context")?.unwrap_or_default();
            if let Some(config) = &combined.validation_context_sds_secret_config {
                validation.roots = roots_secret(config);
            }
            Ok(validation)
        }
        ValidationContextType::ValidationContextCertificateProvider(_)
        | ValidationContextType::ValidationContextCertificateProviderInstance(_) => {
            Err(Invalid::not_obeyed("a certificate provider"))
        }
    }
}

pub(crate) fn validation_context(wire: &CertificateValidationContext) -> Result<Validation> {
    not_obeyed!(
        wire,
        ca_certificate_provider_instance,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
    );
    let roots = match (&wire.trusted_ca, &wire.system_root_certs) {
        (Some(source), _) => match value::data_source(source).at("trusted_ca")? {
            Source::Inline(pem) => Roots::Inline(pem),
            Source::File(path) => Roots::File(path),
        },
        (None, Some(_)) => Roots::System,
        (None, None) => Roots::None,
    };
    limits::count("subject alternative names", wire.match_subject_alt_names.len(), limits::DOMAINS)?;
    let mut names = Vec::new();
    for (index, matcher) in wire.match_subject_alt_names.iter().enumerate() {
        let value = matcher::string(matcher).at_index("match_subject_alt_names", index)?;
        names.push(SanMatch { kind: SanKind::Any, value });
    }
    for (index, typed) in wire.match_typed_subject_alt_names.iter().enumerate() {
        names.push(typed_name(typed).at_index("match_typed_subject_alt_names", index)?);
    }
    let insecure = wire.trust_chain_verification == TrustChainVerification::AcceptUntrusted as i32;
    Ok(Validation { roots, names, insecure, pins: pins(wire)? })
}

/// Hashes of public keys are written in base64, those of certificates in hexadecimal, with colons or without.
fn pins(wire: &CertificateValidationContext) -> Result<Pins> {
    let sized = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let key = |(index, text): (usize, &String)| {
        let pin = sized(BASE64.decode(text).ok());
        pin.ok_or_else(|| Invalid::new("is no SHA-256 in base64")).at_index("verify_certificate_spki", index)
    };
    let certificate = |(index, text): (usize, &String)| {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let pair = |pair: &[u8]| u8::try_from(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?).ok();
        let pin = sized(digits.chunks(2).map(pair).collect());
        pin.ok_or_else(|| Invalid::new("is no SHA-256 in hexadecimal")).at_index("verify_certificate_hash", index)
    };
    limits::count("hashes", wire.verify_certificate_spki.len() + wire.verify_certificate_hash.len(), limits::DOMAINS)?;
    Ok(Pins {
        keys: wire.verify_certificate_spki.iter().enumerate().map(key).collect::<Result<_>>()?,
        certificates: wire.verify_certificate_hash.iter().enumerate().map(certificate).collect::<Result<_>>()?,
    })
}

fn typed_name(wire: &SubjectAltNameMatcher) -> Result<SanMatch> {
    let kind = match SanType::try_from(wire.san_type) {
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::Dns) => SanKind::Dns,
        Ok(SanType::Email) => SanKind::Email,
        Ok(SanType::IpAddress) => SanKind::Ip,
        Ok(SanType::Unspecified | SanType::OtherName) | Err(_) => {
            return Err(Invalid::not_obeyed("this kind of name").within("san_type"));
        }
    };
    let matcher = wire.matcher.as_ref().ok_or_else(|| Invalid::new("a matcher is missing").within("matcher"))?;
    Ok(SanMatch { kind, value: matcher::string(matcher).at("matcher")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_openssl_prints_them() {
        let hash = (0..32).map(|byte| format!("{byte:02X}")).collect::<Vec<_>>();
        let expected: [u8; 32] = std::array::from_fn(|index| index as u8);
        let wire = CertificateValidationContext {
            verify_certificate_hash: vec![hash.join(":"), hash.concat().to_ascii_lowercase()],
            verify_certificate_spki: vec![BASE64.encode(expected)],
            ..Default::default()
        };
        let pins = validation_context(&wire).unwrap().pins;
        assert_eq!((pins.certificates, pins.keys), (vec![expected, expected], vec![expected]));
        for wrong in ["", "00", "zz", &"+f".repeat(32), &"é".repeat(32)] {
            let hash =
                CertificateValidationContext { verify_certificate_hash: vec![wrong.to_owned()], ..Default::default() };
            let key =
                CertificateValidationContext { verify_certificate_spki: vec![wrong.to_owned()], ..Default::default() };
            assert!(validation_context(&hash).is_err() && validation_context(&key).is_err(), "{wrong}");
        }
    }
}
