//! A service mesh on one machine: the supervisor behind `mizzen demo` and `mizzen up`.
//!
//! It reads the manifests that people already have, runs one local process for every replica of a Deployment, gives each
//! a proxy and a mesh address of its own, and starts the control plane on the same files. It knows neither xDS nor
//! Istio's rules: the control plane and the proxies are child processes that are told everything by files and flags, as
//! they would be anywhere else. What is generated for them lies in the state folder (see [`state`]).
//!
//! Not here: flags and environment (`mizzen` reads them and fills [`Settings`]), and what people ask a running mesh
//! (`mizzen-cli`, which finds it through [`run_file`]).

#![forbid(unsafe_code)]

pub mod backoff;
pub mod bootstrap;
pub mod capture;
pub mod child;
pub mod console;
pub mod demo;
pub mod images;
pub mod instance;
mod logs;
pub mod manifest;
pub mod netns;
pub mod network;
pub mod plan;
pub mod probe;
mod process;
pub mod reaper;
pub mod run_file;
pub mod runtime;
pub mod settings;
pub mod state;
mod supervisor;
pub mod table;
mod watch;

pub use settings::Settings;
pub use supervisor::{RunError, run};

/// Which program stands beside every application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyKind {
    /// Ours.
    #[default]
    Mizzen,
    /// A stock Envoy.
    Envoy,
}

/// An object as YAML.
fn yaml(value: &serde_json::Value) -> String {
    // Values of JSON have no form that YAML lacks; JSON is the fallback, and YAML as well.
    serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value:#}\n"))
}
