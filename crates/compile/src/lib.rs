//! From xDS messages to what a proxy obeys.
//!
//! [`Config`] takes the updates of a control plane and keeps the last good version of every resource; what it makes
//! visible is a [`Snapshot`](mizzen_snapshot::Snapshot) in which nothing dangles that could have been there.
//! [`bootstrap`](bootstrap::bootstrap) reads the file that a proxy starts with.
//!
//! Pure: no socket, clock or file. One file per kind of resource; an error names the resource and the field's path.

#![forbid(unsafe_code)]
// Control planes in use still send the older spellings of some fields.
#![allow(deprecated)]

mod access_log;
pub mod bootstrap;
mod cluster;
mod config;
mod endpoint;
mod filters;
mod handler;
mod header;
mod invalid;
mod limits;
mod listener;
mod matcher;
mod origin;
mod packed;
mod peer;
mod pool;
mod route;
mod secret;
mod tcp;
mod tls;
mod value;

pub use bootstrap::{Bootstrap, bootstrap};
pub use config::{Config, Outcome, Refused, Resource, Update, Wanted};
pub use packed::Packed;
pub use secret::Secret;
