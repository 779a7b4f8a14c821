//! Opaque bytes to a cluster (`TcpProxy`).

use std::time::Duration;

use mizzen_proto::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier};
use mizzen_proto::envoy::r#type::v3::hash_policy::PolicySpecifier;
use mizzen_snapshot::listener::TcpHandler;

use crate::access_log;
use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::limits;
use crate::value;

/// `peer_exchange` comes from a filter before this one.
pub(crate) fn compile(wire: &TcpProxy, peer_exchange: Option<String>) -> Result<TcpHandler> {
    not_obeyed!(
        wire,
        on_demand,
        metadata_match,
        tunneling_config,
        max_downstream_connection_duration,
        proxy_protocol_tlvs
    );
    let clusters = match &wire.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name.as_str().into(), 1)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            limits::count("clusters", weighted.clusters.len(), limits::CLUSTERS_PER_ROUTE).at("weighted_clusters")?;
            let each = weighted.clusters.iter().filter(|choice| choice.weight > 0);
            let clusters: Vec<_> = each.map(|choice| (choice.name.as_str().into(), choice.weight)).collect();
            let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
            if total == 0 || total > u64::from(u32::MAX) {
                return Err(Invalid::new("the weights have to sum up to something from 1 to 2^32-1")
                    .within("weighted_clusters"));
            }
            clusters
        }
        None => return Err(Invalid::new("a cluster is missing").within("cluster")),
    };
    if clusters.iter().any(|(name, _): &(mizzen_types::ClusterName, u32)| name.as_str().is_empty()) {
        return Err(Invalid::new("a cluster has no name").within("cluster"));
    }
    let mut hash_source_ip = false;
    for (index, policy) in wire.hash_policy.iter().enumerate() {
        match &policy.policy_specifier {
            Some(PolicySpecifier::SourceIp(_)) => hash_source_ip = true,
            _ => return Err(Invalid::not_obeyed("this policy")).at_index("hash_policy", index),
        }
    }
    Ok(TcpHandler {
        stat_prefix: wire.stat_prefix.clone(),
        clusters,
        idle_timeout: value::limit(wire.idle_timeout.as_ref(), Some(Duration::from_secs(3600))).at("idle_timeout")?,
        access_log: access_log::logs(&wire.access_log)?,
        max_connect_attempts: value::number(wire.max_connect_attempts.as_ref()).unwrap_or(1).max(1),
        hash_source_ip,
        peer_exchange,
    })
}
