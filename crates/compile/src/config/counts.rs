//! How many ask for a name.

use std::borrow::Borrow;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Counts<K> {
    counts: BTreeMap<K, usize>,
    /// The set of names changed since it was last asked.
    changed: bool,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), changed: false }
    }
}

impl<K: Ord + Clone> Counts<K> {
    pub(super) fn add(&mut self, names: &[K]) {
        for name in names {
            let count = self.counts.entry(name.clone()).or_insert(0);
            *count += 1;
            self.changed |= *count == 1;
        }
    }

    pub(super) fn remove(&mut self, names: &[K]) {
        for name in names {
            if let Some(count) = self.counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(name);
                    self.changed = true;
                }
            }
        }
    }

    pub(super) fn has<Q: Ord + ?Sized>(&self, name: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.counts.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &K> {
        self.counts.keys()
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}
