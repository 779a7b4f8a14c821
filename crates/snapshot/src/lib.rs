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

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mizzen_types::{ClusterName, ListenerName, RouteTableName};
use rpds::HashTrieMapSync;

pub use cluster::Cluster;
pub use listener::{ListenAddress, Listener};
pub use route::RouteTable;

/// One version of everything a proxy obeys. A request uses one snapshot from its start to its end.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub listeners: HashTrieMapSync<ListenerName, Arc<Listener>>,
    /// Which listener has an address.
    addresses: HashTrieMapSync<SocketAddr, ListenerName>,
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

    /// The listener that stands for a destination: the one with that very address, else the one with its port on any
    /// address (of the same family, where there are two).
    pub fn listener_at(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let any = if destination.is_ipv4() { any } else { [any[1], any[0]] };
        let places = [destination.ip(), any[0], any[1]].map(|ip| SocketAddr::new(ip, destination.port()));
        let name = places.iter().find_map(|place| self.addresses.get(place))?;
        self.listeners.get(name)
    }

    /// Adds a listener, or puts it in the place of one with its name.
    pub fn insert_listener(&mut self, listener: Arc<Listener>) {
        self.remove_listener(&listener.name.clone());
        if let ListenAddress::Tcp(address) = listener.address {
            self.addresses.insert_mut(address, listener.name.clone());
        }
        self.listeners.insert_mut(listener.name.clone(), listener);
    }

    /// False when there was none of this name.
    pub fn remove_listener(&mut self, name: &ListenerName) -> bool {
        if let Some(ListenAddress::Tcp(address)) = self.listeners.get(name).map(|old| &old.address)
            && self.addresses.get(address) == Some(name)
        {
            let address = *address;
            self.addresses.remove_mut(&address);
        }
        self.listeners.remove_mut(name)
    }

    pub fn cluster(&self, name: &ClusterName) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }
}
