//! Clusters: where requests can be sent, and on what terms.

mod inbound;
mod pool;
mod upstream_tls;

use std::sync::Arc;

use mizzen_api::networking::SimpleLb;
use mizzen_mesh::{DestinationPolicy, Mesh, Resolution, Service, ServicePort};
use mizzen_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use mizzen_proto::envoy::config::cluster::v3::{Cluster, cluster};
use mizzen_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use mizzen_types::Protocol;
use serde_json::{Map, Value, json};

use crate::endpoint;
use crate::imports::Imported;
use crate::traffic_policy::Effective;
use crate::view::{Client, Dialect, ProxyView, Role, Scope};
use crate::{Resource, canonical, imports, istio, names, pb, type_url};

/// All clusters of a proxy.
pub fn clusters(mesh: &Mesh, view: &ProxyView) -> Vec<Resource> {
    let mut clusters = inbound_clusters(mesh, view);
    clusters.extend(outbound_clusters(mesh, &view.scope(mesh)));
    clusters
}

/// Clusters of the workload beside a sidecar: where its own requests end.
pub fn inbound_clusters(mesh: &Mesh, view: &ProxyView) -> Vec<Resource> {
    inbound::clusters(mesh, view)
}

/// Clusters for calls, the same for all proxies of one scope: those without a service, then one for each port and subset
/// of each service.
pub fn outbound_clusters(mesh: &Mesh, scope: &Scope) -> Vec<Resource> {
    let mut clusters = fixed_clusters(mesh, &scope.client);
    for Imported { service, .. } in imports::services(mesh, scope) {
        let policy = policy(mesh, scope, &service);
        clusters.extend(service_clusters(mesh, &scope.client, &service, policy.as_ref()));
    }
    clusters
}

/// The DestinationRules that hold when proxies of a scope call a service.
pub fn policy(mesh: &Mesh, scope: &Scope, service: &Service) -> Option<DestinationPolicy> {
    mesh.destination_policy(service, &scope.namespace, &scope.labels)
}

/// The clusters for calls that belong to no service; they change with the mesh configuration alone.
pub fn fixed_clusters(mesh: &Mesh, client: &Client) -> Vec<Resource> {
    let mut clusters = vec![resource(&black_hole(mesh))];
    if client.knows_original_destination() {
        clusters.push(resource(&passthrough(mesh, client)));
    }
    clusters
}

/// The clusters of one service under a [`policy()`]: the same for all scopes where both are.
pub fn service_clusters(
    mesh: &Mesh,
    client: &Client,
    service: &Arc<Service>,
    policy: Option<&DestinationPolicy>,
) -> Vec<Resource> {
    let mut clusters = Vec::new();
    for port in &service.ports {
        clusters.push(resource(&outbound(&Target { mesh, client, service, port, policy, subset: None })));
        for (rule, index, subset) in policy.iter().flat_map(|policy| policy.subsets()) {
            let subset = Some(SubsetOf { rule, index, subset });
            clusters.push(resource(&outbound(&Target { mesh, client, service, port, policy, subset })));
        }
    }
    clusters
}

/// What an outbound cluster is made from.
pub(crate) struct Target<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) client: &'a Client,
    pub(crate) service: &'a Arc<Service>,
    pub(crate) port: &'a ServicePort,
    pub(crate) policy: Option<&'a DestinationPolicy>,
    pub(crate) subset: Option<SubsetOf<'a>>,
}

#[derive(Clone, Copy)]
pub(crate) struct SubsetOf<'a> {
    pub(crate) rule: &'a mizzen_mesh::DestinationRuleEntry,
    pub(crate) index: usize,
    pub(crate) subset: &'a mizzen_api::networking::Subset,
}

impl<'a> Target<'a> {
    pub(crate) fn subset_name(&self) -> &'a str {
        self.subset.map(|subset| subset.subset.name.as_str()).unwrap_or_default()
    }

    pub(crate) fn cluster_name(&self) -> String {
        names::outbound(self.port.number, self.subset_name(), self.service.key.host.as_str())
    }

    pub(crate) fn traffic_policy(&self) -> Effective<'a> {
        let rule = self.policy.and_then(DestinationPolicy::traffic_policy).map(|(_, policy)| policy);
        let subset = self.subset.and_then(|subset| subset.subset.traffic_policy.as_ref());
        Effective::new(rule, subset, self.port.number).or_mesh(self.mesh.config())
    }

    /// How endpoints are found, with what the load balancer asks for taken into account.
    pub(crate) fn discovery(&self) -> DiscoveryType {
        let passthrough =
            self.traffic_policy().load_balancer.is_some_and(|lb| lb.simple == Some(SimpleLb::Passthrough));
        match self.service.resolution {
            // Only the kernel's redirection tells where a client wanted to go; everybody else is told the endpoints.
            _ if passthrough && self.client.knows_original_destination() => DiscoveryType::OriginalDst,
            Resolution::Passthrough if self.client.knows_original_destination() => DiscoveryType::OriginalDst,
            Resolution::Dns => DiscoveryType::StrictDns,
            Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
            _ => DiscoveryType::Eds,
        }
    }
}

pub(crate) fn resource(cluster: &Cluster) -> Resource {
    Resource::encode(&cluster.name, type_url::CLUSTER, cluster, canonical::CLUSTER)
}

/// What every cluster has.
fn plain(mesh: &Mesh, name: &str, discovery: DiscoveryType) -> Cluster {
    Cluster {
        name: name.to_owned(),
        // The separator tells the end of the name in names of statistics.
        alt_stat_name: format!("{name};"),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery as i32)),
        connect_timeout: pb::duration(mesh.config().connect_timeout),
        ..Default::default()
    }
}

fn black_hole(mesh: &Mesh) -> Cluster {
    plain(mesh, names::BLACK_HOLE, DiscoveryType::Static)
}

/// Wherever the client wanted to go.
fn passthrough(mesh: &Mesh, client: &Client) -> Cluster {
    let mut cluster = original_destination(mesh, names::PASSTHROUGH);
    if client.dialect == Dialect::Istio {
        cluster.filters.push(istio::cluster_metadata_exchange());
    }
    cluster
}

fn original_destination(mesh: &Mesh, name: &str) -> Cluster {
    let mut cluster = plain(mesh, name, DiscoveryType::OriginalDst);
    cluster.alt_stat_name = format!("{};", names::PASSTHROUGH);
    cluster.lb_policy = LbPolicy::ClusterProvided as i32;
    cluster.circuit_breakers = Some(pool::unlimited());
    pool::use_downstream_protocol(&mut cluster, Some(std::time::Duration::from_secs(300)));
    cluster
}

fn outbound(target: &Target<'_>) -> Cluster {
    let name = target.cluster_name();
    let discovery = target.discovery();
    let mut cluster = plain(target.mesh, &name, discovery);
    let policy = target.traffic_policy();
    match discovery {
        DiscoveryType::Eds => {
            cluster.eds_cluster_config = Some(EdsClusterConfig { eds_config: pb::ads(), service_name: name.clone() });
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            resolve_names(target.mesh, &mut cluster);
            cluster.load_assignment = Some(endpoint::assignment_by_name(target));
        }
        DiscoveryType::Static | DiscoveryType::OriginalDst => {}
    }
    pool::apply_load_balancer(&mut cluster, target, &policy);
    cluster.circuit_breakers = Some(pool::unlimited());
    pool::apply_protocol(&mut cluster, target, &policy);
    pool::apply_connection_pool(&mut cluster, target.mesh, &policy);
    pool::apply_outlier_detection(&mut cluster, &policy);
    upstream_tls::apply(&mut cluster, target, &policy);
    cluster.metadata = pb::metadata(&metadata(target, &policy));
    if target.client.dialect == Dialect::Istio {
        cluster.filters.push(istio::cluster_metadata_exchange());
    }
    cluster
}

#[allow(deprecated)] // The names that Istio uses; every Envoy understands them.
fn resolve_names(mesh: &Mesh, cluster: &mut Cluster) {
    cluster.dns_lookup_family = DnsLookupFamily::V4Only as i32;
    cluster.dns_refresh_rate = pb::duration(mesh.config().dns_refresh_rate);
    cluster.dns_jitter = pb::duration(std::time::Duration::from_millis(100));
    cluster.respect_dns_ttl = true;
    let resolver = CaresDnsResolverConfig { udp_max_queries: pb::u32(100), ..Default::default() };
    cluster.typed_dns_resolver_config = Some(pb::extension("envoy.network.dns_resolver.cares", &resolver));
}

/// Where the cluster comes from, for statistics, logs and people.
fn metadata(target: &Target<'_>, policy: &Effective<'_>) -> Value {
    use mizzen_api::networking::ClientTlsMode::{Mutual, Simple};
    let mut istio = Map::new();
    let service = target.service;
    istio.insert(
        "services".to_owned(),
        json!([{
            "host": service.key.host.as_str(),
            "name": &*service.name,
            "namespace": &*service.key.namespace,
        }]),
    );
    if service.external {
        istio.insert("external".to_owned(), json!(true));
    }
    if policy.tls.is_some_and(|tls| matches!(tls.mode, Simple | Mutual)) {
        istio.insert("alpn_override".to_owned(), json!("false"));
    }
    let mut all = json!({});
    if let Some(rule) = target.policy.and_then(|policy| policy.rules.first()) {
        let path = names::config_path("destination-rule", &rule.order.namespace, &rule.order.name);
        istio.insert("config".to_owned(), json!(path));
        let field = match target.subset {
            // Rules of one host may be several; the object of the subset may be another than the first.
            Some(subset) => json!({
                "field": format!("spec.subsets[{}]", subset.index),
                "object": format!("{}/{}", subset.rule.order.namespace, subset.rule.order.name),
            }),
            None => json!({
                "field": "spec.trafficPolicy",
                "object": format!("{}/{}", rule.order.namespace, rule.order.name),
            }),
        };
        all["mizzen"] = field;
    }
    if let Some(subset) = target.subset {
        istio.insert("subset".to_owned(), json!(subset.subset.name));
    }
    all["istio"] = Value::Object(istio);
    all
}

/// Whether a port's protocol is found out from the first bytes of a connection.
pub(crate) fn is_sniffed(protocol: Protocol) -> bool {
    protocol == Protocol::Sniff
}

pub(crate) fn is_sidecar(client: &Client) -> bool {
    client.role == Role::Sidecar
}

pub(crate) use upstream_tls::marks_endpoints;
type LbConfig = cluster::LbConfig;
