//! [`Pool`]: equal values kept once. An endpoint is a member of its service's cluster and of one for each subset.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// The pool is looked through for values that nobody holds any more when it has grown to this, and then to twice of
/// what is left.
const LEAST: usize = 64;

#[derive(Debug)]
pub(crate) struct Pool<T> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: LEAST }
    }
}

impl<T: Hash + Eq> Pool<T> {
    /// The one that equals `value`.
    pub(crate) fn share(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (self.values.len() * 2).max(LEAST);
        }
        self.values.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_those_that_nobody_holds_go() {
        let mut pool = Pool::default();
        let first = pool.share(Arc::new("a".to_owned()));
        assert!(Arc::ptr_eq(&first, &pool.share(Arc::new("a".to_owned()))));
        for number in 0..10 * LEAST {
            pool.share(Arc::new(number.to_string()));
        }
        assert!(pool.values.len() <= LEAST);
        assert!(Arc::ptr_eq(&first, &pool.share(Arc::new("a".to_owned()))));
    }
}
