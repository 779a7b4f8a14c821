//! The control plane: reads configuration, keeps the mesh, and tells every proxy over xDS what concerns it.
//!
//! [`run()`] starts everything and ends with its `shutdown`. The way of a change: a source → [`engine`] → `mizzen-mesh` →
//! [`audience`] → [`queue`] → a stream's task ([`session`], [`content`] with the shared [`cache`]) → `mizzen-xds`.
//!
//! Not here: what is right in a resource (`mizzen-config`), what proxies are told (`mizzen-translate`), the protocol
//! (`mizzen-xds`).

#![forbid(unsafe_code)]

mod access;
mod admission;
mod audience;
mod blame;
mod cache;
mod content;
mod debounce;
mod dump;
mod engine;
mod http;
mod inspect;
mod kubernetes;
mod metrics;
mod node;
mod places;
mod progress;
mod queue;
mod references;
mod run;
#[cfg(test)]
mod scale;
mod serve;
mod session;
mod status;
mod webhook;
mod world;

pub use kubernetes::KubernetesError;
pub use kubernetes::authority::Rotation;
pub use run::{Bound, ControlConfig, ControlError, KubernetesConfig, Limits, run};
pub use webhook::WebhookConfig;
