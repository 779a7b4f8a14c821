//! `mizzen demo`: Bookinfo as a mesh.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::local::{self, LocalFlags};

/// Run Bookinfo as a service mesh on this machine.
///
/// Writes a folder of plain YAML, starts the control plane, an ingress gateway and six workloads, each a process with a
/// proxy process beside it, and follows the folder: what you save there is in force within a second. Ctrl-C ends all.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen demo
  mizzen demo --dir /tmp/play --gateway-port 9000
  mizzen demo --name second --gateway-port 8081        another one beside the first
  mizzen demo --proxy envoy --envoy-path ./envoy       stock Envoys in the place of our proxies

Then, in another terminal:
  curl -H 'Host: istio.k3s.local' http://127.0.0.1:8080/productpage
  cp mizzen-demo/examples/reviews-by-user.yaml mizzen-demo/
  mizzen explain --from productpage GET http://reviews:9080/reviews/0 -H 'end-user: jason'")]
pub(crate) struct Demo {
    /// Folder for the configuration; files that exist are left as they are
    #[arg(long, value_name = "FOLDER", default_value = "mizzen-demo")]
    dir: PathBuf,
    /// Name of this mesh, for several side by side
    #[arg(long, default_value = "demo")]
    name: String,
    #[command(flatten)]
    flags: LocalFlags,
}

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let written = mizzen_local::demo::write(&self.dir)
            .with_context(|| format!("cannot write the demo's files to {}", self.dir.display()))?;
        let introduction = mizzen_local::demo::introduction(&self.dir, &written);
        local::run(&self.flags, &self.name, vec![self.dir], introduction)
    }
}
