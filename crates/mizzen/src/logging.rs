//! Logs of the long-running subcommands: to stderr, at a level that can be changed while they run.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Changes the level of a running process.
#[derive(Clone)]
pub(crate) struct LevelHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Sets up logging. `level` is a word (`warn`, `info` …) or a filter such as `info,mizzen_xds=debug`.
pub(crate) fn start(level: &str) -> anyhow::Result<LevelHandle> {
    let (layer, filter) = reload::Layer::new(parse(level)?);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(true);
    tracing_subscriber::registry().with(layer).with(lines).try_init().context("logging cannot be set up")?;
    Ok(LevelHandle { filter })
}

/// The same for a container: to stdout, a JSON object a line if wanted.
pub(crate) fn start_in_container(level: &str, json: bool) -> anyhow::Result<LevelHandle> {
    let (layer, filter) = reload::Layer::new(parse(level)?);
    let lines = fmt::layer().with_writer(std::io::stdout).with_ansi(false).with_target(true);
    let registry = tracing_subscriber::registry().with(layer);
    let started =
        if json { registry.with(lines.json().flatten_event(true)).try_init() } else { registry.with(lines).try_init() };
    started.context("logging cannot be set up")?;
    Ok(LevelHandle { filter })
}

fn parse(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder().parse(level).with_context(|| {
        format!("`{level}` is no log level; write error, warn, info, debug, trace, or a filter such as `info,mizzen_xds=debug`")
    })
}

impl LevelHandle {
    /// The filter in force.
    pub(crate) fn level(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }

    pub(crate) fn set(&self, level: &str) -> Result<(), String> {
        let filter = parse(level).map_err(|error| error.to_string())?;
        self.filter.reload(filter).map_err(|error| error.to_string())
    }
}
