//! What the API server says of the statuses of Istio's objects, kept for the one who writes them.
//!
//! The watches of configuration show every object with its status already; watching the same kinds again to learn it would cost
//! the API server and this process everything twice. Kept is the text of each, which is a small part of what it is parsed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::core::discovery::ApiResource;
use kube::runtime::watcher::Event;
use mizzen_types::ObjectKey;
use tokio::sync::Notify;

use super::watched::Watched;

/// The statuses of all objects that the API server has; clones are the same table.
#[derive(Debug, Clone, Default)]
pub struct Statuses(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    shown: HashMap<ObjectKey, ShownStatus>,
    /// Objects that the one who follows has not looked at; `None` while nobody follows.
    touched: Option<BTreeSet<ObjectKey>>,
}

/// One object's status.
#[derive(Debug, Clone)]
pub struct ShownStatus {
    /// How its kind is called by the API server.
    pub resource: Arc<ApiResource>,
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub version: Arc<str>,
    /// As JSON; `null` where there is none.
    pub status: Arc<str>,
}

impl Statuses {
    pub fn get(&self, key: &ObjectKey) -> Option<ShownStatus> {
        self.table().shown.get(key).cloned()
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.table().shown.keys().cloned().collect()
    }

    /// Follows the table: first all objects, then those that are different. One at a time does: who comes later goes on
    /// in its place.
    pub fn follow(&self) -> StatusFollower {
        let mut table = self.table();
        table.touched = Some(table.shown.keys().cloned().collect());
        self.0.changed.notify_one();
        StatusFollower(self.clone())
    }

    /// The part of one watch, from its begin.
    pub(super) fn of_kind(&self, resource: ApiResource) -> OfKind {
        OfKind { statuses: self.clone(), resource: Arc::new(resource), listing: None }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who follows a table.
#[derive(Debug)]
pub struct StatusFollower(Statuses);

impl StatusFollower {
    /// Waits until something is different, and says of which objects. May be dropped at any time.
    pub async fn touched(&self) -> BTreeSet<ObjectKey> {
        loop {
            if let Some(touched) = &mut self.0.table().touched
                && !touched.is_empty()
            {
                return std::mem::take(touched);
            }
            self.0.0.changed.notified().await;
        }
    }
}

impl Drop for StatusFollower {
    fn drop(&mut self) {
        self.0.table().touched = None;
    }
}

/// The objects of one kind, as its watch shows them.
#[derive(Debug)]
pub(super) struct OfKind {
    statuses: Statuses,
    resource: Arc<ApiResource>,
    /// What the list that is going on has named so far.
    listing: Option<HashSet<ObjectKey>>,
}

impl OfKind {
    pub(super) fn take(&mut self, event: &Event<Watched>, key: impl Fn(&Watched) -> ObjectKey) {
        match event {
            Event::Init => self.listing = Some(HashSet::new()),
            Event::InitApply(object) | Event::Apply(object) => {
                let key = key(object);
                if let Some(listed) = &mut self.listing {
                    listed.insert(key.clone());
                }
                self.put(key, object);
            }
            Event::Delete(object) => self.remove(&[key(object)]),
            Event::InitDone => {
                let Some(listed) = self.listing.take() else { return };
                let mine = |key: &&ObjectKey| *key.kind == *self.resource.kind && !listed.contains(*key);
                let gone: Vec<_> = self.statuses.table().shown.keys().filter(mine).cloned().collect();
                self.remove(&gone);
            }
        }
    }

    fn put(&self, key: ObjectKey, object: &Watched) {
        let status = object.document.part("status").and_then(|status| serde_json::to_string(&status).ok());
        let shown = ShownStatus {
            resource: self.resource.clone(),
            generation: object.metadata.generation.unwrap_or_default(),
            version: object.metadata.resource_version.as_deref().unwrap_or_default().into(),
            status: status.as_deref().unwrap_or("null").into(),
        };
        let mut table = self.statuses.table();
        table.touch(&key);
        table.shown.insert(key, shown);
        self.statuses.0.changed.notify_one();
    }

    fn remove(&self, keys: &[ObjectKey]) {
        let mut table = self.statuses.table();
        for key in keys {
            table.shown.remove(key);
            table.touch(key);
        }
        self.statuses.0.changed.notify_one();
    }
}

impl Table {
    fn touch(&mut self, key: &ObjectKey) {
        if let Some(touched) = &mut self.touched {
            touched.insert(key.clone());
        }
    }
}
