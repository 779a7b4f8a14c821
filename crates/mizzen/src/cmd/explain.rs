//! `mizzen explain`: which way a request takes, and which line says so.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use mizzen_cli::explain::{self, Question};
use mizzen_cli::target;

use super::Output;
use super::mesh::{MeshFlags, block_on};
use crate::terminal;

/// Which way a request takes through the mesh, and which line of which file says so.
///
/// Decided by the very function that the proxy asks, on the configuration that the control plane gives that proxy:
/// listener, virtual host, why each route matched or not, cluster, subset and endpoints, timeout, retries, faults, mTLS.
/// No request is sent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen explain --from productpage GET http://reviews:9080/reviews/0
  mizzen explain --from productpage GET http://reviews:9080/reviews/0 -H 'end-user: jason'
  mizzen explain --gateway GET http://istio.k3s.local/productpage
  mizzen explain --from deploy/productpage-v1 GET http://reviews:9080/reviews/0     in a cluster
  mizzen explain --gateway GET http://127.0.0.1:8080/productpage -H 'Host: istio.k3s.local' -o json

Exit status: 0 the request would be served, 1 it would be refused, or the mesh cannot be asked.")]
pub(crate) struct Explain {
    /// The workload that sends the request: a Deployment, a pod, or an app label
    #[arg(long, value_name = "WORKLOAD", required_unless_present = "gateway", conflicts_with = "gateway")]
    from: Option<String>,
    /// The request comes from outside, through the ingress gateway
    #[arg(long)]
    gateway: bool,
    /// GET, POST …
    method: String,
    /// http://HOST:PORT/PATH
    url: String,
    /// A header of the request: `name: value`
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    #[command(flatten)]
    mesh: MeshFlags,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Explain {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let question = Question::parse(&self.method, &self.url, &self.headers)?;
        let answer = block_on(async {
            let mesh = self.mesh.find().await?;
            let run = mesh.run()?;
            let instance = match &self.from {
                Some(name) => target::instance(run, name)?,
                None => run.gateway.as_ref().context("this mesh has no gateway")?,
            };
            explain::answer(&mesh, instance, question).await
        })?;
        match self.output {
            Output::Table => terminal::print(&answer.text()),
            Output::Json => terminal::print_json(&answer.json()),
        }
        Ok(if answer.is_served() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
