//! Starts the proxy that [`Settings`] describe, and what stands beside it, and ends both.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use mizzen_net::listen;
use mizzen_proxy::admin::LogLevel;
use mizzen_proxy::run::{self as proxy, RunError};
use mizzen_proxy::{Handle, IdentityOptions, Limits, ProxyConfig};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::dns::{self, Dns};
use crate::settings::Settings;
use crate::status::{self, Status};

/// Addresses that were opened.
#[derive(Debug, Clone)]
pub struct Started {
    pub proxy: proxy::Started,
    /// The agent's own port.
    pub status: Option<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Proxy(#[from] RunError),
    #[error("cannot resolve names for the application (ISTIO_META_DNS_CAPTURE) at {addresses}: {source}")]
    Names { addresses: String, source: io::Error },
    #[error("cannot listen on {address} for the agent: {source}")]
    Port { address: SocketAddr, source: io::Error },
}

/// Runs until `shutdown` is ready and the drain is over. `started` is told the addresses once they are open.
pub async fn run(
    settings: Settings,
    limits: Limits,
    log_level: LogLevel,
    started: impl FnOnce(&Started),
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    let config = proxy_config(&settings, limits);
    let (told, handle) = oneshot::channel();
    let serving = proxy::run(
        config,
        Some(log_level),
        |started| {
            // It is waited for below, in the same function.
            let _ = told.send(started.clone());
        },
        shutdown,
    );
    let beside = async {
        // Without a handle the proxy did not start, and says why.
        let Ok(proxy) = handle.await else { return Ok(()) };
        let status = match (&proxy.handle, settings.ports.status) {
            (Some(handle), Some(port)) => Some(serve_status(handle.clone(), &settings, port).await?),
            _ => None,
        };
        let names = match (&proxy.handle, &settings.dns) {
            (Some(handle), Some(dns)) => serve_names(dns, &settings.root, handle).await?,
            _ => Vec::new(),
        };
        let _names: Vec<AbortOnDrop> = names.into_iter().map(AbortOnDrop).collect();
        let (address, task) = status.unzip();
        started(&Started { proxy, status: address });
        let _task = task.map(AbortOnDrop);
        std::future::pending().await
    };
    tokio::select! {
        ended = serving => ended.map_err(AgentError::from),
        failed = beside => failed,
    }
}

async fn serve_names(dns: &Dns, root: &Path, handle: &Handle) -> Result<Vec<JoinHandle<()>>, AgentError> {
    let file = root.join("etc/resolv.conf");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| {
        let reason: &io::Error = &error;
        tracing::warn!(%reason, file = %file.display(), "names outside of the mesh are not resolved");
        String::new()
    });
    let addresses = || dns.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let started = dns::start(dns, dns::Machine::read(&text), handle).await;
    started.map_err(|source| AgentError::Names { addresses: addresses(), source })
}

async fn serve_status(
    handle: Handle,
    settings: &Settings,
    port: u16,
) -> Result<(SocketAddr, JoinHandle<()>), AgentError> {
    let address = SocketAddr::new(every_address(), port);
    let status = Status::new(handle, settings.probers.clone(), settings.scrape.clone(), settings.address);
    status::listen(address, status).await.map_err(|source| AgentError::Port { address, source })
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the data plane is started with.
pub fn proxy_config(settings: &Settings, limits: Limits) -> ProxyConfig {
    let any = every_address();
    ProxyConfig {
        bootstrap: settings.bootstrap.clone(),
        bootstrap_name: "the bootstrap made from the environment".to_owned(),
        concurrency: settings.concurrency,
        identity: settings.identity.as_ref().map(|identity| IdentityOptions {
            ca_address: identity.ca_address.clone(),
            ca_server_name: Some(identity.ca_server_name.clone()),
            ca_root: identity.ca_roots.clone(),
            token: identity.token.clone(),
        }),
        state_dir: usable_state_dir(&settings.state_dir),
        health_address: Some(SocketAddr::new(any, settings.ports.health)),
        stats_address: Some(SocketAddr::new(any, settings.ports.stats)),
        drain_time: settings.drain,
        ending: settings.ending,
        limits,
    }
}

/// All addresses of both families where the machine has IPv6, else those of IPv4.
fn every_address() -> IpAddr {
    let both = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match listen::probe(SocketAddr::new(both, 0)) {
        Ok(()) => both,
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// The folder for what outlives a restart, for its owner alone. Without it the proxy runs all the same.
fn usable_state_dir(folder: &Path) -> Option<std::path::PathBuf> {
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Ok(()) => Some(folder.to_owned()),
        Err(error) => {
            let reason: &io::Error = &error;
            tracing::warn!(
                %reason,
                folder = %folder.display(),
                "nothing is kept over a restart: the folder cannot be made; mount a volume in memory there"
            );
            None
        }
    }
}
