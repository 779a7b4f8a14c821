//! `mizzen proxy`: the data plane by itself, from an Envoy bootstrap; or, with a role, the proxy of a pod.

mod agent;
mod request;
mod wait;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use mizzen_proxy::admin::LogLevel;
use mizzen_proxy::run::{self, Started};
use mizzen_proxy::{Ending, IdentityOptions, Limits, ProxyConfig};

use super::Output;
use crate::{logging, signals, terminal};

/// Run a proxy from an Envoy bootstrap (YAML or JSON), or from the environment of a pod.
///
/// Static resources and dynamic ones (ADS over gRPC, delta or state-of-the-world) are obeyed, so that the same file runs
/// Envoy and this proxy. What cannot be obeyed is refused with its path, never passed over.
///
/// With a role (`sidecar`, `router`) there is no file: node, bootstrap and ports come from the environment that injection
/// writes, as for Istio's agent.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  mizzen proxy -c bootstrap.yaml
  mizzen proxy -c bootstrap.yaml --mode validate        only check the file
  mizzen proxy -c bootstrap.yaml --ca-address 127.0.0.1:15012 --ca-root root-cert.pem --token ./token --state-dir ./state
  mizzen proxy sidecar --domain default.svc.cluster.local                 in a pod

On SIGTERM or Ctrl-C it stops accepting, lets requests finish for the drain time, and ends.
Exit status: 0 ended as asked, 1 it could not start or the file is wrong (the reason is on stderr)."
)]
pub(crate) struct Proxy {
    #[command(subcommand)]
    role: Option<Role>,
    /// The bootstrap
    #[arg(short, long, value_name = "FILE", required = true)]
    config_path: Option<PathBuf>,
    /// Serve, or only check the bootstrap
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    mode: Mode,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Certificate authority that signs this workload's certificate
    #[arg(long, value_name = "HOST:PORT", requires = "ca_root", requires = "token")]
    ca_address: Option<String>,
    /// Roots (PEM) to recognise the certificate authority by
    #[arg(long, value_name = "FILE")]
    ca_root: Option<PathBuf>,
    /// Service-account token (JWT) that proves who we are
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Keep the last good configuration and certificate here, to start while the control plane is away. It should lie in
    /// memory: it holds a key
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Where /healthz/ready is served (Istio: port 15021)
    #[arg(long, value_name = "ADDRESS")]
    health_address: Option<SocketAddr>,
    /// Where Prometheus metrics are served (Istio: port 15090)
    #[arg(long, value_name = "ADDRESS")]
    stats_address: Option<SocketAddr>,
    /// How long open connections may go on when their listener or the process ends: `5s`, `500ms`, `1m`
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    drain_time: Duration,
    /// Client connections open at once
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// error, warn, info, debug, trace, or a filter such as `info,mizzen_proxy=debug`
    #[arg(long, default_value = "info", env = "MIZZEN_LOG")]
    log_level: String,
    /// How the addresses are printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The proxy beside one workload, from the environment of its pod
    Sidecar(agent::Agent),
    /// A gateway, from the environment of its pod
    Router(agent::Agent),
    /// Wait until the proxy of this pod is ready
    Wait(wait::Wait),
    /// Send a request to the proxy of this pod
    Request(request::Request),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Serve,
    Validate,
}

impl Proxy {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.role {
            Some(Role::Sidecar(agent)) => agent.run(mizzen_agent::Role::Sidecar),
            Some(Role::Router(agent)) => agent.run(mizzen_agent::Role::Router),
            Some(Role::Wait(wait)) => wait.run(),
            Some(Role::Request(request)) => request.run(),
            None => self.run_file(),
        }
    }

    fn run_file(self) -> anyhow::Result<ExitCode> {
        // Required by its argument's definition when there is no role.
        let path = self.config_path.as_ref().context("the bootstrap is missing: -c FILE")?;
        let bootstrap = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let identity = match (&self.ca_address, &self.ca_root, &self.token) {
            (Some(ca_address), Some(ca_root), Some(token)) => Some(IdentityOptions {
                ca_address: ca_address.clone(),
                ca_server_name: None,
                ca_root: ca_root.clone(),
                token: token.clone(),
            }),
            (None, _, _) => None,
            _ => bail!("--ca-address needs --ca-root and --token"),
        };
        let config = ProxyConfig {
            bootstrap,
            bootstrap_name: path.display().to_string(),
            concurrency: usize::from(self.concurrency),
            identity,
            state_dir: self.state_dir.clone(),
            health_address: self.health_address,
            stats_address: self.stats_address,
            drain_time: self.drain_time,
            ending: Ending::AtOnce,
            limits: Limits { connections: self.max_connections, ..Limits::default() },
        };
        match self.mode {
            Mode::Validate => validate(&config),
            Mode::Serve => self.serve(config),
        }
    }

    fn serve(self, config: ProxyConfig) -> anyhow::Result<ExitCode> {
        let level = log_level(logging::start(&self.log_level)?);
        let output = self.output;
        mizzen_net::memory::keep_no_large_blocks();
        // Requests are served by the worker threads; this one configures them and serves the operator's ports.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let shutdown = signals::end()?;
            run::run(config, Some(level), |started| terminal::print(&text(started, &[], output)), shutdown).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// What the admin port changes the log level with.
fn log_level(handle: logging::LevelHandle) -> LogLevel {
    let (get, set) = (handle.clone(), handle);
    LogLevel { get: Box::new(move || get.level()), set: Box::new(move |level: &str| set.set(level)) }
}

fn validate(config: &ProxyConfig) -> anyhow::Result<ExitCode> {
    for field in run::validate(config)? {
        eprintln!("warning: {}: {field} has no effect here", config.bootstrap_name);
    }
    terminal::print(&format!("configuration '{}' OK\n", config.bootstrap_name));
    Ok(ExitCode::SUCCESS)
}

/// The addresses that were opened, one a line.
fn text(started: &Started, more: &[(&str, Option<SocketAddr>)], output: Output) -> String {
    let mut ports: Vec<(String, SocketAddr)> = Vec::new();
    let fixed = [("admin", started.admin), ("health", started.health), ("stats", started.stats)];
    ports.extend(fixed.iter().chain(more).filter_map(|(name, address)| Some(((*name).to_owned(), (*address)?))));
    ports.extend(started.listeners.iter().map(|(name, address)| (format!("listener {name}"), *address)));
    match output {
        Output::Table => ports.iter().map(|(name, address)| format!("{name} {address}\n")).collect(),
        Output::Json => {
            let pairs = ports.into_iter().map(|(name, address)| (name, address.to_string().into()));
            format!("{}\n", serde_json::Value::Object(pairs.collect()))
        }
    }
}

/// A duration such as `5s`, `500ms`, `1m`, or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "it begins with no number; write `5s` or `500ms`".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        other => Err(format!("{other:?} is no unit; write ms, s or m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert!(duration("s").is_err());
        assert!(duration("5h").is_err());
    }
}
