//! A control plane on free ports with an authority of its own, and how its TLS ports are called.

use std::sync::Arc;

use mizzen_control::{Bound, ControlConfig, run};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::oneshot;

pub(crate) struct Started {
    pub(crate) bound: Bound,
    /// Trusts the control plane; shows no certificate.
    pub(crate) tls: rustls::ClientConfig,
    /// Dropping it ends the control plane.
    _stop: oneshot::Sender<()>,
    _dir: tempfile::TempDir,
}

/// Starts one whose configuration is an empty folder; `adjust` is told where files of the test may be put.
pub(crate) async fn start(adjust: impl FnOnce(&std::path::Path, &mut ControlConfig)) -> Started {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("config");
    std::fs::create_dir(&folder).unwrap();
    let state = dir.path().join("state");
    let free = ([127, 0, 0, 1], 0).into();
    let mut config = ControlConfig {
        config: vec![folder],
        xds_address: free,
        secure_xds_address: free,
        http_address: free,
        state_dir: Some(state.clone()),
        ..ControlConfig::default()
    };
    adjust(dir.path(), &mut config);
    let (stop, stopped) = oneshot::channel();
    let (ready, bound) = oneshot::channel();
    tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        run(config, stopped, |bound| ready.send(bound).unwrap()).await.unwrap();
    });
    let bound = bound.await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(state.join("root-cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Started { bound, tls: tls.with_root_certificates(roots).with_no_client_auth(), _stop: stop, _dir: dir }
}
