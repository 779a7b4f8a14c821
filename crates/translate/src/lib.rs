//! From the mesh and one proxy's view of it to the Envoy resources that the proxy is sent.
//!
//! Pure functions, one file per kind of resource: the same mesh and view give the same bytes. What is decided here is
//! decided as Istio's control plane decides it, with Istio's names. Not here: who is sent what and when (`mizzen-control`),
//! and what a proxy makes of it (`mizzen-compile`).

#![forbid(unsafe_code)]

mod canonical;
mod cluster;
mod endpoint;
mod gateway;
mod imports;
mod inbound;
mod istio;
mod listener;
mod name_table;
pub mod names;
mod pb;
mod route;
mod secret;
mod tls;
mod traffic_policy;
pub mod view;

pub use cluster::{clusters, fixed_clusters, inbound_clusters, outbound_clusters, policy, service_clusters};
pub use endpoint::{Called, called, endpoints, endpoints_of};
pub use imports::{Imported, services};
pub use listener::listeners;
pub use name_table::name_table;
pub use route::{Memo, NoMemo, RoutesOf, route_table, route_table_with};
pub use secret::{secret, secret_objects};
pub use view::{Client, Dialect, Interception, ProxyView, Role, Scope, ViewError};

use bytes::Bytes;
use prost::{Message, Name};

/// A named resource, encoded once: `body` is what goes into `Any.value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub name: String,
    pub type_url: &'static str,
    pub body: Bytes,
}

/// The types of resources, as xDS names them.
pub mod type_url {
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
}

impl Resource {
    fn encode<M: Message + Name>(
        name: &str,
        type_url: &'static str,
        message: &M,
        maps: &[(u32, canonical::Inside)],
    ) -> Self {
        let mut body = message.encode_to_vec();
        canonical::sort(&mut body, maps);
        Self { name: name.to_owned(), type_url, body: body.into() }
    }
}
