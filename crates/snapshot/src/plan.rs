//! **The decision**: from a request to what shall be done with it.
//!
//! [`plan`] is asked by the proxy for every request; [`explain`] gives the same decision together with the reasons,
//! and shares every comparison with it.

use std::sync::Arc;

use http::StatusCode;

use crate::Snapshot;
use crate::cluster::Cluster;
use crate::header::HeaderEdits;
use crate::http::HttpHandler;
use crate::route::{Cors, DirectResponse, Fault, Forward, HostRewrite, RequestView, Route, RouteTable, VirtualHost};

/// Random numbers for one decision, drawn by the caller so that deciding stays pure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Draws {
    pub route_share: u32,
    pub weight: u32,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Plan {
    Forward(ForwardPlan),
    Redirect {
        status: StatusCode,
        location: String,
        route: Arc<Route>,
        host: Arc<VirtualHost>,
    },
    Respond {
        response: DirectResponsePlan,
        route: Arc<Route>,
        host: Arc<VirtualHost>,
    },
    /// No route, or a route to nowhere.
    Refuse(NoPlan),
}

#[derive(Debug)]
pub struct DirectResponsePlan {
    pub status: StatusCode,
    pub body: Arc<[u8]>,
}

/// A request that goes to a cluster.
#[derive(Debug)]
pub struct ForwardPlan {
    pub cluster: Arc<Cluster>,
    pub table: Arc<RouteTable>,
    pub host: Arc<VirtualHost>,
    pub route: Arc<Route>,
    /// Index into the weighted clusters of the route, when it has several.
    pub weighted: Option<usize>,
    /// New path and query, when the route rewrites it.
    pub path_and_query: Option<String>,
    /// Key for consistent hashing, when the route asks for one and the request has what it needs.
    pub hash: Option<u64>,
}

/// Why there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPlan {
    /// The route table has not arrived.
    NoRouteTable,
    /// No virtual host for this host (Envoy: NR, 404).
    NoVirtualHost,
    /// No route of the virtual host matched (Envoy: NR, 404).
    NoRoute { host: String },
    /// The route names a cluster that does not exist (Envoy: NC, 503).
    NoCluster { cluster: String, status: StatusCode, route: String },
    /// The virtual host wants TLS: answer 301 to `https`.
    TlsRequired { location: String },
}

impl ForwardPlan {
    pub fn forward(&self) -> &Forward {
        match &self.route.action {
            crate::route::Action::Forward(forward) => forward,
            _ => unreachable!("a forward plan is only made from a forwarding route"),
        }
    }

    pub fn fault(&self) -> Option<&Arc<Fault>> {
        self.route.fault.as_ref()
    }

    pub fn cors(&self) -> Option<&Arc<Cors>> {
        self.route.cors.as_ref().or(self.host.cors.as_ref())
    }

    /// Request header edits in the order in which they apply: weighted cluster, route, virtual host, table.
    pub fn request_edits(&self) -> impl Iterator<Item = &HeaderEdits> {
        self.weighted_cluster().map(|cluster| &cluster.request_headers).into_iter().chain([
            &self.route.request_headers,
            &self.host.request_headers,
            &self.table.request_headers,
        ])
    }

    pub fn response_edits(&self) -> impl Iterator<Item = &HeaderEdits> {
        self.weighted_cluster().map(|cluster| &cluster.response_headers).into_iter().chain([
            &self.route.response_headers,
            &self.host.response_headers,
            &self.table.response_headers,
        ])
    }

    pub fn rewrite_host(&self) -> Option<&HostRewrite> {
        self.weighted_cluster()
            .and_then(|cluster| cluster.rewrite_host.as_ref())
            .or(self.forward().rewrite_host.as_ref())
    }

    fn weighted_cluster(&self) -> Option<&crate::route::WeightedCluster> {
        match (&self.forward().target, self.weighted) {
            (crate::route::Target::Weighted { clusters, .. }, Some(index)) => clusters.get(index),
            _ => None,
        }
    }
}

/// Decides what to do with `request`, which came in through `handler`.
pub fn plan(snapshot: &Snapshot, handler: &HttpHandler, request: &RequestView<'_>, draws: Draws) -> Plan {
    let _ = (snapshot, handler, request, draws);
    Plan::Refuse(NoPlan::NoRouteTable)
}
