//! `mizzen proxy-config`: what one proxy has.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use mizzen_cli::proxy_config::{self, Part};
use mizzen_cli::target;

use super::Output;
use super::mesh::{MeshFlags, block_on};
use crate::terminal;

/// What one proxy has, asked of the proxy itself.
#[derive(Debug, Args)]
#[command(
    alias = "pc",
    after_help = "A proxy is named by its Deployment, its pod, or its app label; a Deployment with several replicas means the first.

Examples:
  mizzen proxy-config routes productpage
  mizzen proxy-config clusters productpage --filter reviews
  mizzen proxy-config endpoints istio-ingressgateway -o json
  mizzen proxy-config secrets reviews-v1
  mizzen proxy-config log reviews-v1 --level debug      change the level of a running proxy
  mizzen proxy-config all --admin 127.0.0.1:15000       a proxy that runs by itself"
)]
pub(crate) struct ProxyConfig {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Where it listens, and what each filter chain leads to
    #[command(alias = "listener")]
    Listeners(Of),
    /// Hosts and routes
    #[command(alias = "route")]
    Routes(Of),
    /// Clusters, with the DestinationRule behind each
    #[command(alias = "cluster")]
    Clusters(Of),
    /// Endpoints of the clusters
    #[command(alias = "endpoint")]
    Endpoints(Of),
    /// Certificates; keys are never shown
    #[command(alias = "secret")]
    Secrets(Of),
    /// All of these
    All(Of),
    /// What it was started with
    Bootstrap(Of),
    /// Show or change its log level
    Log {
        #[command(flatten)]
        of: Of,
        /// error, warn, info, debug, trace; for our proxy also a filter such as `info,mizzen_xds=debug`
        #[arg(long)]
        level: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Of {
    /// Deployment, pod or app label
    #[arg(value_name = "PROXY", required_unless_present = "admin")]
    proxy: Option<String>,
    /// Admin address of a proxy that runs by itself
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["name", "control", "proxy"])]
    admin: Option<SocketAddr>,
    /// Only rows with this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    #[command(flatten)]
    mesh: MeshFlags,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl ProxyConfig {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let (of, part) = match self.what {
            What::Listeners(of) => (of, Part::Listeners),
            What::Routes(of) => (of, Part::Routes),
            What::Clusters(of) => (of, Part::Clusters),
            What::Endpoints(of) => (of, Part::Endpoints),
            What::Secrets(of) => (of, Part::Secrets),
            What::All(of) => (of, Part::All),
            What::Bootstrap(of) => (of, Part::Bootstrap),
            What::Log { of, level } => return log(&of, level.as_deref()),
        };
        let answer = block_on(async { proxy_config::fetch(of.address().await?, part).await })?;
        match of.output {
            Output::Table => terminal::print(&answer.text(of.filter.as_deref())),
            Output::Json => terminal::print_json(&answer.json()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn log(of: &Of, level: Option<&str>) -> anyhow::Result<ExitCode> {
    let text = block_on(async {
        let admin = of.address().await?;
        match level {
            Some(level) => proxy_config::set_log_level(admin, level).await,
            None => proxy_config::log_level(admin).await,
        }
    })?;
    terminal::print(&text);
    Ok(ExitCode::SUCCESS)
}

impl Of {
    /// The admin port of the proxy.
    async fn address(&self) -> anyhow::Result<SocketAddr> {
        if let Some(admin) = self.admin {
            return Ok(admin);
        }
        let name = self.proxy.as_deref().context("no proxy is named")?;
        let mesh = self.mesh.find().await?;
        mesh.admin(target::instance(mesh.run()?, name)?).await
    }
}
