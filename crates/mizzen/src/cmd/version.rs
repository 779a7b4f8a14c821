//! `mizzen version`.

use std::process::ExitCode;

use clap::Args;

use super::Output;
use crate::terminal;

/// Print the version.
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Version {
    pub(crate) fn run(self) -> ExitCode {
        let version = env!("CARGO_PKG_VERSION");
        match self.output {
            Output::Table => terminal::print(&format!("mizzen {version}\n")),
            Output::Json => terminal::print(&format!("{{\"version\": \"{version}\"}}\n")),
        }
        ExitCode::SUCCESS
    }
}
