//! Catching traffic: the kernel's rules that send a workload's connections to the proxy beside it.
//!
//! [`Options`] say what is wanted (the flags of Istio's `istio-iptables`). [`rules::plan`] makes a typed [`RuleSet`] of
//! them without touching anything; [`nft`] and [`iptables`] write that down as text, `netlink` as messages for the
//! kernel. [`apply()`] puts it in force, replacing what an earlier run left, and [`probe`] checks with real connections.
//!
//! [`namespace`] and [`link`] make network namespaces with a wire between them, for workloads that have no machine or
//! container of their own.
//!
//! The programs `nft` and `ip` are not needed: the image has none. Deliberately not here: anything of the proxy's (it
//! asks the kernel for the original destination by itself), and rules in other network namespaces than our own.

pub mod apply;
pub mod iptables;
pub mod link;
pub mod namespace;
mod netlink;
pub mod nft;
pub mod options;
pub mod probe;
pub mod rules;

pub use apply::{ApplyError, Backend, apply, clean};
pub use options::{Interception, OptionError, Options, Ports, Ranges};
pub use rules::{Family, RuleSet, plan};
