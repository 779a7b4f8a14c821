//! `mizzen proxy sidecar` and `mizzen proxy router`: the proxy of a pod or virtual machine, with Istio's arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use mizzen_agent::{Inputs, Role, files, loglevel, resolve, run};
use mizzen_proxy::Limits;

use super::{log_level, text};
use crate::cmd::Output;
use crate::{logging, signals, terminal};

/// The proxy of a pod. What it is and whom it obeys comes from the environment (`POD_NAME`, `INSTANCE_IP`,
/// `PROXY_CONFIG`, `ISTIO_META_…`) and from the files that injection mounts.
#[derive(Debug, Args)]
#[command(
    rename_all = "camelCase",
    after_help = "Arguments have Istio's names. The environment decides all else; the most important variables:
  POD_NAME, POD_NAMESPACE, INSTANCE_IP, SERVICE_ACCOUNT   who this is
  PROXY_CONFIG       Istio's ProxyConfig as JSON (discoveryAddress, statusPort, proxyAdminPort, concurrency …)
  CA_ADDR, TRUST_DOMAIN, ISTIOD_SAN                       who signs its certificate
  ISTIO_META_KEY, ISTIO_METAJSON_KEY                      node metadata KEY, as text or as JSON
  ENVOY_STATUS_PORT (15021), ENVOY_PROMETHEUS_PORT (15090)
  EXIT_ON_ZERO_ACTIVE_CONNECTIONS, MINIMUM_DRAIN_DURATION how it ends

Exit status: 0 ended as asked, 1 it could not start (the reason is on stderr), 2 wrong usage."
)]
pub(crate) struct Agent {
    /// DNS domain of the node: NAMESPACE.svc.DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Log level of the proxy: trace, debug, info, warning, error, critical, off
    #[arg(long, value_name = "LEVEL", default_value = "warning")]
    proxy_log_level: String,
    /// Log levels of parts of the proxy: `http:debug,config:info`
    #[arg(long, value_name = "PART:LEVEL,…", default_value = "")]
    proxy_component_log_level: String,
    /// Log levels of the agent: `default:info` or `SCOPE:LEVEL,…`
    #[arg(long = "log_output_level", value_name = "SCOPE:LEVEL,…", default_value = "default:info")]
    log_output_level: String,
    /// Log lines as JSON objects
    #[arg(long = "log_as_json")]
    log_as_json: bool,
    /// Worker threads; 0 is one for each processor. Without it the proxy configuration decides, else the processor limit
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Name of the service for traces and the node's cluster
    #[arg(long, value_name = "NAME")]
    service_cluster: Option<String>,
    #[command(flatten)]
    passed_over: PassedOver,
    /// Folder in which the files of the pod lie
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
    /// Only print the bootstrap that the environment leads to
    #[arg(long = "dry-run")]
    dry_run: bool,
    /// How the addresses are printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Arguments of Istio's that are taken, so that its templates start this proxy too, and change nothing.
#[derive(Debug, Args)]
#[command(rename_all = "camelCase")]
struct PassedOver {
    #[arg(long, hide = true, value_name = "PORT")]
    sts_port: Option<u16>,
    #[arg(long, hide = true, value_name = "NAME")]
    token_manager_plugin: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    template_file: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    outlier_log_path: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    mesh_config: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", value_name = "BOOLEAN")]
    profiling: Option<String>,
}

impl PassedOver {
    /// Says which of them were given, and what happens instead.
    fn notes(&self) -> Vec<String> {
        let set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        [
            ("stsPort", self.sts_port.is_some_and(|port| port != 0), "there is no token exchange service"),
            ("templateFile", set(&self.template_file), "the bootstrap is not made from a template"),
            ("outlierLogPath", set(&self.outlier_log_path), "ejections are in the metrics and in the log"),
        ]
        .into_iter()
        .filter(|(_, given, _)| *given)
        .map(|(name, _, instead)| format!("--{name} is not obeyed by this release: {instead}"))
        .collect()
    }
}

impl Agent {
    pub(super) fn run(self, role: Role) -> anyhow::Result<ExitCode> {
        let filter = loglevel::filter(&self.proxy_log_level, &self.proxy_component_log_level, &self.log_output_level)?;
        let machine = files::machine(&self.root).context("the files of the pod cannot be read")?;
        let inputs = Inputs {
            role,
            domain: self.domain.clone(),
            service_cluster: self.service_cluster.clone(),
            concurrency: self.concurrency,
            // A variable that is no text cannot be one of ours.
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            labels: machine.labels,
            annotations: machine.annotations,
            mesh: machine.mesh,
            root: self.root.clone(),
            addresses: machine.addresses,
            hostname: machine.hostname,
            processors: machine.processors,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut settings = resolve(&inputs)?;
        settings.notes.extend(self.passed_over.notes());
        if self.dry_run {
            let bootstrap: serde_json::Value = serde_json::from_str(&settings.bootstrap)?;
            terminal::print_json(&bootstrap);
            for note in &settings.notes {
                eprintln!("warning: {note}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        let level = log_level(logging::start_in_container(&filter, self.log_as_json)?);
        let output = self.output;
        mizzen_net::memory::keep_no_large_blocks();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let shutdown = signals::end()?;
            let started = |started: &run::Started| {
                let ports = [("agent", started.status)];
                match output {
                    Output::Json => terminal::print(&text(&started.proxy, &ports, output)),
                    Output::Table => {
                        for line in text(&started.proxy, &ports, output).lines() {
                            tracing::info!("listening: {line}");
                        }
                    }
                }
            };
            run::run(settings, Limits::default(), level, started, shutdown).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
