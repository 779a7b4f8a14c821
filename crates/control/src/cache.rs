//! Resources that several proxies get byte for byte: made once per state of what they depend on, then shared.
//!
//! The key of an entry is exactly what its translator is given besides the mesh. What the proxies of a scope are sent is found
//! by their scope and a name; clusters and endpoints lie behind that a second time under what they are made from, which is
//! the same for most scopes, so that they are made once. And whoever it was made for, of equal resources there is one in
//! memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use mizzen_mesh::{DestinationPolicy, Order, ServiceKey};
use mizzen_translate::{Called, Client, Memo, RoutesOf, Scope};
use mizzen_types::Hostname;
use mizzen_xds::Resource;

use crate::metrics::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// All outbound clusters.
    Clusters(OneScope),
    /// Those of one host.
    ClustersOf(OneScope, Hostname),
    Routes(OneScope, Arc<str>),
    /// The table of names.
    Names(OneScope),
    Endpoints(OneScope, Arc<str>),
    /// Clusters of a service, for all scopes where the same rules hold for it.
    ClustersUnder(Arc<Client>, Arc<Terms>),
    /// Endpoints of one cluster, likewise.
    EndpointsUnder(Arc<Client>, Arc<Terms>, Arc<str>),
}

/// A scope that all who have it share: as part of a key it is a pointer.
#[derive(Debug, Clone)]
pub(crate) struct OneScope(Arc<Scope>);

impl Deref for OneScope {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.0
    }
}

impl PartialEq for OneScope {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for OneScope {}

impl Hash for OneScope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// A service and the DestinationRules that hold for calls of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    service: ServiceKey,
    rules: Vec<Order>,
}

impl Terms {
    pub(crate) fn new(service: &ServiceKey, policy: Option<&DestinationPolicy>) -> Arc<Self> {
        let rules = policy.iter().flat_map(|policy| &policy.rules).map(|rule| rule.order.clone()).collect();
        Arc::new(Self { service: service.clone(), rules })
    }

    pub(crate) fn of(called: &Called) -> Arc<Self> {
        Self::new(&called.service.key, called.policy.as_ref())
    }
}

/// The resources of one key; empty when there is none.
pub(crate) type Made = Arc<[Arc<Resource>]>;

#[derive(Debug)]
struct Entry {
    /// Of the world it was made from.
    revision: u64,
    made: Made,
    /// Whether it was used since the last sweep.
    used: bool,
}

const SHARDS: usize = 16;

#[derive(Debug)]
pub(crate) struct Cache {
    shards: [Mutex<HashMap<Key, Entry>>; SHARDS],
    /// All resources that somebody holds, by version.
    held: [Mutex<HashMap<u64, Weak<Resource>>>; SHARDS],
    /// Parts of route tables, and whether they were used since the last sweep.
    routes: [Mutex<HashMap<RoutesOf, (Bytes, bool)>>; SHARDS],
    scopes: Mutex<HashMap<Scope, Weak<Scope>>>,
    hasher: RandomState,
    metrics: Arc<Metrics>,
}

impl Cache {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            shards: Default::default(),
            held: Default::default(),
            routes: Default::default(),
            scopes: Mutex::default(),
            hasher: RandomState::new(),
            metrics,
        }
    }

    /// A scope as keys have it.
    pub(crate) fn scope(&self, scope: Scope) -> OneScope {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = scopes.get(&scope).and_then(Weak::upgrade) {
            return OneScope(known);
        }
        let one = Arc::new(scope.clone());
        scopes.insert(scope, Arc::downgrade(&one));
        OneScope(one)
    }

    /// The resources as they are at `revision`, when nothing that they depend on changed after `since`. Made outside of
    /// the lock; of two that make the same at once, both results are equal and one is kept.
    pub(crate) fn get(&self, key: Key, since: u64, revision: u64, make: impl FnOnce() -> Vec<Arc<Resource>>) -> Made {
        self.get_through(key, since, revision, || self.make(make))
    }

    /// Makes resources that are not found by a key.
    pub(crate) fn make(&self, make: impl FnOnce() -> Vec<Arc<Resource>>) -> Made {
        self.metrics.cache(false);
        make().into_iter().map(|resource| self.one_of_each(resource)).collect()
    }

    /// The same where what is missing is taken from elsewhere in the cache.
    pub(crate) fn get_through(&self, key: Key, since: u64, revision: u64, find: impl FnOnce() -> Made) -> Made {
        let shard = &self.shards[self.hasher.hash_one(&key) as usize % SHARDS];
        let old = {
            let mut entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
            entries.get_mut(&key).map(|entry| {
                entry.used = true;
                (entry.revision, entry.made.clone())
            })
        };
        let usable = |(made_at, _): &(u64, Made)| since <= *made_at && *made_at <= revision;
        if let Some((_, made)) = old.as_ref().filter(|old| usable(old)) {
            self.metrics.cache(true);
            return made.clone();
        }
        let made = find();
        // A stream that lags behind must not replace what is newer.
        if old.is_none_or(|(made_at, _)| made_at <= revision) {
            let entry = Entry { revision, made: made.clone(), used: true };
            shard.lock().unwrap_or_else(PoisonError::into_inner).insert(key, entry);
        }
        made
    }

    /// The copy of a resource that is there already, if one is.
    fn one_of_each(&self, resource: Arc<Resource>) -> Arc<Resource> {
        let mut held = self.held[resource.version as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let known = held.get(&resource.version).and_then(Weak::upgrade);
        // Versions are hashes: two resources may have the same.
        match known.filter(|known| known.name == resource.name && known.body == resource.body) {
            Some(known) => known,
            None => {
                held.insert(resource.version, Arc::downgrade(&resource));
                resource
            }
        }
    }

    /// Drops what nobody asked for since the last sweep.
    pub(crate) fn sweep(&self) {
        for shard in &self.shards {
            let mut entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|_, entry| std::mem::replace(&mut entry.used, false));
            entries.shrink_to_fit();
        }
        for shard in &self.routes {
            let mut routes = shard.lock().unwrap_or_else(PoisonError::into_inner);
            routes.retain(|_, (_, used)| std::mem::replace(used, false));
            routes.shrink_to_fit();
        }
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.retain(|_, scope| scope.strong_count() > 0);
        drop(scopes);
        for shard in &self.held {
            let mut held = shard.lock().unwrap_or_else(PoisonError::into_inner);
            held.retain(|_, resource| resource.strong_count() > 0);
            held.shrink_to_fit();
        }
    }
}

impl Memo for Cache {
    fn routes(&self, of: RoutesOf, make: &mut dyn FnMut() -> Bytes) -> Bytes {
        let shard = &self.routes[self.hasher.hash_one(&of) as usize % SHARDS];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((routes, used)) = lock().get_mut(&of) {
            *used = true;
            return routes.clone();
        }
        let routes = make();
        lock().insert(of, (routes.clone(), true));
        routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(cache: &Cache, namespace: &str) -> OneScope {
        let mesh = mizzen_mesh::Mesh::empty();
        let node = format!("sidecar~10.0.0.1~a.{namespace}~{namespace}.svc.cluster.local");
        let view = mizzen_translate::ProxyView::new(&node, &serde_json::json!({}), &mesh).unwrap();
        cache.scope(view.scope(&mesh))
    }

    #[test]
    fn what_comes_out_the_same_for_two_scopes_is_there_once() {
        let cache = Cache::new(Arc::default());
        let get = |namespace: &str, body: &'static str, revision| {
            let key = Key::Clusters(scope(&cache, namespace));
            cache.get(key, revision, revision, || vec![Arc::new(Resource::new("c", body))])
        };
        assert_eq!(scope(&cache, "one"), scope(&cache, "one"));
        assert_ne!(scope(&cache, "one"), scope(&cache, "two"));
        let (one, two, other) = (get("one", "same", 1), get("two", "same", 1), get("three", "other", 1));
        assert!(Arc::ptr_eq(&one[0], &two[0]) && !Arc::ptr_eq(&one[0], &other[0]));
        // Also when it is made anew, as long as anybody holds it.
        assert!(Arc::ptr_eq(&one[0], &get("one", "same", 2)[0]));
        let held = || cache.held.iter().map(|shard| shard.lock().unwrap().len()).sum::<usize>();
        assert_eq!(held(), 2);
        drop((one, two, other));
        cache.sweep();
        assert_eq!(held(), 2, "the cache has just been asked for both");
        cache.sweep();
        cache.sweep();
        assert_eq!(held(), 0);
    }
}
