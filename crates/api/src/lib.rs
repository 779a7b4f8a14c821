//! The resources that people write, as they write them: Istio's API and the few Kubernetes kinds the mesh reads.
//!
//! One struct per message of Istio's API, one field per field, with Istio's names and defaults. Values are as precise as
//! their form allows (a duration is a [`std::time::Duration`], an enumeration is an `enum`); rules that span fields are
//! checked by `mizzen-config`. Reading is strict about types and silent about unknown fields, so that the reader can name
//! them all at once. Not here: reading YAML, positions, validation, and what any of it means.

#![forbid(unsafe_code)]

pub mod extensions;
pub mod kubernetes;
pub mod mesh;
pub mod networking;
pub mod security;
pub mod selector;
pub mod telemetry;
pub mod wire;
