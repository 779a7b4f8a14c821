//! What a proxy tells about its traffic: metrics under Istio's names, Envoy's counters, and the access log.
//!
//! For the data plane, which fills in one [`Exchange`] for each finished request or connection and hands it to
//! [`record`]. Handles ([`Traffic`], [`stats::Group`], [`log::Logger`]) are looked up once and kept, so that recording
//! costs a few atomic additions and, with an access log, one formatted line; no lock is held while anything is written
//! to a file.
//!
//! Not here: HTTP servers for any of this (`mizzen-proxy`), traces, the control plane's own metrics.

#![forbid(unsafe_code)]

pub mod escape;
pub mod exchange;
pub mod flags;
pub mod log;
pub mod metrics;
mod prometheus;
pub mod stats;

pub use exchange::{Address, Exchange, Kind, Sinks, record};
pub use log::{Logger, Writers};
pub use metrics::{IstioMetrics, Labels, Party, Reporter, Traffic};
pub use stats::Stats;
