//! `networking.istio.io`: the `spec` of each kind, named as Istio names its message.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod proxy_config;
mod service_entry;
mod sidecar;
mod string_match;
mod virtual_service;
mod workload;

pub use destination_rule::*;
pub use envoy_filter::*;
pub use gateway::*;
pub use proxy_config::*;
pub use service_entry::*;
pub use sidecar::*;
pub use string_match::*;
pub use virtual_service::*;
pub use workload::*;
