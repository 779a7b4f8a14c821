//! The subcommands and what they have in common.

mod bookinfo;
mod completion;
mod control;
mod demo;
mod exec;
mod explain;
mod init;
mod kube_inject;
mod mesh;
mod proxy;
mod proxy_config;
mod proxy_status;
mod up;
mod validate;
mod version;

use std::process::ExitCode;

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
use clap::{Parser, Subcommand, ValueEnum};

/// Flags shared by everything that starts a mesh on this machine.
mod local;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default());

/// A service mesh: Istio's configuration, Envoy's protocols, one binary.
#[derive(Debug, Parser)]
#[command(
    name = "mizzen",
    version,
    styles = STYLES,
    max_term_width = 110,
    after_help = "Begin here:
  mizzen demo               a mesh to play with, on this machine
  mizzen up ./manifests     your own Deployments as local processes, in a mesh

  Which way a request takes, and which line of which file says so:
  mizzen explain --from productpage GET http://reviews:9080/reviews/0

Exit status: 0 done, 1 it failed (the reason is on stderr), 2 wrong usage.
Colours are left out with NO_COLOR=1 and where the output is no terminal."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run Bookinfo as a service mesh on this machine
    Demo(demo::Demo),
    /// Run your own manifests as a service mesh on this machine
    Up(up::Up),
    /// Run a program beside a workload of a local mesh, in its network namespace
    Exec(exec::Exec),
    /// Which way a request takes, and which line of which file says so
    Explain(explain::Explain),
    /// Check files for mistakes, without a mesh
    Validate(validate::Validate),
    /// Who is connected, and what each proxy has acknowledged or refused
    ProxyStatus(proxy_status::ProxyStatus),
    /// What one proxy has: listeners, routes, clusters, endpoints, certificates
    ProxyConfig(proxy_config::ProxyConfig),
    /// Run a control plane: configuration in, xDS out
    Control(Box<control::Control>),
    /// Run a proxy from an Envoy bootstrap
    Proxy(Box<proxy::Proxy>),
    /// Catch this pod's or machine's traffic: the kernel's rules that send connections to the sidecar
    Init(Box<init::Init>),
    /// Write the sidecar into manifests, as the webhook would do it in a cluster
    KubeInject(kube_inject::KubeInject),
    /// Run one service of the Bookinfo application
    Bookinfo(bookinfo::Bookinfo),
    /// Print a completion script for your shell
    Completion(completion::Completion),
    /// Print the version
    Version(version::Version),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Demo(command) => command.run(),
        Command::Up(command) => command.run(),
        Command::Exec(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Validate(command) => Ok(command.run()),
        Command::ProxyStatus(command) => command.run(),
        Command::ProxyConfig(command) => command.run(),
        Command::Control(command) => command.run(),
        Command::Proxy(command) => command.run(),
        Command::Init(command) => command.run(),
        Command::KubeInject(command) => command.run(),
        Command::Bookinfo(command) => command.run(),
        Command::Completion(command) => Ok(command.run()),
        Command::Version(command) => Ok(command.run()),
    }
}
