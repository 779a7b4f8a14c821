//! Is this certificate one that we accept, and does it name whom we meant?

use std::net::IpAddr;
use std::sync::Arc;

use mizzen_snapshot::matcher::StringMatchKind;
use mizzen_snapshot::tls::{Pins, SanKind, SanMatch};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError as Alert, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::{Peer, TrustRoots};
use crate::tls::provider;

/// Which part the peer plays: its certificate must allow that (extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

/// Why a peer's certificate was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("its chain leads to no trusted root: {0}")]
    Chain(webpki::Error),
    #[error("it has several URI names ({0}), so it is not clear who it is")]
    Ambiguous(String),
    #[error("none of its names ({found}) is one of those expected")]
    Name { found: String },
    #[error("it is none of the certificates that are pinned by their hash or that of their key")]
    Pinned,
    #[error(transparent)]
    Unreadable(#[from] crate::certificate::CertificateError),
}

/// Follows a chain to one of the roots: signatures, validity, name constraints and extended key usage.
pub fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &TrustRoots,
    side: Side,
    now: UnixTime,
) -> Result<(), VerifyError> {
    let usage = match side {
        Side::Server => KeyUsage::server_auth(),
        Side::Client => KeyUsage::client_auth(),
    };
    let leaf = EndEntityCert::try_from(leaf).map_err(VerifyError::Chain)?;
    leaf.verify_for_usage(algorithms().all, roots.anchors(), intermediates, now, usage, None, None)
        .map(drop)
        .map_err(VerifyError::Chain)
}

/// Whether some name of the certificate is one that `expected` asks for; an empty list asks for none in particular.
/// A certificate with several URI names is refused whatever they are: SPIFFE allows one.
pub fn verify_names(peer: &Peer, expected: &[SanMatch]) -> Result<(), VerifyError> {
    if peer.uris.len() > 1 {
        return Err(VerifyError::Ambiguous(peer.uris.join(", ")));
    }
    if expected.is_empty() || expected.iter().any(|wanted| name_matches(peer, wanted)) {
        return Ok(());
    }
    let mut found: Vec<&str> =
        peer.uris.iter().chain(&peer.dns_names).chain(&peer.emails).map(String::as_str).collect();
    let ips: Vec<String> = peer.ips.iter().map(IpAddr::to_string).collect();
    found.extend(ips.iter().map(String::as_str));
    Err(VerifyError::Name { found: if found.is_empty() { "none".to_owned() } else { found.join(", ") } })
}

/// Whether the certificate itself, or its public key, is one of those that are expected.
pub(super) fn verify_pins(leaf: &CertificateDer<'_>, pins: &Pins) -> Result<(), VerifyError> {
    let is_one_of = |bytes: &[u8], pins: &[[u8; 32]]| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        pins.iter().any(|pin| pin[..] == *hash.as_ref())
    };
    let key = || EndEntityCert::try_from(leaf).map(|leaf| leaf.subject_public_key_info()).map_err(VerifyError::Chain);
    if is_one_of(leaf, &pins.certificates) || !pins.keys.is_empty() && is_one_of(&key()?, &pins.keys) {
        return Ok(());
    }
    Err(VerifyError::Pinned)
}

fn name_matches(peer: &Peer, wanted: &SanMatch) -> bool {
    let any = wanted.kind == SanKind::Any;
    let is = |kind: SanKind| any || wanted.kind == kind;
    (is(SanKind::Uri) && peer.uris.iter().any(|uri| wanted.value.matches(uri)))
        || (is(SanKind::Dns) && peer.dns_names.iter().any(|dns| dns_matches(dns, wanted)))
        || (is(SanKind::Email) && peer.emails.iter().any(|email| wanted.value.matches(email)))
        || (is(SanKind::Ip) && peer.ips.iter().any(|ip| wanted.value.matches(&ip.to_string())))
}

/// A DNS name of a certificate may be a wildcard for one label; an exact expectation is compared with it as such.
fn dns_matches(name: &str, wanted: &SanMatch) -> bool {
    if wanted.value.matches(name) {
        return true;
    }
    match &wanted.value.kind {
        StringMatchKind::Exact(exact) => {
            let exact = exact.to_ascii_lowercase();
            let name = name.to_ascii_lowercase();
            name == exact
                || name.strip_prefix("*.").is_some_and(|parent| {
                    parent.contains('.')
                        && exact.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
                })
        }
        _ => false,
    }
}

/// Verifies the peer of a handshake, as either side.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    pub(super) roots: Option<Arc<TrustRoots>>,
    pub(super) names: Vec<SanMatch>,
    pub(super) pins: Pins,
    /// Neither chain nor names are looked at; that the peer holds its key is still checked.
    pub(super) insecure: bool,
    /// The name that we dialled has to be in the certificate.
    pub(super) dialled_name: bool,
    /// For a server: a client without a certificate is turned away.
    pub(super) mandatory: bool,
}

impl PeerVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        dialled: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.insecure {
            return Ok(());
        }
        if !self.pins.is_empty() {
            verify_pins(leaf, &self.pins).map_err(refuse)?;
        }
        let Some(roots) = &self.roots else { return Ok(()) };
        verify_chain(leaf, intermediates, roots, side, now).map_err(refuse)?;
        let peer = Peer::of(leaf).map_err(|error| refuse(error.into()))?;
        verify_names(&peer, &self.names).map_err(refuse)?;
        match dialled.filter(|_| self.dialled_name) {
            Some(name) => EndEntityCert::try_from(leaf)
                .and_then(|leaf| leaf.verify_is_valid_for_subject_name(name))
                .map_err(|_| refuse(VerifyError::Name { found: peer.dns_names.join(", ") })),
            None => Ok(()),
        }
    }
}

fn refuse(error: VerifyError) -> Error {
    Error::InvalidCertificate(match error {
        VerifyError::Chain(webpki::Error::CertExpired { .. }) => Alert::Expired,
        VerifyError::Chain(webpki::Error::CertNotValidYet { .. }) => Alert::NotValidYet,
        VerifyError::Chain(webpki::Error::UnknownIssuer) => Alert::UnknownIssuer,
        other => Alert::Other(OtherError(Arc::new(other))),
    })
}

fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    &provider().signature_verification_algorithms
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, Side::Server, Some(server_name), now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Clients of a mesh have one certificate: nothing has to be told to help them choose.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Side::Client, None, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
