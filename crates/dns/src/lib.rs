//! A small name server: the names of the mesh are answered from a [`Table`], all others are asked elsewhere.
//!
//! It stands beside applications: as the agent's resolver, to which their queries are redirected, and as the resolver of a
//! mesh of local network namespaces. Only addresses (A, AAAA) are answered; there is no cache, since the resolver that
//! is asked has one.
//!
//! Deliberately not here: what is in the table (the control plane's name table, or the runner's Services).

#![forbid(unsafe_code)]

pub mod answer;
pub mod forward;
pub mod serve;
pub mod table;

pub use forward::Forwarder;
pub use serve::serve;
pub use table::{Found, Table};
