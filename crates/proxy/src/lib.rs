//! The data plane: accept, decide, forward, record.
//!
//! The way of a request: [`listener`] → [`connection`] → [`http::exchange`] → `mizzen_snapshot::plan` → [`upstream`] →
//! `record`. Each worker is a thread with its own event loop, connections and pools; what workers share is in
//! [`shared`]. Decisions are made by pure functions of `mizzen-snapshot` and `mizzen-balance`; here they are carried out.
//!
//! Not here: what configuration means (`mizzen-compile`), the discovery protocol (`mizzen-xds`), flags and environment
//! (`mizzen`).

#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod configure;
pub mod connection;
mod control_plane;
pub mod drain;
pub mod facts;
pub mod handle;
pub mod health;
pub mod http;
pub mod listener;
pub mod peer;
pub mod publish;
pub mod record;
pub mod refusal;
pub mod run;
pub mod shared;
pub mod stats;
pub mod tcp;
pub mod upstream;
pub mod worker;

pub use config::{Ending, IdentityOptions, Limits, ProxyConfig};
pub use handle::Handle;
