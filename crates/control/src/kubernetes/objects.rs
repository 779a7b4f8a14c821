//! Following objects of the API server: a watch that never ends, what it has shown so far, and what is to be done about it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use mizzen_types::with_causes;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};

use crate::engine::Shared;

/// Namespace and name.
pub(crate) type Name = (String, String);

/// All events of a watch, for ever. What goes wrong is logged, waited out and tried again.
pub(crate) fn follow<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Event<K>>
where
    K: Resource<DynamicType: Default> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    watched(watch(api, config), kind)
}

/// The events of a watch that a failure does not end.
pub(crate) fn watched<K: Clone>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    kind: String,
) -> impl Stream<Item = Event<K>> {
    events.default_backoff().filter_map(move |event| match event {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::warn!(kind, %error, "objects of this kind cannot be watched at the moment");
            None
        }
    })
}

/// What a watch has shown.
#[derive(Debug)]
pub(crate) struct Shown<V> {
    objects: BTreeMap<Name, V>,
    /// A list that is being read: what is not in it is gone.
    listing: Option<BTreeMap<Name, V>>,
    complete: bool,
}

impl<V> Default for Shown<V> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listing: None, complete: false }
    }
}

impl<V> Shown<V> {
    /// Takes an event in; the names of objects that may be different now.
    pub(crate) fn take<K: ResourceExt>(&mut self, event: Event<K>, read: impl Fn(K) -> V) -> Vec<Name> {
        let name = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Apply(object) => {
                let name = name(&object);
                self.objects.insert(name.clone(), read(object));
                vec![name]
            }
            Event::Delete(object) => {
                let name = name(&object);
                self.objects.remove(&name);
                vec![name]
            }
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listing.get_or_insert_default().insert(name(&object), read(object));
                Vec::new()
            }
            Event::InitDone => {
                self.complete = true;
                let new = self.listing.take().unwrap_or_default();
                let old = std::mem::replace(&mut self.objects, new);
                let gone = old.into_keys().filter(|name| !self.objects.contains_key(name));
                gone.collect::<Vec<_>>().into_iter().chain(self.objects.keys().cloned()).collect()
            }
        }
    }

    pub(crate) fn get(&self, name: &Name) -> Option<&V> {
        self.objects.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Name, &V)> {
        self.objects.iter()
    }

    /// Whether the first list has been read.
    pub(crate) const fn is_complete(&self) -> bool {
        self.complete
    }
}

/// Things to be done, each once, at a limited rate; what fails is done again later.
#[derive(Debug)]
pub(crate) struct Work<N> {
    due: BTreeMap<N, Instant>,
    /// How often a thing has failed in a row, and when it may be tried again.
    failures: BTreeMap<N, (u32, Instant)>,
    /// Between two of them.
    pace: Duration,
    next: Option<Instant>,
}

/// The first wait after a failure; it doubles …
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// … up to this.
const LAST_RETRY: Duration = Duration::from_secs(60);

impl<N: Ord + Clone> Work<N> {
    pub(crate) const fn new(pace: Duration) -> Self {
        Self { due: BTreeMap::new(), failures: BTreeMap::new(), pace, next: None }
    }

    /// Does a thing as soon as may be.
    pub(crate) fn add(&mut self, thing: N, now: Instant) {
        self.add_later(thing, now);
    }

    /// Does a thing at this time, if nothing asks for it sooner. What failed has to wait all the same.
    pub(crate) fn add_later(&mut self, thing: N, at: Instant) {
        let at = self.failures.get(&thing).map_or(at, |(_, until)| at.max(*until));
        self.due.entry(thing).and_modify(|due| *due = at.min(*due)).or_insert(at);
    }

    /// When something may be done next.
    pub(crate) fn wake(&self) -> Option<Instant> {
        let first = self.due.values().min().copied()?;
        Some(self.next.map_or(first, |next| first.max(next)))
    }

    /// Takes what is to be done now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<N> {
        if self.wake()? > now {
            return None;
        }
        let thing = self.due.iter().min_by_key(|(_, at)| **at)?.0.clone();
        self.due.remove(&thing);
        Some(thing)
    }

    /// Says that something was written just now.
    pub(crate) fn wrote(&mut self, thing: &N, now: Instant) {
        self.next = Some(now + self.pace);
        self.failures.remove(thing);
    }

    /// Does it again, later.
    pub(crate) fn failed(&mut self, thing: N, now: Instant) {
        self.next = Some(now + self.pace);
        let failures = self.failures.get(&thing).map_or(0, |(failures, _)| *failures);
        let until = now + FIRST_RETRY.saturating_mul(1 << failures.min(8)).min(LAST_RETRY);
        self.failures.insert(thing.clone(), (failures.saturating_add(1), until));
        self.due.insert(thing, until);
    }
}

/// Sleeps until then; for ever when there is no such time.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How long one request of a writer may take.
const REQUEST: Duration = Duration::from_secs(10);

/// A request with an end.
pub(crate) async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, WriteError> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(WriteError::Timeout),
    }
}

/// Something without which the control plane cannot start is waited for: the logs and `/ready` say what and why.
pub(crate) struct Patience<'s> {
    shared: &'s Shared,
    what: String,
    pause: Duration,
    said: Option<(String, Instant)>,
}

/// The same reason is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(10);

impl<'s> Patience<'s> {
    /// `what`: what cannot be done yet, as in "the ConfigMap istio-system/istio cannot be read".
    pub(crate) fn new(shared: &'s Shared, what: String) -> Self {
        Self { shared, what, pause: FIRST_PAUSE, said: None }
    }

    /// It has failed; waits before it is tried again, each time longer.
    pub(crate) async fn wait(&mut self, error: &(dyn std::fmt::Display + Sync)) {
        let why = format!("waiting for the API server: {}: {error}", self.what);
        let now = Instant::now();
        if self.said.as_ref().is_none_or(|(before, at)| *before != why || now >= *at + SAY_AGAIN) {
            tracing::error!("{why}; trying again");
            self.said = Some((why.clone(), now));
        }
        self.shared.waiting.store(Arc::new(why));
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }

    /// It has succeeded.
    pub(crate) fn over(self) {
        if self.said.is_some() {
            tracing::info!("the API server answers");
        }
    }
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the API server did not answer within {} s", REQUEST.as_secs())]
    Timeout,
    #[error("{0}")]
    Api(String, u16),
    #[error("{}", with_causes(.0))]
    Other(kube::Error),
}

impl WriteError {
    /// Whether the object or its namespace is not there, or is going away.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Api(_, 404) => true,
            Self::Api(message, 403) => message.contains("is being terminated"),
            _ => false,
        }
    }
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Api(status.message.clone(), status.code),
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests;
