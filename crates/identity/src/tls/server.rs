//! Terminating TLS.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mizzen_snapshot::tls::{ClientAuth, ServerTls, Validation};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;

use crate::secrets::{Secrets, Table};
use crate::tls::verify::PeerVerifier;
use crate::tls::{TlsError, certificate, provider_with, roots, versions};

/// Sessions that can be resumed per filter chain; mesh connections live long, so few are needed.
const SESSIONS: usize = 256;

/// The configuration for a filter chain, rebuilt when a secret changes.
#[derive(Debug)]
pub struct ServerConfigs {
    tls: ServerTls,
    secrets: Secrets,
    built: ArcSwapOption<Built>,
}

#[derive(Debug)]
struct Built {
    generation: u64,
    config: Arc<ServerConfig>,
    /// The same without application protocols, for clients that offer none of ours.
    without_alpn: Arc<ServerConfig>,
}

/// Makes configurations for `tls` from the secrets in force.
pub fn server_config(tls: &ServerTls, secrets: &Secrets) -> ServerConfigs {
    ServerConfigs { tls: tls.clone(), secrets: secrets.clone(), built: ArcSwapOption::empty() }
}

impl ServerConfigs {
    /// The configuration for a new connection.
    pub fn current(&self) -> Result<Arc<ServerConfig>, TlsError> {
        Ok(Arc::clone(&self.built()?.config))
    }

    /// The configuration for a client that offered these application protocols. When none is ours, the connection goes
    /// on without one, as with Envoy, where rustls alone would end it.
    pub fn for_offer<'a>(&self, offered: impl IntoIterator<Item = &'a [u8]>) -> Result<Arc<ServerConfig>, TlsError> {
        let built = self.built()?;
        let known = offered.into_iter().any(|name| built.config.alpn_protocols.iter().any(|ours| ours == name));
        Ok(Arc::clone(if known { &built.config } else { &built.without_alpn }))
    }

    fn built(&self) -> Result<Arc<Built>, TlsError> {
        if let Some(built) = &*self.built.load()
            && built.generation == self.secrets.generation()
        {
            return Ok(Arc::clone(built));
        }
        let secrets = self.secrets.load();
        let config = build(&self.tls, &secrets)?;
        let mut without_alpn = config.clone();
        without_alpn.alpn_protocols.clear();
        let built = Arc::new(Built {
            generation: secrets.generation,
            config: Arc::new(config),
            without_alpn: Arc::new(without_alpn),
        });
        // Two connections may build at once; both results are right, and one stays.
        self.built.store(Some(Arc::clone(&built)));
        Ok(built)
    }
}

fn build(tls: &ServerTls, secrets: &Table) -> Result<ServerConfig, TlsError> {
    let keys = tls
        .certificates
        .iter()
        .map(|source| certificate(source, secrets).map(|held| Arc::clone(held.certified())))
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let verifier = match &tls.client {
        ClientAuth::None => None,
        ClientAuth::Optional(validation) => Some(verifier(validation, false, secrets)?),
        ClientAuth::Required(validation) => Some(verifier(validation, true, secrets)?),
    };
    let builder = ServerConfig::builder_with_provider(provider_with(&tls.cipher_suites)?)
        .with_protocol_versions(versions(tls.versions)?)
        .map_err(|error| TlsError::unusable("TLS settings", &error))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(keys)));
    config.alpn_protocols = tls.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(config)
}

fn verifier(validation: &Validation, mandatory: bool, secrets: &Table) -> Result<PeerVerifier, TlsError> {
    let roots = roots(&validation.roots, secrets)?;
    if roots.is_none() && !validation.names.is_empty() && !validation.insecure {
        return Err(TlsError::NoRoots);
    }
    Ok(PeerVerifier {
        roots,
        names: validation.names.clone(),
        pins: validation.pins.clone(),
        insecure: validation.insecure,
        dialled_name: false,
        mandatory,
    })
}

/// The first certificate whose key type the client can verify, else the first.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = self.0.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.or_else(|| self.0.first()).cloned()
    }
}
