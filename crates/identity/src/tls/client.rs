//! Originating TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mizzen_snapshot::tls::ClientTls;
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;

use crate::secrets::{Secrets, Table};
use crate::tls::verify::PeerVerifier;
use crate::tls::{TlsError, certificate, provider, roots, versions};

/// Endpoints of one cluster whose sessions can be resumed.
const SESSIONS: usize = 32;

/// The configuration for a cluster, rebuilt when a secret changes.
#[derive(Debug)]
pub struct ClientConfigs {
    tls: ClientTls,
    secrets: Secrets,
    built: ArcSwapOption<Built>,
}

#[derive(Debug)]
struct Built {
    generation: u64,
    config: Arc<ClientConfig>,
}

/// Makes configurations for `tls` from the secrets in force.
pub fn client_config(tls: &ClientTls, secrets: &Secrets) -> ClientConfigs {
    ClientConfigs { tls: tls.clone(), secrets: secrets.clone(), built: ArcSwapOption::empty() }
}

impl ClientConfigs {
    /// Configuration and server name for a new connection. `host` is the request's host without port, which is only
    /// used when the settings say so (`auto_sni`, `auto_san_validation`). Application protocols are those of the
    /// settings; for others use `TlsConnector::with_alpn`.
    pub fn current(&self, host: Option<&str>) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
        Ok((Arc::clone(&self.built()?.config), self.server_name(host)?))
    }

    fn server_name(&self, host: Option<&str>) -> Result<ServerName<'static>, TlsError> {
        let dialled = host.filter(|_| self.tls.auto_sni || self.tls.auto_san_validation);
        match dialled.or(self.tls.sni.as_deref()).filter(|name| !name.is_empty()) {
            Some(name) => {
                let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
                ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
            }
            // No name is sent for an address, and none is compared.
            None => Ok(ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        }
    }

    fn built(&self) -> Result<Arc<Built>, TlsError> {
        if let Some(built) = &*self.built.load()
            && built.generation == self.secrets.generation()
        {
            return Ok(Arc::clone(built));
        }
        let secrets = self.secrets.load();
        let config = Arc::new(build(&self.tls, &secrets)?);
        let built = Arc::new(Built { generation: secrets.generation, config });
        self.built.store(Some(Arc::clone(&built)));
        Ok(built)
    }
}

fn build(tls: &ClientTls, secrets: &Table) -> Result<ClientConfig, TlsError> {
    let roots = roots(&tls.validation.roots, secrets)?;
    if roots.is_none() && !tls.validation.insecure && (!tls.validation.names.is_empty() || tls.auto_san_validation) {
        return Err(TlsError::NoRoots);
    }
    let verifier = PeerVerifier {
        roots,
        names: tls.validation.names.clone(),
        pins: tls.validation.pins.clone(),
        insecure: tls.validation.insecure,
        dialled_name: tls.auto_san_validation,
        mandatory: false,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions(tls.versions)?)
        .map_err(|error| TlsError::unusable("TLS settings", &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.certificate {
        Some(source) => {
            let key = Arc::clone(certificate(source, secrets)?.certified());
            builder.with_client_cert_resolver(Arc::new(OurCertificate(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = tls.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// The one certificate that we have, whatever roots the server names.
#[derive(Debug)]
struct OurCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OurCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
