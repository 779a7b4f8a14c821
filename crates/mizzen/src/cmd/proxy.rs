//! `mizzen proxy`: a proxy by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use mizzen_proxy::admin::LogLevel;
use mizzen_proxy::run::Started;
use mizzen_proxy::{IdentityOptions, Limits, ProxyConfig};

use crate::{logging, signals, terminal};

/// Run a proxy from an Envoy bootstrap.
///
/// Takes the same file as a stock Envoy, YAML or JSON: static listeners and clusters, and a control plane under
/// `dynamic_resources`. Reads it once; everything else comes over xDS.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen proxy -c bootstrap.yaml
  mizzen proxy -c bootstrap.yaml --mode validate       check the file and what is static in it, open nothing
  mizzen proxy -c bootstrap.yaml --ca-address 127.0.0.1:15012 --ca-root root-cert.pem --token token
                                                        a workload certificate from Istio's signing service
  curl http://127.0.0.1:15000/config_dump              the admin port that the bootstrap names

SIGTERM drains: listeners close, open requests finish within the drain time.
Exit status: 0 ended as asked or the file is right, 1 it could not start or the file is wrong, 2 wrong usage.")]
pub(crate) struct Proxy {
    /// The bootstrap
    #[arg(short, long = "config-path", value_name = "FILE")]
    config: PathBuf,
    /// Serve, or only check the bootstrap
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    mode: Mode,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
    /// Certificate authority to get the workload certificate from, HOST:PORT
    #[arg(long, value_name = "ADDRESS", requires_all = ["ca_root", "token"])]
    ca_address: Option<String>,
    /// Roots (PEM) that the authority's own certificate is verified with
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    ca_root: Option<PathBuf>,
    /// Service-account token (JWT)
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    token: Option<PathBuf>,
    /// Keep the last good configuration and certificate here, to serve after a restart while the control plane is away
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Where /healthz/ready is served
    #[arg(long, value_name = "ADDRESS")]
    health_address: Option<SocketAddr>,
    /// Where Prometheus' /stats/prometheus is served
    #[arg(long, value_name = "ADDRESS")]
    stats_address: Option<SocketAddr>,
    /// How long open requests may take after SIGTERM or the removal of their listener
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    drain_time: Duration,
    /// Client connections open at once
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// error, warn, info, debug, trace, or a filter such as `info,mizzen_xds=debug`
    #[arg(long, default_value = "warn", env = "MIZZEN_LOG")]
    log_level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Serve,
    Validate,
}

impl Proxy {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let level = logging::start(&self.log_level)?;
        let mode = self.mode;
        let config = self.config()?;
        if mode == Mode::Validate {
            let without_effect = mizzen_proxy::run::validate(&config)?;
            without_effect
                .iter()
                .for_each(|field| terminal::print(&format!("{field}: known, but has no effect here\n")));
            terminal::print(&format!("{} is right\n", config.bootstrap_name));
            return Ok(ExitCode::SUCCESS);
        }
        let getter = level.clone();
        let level = LogLevel { get: Box::new(move || getter.level()), set: Box::new(move |filter| level.set(filter)) };
        // Workers are threads of their own; this one only waits for configuration.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        runtime.block_on(async {
            let shutdown = signals::end()?;
            mizzen_proxy::run::run(config, Some(level), announce, shutdown).await?;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn config(self) -> anyhow::Result<ProxyConfig> {
        let name = self.config.display().to_string();
        let bootstrap = std::fs::read_to_string(&self.config).with_context(|| format!("cannot read {name}"))?;
        let identity = match (self.ca_address, self.ca_root, self.token) {
            (Some(ca_address), Some(ca_root), Some(token)) => Some(IdentityOptions { ca_address, ca_root, token }),
            (None, ..) => None,
            _ => bail!("--ca-address needs --ca-root and --token"),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(ProxyConfig {
            bootstrap,
            bootstrap_name: name,
            concurrency: self.concurrency.map_or(cores, usize::from),
            identity,
            state_dir: self.state_dir,
            health_address: self.health_address,
            stats_address: self.stats_address,
            drain_time: self.drain_time,
            limits: Limits { connections: self.max_connections, ..Limits::default() },
        })
    }
}

/// One line for each port, since port 0 picks one.
fn announce(started: &Started) {
    let mut text = String::new();
    let ports = [("admin", started.admin), ("health", started.health), ("stats", started.stats)];
    for (what, address) in ports.into_iter().filter_map(|(what, address)| Some((what, address?))) {
        text.push_str(&format!("{what} {address}\n"));
    }
    for (name, address) in &started.listeners {
        text.push_str(&format!("listener {name} {address}\n"));
    }
    for field in &started.without_effect {
        tracing::warn!("{field} in the bootstrap is known, but has no effect here");
    }
    terminal::print(&text);
}

/// `500ms`, `5s`, `1m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("`{text}` is no length of time; write 500ms, 5s, 1m or 1h");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(wrong),
        "h" => number.checked_mul(3600).map(Duration::from_secs).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, millis) in [("500ms", 500), ("5s", 5000), ("1m", 60_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "5 s", "5d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
