//! Who talked to whom, in the labels of Istio's metrics.

use std::sync::Arc;

use mizzen_snapshot::cluster::EndpointWorkload;
use mizzen_snapshot::listener::Direction;
use mizzen_telemetry::{Labels, Party, Reporter};
use mizzen_types::SpiffeId;
use serde_json::Value;

use super::{Ends, Record};
use crate::facts::Downstream;

/// Clusters that stand for no service; Istio shows their names as the service's.
const CATCH_ALL: [&str; 5] = [
    "PassthroughCluster",
    "BlackHoleCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

/// A gateway's listeners are outbound in Istio; one that does not say is taken for that too.
pub(super) fn is_inbound(downstream: &Downstream) -> bool {
    downstream.listener.direction == Direction::Inbound
}

impl Record {
    pub(super) fn labels(&self, ends: &Ends<'_>) -> Labels {
        let service = ends.cluster.and_then(|cluster| cluster.policy.services.first());
        let catch_all = ends
            .cluster
            .map(|cluster| cluster.policy.name.as_str())
            .filter(|name| service.is_none() && CATCH_ALL.contains(name))
            .unwrap_or_default();
        let own_principal = || self.secrets.identity().map(|identity| identity.id.to_string()).unwrap_or_default();
        let inbound = is_inbound(ends.downstream);
        let client = ends.downstream.peer_uri();
        let (source, destination, mutual_tls) = if inbound {
            let own =
                Party { principal: client.map(|_| own_principal()).unwrap_or_default(), ..Party::clone(&self.own) };
            let mut source = party_of_uri(client);
            if let Some(told) = ends.told {
                // The certificate says who it is; what it says of itself is only believed beyond that.
                source = Party { principal: source.principal, ..told.party.clone() };
            }
            (source, own, Some(client.is_some()))
        } else {
            let principal = ends.upstream_uri.map(|_| own_principal()).unwrap_or_default();
            let own = Party { principal, ..Party::clone(&self.own) };
            let mut destination = party_of_uri(ends.upstream_uri);
            if let Some(told) = ends.told {
                destination = Party { principal: destination.principal, ..told.party.clone() };
            } else if let Some(workload) = ends.upstream.and_then(|host| host.endpoint.workload.as_ref()) {
                fill(&mut destination, workload);
            }
            (own, destination, None)
        };
        Labels {
            reporter: if inbound { Reporter::Destination } else { Reporter::Source },
            source: Arc::new(source),
            destination: Arc::new(destination),
            destination_service: service.map_or(catch_all, |service| &service.host).into(),
            destination_service_name: service.map_or(catch_all, |service| &service.name).into(),
            destination_service_namespace: service.map_or("", |service| &service.namespace).into(),
            mutual_tls,
        }
    }
}

/// What a SPIFFE identity says about a workload.
fn party_of_uri(uri: Option<&str>) -> Party {
    let Some(uri) = uri else { return Party::default() };
    let namespace = SpiffeId::parse(uri).map(|id| id.namespace.to_string()).unwrap_or_default();
    Party { principal: uri.to_owned(), namespace, ..Party::default() }
}

/// Istio's endpoint metadata has no `app` and `version`; the canonical names are made from these labels.
fn fill(party: &mut Party, workload: &EndpointWorkload) {
    party.workload.clone_from(&workload.workload);
    party.namespace.clone_from(&workload.namespace);
    party.canonical_service.clone_from(&workload.canonical_service);
    // The control plane leaves the usual revision out.
    let revision = Some(workload.canonical_revision.as_str()).filter(|revision| !revision.is_empty());
    party.canonical_revision = revision.unwrap_or("latest").to_owned();
    party.app.clone_from(&workload.canonical_service);
    party.version.clone_from(&workload.canonical_revision);
    party.cluster.clone_from(&workload.cluster);
}

/// A workload as Istio's node metadata describes it: `WORKLOAD_NAME`, `NAMESPACE`, `CLUSTER_ID`, `LABELS`.
pub fn party_of_node(metadata: &Value) -> Party {
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let labels = metadata.get("LABELS");
    let label = |names: &[&str]| {
        let values = names.iter().filter_map(|name| labels?.get(name)?.as_str());
        values.map(str::to_owned).find(|value| !value.is_empty()).unwrap_or_default()
    };
    let or = |value: String, other: String| if value.is_empty() { other } else { value };
    let workload = or(text("WORKLOAD_NAME"), text("NAME"));
    let canonical = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    Party {
        canonical_service: or(canonical, workload.clone()),
        canonical_revision: or(revision, "latest".to_owned()),
        workload,
        namespace: text("NAMESPACE"),
        principal: String::new(),
        app: label(&["app", "app.kubernetes.io/name"]),
        version: label(&["version", "app.kubernetes.io/version"]),
        cluster: text("CLUSTER_ID"),
    }
}
