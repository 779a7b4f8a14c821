//! PeerAuthentication: what a workload accepts (reference: semantics 143 and 144).

use std::collections::BTreeMap;
use std::sync::Arc;

use mizzen_api::security::{MutualTlsMode, PeerAuthentication};
use mizzen_types::Labels;
use rpds::RedBlackTreeMapSync;

use crate::rules::Order;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MtlsMode {
    Disable,
    Permissive,
    Strict,
}

impl MtlsMode {
    fn explicit(mode: MutualTlsMode) -> Option<Self> {
        match mode {
            MutualTlsMode::Unset => None,
            MutualTlsMode::Disable => Some(Self::Disable),
            MutualTlsMode::Permissive => Some(Self::Permissive),
            MutualTlsMode::Strict => Some(Self::Strict),
        }
    }
}

/// What one workload accepts, on each of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerPolicy {
    pub mode: MtlsMode,
    /// Exceptions, by workload port.
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl PeerPolicy {
    pub fn on_port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

type PolicyMap = RedBlackTreeMapSync<Order, Arc<PeerAuthentication>>;

/// All PeerAuthentications by namespace, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerPolicies {
    namespaces: RedBlackTreeMapSync<Arc<str>, PolicyMap>,
}

impl PeerPolicies {
    pub(crate) fn put(&self, order: Order, policy: Arc<PeerAuthentication>) -> Self {
        let mine = self.namespaces.get(&order.namespace).cloned().unwrap_or_default();
        Self { namespaces: self.namespaces.insert(order.namespace.clone(), mine.insert(order, policy)) }
    }

    pub(crate) fn remove(&self, order: &Order) -> Self {
        match self.namespaces.get(&order.namespace) {
            Some(mine) => Self { namespaces: self.namespaces.insert(order.namespace.clone(), mine.remove(order)) },
            None => self.clone(),
        }
    }

    fn of(&self, namespace: &str) -> impl Iterator<Item = &PeerAuthentication> {
        self.namespaces.get(namespace).into_iter().flat_map(|policies| policies.values().map(AsRef::as_ref))
    }

    /// Workload over namespace over mesh; the oldest where several apply; in the end permissive.
    pub(crate) fn effective(&self, namespace: &str, labels: &Labels, root: &str) -> PeerPolicy {
        let whole = |policy: &&PeerAuthentication| selector(policy).is_none();
        let mode_of = |policy: &PeerAuthentication| policy.mtls.and_then(|mtls| MtlsMode::explicit(mtls.mode));
        let mesh = self.of(root).find(whole).and_then(mode_of);
        let own = if namespace == root { None } else { self.of(namespace).find(whole).and_then(mode_of) };
        let inherited = own.or(mesh).unwrap_or(MtlsMode::Permissive);
        let workload =
            self.of(namespace).find(|policy| selector(policy).is_some_and(|selector| selector.selects(labels)));
        let Some(workload) = workload else { return PeerPolicy { mode: inherited, ports: BTreeMap::new() } };
        let mode = mode_of(workload).unwrap_or(inherited);
        let port = |(number, mtls): (&String, &mizzen_api::security::MutualTls)| {
            Some((number.parse().ok()?, MtlsMode::explicit(mtls.mode).unwrap_or(mode)))
        };
        PeerPolicy { mode, ports: workload.port_level_mtls.iter().filter_map(port).collect() }
    }
}

fn selector(policy: &PeerAuthentication) -> Option<&Labels> {
    policy.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}
