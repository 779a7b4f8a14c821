//! Endpoints of a cluster: addresses by locality, with what decides about TLS and priority.

use std::collections::BTreeMap;
use std::sync::Arc;

use mizzen_api::networking::LocalityLoadBalancerSetting;
use mizzen_mesh::{DestinationPolicy, Endpoint, Health, Mesh, Service, endpoint::takes_mtls};
use mizzen_proto::envoy::config::core::v3 as core;
use mizzen_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as WireEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use mizzen_types::{Hostname, Labels, Locality};
use serde_json::json;

use crate::cluster::{SubsetOf, Target};
use crate::traffic_policy::Effective;
use crate::view::{Client, Scope};
use crate::{Resource, canonical, cluster, names, pb, type_url};

/// What an outbound cluster leads to, for the proxies of a scope.
#[derive(Debug)]
pub struct Called {
    pub service: Arc<Service>,
    pub policy: Option<DestinationPolicy>,
}

/// Finds what an outbound cluster leads to. `None` when its service is not there for the proxies of a scope.
pub fn called(mesh: &Mesh, scope: &Scope, cluster_name: &str) -> Option<Called> {
    let (_, _, host) = names::parse_outbound(cluster_name)?;
    let service = mesh.service_by_host(&Hostname::new(host), &scope.namespace)?.clone();
    let policy = cluster::policy(mesh, scope, &service);
    Some(Called { service, policy })
}

/// Endpoints of an outbound cluster, the same for all proxies of one scope. `None` when no service or subset makes such a
/// cluster for them; a service without endpoints has an empty list (reference: semantics 264).
pub fn endpoints(mesh: &Mesh, scope: &Scope, cluster_name: &str) -> Option<Resource> {
    endpoints_of(mesh, &scope.client, &called(mesh, scope, cluster_name)?, cluster_name)
}

/// Endpoints of a cluster by what it leads to: the same for all scopes where that is the same.
pub fn endpoints_of(
    mesh: &Mesh,
    client: &Client,
    Called { service, policy }: &Called,
    cluster_name: &str,
) -> Option<Resource> {
    let (number, subset_name, _) = names::parse_outbound(cluster_name)?;
    let port = service.port(number)?;
    let subset = if subset_name.is_empty() {
        None
    } else {
        let mut subsets = policy.iter().flat_map(DestinationPolicy::subsets);
        let (rule, index, subset) = subsets.find(|(_, _, subset)| subset.name == subset_name)?;
        Some(SubsetOf { rule, index, subset })
    };
    let target = Target { mesh, client, service, port, policy: policy.as_ref(), subset };
    let assignment = assignment(&target, true);
    Some(Resource::encode(cluster_name, type_url::ENDPOINT, &assignment, canonical::ASSIGNMENT))
}

/// Endpoints of a cluster whose names the proxy resolves itself: part of the cluster.
pub(crate) fn assignment_by_name(target: &Target<'_>) -> ClusterLoadAssignment {
    assignment(target, false)
}

fn assignment(target: &Target<'_>, health: bool) -> ClusterLoadAssignment {
    let name = target.cluster_name();
    let policy = target.traffic_policy();
    let nothing = Labels::default();
    let wanted = target.subset.map_or(&nothing, |subset| &subset.subset.labels);
    let endpoints = target.mesh.endpoints(&target.service.key);
    let endpoints = endpoints.map(|endpoints| endpoints.on_port(target.port.number)).unwrap_or_default();
    let mut localities: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
    let cluster = &target.client.cluster_id;
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.workload.is_selected_by(wanted, cluster)) {
        localities.entry(&endpoint.workload.locality).or_default().push(endpoint);
    }
    let mut groups: Vec<_> = localities
        .into_iter()
        .map(|(locality, endpoints)| {
            let weight = endpoints.iter().map(|endpoint| endpoint.weight).sum();
            LocalityLbEndpoints {
                locality: Some(core::Locality {
                    region: locality.region.clone(),
                    zone: locality.zone.clone(),
                    sub_zone: locality.subzone.clone(),
                }),
                lb_endpoints: endpoints.iter().map(|endpoint| lb_endpoint(target, &policy, endpoint, health)).collect(),
                load_balancing_weight: pb::u32(weight),
                ..Default::default()
            }
        })
        .collect();
    prefer_near(target, &policy, &mut groups);
    ClusterLoadAssignment { cluster_name: name, endpoints: groups, ..Default::default() }
}

fn lb_endpoint(target: &Target<'_>, policy: &Effective<'_>, endpoint: &Endpoint, health: bool) -> LbEndpoint {
    let workload = &endpoint.workload;
    let described = format!(
        "{};{};{};{};{}",
        workload.name,
        workload.namespace,
        workload.canonical_service(),
        // Readers take an absent revision for this one.
        workload.canonical_revision().filter(|revision| *revision != "latest").unwrap_or_default(),
        target.client.cluster_id
    );
    let mut metadata = json!({"istio": {"workload": described}});
    let peer = target.mesh.peer_policy(&workload.namespace, &workload.labels);
    if cluster::marks_endpoints(policy) && takes_mtls(endpoint, peer.on_port(endpoint.port)) {
        metadata["envoy.transport_socket_match"] = json!({"tlsMode": "istio"});
    }
    let status = match endpoint.health {
        _ if !health => core::HealthStatus::Unknown,
        Health::Healthy => core::HealthStatus::Healthy,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
    };
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(WireEndpoint {
            address: pb::address(&endpoint.address, endpoint.port),
            ..Default::default()
        })),
        health_status: status as i32,
        metadata: pb::metadata(&metadata),
        load_balancing_weight: pb::u32(endpoint.weight),
    }
}

/// Orders or weighs localities by their distance from the client (reference: semantics 118 to 121).
fn prefer_near(target: &Target<'_>, policy: &Effective<'_>, groups: &mut Vec<LocalityLbEndpoints>) {
    let own = policy.load_balancer.and_then(|lb| lb.locality_lb_setting.as_ref());
    let mesh = target.mesh.config().locality_lb_setting.as_ref();
    let default = LocalityLoadBalancerSetting::default();
    let setting = own.or(mesh).unwrap_or(&default);
    let client = &target.client.locality;
    if setting.enabled == Some(false) || client.is_unknown() {
        return;
    }
    if let Some(rule) = setting.distribute.iter().find(|rule| covers(&rule.from, client)) {
        distribute(groups, &rule.to);
        return;
    }
    if policy.outlier_detection.is_none() {
        return;
    }
    let failover = setting.failover.iter().find(|rule| rule.from == client.region).map(|rule| rule.to.as_str());
    let distance = |locality: &core::Locality| {
        if locality.region != client.region {
            return if failover.is_none_or(|to| to == locality.region) { 3 } else { 4 };
        }
        if locality.zone != client.zone {
            2
        } else if locality.sub_zone != client.subzone {
            1
        } else {
            0
        }
    };
    let distances: Vec<u32> = groups.iter().map(|group| group.locality.as_ref().map_or(4, distance)).collect();
    // Envoy wants priorities without gaps.
    let mut levels = distances.clone();
    levels.sort_unstable();
    levels.dedup();
    for (group, distance) in groups.iter_mut().zip(distances) {
        let level = levels.iter().position(|level| *level == distance).unwrap_or_default();
        group.priority = u32::try_from(level).unwrap_or_default();
    }
}

/// Whether `region/zone/subzone`, of which trailing parts may be missing or `*`, covers a locality.
fn covers(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.subzone];
    pattern.split('/').zip(parts).all(|(wanted, part)| wanted == "*" || wanted == part)
}

/// Localities that are not named get nothing; each name's weight is shared by its localities as they have endpoints.
fn distribute(groups: &mut Vec<LocalityLbEndpoints>, to: &BTreeMap<String, u32>) {
    let locality_of = |group: &LocalityLbEndpoints| {
        group.locality.as_ref().map(|locality| Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            subzone: locality.sub_zone.clone(),
        })
    };
    // The longest name counts: the most precise one.
    let named = |group: &LocalityLbEndpoints| {
        let locality = locality_of(group)?;
        to.iter().filter(|(name, _)| covers(name, &locality)).max_by_key(|(name, _)| name.len())
    };
    let mut totals: BTreeMap<&str, u32> = BTreeMap::new();
    let load = |group: &LocalityLbEndpoints| group.load_balancing_weight.as_ref().map_or(0, |weight| weight.value);
    for group in groups.iter() {
        if let Some((name, _)) = named(group) {
            *totals.entry(name).or_default() += load(group);
        }
    }
    groups.retain_mut(|group| {
        let Some((name, weight)) = named(group) else { return false };
        let total = totals.get(name.as_str()).copied().unwrap_or(1).max(1);
        let share = f64::from(*weight) * f64::from(load(group)) / f64::from(total);
        group.load_balancing_weight = pb::u32((share.ceil() as u32).max(1));
        *weight > 0
    });
}
