//! Resources that several proxies get byte for byte: made once per state of what they depend on, then shared.
//!
//! The key of an entry is exactly what its translator is given besides the mesh: the proxies' common scope and a name.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use mizzen_translate::Scope;
use mizzen_types::Hostname;
use mizzen_xds::Resource;

use crate::metrics::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// All outbound clusters.
    Clusters(Arc<Scope>),
    /// Those of one host.
    ClustersOf(Arc<Scope>, Hostname),
    Routes(Arc<Scope>, Arc<str>),
    Endpoints(Arc<Scope>, Arc<str>),
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
    hasher: RandomState,
    metrics: Arc<Metrics>,
}

impl Cache {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), metrics }
    }

    /// The resources as they are at `revision`, when nothing that they depend on changed after `since`. Made outside of
    /// the lock; of two that make the same at once, both results are equal and one is kept.
    pub(crate) fn get(&self, key: Key, since: u64, revision: u64, make: impl FnOnce() -> Vec<Arc<Resource>>) -> Made {
        let shard = &self.shards[self.hasher.hash_one(&key) as usize % SHARDS];
        let old = {
            let mut entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
            entries.get_mut(&key).map(|entry| {
                entry.used = true;
                (entry.revision, entry.made.clone())
            })
        };
        let usable = old.as_ref().is_some_and(|(made_at, _)| since <= *made_at && *made_at <= revision);
        self.metrics.cache(usable);
        if let Some((_, made)) = old.as_ref().filter(|_| usable) {
            return made.clone();
        }
        let mut resources = make();
        if let Some((_, before)) = &old {
            share(&mut resources, before);
        }
        let made: Made = resources.into();
        // A stream that lags behind must not replace what is newer.
        if old.is_none_or(|(made_at, _)| made_at <= revision) {
            let entry = Entry { revision, made: made.clone(), used: true };
            shard.lock().unwrap_or_else(PoisonError::into_inner).insert(key, entry);
        }
        made
    }

    /// Drops what nobody asked for since the last sweep.
    pub(crate) fn sweep(&self) {
        for shard in &self.shards {
            let mut entries = shard.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|_, entry| std::mem::replace(&mut entry.used, false));
        }
    }
}

/// Keeps the old copies of resources that came out the same, so that there is one of each in memory.
fn share(resources: &mut [Arc<Resource>], before: &[Arc<Resource>]) {
    let before: HashMap<(&Arc<str>, u64), &Arc<Resource>> =
        before.iter().map(|resource| ((&resource.name, resource.version), resource)).collect();
    for resource in resources {
        if let Some(old) = before.get(&(&resource.name, resource.version)) {
            *resource = Arc::clone(old);
        }
    }
}
