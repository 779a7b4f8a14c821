//! The way to the control plane: which address, which proof of who we are, at each attempt to connect.
//!
//! The workload shows its certificate once it has one, and its token before. Where a certificate is refused (the mesh's
//! roots were replaced while the control plane was away) the next attempt is made with the token.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mizzen_compile::Bootstrap;
use mizzen_compile::bootstrap::AdsSource;
use mizzen_identity::Secrets;
use mizzen_identity::secrets::IDENTITY;
use mizzen_identity::tls::{TlsError, client_config};
use mizzen_snapshot::cluster::EndpointAddress;
use mizzen_snapshot::tls::{CertificateSource, ClientTls};
use mizzen_xds::Mode;
use mizzen_xds::client::{Authority, Config};

/// The client of the control plane, as the bootstrap describes it. `token` is read anew for each attempt: tokens are
/// rewritten before they expire.
pub(crate) fn client(ads: &AdsSource, boot: &Bootstrap, token: Option<PathBuf>, secrets: &Secrets) -> Config {
    let mut node = boot.node.clone();
    if node.user_agent_name.is_empty() {
        node.user_agent_name = "mizzen".to_owned();
    }
    let token = token.filter(|_| ads.tls.is_some());
    // What the authority decided, for the metadata of the same attempt.
    let by_token = Arc::new(AtomicBool::new(true));
    let mut client = Config::new(Authority::Plaintext(String::new()), node);
    client.mode = if ads.delta { Mode::Delta } else { Mode::Sotw };
    client.authority = {
        let (ads, secrets, by_token) = (ads.clone(), secrets.clone(), Arc::clone(&by_token));
        let has_token = token.is_some();
        Arc::new(move |failures| {
            let certificate = certificate(&ads).is_some_and(|name| secrets.certificate(&name.into()).is_some());
            let proof = proof(failures, certificate, has_token);
            by_token.store(proof == Proof::Token, Ordering::Relaxed);
            authority(&ads, failures, proof, &secrets)
        })
    };
    let fixed = ads.initial_metadata.clone();
    let refused = Mutex::new(String::new());
    client.metadata = Arc::new(move || {
        let mut all = fixed.clone();
        if let Some(path) = token.as_ref().filter(|_| by_token.load(Ordering::Relaxed)) {
            match bearer(path) {
                Ok(value) => all.push(("authorization".to_owned(), value)),
                Err(error) => {
                    let text = format!("{}: {error}", path.display());
                    let mut said = refused.lock().unwrap_or_else(PoisonError::into_inner);
                    // Once, not at each attempt.
                    if *said != text {
                        tracing::warn!("no token for the control plane: {text}");
                        *said = text;
                    }
                }
            }
        }
        all
    });
    client
}

/// What an attempt shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Certificate,
    Token,
}

fn proof(failures: u32, certificate: bool, token: bool) -> Proof {
    match (certificate, token) {
        (true, false) => Proof::Certificate,
        (true, true) if failures.is_multiple_of(2) => Proof::Certificate,
        (true, true) | (false, _) => Proof::Token,
    }
}

/// Name of the secret with our certificate, when the cluster of the control plane asks for one that comes to us.
fn certificate(ads: &AdsSource) -> Option<&str> {
    match ads.tls.as_ref()?.certificate.as_ref()? {
        CertificateSource::Secret(name) => Some(name.as_str()),
        CertificateSource::Files { .. } | CertificateSource::Inline { .. } => None,
    }
}

fn authority(ads: &AdsSource, failures: u32, proof: Proof, secrets: &Secrets) -> Authority {
    // Each attempt goes to the next address, beginning with the first.
    let index = (failures as usize).checked_rem(ads.addresses.len());
    let Some(address) = index.and_then(|index| ads.addresses.get(index)) else {
        return Authority::Unavailable("the bootstrap names no address".to_owned());
    };
    let address = match address {
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Name { host, port } => format!("{host}:{port}"),
        EndpointAddress::Pipe(path) => return Authority::Unix(path.clone()),
    };
    match &ads.tls {
        None => Authority::Plaintext(address),
        Some(tls) => match settings(tls, proof, secrets) {
            Ok((config, server_name)) => Authority::Tls { address, server_name, config },
            Err(error) => Authority::Unavailable(format!("{address}: {error}")),
        },
    }
}

type Settings = (Arc<rustls::ClientConfig>, rustls::pki_types::ServerName<'static>);

/// Made anew for each attempt: files with roots may have changed.
fn settings(tls: &ClientTls, proof: Proof, secrets: &Secrets) -> Result<Settings, TlsError> {
    let mut tls = tls.clone();
    let ours = matches!(&tls.certificate, Some(CertificateSource::Secret(name)) if name.as_str() == IDENTITY);
    if ours && proof == Proof::Token {
        tls.certificate = None;
    }
    client_config(&tls, secrets).current(None)
}

fn bearer(path: &Path) -> std::io::Result<String> {
    Ok(format!("Bearer {}", std::fs::read_to_string(path)?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_shown_until_it_is_refused() {
        let shown = |certificate, token| (0..4).map(|n| proof(n, certificate, token)).collect::<Vec<_>>();
        use Proof::{Certificate, Token};
        assert_eq!(shown(true, true), [Certificate, Token, Certificate, Token]);
        assert_eq!(shown(true, false), [Certificate; 4]);
        assert_eq!(shown(false, true), [Token; 4]);
        assert_eq!(shown(false, false), [Token; 4]);
    }
}
