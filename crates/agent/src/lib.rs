//! The proxy of a pod or a virtual machine.
//!
//! Istio's agent reads the environment that injection wrote, makes a node and a bootstrap of it, and looks after an
//! Envoy. Here agent and proxy are one process: [`settings::resolve`] is the pure part (environment → node, bootstrap,
//! addresses), [`run::run`] starts the proxy with the result, serves port 15020 beside it, and ends both.
//!
//! Not here: the data plane (`mizzen-proxy`), certificates (`mizzen-identity`), reading flags and environment variables
//! (`mizzen`).

#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod dns;
pub mod duration;
pub mod files;
pub mod http;
pub mod inputs;
pub mod loglevel;
pub mod node;
pub mod podinfo;
pub mod probers;
pub mod proxy_config;
pub mod request;
pub mod run;
pub mod settings;
pub mod status;
pub mod wait;

pub use inputs::{Inputs, Role};
pub use settings::{Settings, resolve};
