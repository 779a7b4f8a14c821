//! VirtualServices, DestinationRules and Gateways, found by who may see them and in the order in which they count.

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_api::networking::{DestinationRule, Gateway, LoadBalancerSettings, VirtualService};
use mizzen_types::{Hostname, Labels, ObjectKey};
use rpds::RedBlackTreeMapSync;

use crate::visibility::Visibility;

/// Where an object stands when two conflict: the older first, then by name, then by namespace (reference: semantics 6).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Order {
    pub created: i64,
    pub name: Arc<str>,
    pub namespace: Arc<str>,
}

/// What a VirtualService is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attachment {
    /// All sidecars.
    Mesh,
    Gateway {
        namespace: Arc<str>,
        name: Arc<str>,
    },
}

impl Attachment {
    /// Reads an entry of `gateways` in a VirtualService of `namespace` (reference: semantics 3).
    pub fn read(entry: &str, namespace: &str) -> Self {
        let gateway = |namespace: &str, name: &str| Self::Gateway { namespace: namespace.into(), name: name.into() };
        if entry == "mesh" {
            return Self::Mesh;
        }
        if let Some((ns, name)) = entry.split_once('/') {
            return gateway(if ns == "." { namespace } else { ns }, name);
        }
        // The old form: NAME.NAMESPACE, perhaps with `.svc.DOMAIN`.
        match entry.split_once('.') {
            Some((name, rest)) => gateway(rest.split('.').next().unwrap_or(rest), name),
            None => gateway(namespace, entry),
        }
    }
}

#[derive(Debug, PartialEq)]
pub struct VirtualServiceRule {
    pub order: Order,
    /// As written, lower-cased; `Mesh::resolve` gives them their meaning.
    pub hosts: Vec<Hostname>,
    pub attachments: BTreeSet<Attachment>,
    pub visibility: Visibility,
    pub spec: Arc<VirtualService>,
}

impl VirtualServiceRule {
    pub(crate) fn new(order: Order, spec: Arc<VirtualService>, default_export: &[String]) -> Self {
        let mut attachments: BTreeSet<_> =
            spec.gateways.iter().map(|entry| Attachment::read(entry, &order.namespace)).collect();
        if attachments.is_empty() {
            attachments.insert(Attachment::Mesh);
        }
        Self {
            hosts: spec.hosts.iter().map(|host| Hostname::new(host)).collect(),
            attachments,
            visibility: Visibility::read(&spec.export_to, default_export, &order.namespace),
            order,
            spec,
        }
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new("VirtualService", &self.order.namespace, &self.order.name)
    }

    fn selects_clients(&self) -> bool {
        let http = self.spec.http.iter().flat_map(|http| &http.r#match).any(|m| !m.source_labels.is_empty());
        let tls = self.spec.tls.iter().flat_map(|tls| &tls.r#match).any(|m| !m.source_labels.is_empty());
        let tcp = self.spec.tcp.iter().flat_map(|tcp| &tcp.r#match).any(|m| !m.source_labels.is_empty());
        http || tls || tcp
    }

    /// Without hosts it only adds to others.
    pub fn is_delegate(&self) -> bool {
        self.hosts.is_empty()
    }
}

#[derive(Debug, PartialEq)]
pub struct GatewayRule {
    pub order: Order,
    pub spec: Arc<Gateway>,
}

#[derive(Debug, PartialEq)]
pub struct DestinationRuleEntry {
    pub order: Order,
    /// As written, short names expanded.
    pub host: Hostname,
    pub visibility: Visibility,
    pub spec: Arc<DestinationRule>,
}

impl DestinationRuleEntry {
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new("DestinationRule", &self.order.namespace, &self.order.name)
    }

    /// Whether any of its policies asks for hashes of requests.
    fn hashes(&self) -> bool {
        let subsets = self.spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        let mut policies = self.spec.traffic_policy.iter().chain(subsets);
        let asks = |lb: &LoadBalancerSettings| lb.consistent_hash.is_some();
        policies.any(|policy| {
            let of_ports = policy.port_level_settings.iter().filter_map(|settings| settings.load_balancer.as_ref());
            policy.load_balancer.iter().chain(of_ports).any(asks)
        })
    }

    fn client_selector(&self) -> Option<&Labels> {
        self.spec.workload_selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
    }
}

type Ordered<T> = RedBlackTreeMapSync<Order, Arc<T>>;

/// All VirtualServices, by what they are attached to.
#[derive(Debug, Clone, Default)]
pub(crate) struct VirtualServices {
    by_attachment: RedBlackTreeMapSync<Attachment, Ordered<VirtualServiceRule>>,
    by_name: RedBlackTreeMapSync<(Arc<str>, Arc<str>), Arc<VirtualServiceRule>>,
    client_selectors: u32,
}

impl VirtualServices {
    pub(crate) fn put(&self, rule: Arc<VirtualServiceRule>) -> Self {
        let name = (rule.order.namespace.clone(), rule.order.name.clone());
        let mut next = Self {
            by_name: self.by_name.insert(name, rule.clone()),
            client_selectors: self.client_selectors + u32::from(rule.selects_clients()),
            ..self.clone()
        };
        for attachment in &rule.attachments {
            let rules = next.by_attachment.get(attachment).cloned().unwrap_or_default();
            let rules = rules.insert(rule.order.clone(), rule.clone());
            next.by_attachment = next.by_attachment.insert(attachment.clone(), rules);
        }
        next
    }

    pub(crate) fn remove(&self, namespace: &Arc<str>, name: &Arc<str>) -> (Self, Option<Arc<VirtualServiceRule>>) {
        let key = (namespace.clone(), name.clone());
        let Some(rule) = self.by_name.get(&key).cloned() else { return (self.clone(), None) };
        let mut next = Self {
            by_name: self.by_name.remove(&key),
            client_selectors: self.client_selectors.saturating_sub(u32::from(rule.selects_clients())),
            ..self.clone()
        };
        for attachment in &rule.attachments {
            if let Some(rules) = next.by_attachment.get(attachment) {
                let rules = rules.remove(&rule.order);
                next.by_attachment = if rules.is_empty() {
                    next.by_attachment.remove(attachment)
                } else {
                    next.by_attachment.insert(attachment.clone(), rules)
                };
            }
        }
        (next, Some(rule))
    }

    /// Whether any rule asks for the labels of the calling workload.
    pub(crate) fn select_clients(&self) -> bool {
        self.client_selectors > 0
    }

    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<VirtualServiceRule>> {
        self.by_name.get(&(namespace.into(), name.into()))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<VirtualServiceRule>> {
        self.by_name.values()
    }

    /// Those that `namespace` sees: its private ones, then those shown to it by name, then public ones; within each
    /// the oldest first (reference: semantics 74).
    pub(crate) fn visible(&self, namespace: &str, attachment: &Attachment) -> Vec<Arc<VirtualServiceRule>> {
        let Some(rules) = self.by_attachment.get(attachment) else { return Vec::new() };
        let seen = rules.values().filter(|rule| !rule.is_delegate() && rule.visibility.shows_to(namespace));
        let mut visible: Vec<_> = seen.cloned().collect();
        visible.sort_by_key(|rule| {
            if *rule.order.namespace == *namespace && rule.visibility.is_private_to(namespace) {
                0
            } else if rule.visibility != Visibility::Public {
                1
            } else {
                2
            }
        });
        visible
    }
}

/// All DestinationRules by namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct DestinationRules {
    by_namespace: RedBlackTreeMapSync<Arc<str>, NamespaceRules>,
    client_selectors: u32,
    hashing: u32,
}

#[derive(Debug, Clone, Default)]
struct NamespaceRules {
    exact: RedBlackTreeMapSync<Hostname, Ordered<DestinationRuleEntry>>,
    wildcard: RedBlackTreeMapSync<Hostname, Ordered<DestinationRuleEntry>>,
}

impl DestinationRules {
    pub(crate) fn put(&self, entry: Arc<DestinationRuleEntry>) -> Self {
        let mut mine = self.by_namespace.get(&entry.order.namespace).cloned().unwrap_or_default();
        let map = if entry.host.is_wildcard() { &mut mine.wildcard } else { &mut mine.exact };
        let rules = map.get(&entry.host).cloned().unwrap_or_default().insert(entry.order.clone(), entry.clone());
        *map = map.insert(entry.host.clone(), rules);
        Self {
            client_selectors: self.client_selectors + u32::from(entry.client_selector().is_some()),
            hashing: self.hashing + u32::from(entry.hashes()),
            by_namespace: self.by_namespace.insert(entry.order.namespace.clone(), mine),
        }
    }

    pub(crate) fn remove(&self, entry: &DestinationRuleEntry) -> Self {
        let Some(mut mine) = self.by_namespace.get(&entry.order.namespace).cloned() else { return self.clone() };
        let map = if entry.host.is_wildcard() { &mut mine.wildcard } else { &mut mine.exact };
        if let Some(rules) = map.get(&entry.host) {
            let rules = rules.remove(&entry.order);
            *map = if rules.is_empty() { map.remove(&entry.host) } else { map.insert(entry.host.clone(), rules) };
        }
        let selecting = u32::from(entry.client_selector().is_some());
        Self {
            client_selectors: self.client_selectors.saturating_sub(selecting),
            hashing: self.hashing.saturating_sub(u32::from(entry.hashes())),
            by_namespace: self.by_namespace.insert(entry.order.namespace.clone(), mine),
        }
    }

    /// Whether any rule asks for the labels of the calling workload.
    pub(crate) fn select_clients(&self) -> bool {
        self.client_selectors > 0
    }

    /// Whether any rule asks for hashes of requests.
    pub(crate) fn hash(&self) -> bool {
        self.hashing > 0
    }

    /// Rules of `namespace` for one service: of its most specific host that has any, oldest first.
    pub(crate) fn level(
        &self,
        namespace: &str,
        hosts: &[Hostname],
        accept: &dyn Fn(&DestinationRuleEntry) -> bool,
    ) -> Vec<Arc<DestinationRuleEntry>> {
        let Some(rules) = self.by_namespace.get(namespace) else { return Vec::new() };
        let accepted = |rules: &Ordered<DestinationRuleEntry>| -> Vec<_> {
            rules.values().filter(|entry| accept(entry)).cloned().collect()
        };
        for host in hosts {
            let found = rules.exact.get(host).map(accepted).unwrap_or_default();
            if !found.is_empty() {
                return found;
            }
        }
        let Some(host) = hosts.first() else { return Vec::new() };
        let mut wildcards: Vec<_> = rules.wildcard.iter().filter(|(pattern, _)| host.is_subset_of(pattern)).collect();
        wildcards.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.as_str().len()));
        wildcards.into_iter().map(|(_, rules)| accepted(rules)).find(|found| !found.is_empty()).unwrap_or_default()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<DestinationRuleEntry>> {
        self.by_namespace
            .values()
            .flat_map(|rules| rules.exact.values().chain(rules.wildcard.values()))
            .flat_map(|rules| rules.values())
    }
}

/// What holds for calls of one service: one rule, or several of one host and namespace put together
/// (reference: semantics 107).
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationPolicy {
    /// The rules, oldest first; never empty.
    pub rules: Vec<Arc<DestinationRuleEntry>>,
}

impl DestinationPolicy {
    pub(crate) fn join(rules: Vec<Arc<DestinationRuleEntry>>, client: &Labels) -> Option<Self> {
        // A rule for this very client beats rules for everybody (reference: semantics 109).
        let (selecting, general): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| rule.client_selector().is_some());
        let mut fitting: Vec<_> =
            selecting.into_iter().filter(|rule| rule.client_selector().is_some_and(|s| s.selects(client))).collect();
        if fitting.is_empty() {
            fitting = general;
        }
        let first = fitting.first()?.visibility.clone();
        fitting.retain(|rule| rule.visibility == first);
        Some(Self { rules: fitting })
    }

    /// The first traffic policy that any of the rules has, and the rule it is from.
    pub fn traffic_policy(&self) -> Option<(&DestinationRuleEntry, &mizzen_api::networking::TrafficPolicy)> {
        self.rules.iter().find_map(|rule| Some((&**rule, rule.spec.traffic_policy.as_ref()?)))
    }

    /// All subsets; of two with one name the first counts.
    pub fn subsets(&self) -> Vec<(&DestinationRuleEntry, usize, &mizzen_api::networking::Subset)> {
        let mut seen = BTreeSet::new();
        let all = self
            .rules
            .iter()
            .flat_map(|rule| rule.spec.subsets.iter().enumerate().map(move |(index, subset)| (&**rule, index, subset)));
        all.filter(|(_, _, subset)| seen.insert(subset.name.as_str())).collect()
    }

    pub fn subset(&self, name: &str) -> Option<&mizzen_api::networking::Subset> {
        self.subsets().into_iter().map(|(_, _, subset)| subset).find(|subset| subset.name == name)
    }
}
