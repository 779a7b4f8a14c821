//! Sidecar resources: what of the mesh a workload's proxy is told (reference: semantics 95 to 104). Not here: what follows
//! from it for listeners, routes and clusters (`mizzen-translate`).

use std::sync::Arc;

use mizzen_api::networking::Sidecar;
use mizzen_types::{Hostname, Labels, ObjectKey};
use rpds::RedBlackTreeMapSync;

use crate::rules::Order;

/// A Sidecar resource with its `egress` hosts read.
#[derive(Debug, PartialEq)]
pub struct SidecarRule {
    pub order: Order,
    pub spec: Arc<Sidecar>,
    /// One for each entry of `egress`; `*/*` when there is none.
    pub egress: Vec<Egress>,
}

/// One entry of `egress`: services that may be called, on one port or on their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Only here are the hosts callable.
    pub port: Option<u16>,
    /// Address of a listener of its own.
    pub bind: Option<Arc<str>>,
    hosts: Vec<Import>,
}

/// `NAMESPACE/HOST`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Import {
    /// `~NAMESPACE/HOST` takes away from the others.
    excluded: bool,
    namespace: ImportFrom,
    host: Hostname,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ImportFrom {
    Anywhere,
    /// The namespace of the workload, also for a rule of the root namespace.
    Client,
    Nowhere,
    Namespace(Arc<str>),
}

impl Import {
    fn read(entry: &str) -> Self {
        let (namespace, host) = entry.split_once('/').unwrap_or(("*", entry));
        let (excluded, namespace) = match namespace.strip_prefix('~') {
            Some(rest) if !rest.is_empty() => (true, rest),
            _ => (false, namespace),
        };
        let namespace = match namespace {
            "*" => ImportFrom::Anywhere,
            "." => ImportFrom::Client,
            "~" => ImportFrom::Nowhere,
            name => ImportFrom::Namespace(name.into()),
        };
        Self { excluded, namespace, host: Hostname::new(host) }
    }

    fn covers(&self, host: &Hostname, namespace: &str, client: &str) -> bool {
        let from = match &self.namespace {
            ImportFrom::Anywhere => true,
            ImportFrom::Client => namespace == client,
            ImportFrom::Nowhere => false,
            ImportFrom::Namespace(name) => **name == *namespace,
        };
        from && (self.host.as_str() == "*" || host.is_subset_of(&self.host))
    }
}

impl Egress {
    /// Whether a host that `namespace` declares (a service, or the host of a rule) is imported for a workload in `client`.
    pub fn imports(&self, host: &Hostname, namespace: &str, client: &str) -> bool {
        let covered = |excluded: bool| {
            self.hosts.iter().any(|import| import.excluded == excluded && import.covers(host, namespace, client))
        };
        covered(false) && !covered(true)
    }
}

impl SidecarRule {
    pub(crate) fn new(order: Order, spec: Arc<Sidecar>) -> Self {
        let read = |hosts: &[String]| hosts.iter().map(|host| Import::read(host)).collect();
        let mut egress: Vec<_> = spec
            .egress
            .iter()
            .map(|listener| Egress {
                port: listener.port.as_ref().map(|port| port.number).filter(|port| *port != 0),
                bind: Some(listener.bind.as_str()).filter(|bind| !bind.is_empty()).map(Arc::from),
                hosts: read(&listener.hosts),
            })
            .collect();
        if egress.is_empty() {
            egress.push(Egress { port: None, bind: None, hosts: vec![Import::read("*/*")] });
        }
        Self { order, spec, egress }
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new("Sidecar", &self.order.namespace, &self.order.name)
    }

    fn selector(&self) -> Option<&Labels> {
        self.spec.workload_selector.as_ref().map(|selector| &selector.labels).filter(|labels| !labels.is_empty())
    }
}

/// All Sidecar resources by namespace, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sidecars {
    by_namespace: RedBlackTreeMapSync<Arc<str>, RedBlackTreeMapSync<Order, Arc<SidecarRule>>>,
}

impl Sidecars {
    pub(crate) fn put(&self, rule: SidecarRule) -> Self {
        let mine = self.by_namespace.get(&rule.order.namespace).cloned().unwrap_or_default();
        let (namespace, order) = (rule.order.namespace.clone(), rule.order.clone());
        Self { by_namespace: self.by_namespace.insert(namespace, mine.insert(order, Arc::new(rule))) }
    }

    pub(crate) fn remove(&self, order: &Order) -> Self {
        let Some(mine) = self.by_namespace.get(&order.namespace) else { return self.clone() };
        let mine = mine.remove(order);
        let by_namespace = if mine.is_empty() {
            self.by_namespace.remove(&order.namespace)
        } else {
            self.by_namespace.insert(order.namespace.clone(), mine)
        };
        Self { by_namespace }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }

    /// The one that a workload obeys: of its namespace the oldest that selects it, else the oldest for all workloads, else
    /// the oldest for all of the root namespace.
    pub(crate) fn effective(&self, namespace: &str, labels: &Labels, root: &str) -> Option<&Arc<SidecarRule>> {
        let of = |namespace: &str| self.by_namespace.get(namespace).into_iter().flat_map(|rules| rules.values());
        let selecting = of(namespace).find(|rule| rule.selector().is_some_and(|selector| selector.selects(labels)));
        let general = |namespace: &str| of(namespace).find(|rule| rule.selector().is_none());
        selecting.or_else(|| general(namespace)).or_else(|| general(root))
    }

    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<SidecarRule>> {
        self.by_namespace.get(namespace)?.values().find(|rule| *rule.order.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, namespace: &str, labels: &[(&str, &str)], hosts: &[&str]) -> SidecarRule {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), serde_json::json!(value))).collect();
        let spec = serde_json::json!({"workloadSelector": {"labels": labels}, "egress": [{"hosts": hosts}]});
        let order = Order { created: 0, name: name.into(), namespace: namespace.into() };
        SidecarRule::new(order, Arc::new(serde_json::from_value(spec).unwrap()))
    }

    #[test]
    fn imports_are_namespace_and_host() {
        let imports = |hosts: &[&str], host: &str, namespace: &str| {
            rule("r", "home", &[], hosts).egress[0].imports(&Hostname::new(host), namespace, "home")
        };
        assert!(imports(&["*/*"], "a.b", "away"));
        assert!(imports(&["./*"], "a.b", "home") && !imports(&["./*"], "a.b", "away"));
        assert!(imports(&["away/*.b"], "a.b", "away") && !imports(&["away/*.b"], "a.c", "away"));
        assert!(!imports(&["~/*"], "a.b", "home"));
        assert!(imports(&["*/*", "~away/*"], "a.b", "home") && !imports(&["*/*", "~away/*"], "a.b", "away"));
        assert!(!imports(&["./a.b"], "*.b", "home"), "more than what is named");
    }

    #[test]
    fn the_nearest_rule_holds() {
        let mut rules = Sidecars::default();
        for rule in [
            rule("default", "istio-system", &[], &["*/*"]),
            rule("for-all", "shop", &[], &["./*"]),
            rule("for-one", "shop", &[("app", "a")], &["./b"]),
        ] {
            rules = rules.put(rule);
        }
        let labels = |app: &str| Labels::from_iter([("app".to_owned(), app.to_owned())]);
        let effective = |namespace: &str, app: &str| {
            rules.effective(namespace, &labels(app), "istio-system").map(|rule| rule.order.name.to_string())
        };
        assert_eq!(effective("shop", "a").as_deref(), Some("for-one"));
        assert_eq!(effective("shop", "b").as_deref(), Some("for-all"));
        assert_eq!(effective("other", "a").as_deref(), Some("default"));
        let order = rules.named("istio-system", "default").unwrap().order.clone();
        rules = rules.remove(&order);
        assert!(rules.effective("other", &labels("a"), "istio-system").is_none());
    }
}
