//! The objects, sorted by kind and age, and what checks ask about them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mizzen_api::kubernetes::{Deployment, Pod, Service as ServiceObject};
use mizzen_api::networking::{DestinationRule, Gateway, VirtualService};
use mizzen_config::{Kind, Object};
use mizzen_mesh::{Attachment, Mesh, Service};
use mizzen_types::{Hostname, Labels};

/// An object of a known kind.
pub(crate) struct Of<'o, S> {
    pub object: &'o Object,
    pub spec: &'o S,
}

impl<S> Clone for Of<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Of<'_, S> {}

impl<S> Of<'_, S> {
    pub(crate) fn namespace(&self) -> &str {
        &self.object.key.namespace
    }
}

/// A workload, running or to be run.
pub(crate) struct Workload<'o> {
    pub namespace: &'o str,
    pub labels: &'o Labels,
}

pub(crate) struct View<'o> {
    pub mesh: &'o Mesh,
    /// Oldest first, as all lists here.
    pub virtual_services: Vec<Of<'o, VirtualService>>,
    pub destination_rules: Vec<Of<'o, DestinationRule>>,
    pub gateways: Vec<Of<'o, Gateway>>,
    pub services: Vec<Of<'o, ServiceObject>>,
    pub workloads: Vec<Workload<'o>>,
    /// Workloads by one pair of their labels.
    by_label: HashMap<(&'o str, &'o str), Vec<usize>>,
    rules_by_host: HashMap<Hostname, Vec<usize>>,
    wildcard_rules: Vec<(Hostname, usize)>,
    wildcard_services: Vec<Hostname>,
}

impl<'o> View<'o> {
    pub(crate) fn new(mesh: &'o Mesh, objects: &'o [Arc<Object>]) -> Self {
        let mut sorted: Vec<&'o Object> = objects.iter().map(|object| &**object).collect();
        sorted.sort_by(|a, b| a.age().cmp(&b.age()));
        let wildcards = mesh.services().map(|service| &service.key.host).filter(|host| host.is_wildcard());
        let mut view = Self {
            mesh,
            virtual_services: Vec::new(),
            destination_rules: Vec::new(),
            gateways: Vec::new(),
            services: Vec::new(),
            workloads: Vec::new(),
            by_label: HashMap::new(),
            rules_by_host: HashMap::new(),
            wildcard_rules: Vec::new(),
            wildcard_services: wildcards.cloned().collect(),
        };
        for object in sorted {
            view.add(object);
        }
        for (index, workload) in view.workloads.iter().enumerate() {
            for pair in workload.labels.iter() {
                view.by_label.entry(pair).or_default().push(index);
            }
        }
        view
    }

    fn add(&mut self, object: &'o Object) {
        match &object.kind {
            Kind::VirtualService(spec) => self.virtual_services.push(Of { object, spec }),
            Kind::Gateway(spec) => self.gateways.push(Of { object, spec }),
            Kind::Service(spec) => self.services.push(Of { object, spec }),
            Kind::DestinationRule(spec) => {
                let host = self.mesh.resolve(&spec.host, &object.key.namespace);
                let index = self.destination_rules.len();
                if host.is_wildcard() {
                    self.wildcard_rules.push((host, index));
                } else {
                    self.rules_by_host.entry(host).or_default().push(index);
                }
                self.destination_rules.push(Of { object, spec });
            }
            Kind::Pod(pod) => self.add_pod(object, pod),
            Kind::Deployment(deployment) => self.add_deployment(object, deployment),
            Kind::WorkloadEntry(entry) => {
                self.workloads.push(Workload { namespace: &object.key.namespace, labels: &entry.labels });
            }
            Kind::ServiceEntry(entry) => {
                let workload = |labels| Workload { namespace: &object.key.namespace, labels };
                self.workloads.extend(entry.endpoints.iter().map(|endpoint| workload(&endpoint.labels)));
            }
            _ => {}
        }
    }

    fn add_pod(&mut self, object: &'o Object, _: &'o Pod) {
        self.workloads.push(Workload { namespace: &object.key.namespace, labels: &object.meta.labels });
    }

    fn add_deployment(&mut self, object: &'o Object, deployment: &'o Deployment) {
        let labels = &deployment.spec.template.metadata.labels;
        self.workloads.push(Workload { namespace: &object.key.namespace, labels });
    }

    /// The service that a rule of `namespace` means by `host`.
    pub(crate) fn service(&self, host: &str, namespace: &str) -> Option<&'o Arc<Service>> {
        self.mesh.service_by_host(&self.mesh.resolve(host, namespace), namespace)
    }

    /// Whether anything in the mesh goes by that name: a service, or a wildcard that covers it.
    pub(crate) fn host_is_known(&self, host: &str, namespace: &str) -> bool {
        let resolved = self.mesh.resolve(host, namespace);
        let covered = || self.wildcard_services.iter().any(|wildcard| wildcard.overlaps(&resolved));
        if resolved.is_wildcard() {
            return covered() || self.mesh.services().any(|service| service.key.host.overlaps(&resolved));
        }
        self.mesh.service_by_host(&resolved, namespace).is_some() || covered()
    }

    /// Services that exist under a host, seen from `namespace` or not.
    pub(crate) fn hidden_service(&self, host: &str, namespace: &str) -> Option<&'o Arc<Service>> {
        let resolved = self.mesh.resolve(host, namespace);
        self.mesh.services().find(|service| service.key.host == resolved)
    }

    /// DestinationRules that name the host, or a wildcard over it.
    pub(crate) fn rules_for(&self, host: &str, namespace: &str) -> impl Iterator<Item = Of<'o, DestinationRule>> {
        let resolved = self.mesh.resolve(host, namespace);
        let exact = self.rules_by_host.get(&resolved).into_iter().flatten().copied();
        let wide = self.wildcard_rules.iter().filter(|(host, _)| host.overlaps(&resolved)).map(|(_, index)| *index);
        let indexes: Vec<usize> = exact.chain(wide).collect();
        indexes.into_iter().map(|index| self.destination_rules[index])
    }

    /// Whether a workload has all these labels; in `namespace`, or anywhere when that is `None`.
    pub(crate) fn any_workload(&self, selector: &Labels, namespace: Option<&str>) -> bool {
        let fits = |workload: &Workload<'_>| {
            namespace.is_none_or(|namespace| workload.namespace == namespace) && selector.selects(workload.labels)
        };
        let lists = selector.iter().map(|pair| self.by_label.get(&pair).map(Vec::as_slice).unwrap_or_default());
        match lists.min_by_key(|list| list.len()) {
            Some(shortest) => shortest.iter().any(|index| fits(&self.workloads[*index])),
            None => self.workloads.iter().any(fits),
        }
    }

    /// Values that workloads of a selector have for a label, for hints; a few of them.
    pub(crate) fn values_of(&self, key: &str, namespace: Option<&str>, selector: &Labels) -> BTreeSet<&'o str> {
        const FEW: usize = 8;
        let mut values = BTreeSet::new();
        for workload in &self.workloads {
            let here = namespace.is_none_or(|namespace| workload.namespace == namespace);
            if values.len() < FEW && here && selector.selects(workload.labels) {
                values.extend(workload.labels.get(key));
            }
        }
        values
    }

    /// The Gateway that a VirtualService of `namespace` names; `mesh` is none.
    pub(crate) fn gateway(&self, reference: &str, namespace: &str) -> Option<Of<'o, Gateway>> {
        let Attachment::Gateway { namespace, name } = Attachment::read(reference, namespace) else { return None };
        self.gateways.iter().find(|g| *g.object.key.namespace == *namespace && *g.object.key.name == *name).copied()
    }
}

/// Names for a hint: `a`, `b` or `c`.
pub(crate) fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
