//! From a snapshot's TLS settings to rustls configurations that follow every rotation.
//!
//! [`server_config`] and [`client_config`] are made once per filter chain or cluster. Each connection asks
//! [`ServerConfigs::current`] or [`ClientConfigs::current`]; while no secret changes these give the same shared
//! configuration, after a change a new one, with an empty session cache. So a new certificate is used by the next
//! handshake, open connections stay, and no session outlives the roots and names under which it was verified.

mod client;
mod server;
mod verify;

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use mizzen_snapshot::tls::{CertificateSource, Roots, TlsVersions};
use rustls::crypto::CryptoProvider;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::UnixTime;

use crate::certificate::{Certificate, CertificateError, TrustRoots};
use crate::secrets::Table;

pub use client::{ClientConfigs, client_config};
pub use server::{ServerConfigs, server_config};
pub use verify::{Side, VerifyError, verify_chain, verify_names};

/// Why no TLS can be spoken at the moment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    #[error("secret {0:?} has not arrived yet")]
    NoSecret(String),
    #[error("a server needs a certificate, and none is configured")]
    NoCertificate,
    #[error("names are to be verified but no roots are configured")]
    NoRoots,
    #[error("{what}: {reason}")]
    Unusable { what: String, reason: String },
    #[error("{0:?} is not a server name")]
    ServerName(String),
}

impl TlsError {
    fn unusable(what: impl Into<String>, reason: &dyn std::fmt::Display) -> Self {
        Self::Unusable { what: what.into(), reason: reason.to_string() }
    }
}

/// The cryptography used everywhere: aws-lc, TLS 1.3 preferred.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Names of cipher suites (OpenSSL's words, as in Envoy's and Istio's configuration) that mean nothing here. Suites of
/// TLS 1.3 cannot be chosen, as in Envoy.
pub fn unknown_cipher_suites(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| suite_name(name).is_none())
}

pub(crate) fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// The provider with the suites that were asked for, or all when none was named.
fn provider_with(names: &[String]) -> Result<Arc<CryptoProvider>, TlsError> {
    if names.is_empty() {
        return Ok(Arc::clone(provider()));
    }
    let wanted: Vec<_> = names.iter().filter_map(|name| suite_name(name)).collect();
    if wanted.is_empty() {
        return Err(TlsError::unusable("cipher suites", &format!("none of {} is supported", names.join(", "))));
    }
    let mut chosen = CryptoProvider::clone(provider());
    chosen.cipher_suites.retain(|suite| match suite {
        SupportedCipherSuite::Tls13(_) => true,
        SupportedCipherSuite::Tls12(_) => wanted.contains(&suite.suite()),
    });
    Ok(Arc::new(chosen))
}

fn suite_name(name: &str) -> Option<rustls::CipherSuite> {
    use rustls::CipherSuite as Suite;
    // BoringSSL lets several equally good suites stand in brackets.
    Some(match name.trim_matches(['[', ']']) {
        "ECDHE-ECDSA-AES128-GCM-SHA256" => Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256" => Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES256-GCM-SHA384" => Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-CHACHA20-POLY1305" => Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        _ => return None,
    })
}

fn versions(versions: TlsVersions) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
    use rustls::version::{TLS12, TLS13};
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match (versions.tls12, versions.tls13) {
        (true, true) => Ok(&BOTH),
        (false, true) => Ok(&BOTH[..1]),
        (true, false) => Ok(&BOTH[1..]),
        (false, false) => Err(TlsError::unusable("TLS versions", &"only TLS 1.2 and 1.3 are supported")),
    }
}

fn certificate(source: &CertificateSource, secrets: &Table) -> Result<Arc<Certificate>, TlsError> {
    match source {
        CertificateSource::Secret(name) => {
            secrets.certificate(name).cloned().ok_or_else(|| TlsError::NoSecret(name.to_string()))
        }
        CertificateSource::Files { certificate, key } => {
            let chain = std::fs::read(certificate).map_err(|error| TlsError::unusable(certificate, &error))?;
            let key_pem = std::fs::read(key).map_err(|error| TlsError::unusable(key, &error))?;
            let read: Result<_, CertificateError> = Certificate::from_pem(&chain, &key_pem);
            read.map(Arc::new).map_err(|error| TlsError::unusable(certificate, &error))
        }
        CertificateSource::Inline { certificate, key } => Certificate::from_pem(certificate, key)
            .map(Arc::new)
            .map_err(|error| TlsError::unusable("inline certificate", &error)),
    }
}

fn roots(source: &Roots, secrets: &Table) -> Result<Option<Arc<TrustRoots>>, TlsError> {
    match source {
        Roots::None => Ok(None),
        Roots::Secret(name) => match secrets.root_set(name) {
            Some(roots) => Ok(Some(Arc::clone(roots))),
            None => Err(TlsError::NoSecret(name.to_string())),
        },
        Roots::File(path) => {
            let pem = std::fs::read(path).map_err(|error| TlsError::unusable(path, &error))?;
            let roots = TrustRoots::from_pem(&pem).map_err(|error| TlsError::unusable(path, &error))?;
            Ok(Some(Arc::new(roots)))
        }
        Roots::Inline(pem) => {
            let roots = TrustRoots::from_pem(pem).map_err(|error| TlsError::unusable("inline roots", &error))?;
            Ok(Some(Arc::new(roots)))
        }
        Roots::System => system_roots().map(Some),
    }
}

/// The machine's own roots, where the common distributions keep them.
fn system_roots() -> Result<Arc<TrustRoots>, TlsError> {
    const PLACES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
        "/etc/ssl/ca-bundle.pem",
    ];
    let pem = PLACES
        .iter()
        .find_map(|place| std::fs::read(place).ok())
        .ok_or_else(|| TlsError::unusable("system roots", &format!("none of {} exists", PLACES.join(", "))))?;
    TrustRoots::from_pem(&pem).map(Arc::new).map_err(|error| TlsError::unusable("system roots", &error))
}

#[cfg(test)]
mod tests;
