//! **The decision**: from a request to what shall be done with it.
//!
//! [`plan`] is asked by the proxy for every request; [`explain`](explain::explain) gives the same decision together
//! with the reasons, and shares every comparison with it.

pub mod explain;

use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use crate::Snapshot;
use crate::cluster::Cluster;
use crate::header::HeaderEdits;
use crate::http::HttpHandler;
use crate::route::{
    Action, Cors, Fault, Forward, HostRewrite, RequestView, Route, RouteTable, Target, VirtualHost, WeightedCluster,
};

pub use explain::{Explanation, explain};

/// Random numbers for one decision, drawn by the caller so that deciding stays pure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Draws {
    /// From `0..1_000_000`; for routes that take only a share of requests.
    pub route_share: u32,
    /// Any number; for weighted clusters.
    pub weight: u32,
    /// The value of a cookie, when one has to be made for consistent hashing.
    pub cookie: u64,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Plan {
    Forward(ForwardPlan),
    Redirect {
        status: StatusCode,
        location: String,
        table: Arc<RouteTable>,
        route: Arc<Route>,
        host: Arc<VirtualHost>,
    },
    Respond {
        response: DirectResponsePlan,
        table: Arc<RouteTable>,
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
    /// A `set-cookie` for the response, so that the client comes back with the same key.
    pub set_cookie: Option<HeaderValue>,
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

impl Plan {
    /// The faults to inject before anything else is done, whatever the route's action is.
    pub fn fault(&self) -> Option<&Arc<Fault>> {
        let (route, host) = self.parts()?;
        route.fault.as_ref().or(host.fault.as_ref())
    }

    pub fn cors(&self) -> Option<&Arc<Cors>> {
        let (route, host) = self.parts()?;
        route.cors.as_ref().or(host.cors.as_ref())
    }

    pub fn route(&self) -> Option<&Arc<Route>> {
        self.parts().map(|(route, _)| route)
    }

    fn parts(&self) -> Option<(&Arc<Route>, &Arc<VirtualHost>)> {
        match self {
            Self::Forward(forward) => Some((&forward.route, &forward.host)),
            Self::Redirect { route, host, .. } | Self::Respond { route, host, .. } => Some((route, host)),
            Self::Refuse(_) => None,
        }
    }
}

impl ForwardPlan {
    pub fn forward(&self) -> &Forward {
        match &self.route.action {
            Action::Forward(forward) => forward,
            _ => unreachable!("a forward plan is only made from a forwarding route"),
        }
    }

    pub fn fault(&self) -> Option<&Arc<Fault>> {
        self.route.fault.as_ref().or(self.host.fault.as_ref())
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

    fn weighted_cluster(&self) -> Option<&WeightedCluster> {
        match (&self.forward().target, self.weighted) {
            (Target::Weighted { clusters, .. }, Some(index)) => clusters.get(index),
            _ => None,
        }
    }
}

/// Decides what to do with `request`, which came in through `handler`.
pub fn plan(snapshot: &Snapshot, handler: &HttpHandler, request: &RequestView<'_>, draws: Draws) -> Plan {
    let Some(table) = snapshot.route_table(&handler.routes) else { return Plan::Refuse(NoPlan::NoRouteTable) };
    let Some(host) = table.virtual_host(request.authority) else { return Plan::Refuse(NoPlan::NoVirtualHost) };
    if let Some(location) = tls_required(host, request) {
        return Plan::Refuse(NoPlan::TlsRequired { location });
    }
    let matched = host.routes.iter().find(|route| route.matches.matches(request, draws.route_share));
    let Some(route) = matched else { return Plan::Refuse(NoPlan::NoRoute { host: host.name.clone() }) };
    let (table, host, route) = (Arc::clone(table), Arc::clone(host), Arc::clone(route));
    match &route.action {
        Action::Redirect(redirect) => {
            let location = redirect.location(&route.matches.path, request);
            Plan::Redirect { status: redirect.status, location, table, route, host }
        }
        Action::Respond(response) => {
            let response = DirectResponsePlan { status: response.status, body: Arc::clone(&response.body) };
            Plan::Respond { response, table, route, host }
        }
        Action::Forward(forward) => {
            let chosen = choose_cluster(snapshot, forward, request, draws);
            let (cluster, weighted) = match chosen {
                Ok(chosen) => chosen,
                Err(cluster) => {
                    let status = forward.missing_cluster_status;
                    return Plan::Refuse(NoPlan::NoCluster { cluster, status, route: route.name.clone() });
                }
            };
            let path = &route.matches.path;
            let path_and_query =
                forward.rewrite_path.as_ref().map(|rewrite| rewrite.apply(path, request.path_and_query));
            let key = forward.hash_key(request, draws.cookie);
            let set_cookie = key.set_cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok());
            let cluster = Arc::clone(cluster);
            Plan::Forward(ForwardPlan {
                cluster,
                weighted,
                path_and_query,
                hash: key.hash,
                set_cookie,
                table,
                host,
                route,
            })
        }
    }
}

/// Where a request goes instead, when its host is served over TLS alone.
fn tls_required(host: &VirtualHost, request: &RequestView<'_>) -> Option<String> {
    (host.require_tls && request.scheme != "https")
        .then(|| ["https://", request.authority, request.path_and_query].concat())
}

/// The cluster, and its place among weighted ones; or the name of one that does not exist.
fn choose_cluster<'a>(
    snapshot: &'a Snapshot,
    forward: &Forward,
    request: &RequestView<'_>,
    draws: Draws,
) -> Result<(&'a Arc<Cluster>, Option<usize>), String> {
    match &forward.target {
        Target::Cluster(name) => Ok((snapshot.cluster(name).ok_or_else(|| name.to_string())?, None)),
        Target::Weighted { clusters, total } => {
            let index = weighted_index(clusters, *total, draws.weight);
            let name = clusters.get(index).map(|choice| &choice.cluster).ok_or_else(String::new)?;
            Ok((snapshot.cluster(name).ok_or_else(|| name.to_string())?, Some(index)))
        }
        Target::ClusterHeader(header) => {
            let value = header.value(request).unwrap_or_default();
            let name = String::from_utf8_lossy(&value);
            Ok((snapshot.clusters.get(&*name).ok_or_else(|| name.to_string())?, None))
        }
    }
}

fn weighted_index(clusters: &[WeightedCluster], total: u32, draw: u32) -> usize {
    let mut left = draw % total.max(1);
    for (index, choice) in clusters.iter().enumerate() {
        if left < choice.weight {
            return index;
        }
        left -= choice.weight;
    }
    clusters.len().saturating_sub(1)
}

#[cfg(test)]
mod tests;
