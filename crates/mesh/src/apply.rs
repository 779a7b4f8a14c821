//! One step from a mesh to the next: read what changed, then make the endpoints anew of the services it touched.

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_api::mesh::MeshConfig;
use mizzen_api::networking::ServiceEntry;
use mizzen_config::{Change, Kind, Meta, Object};
use mizzen_types::{Hostname, Labels, ObjectKey};

use crate::allot::Claim;
use crate::dirty::{Dirty, Named};
use crate::endpoint::Endpoints;
use crate::pod::{Outsider, Pod, node_locality};
use crate::rules::{DestinationRuleEntry, GatewayRule, Order, VirtualServiceRule};
use crate::service::{Registry, Resolution, Service, ServiceKey};
use crate::sidecar::SidecarRule;
use crate::{Map, Mesh, declare, gather};

pub(crate) fn apply(mesh: &Mesh, changes: &[Change]) -> (Arc<Mesh>, Dirty) {
    let mut step =
        Step { mesh: mesh.clone(), stale: BTreeSet::new(), settled: BTreeSet::new(), dirty: Dirty::default() };
    // The mesh configuration decides how all others are read.
    for change in changes {
        match change {
            Change::Put(object) if is_mesh_config(object, &step.mesh.config) => step.configure(object),
            Change::Delete(key) if &*key.kind == "MeshConfig" => step.deconfigure(key),
            _ => {}
        }
    }
    for change in changes {
        match change {
            Change::Put(object) => step.put(object),
            Change::Delete(key) => step.delete(key),
        }
    }
    step.give_addresses(mesh);
    step.finish()
}

/// The mesh obeys the ConfigMap `istio` of the root namespace only; which namespace that is, the ConfigMap itself may say.
fn is_mesh_config(object: &Object, config: &MeshConfig) -> bool {
    let Kind::MeshConfig(own) = &object.kind else { return false };
    let namespace = &*object.key.namespace;
    let root = *config.root_namespace == *namespace || *own.root_namespace == *namespace;
    &*object.key.name == "istio" && (root || namespace == "istio-system")
}

struct Step {
    mesh: Mesh,
    /// Services whose endpoints have to be made anew.
    stale: BTreeSet<ServiceKey>,
    /// Services that were made anew, and have lost the addresses that they were given.
    settled: BTreeSet<ServiceKey>,
    dirty: Dirty,
}

fn order(object: &Object) -> Order {
    Order { created: object.meta.created.0, name: object.key.name.clone(), namespace: object.key.namespace.clone() }
}

fn named(key: &ObjectKey) -> Named {
    (key.namespace.clone(), key.name.clone())
}

impl Step {
    fn configure(&mut self, object: &Object) {
        if let Kind::MeshConfig(config) = &object.kind {
            self.reread(config.clone());
        }
    }

    fn deconfigure(&mut self, key: &ObjectKey) {
        if self.mesh.objects.contains_key(key) {
            self.reread(Arc::default());
        }
    }

    fn reread(&mut self, config: Arc<MeshConfig>) {
        if self.mesh.config == config {
            return;
        }
        let objects = std::mem::take(&mut self.mesh).objects;
        self.mesh.config = config;
        for object in objects.values() {
            self.put(object);
        }
        self.dirty.everything = true;
    }

    fn put(&mut self, object: &Arc<Object>) {
        if let Some(old) = self.mesh.objects.get(&object.key).cloned() {
            if old.same_content(object) {
                // Only its place in the file moved.
                self.mesh.objects = self.mesh.objects.insert(object.key.clone(), object.clone());
                return;
            }
            if let Kind::ServiceEntry(entry) = &object.kind
                && old.same_but_for_status(object)
            {
                self.mesh.objects = self.mesh.objects.insert(object.key.clone(), object.clone());
                for service in self.services_of(object, entry) {
                    self.redeclare(order(object), service);
                }
                return;
            }
            self.take_out(&old, Some(object));
        }
        self.mesh.objects = self.mesh.objects.insert(object.key.clone(), object.clone());
        self.take_in(object);
    }

    fn delete(&mut self, key: &ObjectKey) {
        if let Some(old) = self.mesh.objects.get(key).cloned() {
            self.take_out(&old, None);
            self.mesh.objects = self.mesh.objects.remove(key);
        }
    }

    fn take_in(&mut self, object: &Arc<Object>) {
        let (key, meta) = (&object.key, &object.meta);
        let name = named(key);
        let mesh = &mut self.mesh;
        match &object.kind {
            Kind::Service(service) => {
                let export = meta.annotations.get(declare::export_annotation()).map(String::as_str);
                let mut service = declare::kubernetes(key, meta.created.0, export, service, &mesh.config);
                if let Some(assigned) = mesh.assigned.get(&name)
                    && service.addresses.is_empty()
                    && service.resolution == Resolution::Endpoints
                {
                    service.addresses = assigned.iter().map(|address| address.to_string()).collect();
                }
                self.declare(order(object), service);
            }
            Kind::ServiceEntry(entry) => {
                for service in self.services_of(object, entry) {
                    self.declare(order(object), service);
                }
            }
            Kind::EndpointSlice(slice) => {
                let label = meta.labels.get(mizzen_api::kubernetes::EndpointSlice::SERVICE_NAME_LABEL);
                if let Some(service) = label {
                    let owner: Named = (key.namespace.clone(), service.into());
                    let slices = mesh.slices.get(&owner).cloned().unwrap_or_default();
                    mesh.slices = mesh.slices.insert(owner.clone(), slices.insert(key.name.clone(), slice.clone()));
                    self.stale_kubernetes(&owner);
                    self.mesh.slice_owner = self.mesh.slice_owner.insert(name, owner);
                }
            }
            Kind::IPAddress(address) => {
                if let Some(owner) = service_with(address) {
                    let all = mesh.assigned.get(&owner).cloned().unwrap_or_default().insert(key.name.clone());
                    mesh.assigned = mesh.assigned.insert(owner.clone(), all);
                    self.declare_again(owner);
                }
            }
            Kind::Pod(pod) => {
                let node = mesh.nodes.get(pod.spec.node_name.as_str()).map(AsRef::as_ref);
                let pod = Arc::new(Pod::read(&key.namespace, &key.name, meta, pod, node));
                // Addresses of a node are shared by pods.
                for address in pod.addresses.iter().filter(|_| !pod.on_host_network) {
                    mesh.pods_by_address = mesh.pods_by_address.insert(address.clone(), name.clone());
                }
                self.stale_selecting(&key.namespace, &pod.workload.labels);
                self.stale_slices_of(&key.namespace, &key.name);
                self.mesh.pods = self.mesh.pods.insert(name.clone(), pod);
                self.dirty.workloads.insert(name);
            }
            Kind::Node(_) => {
                let locality = node_locality(&meta.labels);
                if mesh.nodes.get(&key.name).is_none_or(|known| **known != locality) {
                    mesh.nodes = mesh.nodes.insert(key.name.clone(), Arc::new(locality));
                    self.reread_pods_on(&key.name.clone());
                }
            }
            Kind::WorkloadEntry(entry) => {
                let outsider = Outsider::read(&key.namespace, &key.name, &meta.labels, entry);
                let labels = outsider.workload.labels.clone();
                mesh.outsiders = mesh.outsiders.insert(name, Arc::new(outsider));
                self.stale_selecting(&key.namespace.clone(), &labels);
            }
            Kind::VirtualService(spec) => {
                let defaults = &mesh.config.default_virtual_service_export_to;
                let rule = Arc::new(VirtualServiceRule::new(order(object), spec.clone(), defaults));
                self.dirty_virtual_service(&rule);
                self.mesh.virtual_services = self.mesh.virtual_services.put(rule);
            }
            Kind::DestinationRule(spec) => {
                let defaults = &mesh.config.default_destination_rule_export_to;
                let entry = Arc::new(destination_rule(object, spec, defaults));
                self.dirty.destination_rules.insert(entry.host.clone());
                mesh.destination_rules = mesh.destination_rules.put(entry);
            }
            Kind::Gateway(spec) => {
                let rule = GatewayRule { order: order(object), spec: spec.clone() };
                mesh.gateways = mesh.gateways.insert(rule.order.clone(), Arc::new(rule));
                self.dirty.gateways.insert(name);
            }
            Kind::PeerAuthentication(policy) => {
                mesh.peer_policies = mesh.peer_policies.put(order(object), policy.clone());
                self.dirty.peer_authentications.insert(key.namespace.clone());
            }
            Kind::Sidecar(spec) => {
                mesh.sidecars = mesh.sidecars.put(SidecarRule::new(order(object), spec.clone()));
                self.dirty.sidecars.insert(key.namespace.clone());
            }
            Kind::Secret(secret) => {
                mesh.secrets = mesh.secrets.insert(name.clone(), secret.clone());
                self.dirty.secrets.insert(name);
            }
            Kind::MeshConfig(_)
            | Kind::WorkloadGroup(_)
            | Kind::EnvoyFilter(_)
            | Kind::ProxyConfig(_)
            | Kind::RequestAuthentication(_)
            | Kind::AuthorizationPolicy(_)
            | Kind::Telemetry(_)
            | Kind::Namespace(_)
            | Kind::ServiceAccount(_)
            | Kind::Deployment(_)
            | Kind::ConfigMap(_) => {}
        }
    }

    /// `next` is what takes the place of the object, if anything does.
    fn take_out(&mut self, object: &Arc<Object>, next: Option<&Arc<Object>>) {
        let key = &object.key;
        let name = named(key);
        let mesh = &mut self.mesh;
        match &object.kind {
            Kind::Service(_) => self.undeclare(
                &ServiceKey {
                    host: declare::kubernetes_host(&key.name, &key.namespace),
                    namespace: key.namespace.clone(),
                },
                &(Registry::Kubernetes, order(object)),
            ),
            Kind::ServiceEntry(entry) => {
                for host in &entry.hosts {
                    let service = ServiceKey { host: Hostname::new(host), namespace: key.namespace.clone() };
                    self.undeclare(&service, &(Registry::ServiceEntry, order(object)));
                }
            }
            Kind::EndpointSlice(_) => {
                if let Some(owner) = mesh.slice_owner.get(&name).cloned() {
                    mesh.slice_owner = mesh.slice_owner.remove(&name);
                    let slices = mesh.slices.get(&owner).map(|slices| slices.remove(&key.name)).unwrap_or_default();
                    mesh.slices = if slices.is_empty() {
                        mesh.slices.remove(&owner)
                    } else {
                        mesh.slices.insert(owner.clone(), slices)
                    };
                    self.stale_kubernetes(&owner);
                }
            }
            Kind::IPAddress(address) => {
                if let Some(owner) = service_with(address) {
                    let left = mesh.assigned.get(&owner).map(|all| all.remove(&key.name)).unwrap_or_default();
                    mesh.assigned = if left.is_empty() {
                        mesh.assigned.remove(&owner)
                    } else {
                        mesh.assigned.insert(owner.clone(), left)
                    };
                    self.declare_again(owner);
                }
            }
            Kind::Pod(_) => {
                if let Some(pod) = mesh.pods.get(&name).cloned() {
                    mesh.pods = mesh.pods.remove(&name);
                    for address in &pod.addresses {
                        if mesh.pods_by_address.get(address) == Some(&name) {
                            mesh.pods_by_address = mesh.pods_by_address.remove(address);
                        }
                    }
                    self.stale_selecting(&key.namespace, &pod.workload.labels);
                    self.stale_slices_of(&key.namespace, &key.name);
                    self.dirty.workloads.insert(name);
                }
            }
            Kind::Node(_) if next.is_none() => {
                mesh.nodes = mesh.nodes.remove(&key.name);
                self.reread_pods_on(&key.name.clone());
            }
            Kind::WorkloadEntry(_) => {
                if let Some(outsider) = mesh.outsiders.get(&name).cloned() {
                    mesh.outsiders = mesh.outsiders.remove(&name);
                    self.stale_selecting(&key.namespace, &outsider.workload.labels);
                }
            }
            Kind::VirtualService(_) => {
                let (rules, gone) = mesh.virtual_services.remove(&key.namespace, &key.name);
                mesh.virtual_services = rules;
                if let Some(rule) = gone {
                    self.dirty_virtual_service(&rule);
                }
            }
            Kind::DestinationRule(spec) => {
                let entry = destination_rule(object, spec, &mesh.config.default_destination_rule_export_to);
                mesh.destination_rules = mesh.destination_rules.remove(&entry);
                self.dirty.destination_rules.insert(entry.host);
            }
            Kind::Gateway(_) => {
                mesh.gateways = mesh.gateways.remove(&order(object));
                self.dirty.gateways.insert(name);
            }
            Kind::PeerAuthentication(_) => {
                mesh.peer_policies = mesh.peer_policies.remove(&order(object));
                self.dirty.peer_authentications.insert(key.namespace.clone());
            }
            Kind::Sidecar(_) => {
                mesh.sidecars = mesh.sidecars.remove(&order(object));
                self.dirty.sidecars.insert(key.namespace.clone());
            }
            Kind::Secret(_) => {
                mesh.secrets = mesh.secrets.remove(&name);
                self.dirty.secrets.insert(name);
            }
            Kind::Node(_)
            | Kind::MeshConfig(_)
            | Kind::WorkloadGroup(_)
            | Kind::EnvoyFilter(_)
            | Kind::ProxyConfig(_)
            | Kind::RequestAuthentication(_)
            | Kind::AuthorizationPolicy(_)
            | Kind::Telemetry(_)
            | Kind::Namespace(_)
            | Kind::ServiceAccount(_)
            | Kind::Deployment(_)
            | Kind::ConfigMap(_) => {}
        }
    }

    /// A delegate shows in the hosts of those that name it; which these are is not looked up: they are few, so all are.
    fn dirty_virtual_service(&mut self, rule: &VirtualServiceRule) {
        if !rule.is_delegate() {
            self.dirty.virtual_services.extend(rule.hosts.iter().cloned());
            return;
        }
        let delegating = |rule: &&Arc<VirtualServiceRule>| rule.spec.http.iter().any(|http| http.delegate.is_some());
        let hosts = self.mesh.virtual_services.all().filter(delegating).flat_map(|rule| rule.hosts.iter().cloned());
        self.dirty.virtual_services.extend(hosts);
    }

    fn services_of(&self, object: &Object, entry: &ServiceEntry) -> Vec<Service> {
        let Meta { created, labels, .. } = &object.meta;
        declare::service_entry(&object.key, created.0, labels, entry, &self.mesh.config)
    }

    fn declare(&mut self, order: Order, service: Service) {
        let key = service.key.clone();
        self.redeclare(order, service);
        self.touched(key);
    }

    /// The same for a declaration that tells proxies nothing new.
    fn redeclare(&mut self, order: Order, service: Service) {
        let key = service.key.clone();
        let all = self.mesh.declared.get(&key).cloned().unwrap_or_default();
        let all = all.insert((service.registry, order), Arc::new(service));
        self.mesh.declared = self.mesh.declared.insert(key.clone(), all);
        self.settle(&key);
    }

    fn touched(&mut self, key: ServiceKey) {
        self.dirty.services.insert(key.clone());
        self.stale.insert(key);
    }

    fn undeclare(&mut self, key: &ServiceKey, by: &(Registry, Order)) {
        let Some(all) = self.mesh.declared.get(key) else { return };
        let all = all.remove(by);
        self.mesh.declared =
            if all.is_empty() { self.mesh.declared.remove(key) } else { self.mesh.declared.insert(key.clone(), all) };
        self.settle(key);
        self.touched(key.clone());
    }

    /// Of several declarations Kubernetes' counts, else the oldest; the others add ports (reference: semantics 99, 195).
    fn settle(&mut self, key: &ServiceKey) {
        let mesh = &mut self.mesh;
        let declarations: Vec<_> = mesh.declared.get(key).into_iter().flat_map(|all| all.values().cloned()).collect();
        if let Some(target) = mesh.services.get(key).and_then(|service| service.alias_of.clone()) {
            let others = mesh.aliases.get(&target).map(|keys| keys.remove(key)).unwrap_or_default();
            mesh.aliases =
                if others.is_empty() { mesh.aliases.remove(&target) } else { mesh.aliases.insert(target, others) };
        }
        let mut listed = mesh.services_of_namespace.get(&key.namespace).cloned().unwrap_or_default();
        match declarations.split_first() {
            None => {
                mesh.services = mesh.services.remove(key);
                listed = listed.remove(key);
            }
            Some((first, others)) => {
                let mut service = first.clone();
                for port in others.iter().flat_map(|other| &other.ports) {
                    if service.port(port.number).is_none() {
                        Arc::make_mut(&mut service).ports.push(port.clone());
                    }
                }
                if let Some(target) = &service.alias_of {
                    let others = mesh.aliases.get(target).cloned().unwrap_or_default();
                    mesh.aliases = mesh.aliases.insert(target.clone(), others.insert(key.clone()));
                }
                mesh.services = mesh.services.insert(key.clone(), service);
                listed = listed.insert(key.clone());
            }
        }
        mesh.services_of_namespace = mesh.services_of_namespace.insert(key.namespace.clone(), listed);
        self.settled.insert(key.clone());
    }

    /// Gives addresses to services without any, those that are made anew among them.
    fn give_addresses(&mut self, before: &Mesh) {
        let settled = std::mem::take(&mut self.settled);
        let services = &mut self.mesh.services;
        let claim = |key: &ServiceKey| services.get(key).and_then(|service| Claim::of(service));
        let claims = settled.iter().map(|key| (key.clone(), claim(key))).collect();
        let (allotment, touched) = before.allotment.with(claims);
        for key in settled.union(&touched) {
            let given = allotment.given(key);
            if let Some(service) = services.get(key).filter(|service| service.given_addresses != given) {
                let mut service = service.clone();
                Arc::make_mut(&mut service).given_addresses = given.to_vec();
                *services = services.insert(key.clone(), service);
            }
        }
        self.mesh.allotment = allotment;
        self.dirty.services.extend(touched);
    }

    /// A Service whose address became another one.
    fn declare_again(&mut self, (namespace, name): Named) {
        let key = ObjectKey { kind: "Service".into(), namespace, name };
        if let Some(object) = self.mesh.objects.get(&key).cloned() {
            self.take_in(&object);
        }
    }

    fn stale_kubernetes(&mut self, owner: &Named) {
        let key = ServiceKey { host: declare::kubernetes_host(&owner.1, &owner.0), namespace: owner.0.clone() };
        self.stale.insert(key);
    }

    fn stale_selecting(&mut self, namespace: &str, labels: &Labels) {
        let selects =
            |service: &&Arc<Service>| service.selector.as_ref().is_some_and(|selector| selector.selects(labels));
        let keys: Vec<_> =
            self.mesh.services_in(namespace).filter(selects).map(|service| service.key.clone()).collect();
        self.stale.extend(keys);
    }

    /// Services without a selector whose slices name a pod.
    fn stale_slices_of(&mut self, namespace: &str, pod: &str) {
        let names_it = |slices: &Map<Arc<str>, Arc<mizzen_api::kubernetes::EndpointSlice>>| {
            let endpoints = slices.values().flat_map(|slice| &slice.endpoints);
            endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref()).any(|target| target.name == pod)
        };
        let by_hand = |service: &&Arc<Service>| service.selector.is_none() && service.registry == Registry::Kubernetes;
        let owners: Vec<Named> = self
            .mesh
            .services_in(namespace)
            .filter(by_hand)
            .map(|service| (service.key.namespace.clone(), service.name.clone()))
            .filter(|owner| self.mesh.slices.get(owner).is_some_and(names_it))
            .collect();
        for owner in owners {
            self.stale_kubernetes(&owner);
        }
    }

    fn reread_pods_on(&mut self, node: &str) {
        let there = |(_, pod): &(&Named, &Arc<Pod>)| *pod.node == *node;
        let names: Vec<Named> = self.mesh.pods.iter().filter(there).map(|(name, _)| name.clone()).collect();
        for (namespace, name) in names {
            let key = ObjectKey { kind: "Pod".into(), namespace, name };
            if let Some(object) = self.mesh.objects.get(&key).cloned() {
                self.take_in(&object);
            }
        }
        // Endpoints behind which there is no pod are where their node is, or in the zone of some node.
        let podless = |slices: &Map<Arc<str>, Arc<mizzen_api::kubernetes::EndpointSlice>>| {
            let mut endpoints = slices.values().flat_map(|slice| &slice.endpoints);
            endpoints.any(|it| it.target_ref.is_none() && (it.node_name == node || !it.zone.is_empty()))
        };
        let owners = self.mesh.slices.iter().filter(|(_, slices)| podless(slices));
        for owner in owners.map(|(owner, _)| owner.clone()).collect::<Vec<_>>() {
            self.stale_kubernetes(&owner);
        }
    }

    fn finish(mut self) -> (Arc<Mesh>, Dirty) {
        for key in std::mem::take(&mut self.stale) {
            let old = self.mesh.endpoints.get(&key).cloned();
            let Some(declarations) = self.mesh.declared.get(&key) else {
                if old.is_some() {
                    self.mesh.endpoints = self.mesh.endpoints.remove(&key);
                    self.dirty.endpoints.insert(key);
                }
                continue;
            };
            let mut next = Endpoints::default();
            for service in declarations.values() {
                for (port, endpoints) in gather::endpoints(&self.mesh, service).by_port {
                    next.by_port.entry(port).or_default().extend(endpoints);
                }
            }
            if old.as_deref() == Some(&next) {
                continue;
            }
            // Clusters name the identities of their endpoints, so a change of these is more than one of endpoints.
            if old.as_ref().is_none_or(|old| old.shape() != next.shape()) {
                self.dirty.services.insert(key.clone());
            }
            self.mesh.endpoints = self.mesh.endpoints.insert(key.clone(), Arc::new(next));
            self.dirty.endpoints.insert(key);
        }
        (Arc::new(self.mesh), self.dirty)
    }
}

/// The Service that an address was given to.
fn service_with(address: &mizzen_api::kubernetes::IPAddress) -> Option<Named> {
    let parent = &address.spec.parent_ref;
    let of_service = parent.group.is_empty() && parent.resource == "services";
    of_service.then(|| (parent.namespace.as_str().into(), parent.name.as_str().into()))
}

fn destination_rule(
    object: &Object,
    spec: &Arc<mizzen_api::networking::DestinationRule>,
    defaults: &[String],
) -> DestinationRuleEntry {
    let order = order(object);
    let host = Hostname::new(&spec.host);
    let short = !host.as_str().contains('.') && !host.is_wildcard();
    DestinationRuleEntry {
        host: if short { declare::kubernetes_host(host.as_str(), &order.namespace) } else { host },
        visibility: crate::Visibility::read(&spec.export_to, defaults, &order.namespace),
        spec: spec.clone(),
        order,
    }
}
