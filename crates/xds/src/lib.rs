//! The aggregated discovery service (ADS), both ways: `client` for proxies and for people who look, `server` for the
//! control plane. Delta and state-of-the-world (SotW).
//!
//! The protocol itself (subscriptions, nonces, ACK and NACK, order, reconnect) is two pure state machines,
//! [`client::session::Session`] and [`server::stream::Stream`], to which time comes as an argument; around each is a thin
//! shell that moves messages. What resources mean is not known here: their bytes are passed on unread.

#![forbid(unsafe_code)]

pub mod client;
pub mod resource;
pub mod server;
pub mod wire;

pub use resource::{Resource, ResourceType};

/// Which of the two protocols a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Only what changed is sent; removals are named.
    #[default]
    Delta,
    /// State of the world: every answer for listeners and clusters is the whole set.
    Sotw,
}
