//! The certificate authority: makes or loads a signer and signs what workloads ask for.
//!
//! A request's own names are not believed: whoever was authenticated is who the certificate names (reference:
//! semantics 226). The files are those of Istio's plug-in CA: `ca-cert.pem`, `ca-key.pem`, `root-cert.pem` and, where
//! the signer is not the root itself, `cert-chain.pem`.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mizzen_types::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};
use x509_parser::public_key::PublicKey;

use crate::certificate::{self, Certificate, CertificateError, TrustRoots};
use crate::files::{self, PrivateFileError};

/// What a workload gets that wishes for nothing else.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// A wish for more is refused.
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// Validity of a self-signed root.
pub const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A larger signing request is not looked at.
pub const MAX_CSR_BYTES: usize = 16 * 1024;
/// Certificates start a little in the past, for peers whose clock is behind.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Private(#[from] PrivateFileError),
    #[error("{}: {source}", path.display())]
    Certificate { path: PathBuf, source: CertificateError },
    #[error("{}: this certificate may not sign others (basic constraints say it is no CA)", path.display())]
    NotASigner { path: PathBuf },
    #[error("{}: the chain does not lead from ca-cert.pem to root-cert.pem: {reason}", path.display())]
    BrokenChain { path: PathBuf, reason: String },
    #[error("{}: the signer's certificate has expired; put a new one in place", path.display())]
    Expired { path: PathBuf },
    #[error("the authority's own certificate could not be made: {0}")]
    Create(String),
}

/// Why a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the signing request is {0} bytes long; at most {MAX_CSR_BYTES} are read")]
    TooLarge(usize),
    #[error("the signing request cannot be read: {0}")]
    Malformed(String),
    #[error("the signing request is not signed by the key it holds")]
    BadSignature,
    #[error(
        "the key of the signing request is not accepted: {0}; use ECDSA P-256 or P-384, or RSA with 2048 to 8192 bits"
    )]
    KeyType(String),
    #[error("the wished validity of {} s is above the maximum of {} s", wished.as_secs(), max.as_secs())]
    TtlTooLong { wished: Duration, max: Duration },
    #[error("the signer's own certificate has expired")]
    SignerExpired,
    #[error("{0} is not in this mesh's trust domain {1}")]
    TrustDomain(SpiffeId, TrustDomain),
    #[error("signing failed: {0}")]
    Failed(String),
}

/// A signed certificate with what is told to its owner.
#[derive(Debug, Clone)]
pub struct Signed {
    /// PEM certificates: leaf first, root last.
    pub chain: Vec<String>,
    /// Serial number in hexadecimal.
    pub serial: String,
    pub expires: SystemTime,
}

/// The authority in force, which may be replaced by another while the process runs; clones see the same.
#[derive(Debug, Clone)]
pub struct SharedAuthority(Arc<ArcSwap<Authority>>);

impl SharedAuthority {
    pub fn load(&self) -> Arc<Authority> {
        self.0.load_full()
    }

    /// What is signed from now on, is signed by this one.
    pub fn replace(&self, authority: Authority) {
        self.0.store(Arc::new(authority));
    }
}

impl From<Authority> for SharedAuthority {
    fn from(authority: Authority) -> Self {
        Arc::new(authority).into()
    }
}

impl From<Arc<Authority>> for SharedAuthority {
    fn from(authority: Arc<Authority>) -> Self {
        Self(Arc::new(ArcSwap::new(authority)))
    }
}

/// An authority as Istio's files and Secrets hold it, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityPem {
    /// `ca-cert.pem`: the signer.
    pub certificate: Vec<u8>,
    /// `ca-key.pem`: its key.
    pub key: Vec<u8>,
    /// `cert-chain.pem`: those between signer and root; may be absent, and may hold both.
    pub chain: Option<Vec<u8>>,
    /// `root-cert.pem`: all roots that are trusted.
    pub roots: Vec<u8>,
}

impl AuthorityPem {
    /// A new self-signed authority.
    pub fn self_signed(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        Self::self_signed_for(trust_domain, now, ROOT_TTL)
    }

    /// The same that is good for so long.
    pub fn self_signed_for(trust_domain: &TrustDomain, now: SystemTime, ttl: Duration) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(|error| AuthorityError::Create(error.to_string()))?;
        let certificate = root_certificate(&key, trust_domain_name(trust_domain), now, ttl)?.into_bytes();
        Ok(Self { roots: certificate.clone(), certificate, key: key.serialize_pem().into_bytes(), chain: None })
    }

    /// When a self-signed authority begins and ends; `None` for one whose signer is not the root.
    pub fn self_signed_validity(&self) -> Option<(SystemTime, SystemTime)> {
        let signer = certificate::certificates_from_pem(&self.certificate).ok()?.into_iter().next()?;
        let roots = TrustRoots::from_pem(&self.roots).ok()?;
        roots.certificates().contains(&signer).then(|| certificate::validity(&signer).ok()).flatten()
    }

    /// A self-signed authority with a new certificate for its key, under its name. What was signed before is good under the
    /// new root, and what is signed from now on under the old one: nobody has to be told at the same time. Old roots
    /// stay trusted until they end.
    pub fn renewed(&self, now: SystemTime, ttl: Duration) -> Result<Self, AuthorityError> {
        let create = |error: &dyn std::fmt::Display| AuthorityError::Create(error.to_string());
        let signer = certificate::certificates_from_pem(&self.certificate).map_err(|error| create(&error))?;
        let signer = signer.first().ok_or_else(|| create(&"there is no certificate"))?;
        let (_, parsed) = X509Certificate::from_der(signer).map_err(|error| create(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| create(&error))?;
        let key = KeyPair::try_from(&key).map_err(|error| create(&error))?;
        let certificate = root_certificate(&key, same_name(parsed.subject()), now, ttl)?;
        let old = TrustRoots::from_pem(&self.roots).map_err(|error| create(&error))?;
        let lasts = |root: &&CertificateDer<'_>| certificate::validity(root).is_ok_and(|(_, end)| end > now);
        let kept = old.certificates().iter().filter(lasts).map(|root| certificate::certificate_to_pem(root));
        let roots = std::iter::once(certificate.clone()).chain(kept).collect::<String>();
        Ok(Self { certificate: certificate.into_bytes(), roots: roots.into_bytes(), ..self.clone() })
    }
}

impl std::fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityPem").finish_non_exhaustive()
    }
}

/// A signer with its chain up to the root.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The signer's certificate and those between it and the root; empty when the signer is the root.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Arc<TrustRoots>,
    not_after: SystemTime,
    trust_domain: TrustDomain,
    default_ttl: Duration,
    max_ttl: Duration,
}

impl Authority {
    /// Loads the authority from `dir`, or makes a self-signed one there. The folder and its key are for their owner
    /// alone, else it is refused.
    pub fn open(dir: &Path, trust_domain: TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Io { path, source }
        };
        if !dir.exists() {
            let (certificate, key) = self_signed(&trust_domain, now)?;
            let parent = dir.parent().unwrap_or_else(|| Path::new("."));
            files::private_dir(parent).map_err(io(parent))?;
            // All files appear at once: the folder is filled under another name first.
            let filling = parent.join(format!(".ca.{:016x}", rand::random::<u64>()));
            files::private_dir(&filling).map_err(io(&filling))?;
            for (name, content, mode) in [
                ("ca-key.pem", key.serialize_pem(), 0o600),
                ("ca-cert.pem", certificate.clone(), 0o644),
                ("root-cert.pem", certificate, 0o644),
            ] {
                let path = filling.join(name);
                files::write_atomic(&path, content.as_bytes(), mode).map_err(io(&path))?;
            }
            match std::fs::rename(&filling, dir) {
                Ok(()) => {}
                // Another process was faster: its authority is the one.
                Err(_) if dir.exists() => drop(std::fs::remove_dir_all(&filling)),
                Err(source) => return Err(AuthorityError::Io { path: dir.to_owned(), source }),
            }
        }
        files::read_private(&dir.join("ca-key.pem"))?;
        Self::load(dir, trust_domain, now)
    }

    /// Loads a plug-in authority from files that someone else looks after.
    pub fn load(dir: &Path, trust_domain: TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| AuthorityError::Io { path, source })
        };
        let chain = match read("cert-chain.pem") {
            Ok(pem) => Some(pem),
            Err(AuthorityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let pem = AuthorityPem {
            certificate: read("ca-cert.pem")?,
            key: read("ca-key.pem")?,
            chain,
            roots: read("root-cert.pem")?,
        };
        Self::from_pem(&pem, dir, trust_domain, now)
    }

    /// Reads a plug-in authority; `place` is where it was found, for errors.
    pub fn from_pem(
        pem: &AuthorityPem,
        place: &Path,
        trust_domain: TrustDomain,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let of = |name: &str| {
            let path = place.join(name);
            move |source| AuthorityError::Certificate { path, source }
        };
        let signer = certificate::certificates_from_pem(&pem.certificate).map_err(of("ca-cert.pem"))?;
        let chain = match pem.chain.as_deref() {
            // Istio allows an empty file where the signer is the root.
            Some(chain) if !chain.trim_ascii().is_empty() => {
                certificate::certificates_from_pem(chain).map_err(of("cert-chain.pem"))?
            }
            _ => Vec::new(),
        };
        let roots = TrustRoots::from_pem(&pem.roots).map_err(of("root-cert.pem"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|error| CertificateError::Key(error.to_string()))
            .map_err(of("ca-key.pem"))?;
        // Refuses a key that does not belong to the certificate.
        let pair = Certificate::new(signer.clone(), key.clone_key()).map_err(of("ca-key.pem"))?;
        if pair.not_after <= now {
            return Err(AuthorityError::Expired { path: place.join("ca-cert.pem") });
        }
        if !is_ca(pair.leaf()) {
            return Err(AuthorityError::NotASigner { path: place.join("ca-cert.pem") });
        }
        let mut intermediates = Vec::new();
        for certificate in signer.into_iter().chain(chain) {
            if !roots.certificates().contains(&certificate) && !intermediates.contains(&certificate) {
                intermediates.push(certificate);
            }
        }
        let key = KeyPair::try_from(&key)
            .map_err(|error| CertificateError::Key(error.to_string()))
            .map_err(of("ca-key.pem"))?;
        let issuer = Issuer::from_ca_cert_der(pair.leaf(), key)
            .map_err(|error| CertificateError::Certificate(error.to_string()))
            .map_err(of("ca-cert.pem"))?;
        let authority = Self {
            issuer,
            intermediates,
            roots: Arc::new(roots),
            not_after: pair.not_after,
            trust_domain,
            default_ttl: DEFAULT_TTL,
            max_ttl: MAX_TTL,
        };
        authority.check_chain(now).map_err(|reason| AuthorityError::BrokenChain { path: place.to_owned(), reason })?;
        Ok(authority)
    }

    /// A self-signed authority that lives in memory alone.
    pub fn in_memory(trust_domain: TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let (certificate, key) = self_signed(&trust_domain, now)?;
        let create = |error: CertificateError| AuthorityError::Create(error.to_string());
        let roots = TrustRoots::from_pem(certificate.as_bytes()).map_err(create)?;
        let issuer = Issuer::from_ca_cert_der(&roots.certificates()[0], key)
            .map_err(|error| AuthorityError::Create(error.to_string()))?;
        let not_after = certificate::validity(&roots.certificates()[0]).map_err(create)?.1;
        Ok(Self {
            issuer,
            intermediates: Vec::new(),
            roots: Arc::new(roots),
            not_after,
            trust_domain,
            default_ttl: DEFAULT_TTL,
            max_ttl: MAX_TTL,
        })
    }

    /// The same authority with other limits of validity.
    pub fn with_ttl(mut self, default: Duration, max: Duration) -> Self {
        self.default_ttl = default.min(max);
        self.max_ttl = max;
        self
    }

    pub fn roots(&self) -> &Arc<TrustRoots> {
        &self.roots
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Signs the key of a PEM signing request for `id`, who has been authenticated by the caller.
    pub fn sign(
        &self,
        csr_pem: &str,
        id: &SpiffeId,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<Signed, SignError> {
        if csr_pem.len() > MAX_CSR_BYTES {
            return Err(SignError::TooLarge(csr_pem.len()));
        }
        if id.trust_domain != self.trust_domain {
            return Err(SignError::TrustDomain(id.clone(), self.trust_domain.clone()));
        }
        let wished = ttl.unwrap_or(self.default_ttl);
        if wished > self.max_ttl {
            return Err(SignError::TtlTooLong { wished, max: self.max_ttl });
        }
        let key = checked_public_key(csr_pem)?;
        let name = id.to_string().try_into().map_err(|error: rcgen::Error| SignError::Failed(error.to_string()))?;
        let (leaf, serial, expires) = self.issue(&key, vec![SanType::URI(name)], wished, now)?;
        let chain = std::iter::once(&leaf)
            .chain(&self.intermediates)
            .map(|certificate| certificate::certificate_to_pem(certificate))
            // The last entry holds all roots, so that a rotation reaches every workload.
            .chain([self.roots.pem()])
            .collect();
        Ok(Signed { chain, serial, expires })
    }

    /// A key and certificate for the control plane itself, for host names and IP addresses.
    pub fn serving_certificate(&self, names: &[String], now: SystemTime) -> Result<Certificate, SignError> {
        let failed = |error: rcgen::Error| SignError::Failed(error.to_string());
        let key = KeyPair::generate().map_err(failed)?;
        let names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(ip) => Ok(SanType::IpAddress(ip)),
                Err(_) => name.as_str().try_into().map(SanType::DnsName).map_err(failed),
            })
            .collect::<Result<_, _>>()?;
        let (leaf, ..) = self.issue(&key, names, self.max_ttl, now)?;
        let chain = std::iter::once(leaf).chain(self.intermediates.iter().cloned()).collect();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Certificate::new(chain, key).map_err(|error| SignError::Failed(error.to_string()))
    }

    fn issue(
        &self,
        key: &impl rcgen::PublicKeyData,
        names: Vec<SanType>,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<(CertificateDer<'static>, String, SystemTime), SignError> {
        if self.not_after <= now {
            return Err(SignError::SignerExpired);
        }
        let expires = (now + ttl).min(self.not_after);
        let serial = random_serial();
        let mut params = CertificateParams::default();
        set_validity(&mut params, now - CLOCK_SKEW, expires);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        // No subject: peers know a workload by its URI name, which is critical for that reason (RFC 5280, 4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuer).map_err(|error| SignError::Failed(error.to_string()))?;
        let serial = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((leaf.der().clone(), serial, expires))
    }

    /// Signs a throw-away certificate and follows its chain as a peer would.
    fn check_chain(&self, now: SystemTime) -> Result<(), String> {
        let probe = self.serving_certificate(&["localhost".to_owned()], now).map_err(|error| error.to_string())?;
        crate::tls::verify_chain(
            probe.leaf(),
            &probe.chain()[1..],
            &self.roots,
            crate::tls::Side::Server,
            crate::tls::unix_time(now),
        )
        .map_err(|error| error.to_string())
    }
}

/// The names under which workloads know the control plane, as Istio's certificate has them.
pub fn control_plane_names(extra: &[String]) -> Vec<String> {
    let mut names: Vec<String> = [
        "istiod.istio-system.svc",
        "istiod.istio-system.svc.cluster.local",
        "istiod.istio-system",
        "istiod",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    .map(str::to_owned)
    .into();
    for name in extra {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn self_signed(trust_domain: &TrustDomain, now: SystemTime) -> Result<(String, KeyPair), AuthorityError> {
    let key = KeyPair::generate().map_err(|error| AuthorityError::Create(error.to_string()))?;
    let certificate = root_certificate(&key, trust_domain_name(trust_domain), now, ROOT_TTL)?;
    Ok((certificate, key))
}

/// Istio's self-signed root has the trust domain as its organisation.
fn trust_domain_name(trust_domain: &TrustDomain) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, trust_domain.as_str());
    name
}

/// A name as another certificate has it, in the same kinds of text: chains are followed by its bytes.
fn same_name(name: &x509_parser::x509::X509Name<'_>) -> DistinguishedName {
    use x509_parser::der_parser::asn1_rs::Tag;
    let mut same = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let Ok(text) = attribute.as_str() else { continue };
        let kind = attribute.attr_type().iter().map(|arcs| DnType::from_oid(&arcs.collect::<Vec<_>>()));
        let value = match (attribute.attr_value().tag(), text.try_into()) {
            (Tag::PrintableString, Ok(text)) => DnValue::PrintableString(text),
            _ => DnValue::Utf8String(text.to_owned()),
        };
        if let Some(kind) = kind {
            same.push(kind, value);
        }
    }
    same
}

fn root_certificate(
    key: &KeyPair,
    name: DistinguishedName,
    now: SystemTime,
    ttl: Duration,
) -> Result<String, AuthorityError> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, now - CLOCK_SKEW, now + ttl);
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(key).map_err(|error| AuthorityError::Create(error.to_string()))?;
    Ok(certificate::certificate_to_pem(certificate.der()))
}

/// The public key of a signing request, after its signature and type have been checked.
fn checked_public_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, SignError> {
    let malformed = |error: &dyn std::fmt::Display| SignError::Malformed(error.to_string());
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes()).map_err(|error| malformed(&error))?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|error| malformed(&error))?;
    if !rest.is_empty() {
        return Err(SignError::Malformed("bytes follow the request".to_owned()));
    }
    let spki = &request.certification_request_info.subject_pki;
    match spki.parsed().map_err(|error| SignError::KeyType(error.to_string()))? {
        PublicKey::RSA(key) if (2048..=8192).contains(&key.key_size()) => {}
        PublicKey::RSA(key) => return Err(SignError::KeyType(format!("RSA with {} bits", key.key_size()))),
        PublicKey::EC(point) if matches!(point.key_size(), 256 | 384) => {}
        PublicKey::EC(point) => return Err(SignError::KeyType(format!("ECDSA with {} bits", point.key_size()))),
        _ => return Err(SignError::KeyType("neither RSA nor ECDSA".to_owned())),
    }
    request.verify_signature().map_err(|_| SignError::BadSignature)?;
    SubjectPublicKeyInfo::from_der(spki.raw).map_err(|error| SignError::KeyType(error.to_string()))
}

fn is_ca(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.is_ca())
}

/// Sixteen random bytes; positive and without a leading zero, so that it has one DER form.
fn random_serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn set_validity(params: &mut CertificateParams, from: SystemTime, to: SystemTime) {
    let date = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since.as_secs())
    };
    params.not_before = date(from);
    params.not_after = date(to);
}

#[cfg(test)]
mod tests;
