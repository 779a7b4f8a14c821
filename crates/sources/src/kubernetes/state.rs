//! What the API server says, put together: the pure half of the watches.
//!
//! Nothing is told before every kind has been listed once. From then on a kind that is listed anew is compared with what is
//! known: an object that is no longer there is deleted when the list has ended, and not before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mizzen_config::{Change, Object, Parsed};
use mizzen_types::{Finding, ObjectKey};

use crate::state::{Batch, File, merged};

/// What one watch tells.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// A list begins.
    Begin,
    /// The object is there and says this.
    Object(ObjectKey, Box<Parsed>),
    Gone(ObjectKey),
    /// The list has ended: what it did not name is gone.
    End,
    /// The API server does not have the kind, or does not let it be read.
    Absent,
}

/// So often a kind must be found absent before what is known of it is given up: an API server that is starting may
/// not know its own definitions yet.
const ABSENT_TIMES: u32 = 3;

/// Everything that was told.
#[derive(Debug)]
pub(crate) struct State {
    kinds: Vec<Kind>,
    documents: HashMap<ObjectKey, File>,
    /// Whether all kinds have been listed once.
    complete: bool,
    changes: Vec<Change>,
    moved: Vec<Arc<Object>>,
    findings_changed: bool,
}

#[derive(Debug)]
struct Kind {
    name: &'static str,
    known: bool,
    /// What the list that is going on has named so far.
    listing: Option<HashSet<ObjectKey>>,
    absent: u32,
}

impl State {
    pub(crate) fn new(kinds: impl IntoIterator<Item = &'static str>) -> Self {
        let kind = |name| Kind { name, known: false, listing: None, absent: 0 };
        Self {
            kinds: kinds.into_iter().map(kind).collect(),
            documents: HashMap::new(),
            complete: false,
            changes: Vec::new(),
            moved: Vec::new(),
            // Nobody knows them yet.
            findings_changed: true,
        }
    }

    /// Takes what the watch of one kind tells.
    pub(crate) fn take(&mut self, kind: usize, told: Told) {
        let Some(state) = self.kinds.get_mut(kind) else { return };
        if !matches!(told, Told::Absent) {
            state.absent = 0;
        }
        match told {
            Told::Begin => state.listing = Some(HashSet::new()),
            Told::Object(key, parsed) => {
                if let Some(listed) = &mut state.listing {
                    listed.insert(key.clone());
                }
                self.put(key, *parsed);
            }
            Told::Gone(key) => self.remove(&key),
            Told::End => {
                state.known = true;
                let listed = state.listing.take().unwrap_or_default();
                self.remove_kind(kind, &listed);
            }
            Told::Absent => {
                state.absent = state.absent.saturating_add(1);
                state.listing = None;
                let (first, sure) = (!std::mem::replace(&mut state.known, true), state.absent == ABSENT_TIMES);
                if first || sure {
                    self.remove_kind(kind, &HashSet::new());
                }
            }
        }
        self.complete = self.complete || self.kinds.iter().all(|kind| kind.known);
    }

    /// What became different since the last time; `None` while the first lists are going on, and when nothing did.
    pub(crate) fn batch(&mut self) -> Option<Batch> {
        let nothing = self.changes.is_empty() && self.moved.is_empty() && !self.findings_changed;
        if !self.complete || nothing {
            return None;
        }
        Some(self.step())
    }

    /// The first batch: everything, also when there is nothing at all.
    pub(crate) fn first(&mut self) -> Option<Batch> {
        self.complete.then(|| self.step())
    }

    /// The kinds that have not been listed yet.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        self.kinds.iter().filter(|kind| !kind.known).map(|kind| kind.name).collect()
    }

    fn step(&mut self) -> Batch {
        let findings = std::mem::take(&mut self.findings_changed).then(|| {
            let mut documents: Vec<_> =
                self.documents.iter().filter(|(_, document)| !document.findings.is_empty()).collect();
            documents.sort_by_key(|(key, _)| *key);
            documents.into_iter().flat_map(|(_, document)| document.findings.iter().cloned()).collect::<Vec<Finding>>()
        });
        let changes = std::mem::take(&mut self.changes);
        Batch { changes, moved: std::mem::take(&mut self.moved), findings }
    }

    fn put(&mut self, key: ObjectKey, parsed: Parsed) {
        let before = self.documents.remove(&key).unwrap_or_default();
        let old: Vec<Arc<Object>> = before.objects.clone();
        let findings_before = before.findings.clone();
        let hint = "correct the error, or delete the object";
        let now = merged(before, parsed, hint);
        for object in &now.objects {
            match old.iter().find(|old| old.key == object.key) {
                Some(old) if Arc::ptr_eq(old, object) => {}
                Some(old) if old.same_content(object) => {
                    if old.meta.version != object.meta.version {
                        self.moved.push(object.clone());
                    }
                }
                _ => self.changes.push(Change::Put(object.clone())),
            }
        }
        let gone = old.iter().filter(|old| now.objects.iter().all(|object| object.key != old.key));
        self.changes.extend(gone.map(|object| Change::Delete(object.key.clone())));
        self.findings_changed |= findings_before != now.findings;
        self.documents.insert(key, now);
    }

    fn remove(&mut self, key: &ObjectKey) {
        let Some(document) = self.documents.remove(key) else { return };
        self.findings_changed |= !document.findings.is_empty();
        self.changes.extend(document.objects.iter().map(|object| Change::Delete(object.key.clone())));
    }

    /// Removes all objects of a kind but those listed.
    fn remove_kind(&mut self, kind: usize, listed: &HashSet<ObjectKey>) {
        let Some(name) = self.kinds.get(kind).map(|kind| kind.name) else { return };
        let of_kind = self.documents.keys().filter(|key| &*key.kind == name && !listed.contains(*key));
        let mut gone: Vec<ObjectKey> = of_kind.cloned().collect();
        gone.sort();
        for key in gone {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
