//! What TLS a chain terminates and a cluster originates. Keys and certificates are named, not held: the proxy has them.

use mizzen_types::SecretName;

use crate::matcher::StringMatch;

/// Terminating TLS (Envoy: `DownstreamTlsContext`).
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub certificates: Vec<CertificateSource>,
    pub client: ClientAuth,
    pub alpn: Vec<String>,
    pub versions: TlsVersions,
    pub cipher_suites: Vec<String>,
}

/// Originating TLS (Envoy: `UpstreamTlsContext`).
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// Our certificate, when the server asks for one.
    pub certificate: Option<CertificateSource>,
    pub validation: Validation,
    pub sni: Option<String>,
    /// Take SNI and the name to verify from the request's host.
    pub auto_sni: bool,
    pub auto_san_validation: bool,
    pub alpn: Vec<String>,
    pub versions: TlsVersions,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateSource {
    /// Asked for by SDS, or our own identity (`default`).
    Secret(SecretName),
    Files {
        certificate: String,
        key: String,
    },
    Inline {
        certificate: Vec<u8>,
        key: Vec<u8>,
    },
}

#[derive(Debug, Clone)]
pub enum ClientAuth {
    None,
    Optional(Validation),
    Required(Validation),
}

/// How a peer's certificate is verified.
#[derive(Debug, Clone, Default)]
pub struct Validation {
    pub roots: Roots,
    /// Any of these must match a subject alternative name; empty means any name of a trusted chain.
    pub names: Vec<SanMatch>,
    /// Chain is not verified at all (`ACCEPT_UNTRUSTED` / `insecureSkipVerify`).
    pub insecure: bool,
    /// Only these certificates are accepted.
    pub pins: Pins,
}

/// SHA-256 of certificates, or of their public keys, that are accepted; one match in either list is enough, and two empty
/// lists accept all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    pub certificates: Vec<[u8; 32]>,
    pub keys: Vec<[u8; 32]>,
}

impl Pins {
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.keys.is_empty()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Roots {
    /// No validation context: nothing is trusted and nothing is verified.
    #[default]
    None,
    /// Asked for by SDS, or the mesh's roots (`ROOTCA`).
    Secret(SecretName),
    File(String),
    Inline(Vec<u8>),
    System,
}

#[derive(Debug, Clone)]
pub struct SanMatch {
    pub kind: SanKind,
    pub value: StringMatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    Any,
    Uri,
    Dns,
    Ip,
    Email,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    pub tls12: bool,
    pub tls13: bool,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self { tls12: true, tls13: true }
    }
}
