//! What has to run before the proxies: the control plane and the workloads.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use mizzen_control::ControlConfig;

use super::echo::{self, Memory};
use crate::world::{WORKLOADS, Workload};

/// A loopback net of which nobody uses the control plane's address.
pub(super) fn free_net() -> Result<u8, String> {
    let start = 100 + rand::random::<u8>() % 90;
    (0..90)
        .map(|step| 100 + (start - 100 + step) % 90)
        .find(|net| TcpListener::bind((Ipv4Addr::new(127, *net, 0, 1), 15010)).is_ok())
        .ok_or_else(|| "no loopback net from 127.100.0.0 to 127.189.0.0 is free".to_owned())
}

pub(super) async fn start_control(
    control: Ipv4Addr,
    config: &Path,
    state: &Path,
    issuer: PathBuf,
) -> Result<(), String> {
    let at = |port| SocketAddr::from((control, port));
    let config = ControlConfig {
        config: vec![config.to_owned()],
        xds_address: at(15010),
        secure_xds_address: at(15012),
        http_address: at(15014),
        state_dir: Some(state.to_owned()),
        token_issuer_keys: vec![issuer],
        ..ControlConfig::default()
    };
    let (ready, wait) = tokio::sync::oneshot::channel();
    let (failed, failure) = tokio::sync::oneshot::channel();
    // Ends with the process of the test.
    std::thread::spawn(move || {
        let told = move |_| {
            // Whoever waited may have given up.
            let _ = ready.send(());
        };
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map(|runtime| runtime.block_on(mizzen_control::run(config, std::future::pending(), told)));
        drop(failed.send(format!("{result:?}")));
    });
    tokio::select! {
        Ok(()) = wait => Ok(()),
        why = failure => Err(format!("the control plane does not start: {}", why.unwrap_or_default())),
    }
}

/// Starts all workloads; where the applications behind sidecars listen, by workload.
pub(super) async fn start_workloads(net: u8, memory: &Memory) -> Result<BTreeMap<&'static str, SocketAddr>, String> {
    let mut apps = BTreeMap::new();
    for workload in &WORKLOADS {
        let Workload { name, sidecar, port, .. } = *workload;
        let address: SocketAddr =
            if sidecar { (Ipv4Addr::LOCALHOST, 0).into() } else { (workload.address(net), port).into() };
        let bound = echo::start(workload, address, memory.clone())
            .await
            .map_err(|error| format!("{name} at {address}: {error}"))?;
        apps.insert(name, bound);
    }
    Ok(apps)
}
