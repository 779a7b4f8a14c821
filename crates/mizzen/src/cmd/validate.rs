//! `mizzen validate`: what is wrong with files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Output;
use crate::terminal;

/// Check files for mistakes, without a mesh.
///
/// Every finding names the file, line and column, the field, what is wrong and what to write instead.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen validate mizzen-demo/
  mizzen validate gateway.yaml virtual-service.yaml
  kubectl get virtualservices -A -o yaml | mizzen validate -
  mizzen validate -o json rules.yaml | jq '.findings[]'

Exit status: 0 no error (there may be warnings), 1 an error, 2 wrong usage.")]
pub(crate) struct Validate {
    /// Files, folders, or - for standard input
    #[arg(required = true, value_name = "FILE-OR-FOLDER")]
    paths: Vec<PathBuf>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Validate {
    pub(crate) fn run(self) -> ExitCode {
        let report = mizzen_cli::validate::validate(&self.paths, &mut std::io::stdin());
        match self.output {
            Output::Table => terminal::print(&report.text()),
            Output::Json => terminal::print_json(&report.json()),
        }
        if report.is_valid() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
