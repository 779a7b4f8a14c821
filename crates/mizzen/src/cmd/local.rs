use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use mizzen_local::capture::Capture;
use mizzen_local::settings::DEFAULT_GATEWAY_PORT;
use mizzen_local::{ProxyKind, Settings};
use mizzen_types::TrustDomain;

use super::Output;
use crate::terminal;

#[derive(Debug, Args)]
pub(crate) struct LocalFlags {
    /// Offer port 80 of the gateway at this port of 127.0.0.1 [default: 8080, as 80 needs privilege]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    gateway_port: Option<u16>,
    /// Which proxy stands beside every application and at the gateway
    #[arg(long, value_enum, default_value_t = Proxy::Mizzen)]
    proxy: Proxy,
    /// The Envoy binary for `--proxy envoy` [default: .cache/envoy/envoy, else `envoy` of PATH]
    #[arg(long, value_name = "FILE", env = "MIZZEN_ENVOY", hide_env_values = true)]
    envoy_path: Option<PathBuf>,
    /// How applications' connections come to their proxies
    #[arg(long, value_enum, default_value_t = HowCaught::Explicit, value_name = "HOW")]
    capture: HowCaught,
    /// Domain of the workloads' identities: spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Print what runs as one JSON document on stdout, once it is ready
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Proxy {
    /// Ours
    Mizzen,
    /// A stock Envoy, driven by our control plane
    Envoy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HowCaught {
    /// By the variable `http_proxy`; nothing is redirected, no privilege is needed
    Explicit,
    /// By the kernel, in a network namespace for each workload: programs need not know of it
    Netns,
}

/// Runs a mesh until Ctrl-C.
pub(crate) fn run(
    flags: &LocalFlags,
    name: &str,
    config: Vec<PathBuf>,
    introduction: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let proxy = match flags.proxy {
        Proxy::Mizzen => ProxyKind::Mizzen,
        Proxy::Envoy => ProxyKind::Envoy,
    };
    let envoy = match proxy {
        ProxyKind::Envoy => Some(envoy(flags.envoy_path.as_deref())?),
        ProxyKind::Mizzen => None,
    };
    let settings = Settings {
        name: name.to_owned(),
        mizzen: own_binary()?,
        state_root: state_root(),
        config,
        gateway_port: flags.gateway_port.unwrap_or(DEFAULT_GATEWAY_PORT),
        proxy,
        envoy,
        capture: match flags.capture {
            HowCaught::Explicit => Capture::Explicit,
            HowCaught::Netns => Capture::Netns,
        },
        trust_domain: TrustDomain::new(&flags.trust_domain),
        version: env!("CARGO_PKG_VERSION"),
        console: terminal::console(flags.output == Output::Json),
        introduction,
    };
    // One thread: the children die with the thread that started them, and that has to be the main one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(mizzen_local::run(settings))?;
    Ok(ExitCode::SUCCESS)
}

/// The folder in which runs have their state folders.
pub(crate) fn state_root() -> PathBuf {
    mizzen_local::state::root(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).as_deref())
}

pub(super) fn own_binary() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find our own binary")?;
    if !path.exists() {
        bail!("{} was replaced or removed while it ran; start it again", path.display());
    }
    Ok(path)
}

/// The Envoy to run: as named, else the one that the tests install, else that of PATH.
fn envoy(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        let found = named.canonicalize().with_context(|| format!("no Envoy at {}", named.display()))?;
        return Ok(found);
    }
    let cached = Path::new(".cache/envoy/envoy").to_owned();
    let of_path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = [cached].into_iter().chain(std::env::split_paths(&of_path).map(|folder| folder.join("envoy")));
    let found = candidates.into_iter().find_map(|path| path.canonicalize().ok().filter(|path| path.is_file()));
    found.context(mizzen_local::RunError::NoEnvoy)
}
