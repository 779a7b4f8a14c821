//! `mizzen completion`: scripts that let a shell complete our flags.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::terminal;

/// Print a completion script for your shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen completion bash > ~/.local/share/bash-completion/completions/mizzen
  mizzen completion zsh > \"${fpath[1]}/_mizzen\"
  mizzen completion fish > ~/.config/fish/completions/mizzen.fish")]
pub(crate) struct Completion {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "mizzen", &mut script);
        terminal::print(&String::from_utf8_lossy(&script));
        ExitCode::SUCCESS
    }
}
