//! A gRPC channel to the control plane over TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mizzen_snapshot::matcher::{StringMatch, StringMatchKind};
use mizzen_snapshot::tls::{CertificateSource, ClientTls, Roots, SanKind, SanMatch, TlsVersions, Validation};
use mizzen_types::with_causes;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::secrets::Secrets;
use crate::tls;

/// The name in the control plane's certificate, as Istio's agents expect it.
pub const CONTROL_PLANE_NAME: &str = "istiod.istio-system.svc";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the control plane is and how it is recognised.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// `HOST:PORT`.
    pub address: String,
    pub server_name: String,
    pub roots: RootSource,
}

/// Where the roots for the control plane's certificate come from.
#[derive(Debug, Clone)]
pub enum RootSource {
    /// Read anew for every connection, so that a rotated file is seen.
    File(PathBuf),
    Pem(Vec<u8>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0:?} is not an address of the form HOST:PORT")]
    Address(String),
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
    #[error("the control plane at {address} cannot be reached: {reason}")]
    Unreachable { address: String, reason: String },
}

impl ControlPlane {
    pub fn new(address: &str, roots: RootSource) -> Self {
        Self { address: address.to_owned(), server_name: CONTROL_PLANE_NAME.to_owned(), roots }
    }

    /// Connects. With `secrets`, our own certificate is shown when there is one.
    pub async fn connect(&self, secrets: Option<&Secrets>) -> Result<Channel, ConnectError> {
        let unreachable = |reason: String| ConnectError::Unreachable { address: self.address.clone(), reason };
        // TLS is put on by our connector; to tonic the connection is an ordinary one.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|_| ConnectError::Address(self.address.clone()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_while_idle(true);
        let identity = secrets.filter(|secrets| secrets.identity().is_some());
        let (config, name) = self.settings(identity.is_some()).current(identity, &self.server_name)?;
        let connector = TlsConnector::from(config);
        let address: Arc<str> = self.address.as_str().into();
        endpoint
            .connect_with_connector(tower::service_fn(move |_| {
                let (connector, name, address) = (connector.clone(), name.clone(), Arc::clone(&address));
                async move {
                    let tcp = mizzen_net::dial::connect(&address, CONNECT_TIMEOUT).await?;
                    connector.connect(name, tcp).await.map(TokioIo::new)
                }
            }))
            .await
            .map_err(|error| unreachable(with_causes(&error)))
    }

    fn settings(&self, show_identity: bool) -> Settings {
        let roots = match &self.roots {
            RootSource::File(path) => Roots::File(path.to_string_lossy().into_owned()),
            RootSource::Pem(pem) => Roots::Inline(pem.clone()),
        };
        let name = SanMatch {
            kind: SanKind::Dns,
            value: StringMatch { kind: StringMatchKind::Exact(self.server_name.as_str().into()), ignore_case: true },
        };
        Settings(ClientTls {
            certificate: show_identity.then(|| CertificateSource::Secret(crate::secrets::IDENTITY.into())),
            validation: Validation { roots, names: vec![name], ..Validation::default() },
            sni: Some(self.server_name.clone()),
            auto_sni: false,
            auto_san_validation: false,
            alpn: vec!["h2".to_owned()],
            versions: TlsVersions::default(),
        })
    }
}

struct Settings(ClientTls);

type Configured = (Arc<rustls::ClientConfig>, rustls_pki_types::ServerName<'static>);

impl Settings {
    fn current(&self, secrets: Option<&Secrets>, host: &str) -> Result<Configured, tls::TlsError> {
        let none = Secrets::new();
        tls::client_config(&self.0, secrets.unwrap_or(&none)).current(Some(host))
    }
}
