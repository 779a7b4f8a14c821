//! What a proxy obeys.
//!
//! A [`Snapshot`] is the whole of a proxy's configuration in compiled form: immutable, made of shared parts, so that
//! replacing one cluster's endpoints copies one path of a tree and nothing else. The questions that traffic puts to it
//! ("which filter chain?", "which route?") are pure functions beside the data. The proxy, `mizzen explain` and the
//! tests ask the same functions.
//!
//! Not here: sockets, clocks, connection state, and the wire's messages (`mizzen-compile` makes snapshots from those).

#![forbid(unsafe_code)]

pub mod cluster;
pub mod header;
pub mod http;
pub mod listener;
pub mod log_format;
pub mod matcher;
pub mod path;
pub mod plan;
pub mod route;
pub mod tls;

use std::sync::Arc;

use mizzen_types::{ClusterName, ListenerName, RouteTableName};
use rpds::HashTrieMapSync;

pub use cluster::Cluster;
pub use listener::Listener;
pub use route::RouteTable;

/// One version of everything a proxy obeys. A request uses one snapshot from its start to its end.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub listeners: HashTrieMapSync<ListenerName, Arc<Listener>>,
    pub routes: HashTrieMapSync<RouteTableName, Arc<RouteTable>>,
    pub clusters: HashTrieMapSync<ClusterName, Arc<Cluster>>,
}

impl Snapshot {
    /// The route table that an HTTP handler asks, if it has arrived.
    pub fn route_table<'a>(&'a self, source: &'a http::RouteSource) -> Option<&'a Arc<RouteTable>> {
        match source {
            http::RouteSource::Inline(table) => Some(table),
            http::RouteSource::Named(name) => self.routes.get(name),
        }
    }

    pub fn cluster(&self, name: &ClusterName) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }
}
