//! Finding services and rules: what a name means to whom, and which rule holds.

use std::net::IpAddr;
use std::sync::Arc;

use mizzen_config::Kind;
use mizzen_types::{Hostname, Labels, ObjectKey};

use crate::rules::{Attachment, DestinationPolicy, VirtualServiceRule};
use crate::service::{Registry, Resolution, Service, ServiceKey};
use crate::{CLUSTER_DOMAIN, Endpoints, Mesh, kubernetes_host};

impl Mesh {
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    pub fn endpoints(&self, key: &ServiceKey) -> Option<&Arc<Endpoints>> {
        self.endpoints.get(key)
    }

    /// Services of one namespace, in order of their hosts.
    pub fn services_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Service>> {
        let keys = self.services_of_namespace.get(namespace);
        keys.into_iter().flat_map(|keys| keys.iter()).filter_map(|key| self.services.get(key))
    }

    /// The addresses that hosts of a ServiceEntry are given: what its status is to say. `None` when it wants none.
    pub fn given_addresses(&self, entry: &ObjectKey) -> Option<Vec<(String, IpAddr)>> {
        let object = self.objects.get(entry)?;
        let Kind::ServiceEntry(spec) = &object.kind else { return None };
        let mut given: Vec<(String, IpAddr)> = Vec::new();
        for written in &spec.hosts {
            if given.iter().any(|(host, _)| host == written) {
                continue;
            }
            let key = ServiceKey { host: Hostname::new(written), namespace: entry.namespace.clone() };
            let declared = self.declared.get(&key).into_iter().flat_map(|all| all.values());
            let wants = declared.filter(|it| it.origin == *entry).any(|it| it.wants_addresses.is_some());
            if wants && let Some(service) = self.services.get(&key) {
                given.extend(service.given_addresses.iter().map(|address| (written.clone(), *address)));
            }
        }
        (!given.is_empty()).then_some(given)
    }

    /// ServiceEntries whose hosts are given other addresses than their status says.
    pub fn given_anew(&self) -> impl Iterator<Item = &ObjectKey> {
        let services = self.allotment.wanting().filter_map(|key| self.services.get(key));
        let anew = |service: &&Arc<Service>| {
            service.wants_addresses.as_ref().is_some_and(|before| *before != service.given_addresses)
        };
        services.filter(anew).map(|service| &service.origin)
    }

    /// The service that `host` means to a client in `namespace`: the one of its own namespace, else Kubernetes', else
    /// the oldest (reference: semantics 99).
    pub fn service_by_host(&self, host: &Hostname, namespace: &str) -> Option<&Arc<Service>> {
        self.best_service(host, namespace, |_| true)
    }

    fn best_service(
        &self,
        host: &Hostname,
        namespace: &str,
        accept: impl Fn(&Service) -> bool,
    ) -> Option<&Arc<Service>> {
        let first = ServiceKey { host: host.clone(), namespace: "".into() };
        let same_host = self.services.range(first..).take_while(|(key, _)| key.host == *host);
        let visible = same_host.map(|(_, service)| service).filter(|service| service.visibility.shows_to(namespace));
        visible.filter(|service| accept(service)).min_by_key(|service| rank(service, namespace))
    }

    fn host_exists(&self, host: &Hostname) -> bool {
        let first = ServiceKey { host: host.clone(), namespace: "".into() };
        self.services.range(first..).next().is_some_and(|(key, _)| key.host == *host)
    }

    /// Services that a client in `namespace` sees, one per host, in order of hosts. Aliases and names that the proxy
    /// would have to resolve per request are not among them.
    pub fn visible_services<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Service>> {
        self.visible_services_where(namespace, |_| true)
    }

    /// The same for those services that `accept` takes: of several declarations of a host the best accepted one.
    pub fn visible_services_where<'a>(
        &'a self,
        namespace: &'a str,
        accept: impl Fn(&Service) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        // Services of one host stand side by side.
        let mut services = self.services.iter().peekable();
        let good = move |service: &Service| service.visibility.shows_to(namespace) && accept(service);
        std::iter::from_fn(move || {
            loop {
                let (key, first) = services.next()?;
                let mut best = good(first).then_some(first);
                while let Some((_, other)) = services.next_if(|(next, _)| next.host == key.host) {
                    if good(other) && best.is_none_or(|best| rank(other, namespace) < rank(best, namespace)) {
                        best = Some(other);
                    }
                }
                let callable =
                    |it: &&Arc<Service>| !matches!(it.resolution, Resolution::Alias | Resolution::DynamicDns);
                if let Some(service) = best.filter(callable) {
                    return Some(service);
                }
            }
        })
    }

    /// Hosts of `ExternalName` services that stand for `service`, chains followed (reference: semantics 13).
    pub fn aliases_of(&self, service: &Service, namespace: &str) -> Vec<Hostname> {
        let mut found: Vec<Hostname> = Vec::new();
        let mut targets = vec![service.key.host.clone()];
        while let Some(target) = targets.pop() {
            let keys = self.aliases.get(&target).into_iter().flat_map(|keys| keys.iter());
            for alias in keys.filter_map(|key| self.services.get(key)) {
                let host = &alias.key.host;
                // A ring of aliases has no end; the service itself is none of them.
                let new = *host != service.key.host && !found.contains(host);
                if new && alias.visibility.shows_to(namespace) {
                    found.push(host.clone());
                    targets.push(host.clone());
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// The host that is meant by `host` in a rule of `namespace`: a short name is a Kubernetes service of the rule's
    /// namespace (reference: semantics 1); any other is itself, except that `service.ns` means the Kubernetes service
    /// when no such host exists.
    pub fn resolve(&self, host: &str, namespace: &str) -> Hostname {
        let literal = Hostname::new(host);
        let text = literal.as_str();
        if text.is_empty() || literal.is_wildcard() || text.parse::<IpAddr>().is_ok() {
            return literal;
        }
        let Some((name, rest)) = text.split_once('.') else { return kubernetes_host(text, namespace) };
        if self.host_exists(&literal) {
            return literal;
        }
        let ns = rest.strip_suffix(".svc").unwrap_or(rest);
        let meant = kubernetes_host(name, ns);
        if !ns.is_empty() && !ns.contains('.') && self.host_exists(&meant) { meant } else { literal }
    }

    /// Whether `host` in a rule means a Kubernetes service only because nothing has that literal name.
    pub fn is_stretched(&self, host: &str, namespace: &str) -> bool {
        host.contains('.') && self.resolve(host, namespace) != Hostname::new(host)
    }

    /// VirtualServices that a client in `namespace` obeys, in the order in which they count.
    pub fn virtual_services(&self, namespace: &str, attachment: &Attachment) -> Vec<Arc<VirtualServiceRule>> {
        self.virtual_services.visible(namespace, attachment)
    }

    pub fn virtual_service(&self, namespace: &str, name: &str) -> Option<&Arc<VirtualServiceRule>> {
        self.virtual_services.named(namespace, name)
    }

    pub fn all_virtual_services(&self) -> impl Iterator<Item = &Arc<VirtualServiceRule>> {
        self.virtual_services.all()
    }

    pub fn all_destination_rules(&self) -> impl Iterator<Item = &Arc<crate::DestinationRuleEntry>> {
        self.destination_rules.all()
    }

    /// Whether rules look at the labels of the calling workload, so that two clients of one namespace may differ.
    pub fn rules_select_clients(&self) -> bool {
        self.destination_rules.select_clients() || self.virtual_services.select_clients()
    }

    /// Whether any rule asks that requests be sent on by a hash of them.
    pub fn rules_hash(&self) -> bool {
        self.destination_rules.hash()
    }

    /// The DestinationRules that hold when a client calls `service`: of its own namespace, else of the service's, else of
    /// the root namespace (reference: semantics 105 to 109).
    pub fn destination_policy(&self, service: &Service, namespace: &str, labels: &Labels) -> Option<DestinationPolicy> {
        self.destination_policy_of(&service.key.host, Some(&service.key.namespace), namespace, labels)
    }

    /// The same for a host that need not be a service.
    pub fn destination_policy_of(
        &self,
        host: &Hostname,
        service_namespace: Option<&str>,
        namespace: &str,
        labels: &Labels,
    ) -> Option<DestinationPolicy> {
        let spellings = self.spellings(host);
        let root: &str = &self.config.root_namespace;
        let fits_client = |rule: &crate::DestinationRuleEntry| match &rule.spec.workload_selector {
            Some(selector) if !selector.match_labels.is_empty() => {
                *rule.order.namespace == *namespace && selector.match_labels.selects(labels)
            }
            _ => true,
        };
        let shown = |rule: &crate::DestinationRuleEntry| fits_client(rule) && rule.visibility.shows_to(namespace);
        let own = self.destination_rules.level(namespace, &spellings, &fits_client);
        if !own.is_empty() {
            return DestinationPolicy::join(own, labels);
        }
        let levels = service_namespace.into_iter().chain([root]).filter(|level| *level != namespace);
        let found = levels.map(|level| self.destination_rules.level(level, &spellings, &shown));
        found.filter_map(|rules| DestinationPolicy::join(rules, labels)).next()
    }

    /// All ways in which a rule may name `host`: itself, and for a Kubernetes service `name.ns` and `name.ns.svc` when
    /// no other host is called so.
    fn spellings(&self, host: &Hostname) -> Vec<Hostname> {
        let mut spellings = vec![host.clone()];
        if let Some(short) = host.as_str().strip_suffix(CLUSTER_DOMAIN).and_then(|text| text.strip_suffix('.')) {
            for other in [Hostname::new(short), Hostname::new(&format!("{short}.svc"))] {
                if !self.host_exists(&other) && self.host_exists(host) {
                    spellings.push(other);
                }
            }
        }
        spellings
    }

    /// The services that a workload serves: those whose selector it fits, oldest first.
    pub fn services_of_workload(&self, namespace: &str, labels: &Labels) -> Vec<&Arc<Service>> {
        let serves = |service: &&Arc<Service>| {
            service.selector.as_ref().is_some_and(|selector| !selector.is_empty() && selector.selects(labels))
                && service.resolution != Resolution::Alias
        };
        let mut services: Vec<_> = self.services_in(namespace).filter(serves).collect();
        services.sort_by_key(|service| (service.created, service.registry == Registry::ServiceEntry));
        services
    }
}

/// Of services with one host a client means the one with the least rank.
fn rank(service: &Service, namespace: &str) -> (bool, Registry, i64) {
    (*service.key.namespace != *namespace, service.registry, service.created)
}
