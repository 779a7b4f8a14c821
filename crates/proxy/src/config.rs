//! What the process is started with. Only `mizzen` reads flags; it fills this in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that [`crate::run::run`] needs.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Text of an Envoy bootstrap, YAML or JSON.
    pub bootstrap: String,
    /// Where the text came from, for messages.
    pub bootstrap_name: String,
    /// Worker threads; at least 1.
    pub concurrency: usize,
    /// How the proxy gets its workload certificate; absent: only secrets from files, the bootstrap or SDS.
    pub identity: Option<IdentityOptions>,
    /// Where the last good configuration and certificate are kept; absent: nothing survives a restart.
    pub state_dir: Option<PathBuf>,
    /// Address of `/healthz/ready`.
    pub health_address: Option<SocketAddr>,
    /// Address of the Prometheus metrics.
    pub stats_address: Option<SocketAddr>,
    /// How long open connections may go on after SIGTERM or the removal of their listener.
    pub drain_time: Duration,
    pub ending: Ending,
    pub limits: Limits,
}

/// What the process does first when it is told to end; readiness fails at once in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// Listeners close, and open connections have the drain time.
    #[default]
    AtOnce,
    /// For this long clients are told to leave, but still served: whoever sends them here needs time to notice.
    After(Duration),
    /// The same for at least this long, and until no connection is open.
    WhenIdle(Duration),
}

/// How the workload proves who it is and gets its certificate.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// `HOST:PORT` of the certificate authority.
    pub ca_address: String,
    /// The name that its certificate has to bear; Istio's when absent.
    pub ca_server_name: Option<String>,
    /// PEM file with the roots that the authority's own certificate is verified with.
    pub ca_root: PathBuf,
    /// File with the service-account token (JWT).
    pub token: PathBuf,
}

/// Limits of the process that no configuration resource sets.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Client connections open at once, over all listeners.
    pub connections: usize,
    /// Bytes of a request body that are kept for another try.
    pub retry_buffer: usize,
    /// How long a client may take to send a request head, where the listener sets nothing.
    pub header_timeout: Duration,
    /// How long a TLS handshake may take, where the filter chain sets nothing.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            retry_buffer: 64 * 1024,
            header_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(15),
        }
    }
}
