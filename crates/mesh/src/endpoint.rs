//! Endpoints: the workloads that answer for a service, by service port.

use std::collections::BTreeMap;
use std::sync::Arc;

use mizzen_types::{Labels, Locality};

use crate::policy::MtlsMode;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    Healthy,
    Unhealthy,
}

/// One address that answers for one port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address, DNS name or `unix://` path.
    pub address: Arc<str>,
    pub port: u16,
    pub health: Health,
    /// Relative share; at least 1.
    pub weight: u32,
    pub workload: Arc<Workload>,
}

/// Who stands behind an endpoint, as far as callers care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub labels: Labels,
    /// Empty when unknown.
    pub service_account: Arc<str>,
    pub locality: Locality,
    /// Whether a sidecar takes Istio's mutual TLS there (label `security.istio.io/tlsMode`).
    pub sidecar: bool,
    /// `HOSTNAME.SUBDOMAIN` of a pod that has a subdomain (those of a StatefulSet have): what it is called beside the name of a
    /// headless Service.
    pub own_name: Option<Arc<str>>,
}

impl Workload {
    pub const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";
    const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
    const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

    /// The service that people think of (reference: features 5.3): a label, else the workload's name.
    pub fn canonical_service(&self) -> &str {
        let labels = [Self::CANONICAL_NAME, "app.kubernetes.io/name", "app"];
        labels.iter().find_map(|label| self.labels.get(label)).unwrap_or(&self.name)
    }

    /// Whether it has all these labels. Some tell where a workload is, whether or not anybody has written them to it
    /// (Istio's subsets by zone or cluster rest on this).
    pub fn is_selected_by(&self, wanted: &Labels, cluster: &str) -> bool {
        wanted.iter().all(|(key, value)| {
            let own = self.labels.get(key);
            let place = match key {
                "topology.kubernetes.io/region" => self.locality.region.as_str(),
                "topology.kubernetes.io/zone" => self.locality.zone.as_str(),
                "topology.istio.io/subzone" => self.locality.subzone.as_str(),
                "topology.istio.io/cluster" => cluster,
                _ => return own == Some(value),
            };
            own.unwrap_or(place) == value && !value.is_empty()
        })
    }

    /// `None` when no label tells it.
    pub fn canonical_revision(&self) -> Option<&str> {
        let labels = [Self::CANONICAL_REVISION, "app.kubernetes.io/version", "version"];
        labels.iter().find_map(|label| self.labels.get(label))
    }
}

/// All endpoints of one service. A change of any of them replaces this whole value, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    pub by_port: BTreeMap<u16, Vec<Endpoint>>,
}

impl Endpoints {
    pub fn on_port(&self, number: u16) -> &[Endpoint] {
        self.by_port.get(&number).map(Vec::as_slice).unwrap_or_default()
    }

    /// Service accounts (with their namespaces) on one port, in order and each once.
    pub fn service_accounts(&self, number: u16) -> Vec<(&str, &str)> {
        let known = self.on_port(number).iter().filter(|endpoint| !endpoint.workload.service_account.is_empty());
        let mut accounts: Vec<_> =
            known.map(|endpoint| (&*endpoint.workload.namespace, &*endpoint.workload.service_account)).collect();
        accounts.sort_unstable();
        accounts.dedup();
        accounts
    }

    /// What clusters (not only endpoint lists) depend on.
    pub(crate) fn shape(&self) -> Vec<PortShape<'_>> {
        let of_port = |(port, endpoints): (&u16, &Vec<Endpoint>)| PortShape {
            port: *port,
            accounts: self.service_accounts(*port),
            all_sidecars: endpoints.iter().all(|endpoint| endpoint.workload.sidecar),
        };
        self.by_port.iter().map(of_port).collect()
    }
}

/// Who answers on a port, and whether all of them speak mutual TLS.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PortShape<'a> {
    port: u16,
    accounts: Vec<(&'a str, &'a str)>,
    all_sidecars: bool,
}

/// Whether callers of an endpoint use mutual TLS by themselves (reference: semantics 133, 135).
pub fn takes_mtls(endpoint: &Endpoint, mode: MtlsMode) -> bool {
    endpoint.workload.sidecar && mode != MtlsMode::Disable
}
