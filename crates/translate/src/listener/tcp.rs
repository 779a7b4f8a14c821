//! Connections that are passed on as bytes (reference: semantics 60 to 67).

use mizzen_api::networking::RouteDestination;
use mizzen_mesh::{DestinationPolicy, Mesh};
use mizzen_proto::envoy::config::listener::v3::Filter;
use mizzen_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use mizzen_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use mizzen_types::Hostname;

use super::{access_log, http::Side, network_filter};
use crate::route::destination_cluster;
use crate::traffic_policy::Effective;
use crate::view::{Dialect, ProxyView};
use crate::{istio, names, pb};

/// Where the bytes of a connection go.
pub(super) enum Way {
    Cluster(String),
    /// Clusters with their shares, and the name in statistics.
    Weighted(Vec<(String, u32)>, String),
}

impl Way {
    /// Its name in statistics.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Cluster(name) | Self::Weighted(_, name) => name,
        }
    }

    /// What a rule of `namespace` says; `None` when it names no destination.
    pub(super) fn of_rule(
        mesh: &Mesh,
        view: &ProxyView,
        destinations: &[RouteDestination],
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Option<Self> {
        let scope = view.scope(mesh);
        let cluster = |to: &RouteDestination| destination_cluster(mesh, &scope, &to.destination, namespace, port);
        if let [single] = destinations {
            return Some(Self::Cluster(cluster(single)));
        }
        let share = |to: &RouteDestination| u32::try_from(to.weight).ok().filter(|weight| *weight > 0);
        let weighted: Vec<_> =
            destinations.iter().filter_map(|to| share(to).map(|share| (cluster(to), share))).collect();
        (!weighted.is_empty()).then(|| Self::Weighted(weighted, format!("{name}.{namespace}")))
    }
}

/// The filters of a chain that passes bytes on.
pub(super) fn filters(mesh: &Mesh, view: &ProxyView, side: Side, way: &Way) -> Vec<Filter> {
    let (stat_prefix, specifier, first) = match way {
        Way::Cluster(cluster) => (cluster.clone(), ClusterSpecifier::Cluster(cluster.clone()), Some(cluster)),
        Way::Weighted(clusters, name) => {
            let weights = clusters.iter().map(|(name, weight)| ClusterWeight {
                name: name.clone(),
                weight: *weight,
                ..Default::default()
            });
            let weighted = WeightedCluster { clusters: weights.collect() };
            (name.clone(), ClusterSpecifier::WeightedClusters(weighted), clusters.first().map(|(name, _)| name))
        }
    };
    let proxy = TcpProxy {
        stat_prefix,
        cluster_specifier: Some(specifier),
        // Of several destinations the first decides (reference: semantics 64).
        idle_timeout: first.and_then(|cluster| idle_timeout(mesh, view, cluster)).and_then(pb::duration),
        access_log: access_log::log(mesh),
        ..Default::default()
    };
    let mut filters = Vec::new();
    if view.dialect == Dialect::Istio {
        if side == Side::Inbound {
            filters.push(istio::network_metadata_exchange());
        }
        filters.push(istio::network_stats(side != Side::Outbound));
    }
    filters.push(network_filter("envoy.filters.network.tcp_proxy", &proxy));
    filters
}

fn idle_timeout(mesh: &Mesh, view: &ProxyView, cluster: &str) -> Option<std::time::Duration> {
    let (port, subset, host) = names::parse_outbound(cluster)?;
    let host = Hostname::new(host);
    let service = mesh.service_by_host(&host, &view.namespace)?;
    let policy = mesh.destination_policy(service, &view.namespace, &view.labels)?;
    let rule = DestinationPolicy::traffic_policy(&policy).map(|(_, policy)| policy);
    let subset = policy.subset(subset).and_then(|subset| subset.traffic_policy.as_ref());
    let effective = Effective::new(rule, subset, port);
    effective.connection_pool?.tcp.as_ref()?.idle_timeout
}
