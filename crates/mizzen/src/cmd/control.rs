//! `mizzen control`: a control plane by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mizzen_agent::duration;
use mizzen_control::{Bound, ControlConfig, KubernetesConfig, Limits, Rotation, WebhookConfig};

use super::Output;
use crate::{logging, signals, terminal};

/// Run a control plane: configuration in, xDS out.
///
/// Reads Istio's and Kubernetes' resources from files, from a Kubernetes API server, or both, and follows them. Any xDS
/// client may be pointed at it: our proxies, stock Envoys, gRPC clients. Discovery is delta or state-of-the-world, on a
/// plaintext port for this machine and on a TLS port, which also signs workload certificates.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen control --config ./manifests
  mizzen control --kubernetes --kubeconfig ~/.kube/config              a cluster's configuration, from outside
  mizzen control --config ./manifests --xds-address 127.0.0.1:0       a free port, printed on stdout
  mizzen control --config ./manifests --state-dir ./state --token-issuer-key issuer.pem
  curl http://127.0.0.1:15014/debug/syncz                              who is connected

Ends on SIGTERM or Ctrl-C. Exit status: 0 ended as asked, 1 it could not start (the reason is on stderr).")]
pub(crate) struct Control {
    /// Files and folders with configuration
    #[arg(long, required_unless_present = "kubernetes", value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Read configuration from a Kubernetes API server; an object that a file has too counts as the file says
    #[arg(long)]
    kubernetes: bool,
    /// How to reach the API server; without it, as a pod of the cluster does
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", hide_env_values = true)]
    kubeconfig: Option<PathBuf>,
    /// The control plane's own namespace, with the mesh configuration
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "istio-system")]
    namespace: String,
    /// Revision of this control plane
    #[arg(long, value_name = "NAME", env = "REVISION", default_value = "default")]
    revision: String,
    /// What the cluster is called among those of the mesh
    #[arg(long, value_name = "NAME", env = "CLUSTER_ID", default_value = "Kubernetes")]
    cluster_id: String,
    /// What tells this replica of the control plane from the others
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "istiod")]
    replica: String,
    /// How long a root certificate of the control plane's own making is good
    #[arg(long, value_name = "DURATION", env = "CITADEL_SELF_SIGNED_CA_CERT_TTL", hide_env_values = true,
        default_value = "87600h", value_parser = duration::parse)]
    root_ttl: Duration,
    /// How often it is looked whether that root is near its end
    #[arg(long, value_name = "DURATION", env = "CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", hide_env_values = true,
        default_value = "1h", value_parser = duration::parse)]
    root_check_interval: Duration,
    /// It is renewed when this share of its time is left
    #[arg(long, value_name = "PERCENT", env = "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE",
        hide_env_values = true, default_value_t = Rotation::default().grace_percent,
        value_parser = clap::value_parser!(u8).range(..=100))]
    root_grace_percent: u8,
    /// Plaintext xDS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15010")]
    xds_address: SocketAddr,
    /// xDS over TLS, and the certificate authority
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15012")]
    secure_xds_address: SocketAddr,
    /// Debug pages and metrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15014")]
    http_address: SocketAddr,
    /// HTTPS for the API server's questions, /inject and /validate [default with --kubernetes: 0.0.0.0:15017]
    #[arg(long, value_name = "ADDRESS")]
    webhook_address: Option<SocketAddr>,
    /// Whether sidecars are init containers that restart: true or false [default: as the cluster's version allows]
    #[arg(long, env = "ENABLE_NATIVE_SIDECARS", hide_env_values = true, value_name = "BOOLEAN")]
    native_sidecars: Option<String>,
    /// Keep the certificate authority here; without it, it is made anew at each start
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Domain of the workloads' identities
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Public key (PEM) of an issuer of service-account tokens
    #[arg(long, value_name = "FILE")]
    token_issuer_key: Vec<PathBuf>,
    /// Further names for the certificate of the TLS port
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Let the plaintext port listen on an address that others can reach
    #[arg(long)]
    allow_remote_plaintext: bool,
    /// Connections open at once
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// Discovery streams open at once
    #[arg(long, value_name = "N", default_value_t = Limits::default().streams)]
    max_streams: usize,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    concurrency: u8,
    /// error, warn, info, debug, trace, or a filter such as `info,mizzen_xds=debug`
    #[arg(long, default_value = "info", env = "MIZZEN_LOG")]
    log_level: String,
    /// Log to stdout, a JSON object a line
    #[arg(long = "log_as_json")]
    log_as_json: bool,
    /// How the addresses are printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Control {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let level = without_library(&self.log_level);
        if self.log_as_json { logging::start_in_container(&level, true) } else { logging::start(&level) }?;
        let kubernetes = KubernetesConfig {
            kubeconfig: self.kubeconfig,
            namespace: self.namespace,
            revision: self.revision,
            cluster_id: self.cluster_id,
            replica: self.replica,
            rotation: Rotation {
                ttl: self.root_ttl,
                check: self.root_check_interval,
                grace_percent: self.root_grace_percent,
            },
        };
        let in_cluster = self.kubernetes.then_some(SocketAddr::from(([0, 0, 0, 0], 15017)));
        let config = ControlConfig {
            config: self.config,
            kubernetes: self.kubernetes.then_some(kubernetes),
            xds_address: self.xds_address,
            secure_xds_address: self.secure_xds_address,
            http_address: self.http_address,
            webhook: self
                .webhook_address
                .or(in_cluster)
                .map(|address| WebhookConfig { address, native_sidecars: self.native_sidecars.unwrap_or_default() }),
            state_dir: self.state_dir,
            trust_domain: self.trust_domain,
            token_issuer_keys: self.token_issuer_key,
            names: self.names,
            remote_plaintext: self.allow_remote_plaintext,
            limits: Limits { connections: self.max_connections, streams: self.max_streams, ..Limits::default() },
        };
        let output = self.output;
        let ready = move |bound: Bound| {
            let Bound { xds, secure_xds, http, webhook: _ } = bound;
            terminal::print(&match output {
                Output::Table => format!("xds {xds}\nsecure-xds {secure_xds}\nhttp {http}\n"),
                Output::Json => {
                    format!("{{\"xds\": \"{xds}\", \"secureXds\": \"{secure_xds}\", \"http\": \"{http}\"}}\n")
                }
            });
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(usize::from(self.concurrency))
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let shutdown = signals::end()?;
            mizzen_control::run(config, shutdown, ready).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// The library that calls the API server logs each failure of each connection; what follows from them is said once by the
/// source.
fn without_library(level: &str) -> String {
    if level.contains("kube_") { level.to_owned() } else { format!("{level},kube_client=off,kube_runtime=off") }
}
