//! `mizzen exec`: a program in the network namespace of a workload.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use mizzen_cli::target::{self, Mesh, Wanted};
use mizzen_local::child;

use super::local;
use super::mesh::block_on;

/// Run a program beside a workload, in its network namespace: what it sends is caught by the workload's proxy.
///
/// For meshes that were started with `--capture netns`. The program is one of this machine, and sees names and addresses
/// as the workload does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen exec productpage -- curl -v http://reviews:9080/reviews/0
  mizzen exec reviews-v1 -- sh

Exit status: that of the program; 1 there is no such workload, 126 the program could not be run.")]
pub(crate) struct Exec {
    /// Name of the run of `demo` or `up` [default: the only one that runs]
    #[arg(long)]
    name: Option<String>,
    /// Deployment, pod or app label
    #[arg(value_name = "WORKLOAD")]
    workload: String,
    /// Program and arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

impl Exec {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let wanted = Wanted { name: self.name.clone(), control: None, cluster: None, only_cluster: false };
        let mesh = block_on(Mesh::find(&wanted, &local::state_root()))?;
        let instance = target::instance(mesh.run()?, &self.workload)?;
        let sandbox = instance.sandbox.with_context(|| {
            format!("{} has no network namespace of its own; start the mesh with --capture netns", instance.pod)
        })?;
        // At least one, as the definition of the argument says.
        let (program, arguments) = self.program.split_first().context("a program is missing")?;
        // Namespaces are entered by a process with one thread, so not by this one.
        let command = child::entering(&local::own_binary()?, sandbox, program);
        let mut command = command.context("the mesh's state names no process")?;
        Err(command.args(arguments).exec()).context("cannot run our own binary")
    }
}
