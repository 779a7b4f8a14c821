//! Endpoints: EDS resources, and those that a cluster brings itself.

use std::sync::Arc;

use mizzen_proto::envoy::config::core::v3::{HealthStatus, Metadata};
use mizzen_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use mizzen_snapshot::cluster::{Endpoint, EndpointAddress, EndpointSet, EndpointWorkload, Health, LocalityEndpoints};
use mizzen_types::Locality;

use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::limits;
use crate::origin::{pairs, text};
use crate::value::{self, Place};

/// Envoy's default.
pub(crate) const OVERPROVISIONING: u32 = 140;

pub(crate) fn compile(wire: &ClusterLoadAssignment) -> Result<EndpointSet> {
    not_obeyed!(wire, named_endpoints);
    let total = wire.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum();
    limits::count("endpoints", total, limits::ENDPOINTS).at("endpoints")?;
    let mut overprovisioning = OVERPROVISIONING;
    if let Some(policy) = &wire.policy {
        if !policy.drop_overloads.is_empty() {
            return Err(Invalid::not_obeyed("this field").within("policy.drop_overloads"));
        }
        overprovisioning = value::number(policy.overprovisioning_factor.as_ref()).unwrap_or(overprovisioning);
        if overprovisioning == 0 {
            return Err(Invalid::new("has to be above 0").within("policy.overprovisioning_factor"));
        }
    }
    let localities = wire.endpoints.iter().enumerate().map(|(index, wire)| locality(wire).at_index("endpoints", index));
    let mut localities: Vec<_> = localities.collect::<Result<_>>()?;
    localities.sort_by_key(|locality| locality.priority);
    let mut wanted = 0;
    for locality in &localities {
        if locality.priority > wanted {
            let message = format!("priorities have a gap: there is a {} and no {wanted}", locality.priority);
            return Err(Invalid::new(message).within("endpoints"));
        }
        wanted = locality.priority + 1;
    }
    Ok(EndpointSet { localities, overprovisioning })
}

fn locality(wire: &LocalityLbEndpoints) -> Result<LocalityEndpoints> {
    not_obeyed!(wire, lb_config);
    if wire.priority > 127 {
        return Err(Invalid::new("a priority is at most 127").within("priority"));
    }
    let name = wire.locality.as_ref().map(|locality| Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        subzone: locality.sub_zone.clone(),
    });
    let endpoints = wire.lb_endpoints.iter().enumerate();
    let endpoints = endpoints.map(|(index, wire)| endpoint(wire).at_index("lb_endpoints", index).map(Arc::new));
    Ok(LocalityEndpoints {
        locality: name.unwrap_or_default(),
        priority: wire.priority,
        weight: value::number(wire.load_balancing_weight.as_ref()),
        endpoints: endpoints.collect::<Result<_>>()?,
    })
}

fn endpoint(wire: &LbEndpoint) -> Result<Endpoint> {
    let Some(HostIdentifier::Endpoint(host)) = &wire.host_identifier else {
        return Err(Invalid::new("an endpoint is missing").within("endpoint"));
    };
    let address = match value::place(host.address.as_ref()).at("endpoint.address")? {
        Place::Socket(address) if address.port() == 0 => {
            return Err(Invalid::new("a port is missing").within("endpoint.address.socket_address.port_value"));
        }
        Place::Socket(address) => EndpointAddress::Socket(address),
        Place::Name { host, port } => EndpointAddress::Name { host, port },
        Place::Pipe(path) => EndpointAddress::Pipe(path.into()),
    };
    let weight = value::number(wire.load_balancing_weight.as_ref()).unwrap_or(1);
    if weight == 0 {
        return Err(Invalid::new("has to be above 0").within("load_balancing_weight"));
    }
    let metadata = wire.metadata.as_ref();
    let labels = metadata.and_then(|metadata| metadata.filter_metadata.get("envoy.transport_socket_match"));
    Ok(Endpoint {
        address,
        weight,
        health: match HealthStatus::try_from(wire.health_status) {
            Ok(HealthStatus::Unknown | HealthStatus::Healthy) => Health::Healthy,
            Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Health::Unhealthy,
            Ok(HealthStatus::Degraded) => Health::Degraded,
            Ok(HealthStatus::Draining) => Health::Draining,
            Err(_) => return Err(Invalid::new("this status is not known").within("health_status")),
        },
        transport_labels: labels.map(pairs).unwrap_or_default(),
        hostname: Some(host.hostname.clone()).filter(|hostname| !hostname.is_empty()),
        workload: metadata.and_then(workload),
    })
}

/// Istio writes `WORKLOAD;NAMESPACE;CANONICAL-SERVICE;REVISION;CLUSTER`.
fn workload(metadata: &Metadata) -> Option<EndpointWorkload> {
    let mut parts = text(metadata.filter_metadata.get("istio")?, "workload")?.split(';').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Some(EndpointWorkload {
        workload: next(),
        namespace: next(),
        canonical_service: next(),
        canonical_revision: next(),
        cluster: next(),
    })
}
