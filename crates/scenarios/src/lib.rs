//! Behaviour written down as scenarios, and the runners that hold the mesh to them.
//!
//! A scenario is a Markdown file in `scenarios/`: prose for people, and fenced blocks for the runners ([`scenario`] has the
//! form). One file, several runners: [`memory`] asks the pure decision (configuration → mesh → xDS → snapshot → plan);
//! [`live`] sends real requests through our control plane and our proxies, or stock Envoys in their place.
//! Where runners disagree, one of them is wrong.

#![forbid(unsafe_code)]

pub mod expect;
mod findings;
pub mod live;
pub mod memory;
mod plan;
pub mod scenario;
pub mod suite;
pub mod world;

pub use expect::{Expect, Observed, Runner, Wrong};
pub use scenario::{Block, Call, FindingLine, Scenario};
