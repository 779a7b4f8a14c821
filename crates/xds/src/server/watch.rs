//! What one stream asked for, was sent and answered, for one resource type.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::Resource;

/// A set of resource names, or all that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    All,
    Some(BTreeSet<Arc<str>>),
}

impl Default for Names {
    fn default() -> Self {
        Self::none()
    }
}

impl Names {
    pub const fn none() -> Self {
        Self::Some(BTreeSet::new())
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Some(names) if names.is_empty())
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(name),
        }
    }

    pub fn insert(&mut self, name: Arc<str>) {
        if let Self::Some(names) = self {
            names.insert(name);
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::All, _) => {}
            (this, Self::All) => *this = Self::All,
            (Self::Some(names), Self::Some(more)) if names.is_empty() => *names = more,
            (Self::Some(names), Self::Some(more)) => names.extend(more),
        }
    }

    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Self::Some(names) = self {
            names.remove(name);
        }
    }
}

impl<N: Into<Arc<str>>> FromIterator<N> for Names {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        Self::Some(names.into_iter().map(Into::into).collect())
    }
}

/// A resource that the client holds, as far as is known from what was sent or what it told at connect; found by its
/// name. One pointer, since there are as many of these as there are streams and resources.
#[derive(Debug, Clone)]
pub(crate) struct Known(Arc<Resource>);

impl Known {
    /// Longer bodies are not kept from being freed.
    const SMALL: usize = 8 << 10;

    /// The client has been sent this. `whole`: answers must repeat it, as those for clusters and listeners in
    /// state-of-the-world mode.
    pub(crate) fn sent(resource: &Arc<Resource>, whole: bool) -> Self {
        if whole || resource.body.len() <= Self::SMALL {
            Self(resource.clone())
        } else {
            Self::told(resource.name.clone(), resource.version)
        }
    }

    /// The client says that it has this.
    pub(crate) fn told(name: Arc<str>, version: u64) -> Self {
        Self(Arc::new(Resource { name, version, body: Bytes::new() }))
    }

    /// Whether the name is the one that the resource has anyway.
    pub(crate) fn shares(&self, resource: &Resource) -> bool {
        Arc::ptr_eq(&self.0.name, &resource.name)
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    pub(crate) fn version(&self) -> u64 {
        self.0.version
    }

    /// What was sent, where it was kept whole.
    pub(crate) fn resource(&self) -> &Arc<Resource> {
        &self.0
    }
}

impl Borrow<str> for Known {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As the name is looked up.
        str::hash(&self.0.name, state);
    }
}

/// A response without an answer yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) nonce: u64,
    pub(crate) since: Instant,
    pub(crate) names: Vec<Arc<str>>,
    /// Whether it brought clusters that the client did not have.
    pub(crate) adds: bool,
    /// The step in which it was made, when it was made from all that was dirty.
    pub(crate) covers: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Whether the client has asked for this type at all.
    pub(crate) subscribed: bool,
    pub(crate) wildcard: bool,
    pub(crate) names: HashSet<Arc<str>>,
    pub(crate) known: HashSet<Known>,
    /// Asked for by the client: answered without waiting for other types.
    pub(crate) asked: Names,
    /// May have changed: looked at when it is this type's turn.
    pub(crate) dirty: Names,
    /// An answer is due even if it says nothing new.
    pub(crate) respond: bool,
    pub(crate) in_flight: Option<InFlight>,
    /// Zero before the first response.
    pub(crate) last_nonce: u64,
    /// Resources of which the newest version was refused: the client still works with an older one.
    pub(crate) refused: HashSet<Arc<str>>,
    /// The last response was not answered in time.
    pub(crate) lost: bool,
    /// The client has everything as it was in this step of the stream.
    pub(crate) clean_at: u64,
}

impl Watch {
    pub(crate) fn watches(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether the client works with the state of this step, or a later one.
    pub(crate) fn has_reached(&self, step: u64) -> bool {
        !self.subscribed || (self.refused.is_empty() && (self.is_idle() || self.clean_at >= step))
    }

    /// Whether nothing is under way or to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.dirty.is_empty() && self.in_flight.is_none()
    }

    /// Names are kept as the resources have them, for there are as many as there are streams and resources.
    pub(crate) fn share_name(&mut self, name: &Arc<str>) {
        if self.names.get(name).is_some_and(|own| !Arc::ptr_eq(own, name)) {
            self.names.replace(name.clone());
        }
    }

    /// Makes sure that this resource is sent, whatever the client is thought to hold.
    pub(crate) fn force(&mut self, name: Arc<str>) {
        self.known.remove(&*name);
        self.asked.insert(name);
    }

    pub(crate) fn forget(&mut self, name: &str) {
        self.known.remove(name);
        self.refused.remove(name);
        self.asked.remove(name);
        self.dirty.remove(name);
    }
}
