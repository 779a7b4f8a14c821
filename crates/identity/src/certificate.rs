//! Certificates as this crate holds them: read once, with the facts that decisions need.
//!
//! A private key never appears in `Debug` output.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use mizzen_types::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What is wrong with certificates or keys that were given to us.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("no certificate in PEM form was found")]
    NoCertificate,
    #[error("no private key in PEM form was found")]
    NoKey,
    #[error("the PEM text is broken: {0}")]
    Pem(String),
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the private key cannot be used: {0}")]
    Key(String),
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    #[error("the certificate names no workload: it needs exactly one name, spiffe://TRUST_DOMAIN/ns/NS/sa/SA")]
    NoIdentity,
    #[error("a subject alternative name holds a character that no name may hold")]
    UnprintableName,
}

/// A certificate chain, leaf first and without the root, with its private key.
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
    /// Start of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
}

impl Certificate {
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (not_before, not_after) = validity(leaf)?;
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|error| CertificateError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CertificateError::Mismatch),
        }
        Ok(Self { certified: Arc::new(certified), key, not_before, not_after })
    }

    /// Reads a PEM chain (leaf first) and a PEM key (PKCS#8, SEC1 or PKCS#1).
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound => CertificateError::NoKey,
            other => CertificateError::Pem(other.to_string()),
        })?;
        Self::new(certificates_from_pem(chain)?, key)
    }

    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub fn leaf(&self) -> &CertificateDer<'static> {
        // `new` refuses an empty chain.
        &self.certified.cert[0]
    }

    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The same for rustls.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    pub fn chain_pem(&self) -> String {
        self.chain().iter().map(|certificate| certificate_to_pem(certificate)).collect()
    }

    pub fn key_pem(&self) -> String {
        let label = match &self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        to_pem(label, self.key.secret_der())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.chain().len())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Certificates that chains may end at. Several are trusted at once, so that roots can be rotated.
#[derive(Debug, Clone)]
pub struct TrustRoots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl TrustRoots {
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, CertificateError> {
        if certificates.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let anchors = certificates
            .iter()
            .map(|certificate| {
                webpki::anchor_from_trusted_cert(certificate)
                    .map(|anchor| anchor.to_owned())
                    .map_err(|error| CertificateError::Certificate(error.to_string()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { certificates, anchors })
    }

    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        Self::new(certificates_from_pem(pem)?)
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    pub fn pem(&self) -> String {
        self.certificates.iter().map(|certificate| certificate_to_pem(certificate)).collect()
    }
}

impl PartialEq for TrustRoots {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

/// A workload's identity in force: its certificate and key, and whom it trusts.
#[derive(Debug)]
pub struct Identity {
    pub id: SpiffeId,
    pub certificate: Arc<Certificate>,
    pub roots: Arc<TrustRoots>,
}

impl Identity {
    /// Takes a certificate that names exactly one workload.
    pub fn new(certificate: Certificate, roots: TrustRoots) -> Result<Self, CertificateError> {
        let id = Peer::of(certificate.leaf())?.id.ok_or(CertificateError::NoIdentity)?;
        Ok(Self { id, certificate: Arc::new(certificate), roots: Arc::new(roots) })
    }

    /// End of the certificate's validity.
    pub fn expires(&self) -> SystemTime {
        self.certificate.not_after
    }
}

/// What a certificate says about the one who presented it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The workload, when the certificate has exactly one URI name and that is a SPIFFE identity in Istio's form.
    pub id: Option<SpiffeId>,
    pub uris: Vec<String>,
    pub dns_names: Vec<String>,
    pub emails: Vec<String>,
    pub ips: Vec<std::net::IpAddr>,
    /// Subject as `CN=…,O=…`; empty in mesh certificates.
    pub subject: String,
}

impl Peer {
    /// Reads the names of a certificate. A name with a NUL, a space or any other byte that no name may hold makes the
    /// whole certificate unreadable (security: S21).
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| CertificateError::Certificate(error.to_string()))?;
        let mut peer = Self { subject: parsed.subject().to_string(), ..Self::default() };
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| CertificateError::Certificate(error.to_string()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        for name in names {
            match name {
                GeneralName::URI(uri) => peer.uris.push(printable(uri)?),
                GeneralName::DNSName(dns) => peer.dns_names.push(printable(dns)?),
                GeneralName::RFC822Name(email) => peer.emails.push(printable(email)?),
                GeneralName::IPAddress(bytes) => {
                    let ip = match *bytes {
                        [a, b, c, d] => Some(std::net::IpAddr::from([*a, *b, *c, *d])),
                        bytes => <[u8; 16]>::try_from(bytes).ok().map(std::net::IpAddr::from),
                    };
                    peer.ips.extend(ip);
                }
                GeneralName::Invalid(..) => {
                    return Err(CertificateError::Certificate("a subject alternative name is malformed".to_owned()));
                }
                _ => {}
            }
        }
        // SPIFFE allows one URI name only: with two, which one is meant depends on who reads it.
        if let [uri] = peer.uris.as_slice() {
            peer.id = SpiffeId::parse(uri);
        }
        Ok(peer)
    }
}

fn printable(name: &str) -> Result<String, CertificateError> {
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(name.to_owned())
    } else {
        Err(CertificateError::UnprintableName)
    }
}

/// All certificates of a PEM text, in their order; other blocks are passed over.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::Pem(error.to_string()))?;
    if found.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(found) }
}

pub fn certificate_to_pem(certificate: &CertificateDer<'_>) -> String {
    to_pem("CERTIFICATE", certificate)
}

/// SHA-256 of a certificate in lower-case hexadecimal, as `x-forwarded-client-cert` carries it.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::with_capacity(encoded.len() + encoded.len() / 64 + 64);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for start in (0..encoded.len()).step_by(64) {
        text.push_str(&encoded[start..encoded.len().min(start + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Start and end of a certificate's validity.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), CertificateError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| CertificateError::Certificate(error.to_string()))?;
    let at = |seconds: i64| {
        let offset = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(offset)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(offset)
        };
        time.ok_or_else(|| CertificateError::Certificate("its validity is out of range".to_owned()))
    };
    let validity = parsed.validity();
    Ok((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}
