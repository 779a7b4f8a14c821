//! The protocol of one served stream: subscriptions, what to send when, ACK and NACK. Pure: time is an argument, and
//! what resources exist is asked of a [`Content`].
//!
//! Make-before-break. One change usually touches several types; sent in any order, requests would for a moment be
//! routed to clusters that are not there. So a stream goes in steps, each waiting for the client's answer:
//!
//! 1. clusters are added and changed (none removed yet), with their endpoints;
//! 2. once new clusters are acknowledged and their endpoints too (they are warm), listeners and routes;
//! 3. once these are acknowledged, nothing points at the old clusters any more: they are removed.
//!
//! A client that does not answer, or refuses, delays only itself: step 2 waits a bounded time, step 3 keeps the old
//! clusters as long as a refusal keeps old routes in force. What the client itself asks for is answered at once, and
//! endpoints never wait for routes.
//!
//! Per type at most one response is unanswered; changes in the meantime merge into the next. In delta mode a long response
//! goes out in parts ([`PART`]), each answered before the next; steps wait for all of them.

mod request;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::watch::Names;
use super::watch::{InFlight, Known, Watch};
use crate::wire::endpoint_name;
use crate::{Mode, Resource, ResourceType};

/// How long listeners and routes wait for new clusters to become warm.
pub const WARM_TIMEOUT: Duration = Duration::from_secs(5);
/// After this time without an answer a response counts as lost, and the next may go out.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A delta response is not made longer than this by a further resource; what is left follows when it is answered. So
/// neither end needs memory for everything at once, and clients that limit messages (gRPC's usual limit is 4 MiB) can
/// read any mesh.
pub const PART: usize = 1 << 20;
/// Most names of one type that one stream may ask for.
pub const MAX_NAMES: usize = 100_000;

/// What is asked of a [`Content`].
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    All,
    Names(&'a [Arc<str>]),
}

/// The resources of one client as they should be now.
pub trait Content {
    /// Those that exist among the wanted; a name without a resource is left out.
    fn resources(&mut self, kind: ResourceType, wanted: Wanted<'_>) -> Vec<Arc<Resource>>;
}

/// These resources may have changed, appeared or gone.
#[derive(Debug)]
pub struct Mark {
    pub kind: ResourceType,
    pub touched: Touched,
}

/// Which resources of a type.
pub enum Touched {
    All,
    Names(BTreeSet<Arc<str>>),
    /// Those names among the subscribed that it holds for. For types asked for by name; with a wildcard it means all.
    Matching(Box<dyn Fn(&str) -> bool + Send>),
}

impl fmt::Debug for Touched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Names(names) => f.debug_tuple("Names").field(names).finish(),
            Self::Matching(_) => f.write_str("Matching"),
        }
    }
}

/// One message to the client.
#[derive(Debug, Clone)]
pub struct Response {
    pub mode: Mode,
    pub kind: ResourceType,
    pub nonce: u64,
    /// Of this set of resources.
    pub version: u64,
    pub resources: Vec<Arc<Resource>>,
    /// Delta only.
    pub removed: Vec<Arc<str>>,
}

/// What happened on a stream, for status and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    Subscribed {
        kind: ResourceType,
        wildcard: bool,
        names: usize,
    },
    Sent {
        kind: ResourceType,
        nonce: u64,
        version: u64,
        resources: usize,
        removed: usize,
        bytes: usize,
    },
    Acked {
        kind: ResourceType,
        nonce: u64,
        took: Duration,
    },
    /// The message is the client's own.
    Refused {
        kind: ResourceType,
        nonce: u64,
        message: String,
    },
    /// An answer to a response that is not the latest; ignored.
    Stale {
        kind: ResourceType,
    },
    /// No answer within [`ANSWER_TIMEOUT`].
    Unanswered {
        kind: ResourceType,
        nonce: u64,
    },
    UnknownType {
        type_url: String,
    },
    /// Nothing is under way any more: the client has answered all that was made from the newest state. `complete`: and it
    /// works with all of that.
    Settled {
        complete: bool,
    },
}

/// A request that cannot be served; ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("more than {MAX_NAMES} {0} names asked for")]
    TooManyNames(ResourceType),
}

/// The state of one stream.
#[derive(Debug)]
pub struct Stream {
    mode: Mode,
    /// Bytes of resources in one delta response, unless one resource alone is longer.
    part: usize,
    watches: [Watch; ResourceType::ALL.len()],
    next_nonce: u64,
    /// New clusters (by the name under which they ask for endpoints) that have no acknowledged endpoints yet.
    warming: HashSet<Arc<str>>,
    warm_by: Option<Instant>,
    /// Counts the calls of [`Self::advance`].
    step: u64,
    /// Clusters that are gone since a step, but stay with the client until its routes have reached that step.
    held: BTreeMap<Arc<str>, u64>,
    /// A client that came back with clusters has old routes too: until then it is given time to ask for them.
    returned_until: Option<Instant>,
    /// Something came since [`Observed::Settled`] was noted last.
    unsettled: bool,
    observed: Vec<Observed>,
}

impl Stream {
    pub fn new(mode: Mode) -> Self {
        Self::with_parts(mode, PART)
    }

    /// With another length of the parts of a delta response.
    pub fn with_parts(mode: Mode, part: usize) -> Self {
        Self {
            mode,
            part,
            watches: Default::default(),
            next_nonce: 1,
            warming: HashSet::new(),
            warm_by: None,
            step: 0,
            held: BTreeMap::new(),
            returned_until: None,
            unsettled: false,
            observed: Vec::new(),
        }
    }

    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Notes what may have changed; [`Self::advance`] looks whether it did.
    pub fn mark(&mut self, mark: Mark) {
        self.unsettled = true;
        let watch = &mut self.watches[mark.kind.index()];
        if !watch.subscribed {
            return;
        }
        let names = match mark.touched {
            Touched::Names(names) => names.into_iter().filter(|name| watch.watches(name)).collect(),
            Touched::Matching(touched) if !watch.wildcard => {
                watch.names.iter().filter(|name| touched(name)).cloned().collect()
            }
            Touched::All | Touched::Matching(_) => Names::All,
        };
        watch.dirty.merge(names);
    }

    /// What was asked for by name so far; `None` when everything is.
    pub fn subscribed(&self, kind: ResourceType) -> Option<impl Iterator<Item = &Arc<str>>> {
        let watch = &self.watches[kind.index()];
        (!watch.wildcard).then(|| watch.names.iter())
    }

    /// Takes the notes made since the last call.
    pub fn observed(&mut self) -> Vec<Observed> {
        std::mem::take(&mut self.observed)
    }

    /// When [`Self::advance`] must be called even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let answers = self.watches.iter().filter_map(|it| it.in_flight.as_ref()).map(|it| it.since + ANSWER_TIMEOUT);
        answers.chain(self.warm_by).chain(self.returned_until).min()
    }

    /// Everything that may be sent now, in sending order.
    pub fn advance(&mut self, now: Instant, content: &mut dyn Content) -> Vec<Response> {
        self.step += 1;
        self.expire(now);
        let mut responses: Vec<_> =
            ResourceType::ALL.into_iter().filter_map(|kind| self.generate(kind, now, content)).collect();
        responses.extend(self.release(now));
        self.settle();
        responses
    }

    fn settle(&mut self) {
        let mut subscribed = self.watches.iter().filter(|watch| watch.subscribed);
        if self.unsettled && subscribed.clone().all(Watch::is_idle) {
            self.unsettled = false;
            let complete = subscribed.all(|watch| watch.refused.is_empty() && !watch.lost);
            self.observed.push(Observed::Settled { complete });
        }
    }

    fn expire(&mut self, now: Instant) {
        for kind in ResourceType::ALL {
            let watch = &mut self.watches[kind.index()];
            if let Some(lost) = watch.in_flight.take_if(|it| now >= it.since + ANSWER_TIMEOUT) {
                watch.clean_at = lost.covers.unwrap_or(watch.clean_at);
                watch.lost = true;
                self.unsettled = true;
                self.observed.push(Observed::Unanswered { kind, nonce: lost.nonce });
            }
        }
        if self.warm_by.is_some_and(|until| now >= until) {
            self.warming.clear();
        }
        if self.warming.is_empty() {
            // There were as many as there are clusters; the memory goes too.
            self.warming = HashSet::new();
            self.warm_by = None;
        }
        self.returned_until = self.returned_until.filter(|until| now < *until);
    }

    /// Whether listeners and routes must wait for clusters that they may point at.
    fn clusters_pending(&self, now: Instant) -> bool {
        let clusters = &self.watches[ResourceType::Cluster.index()];
        let adding = |it: &InFlight| it.adds && now < it.since + WARM_TIMEOUT;
        clusters.subscribed
            && (!clusters.dirty.is_empty()
                || !clusters.asked.is_empty()
                || clusters.in_flight.as_ref().is_some_and(adding)
                || !self.warming.is_empty())
    }

    /// Whether nothing points any more at clusters that went in this step.
    fn routes_reached(&self, step: u64) -> bool {
        let listeners = &self.watches[ResourceType::Listener.index()];
        let returning = self.returned_until.is_some() && !listeners.subscribed;
        !returning
            && [ResourceType::Listener, ResourceType::Route].iter().all(|it| self.watches[it.index()].has_reached(step))
    }

    fn generate(&mut self, kind: ResourceType, now: Instant, content: &mut dyn Content) -> Option<Response> {
        let waits = matches!(kind, ResourceType::Listener | ResourceType::Route) && self.clusters_pending(now);
        let keeps_removed = kind == ResourceType::Cluster && !self.routes_reached(self.step);
        let (mode, part) = (self.mode, self.part);
        let watch = &mut self.watches[kind.index()];
        if !watch.subscribed || watch.in_flight.is_some() {
            return None;
        }
        if waits && watch.asked.is_empty() {
            return None;
        }
        let asked = watch.asked.take();
        let dirty = if waits { Names::none() } else { watch.dirty.take() };
        if asked.is_empty() && dirty.is_empty() && !watch.respond {
            return None;
        }
        let both;
        let wanted = if dirty.is_empty() {
            &asked
        } else if asked.is_empty() {
            &dirty
        } else {
            let mut merged = dirty;
            merged.merge(asked.clone());
            both = merged;
            &both
        };
        let (found, mut missing) = lookup(watch, kind, wanted, content);
        if kind == ResourceType::Endpoint {
            for name in &missing {
                self.warming.remove(name);
            }
            // As long as the client has the cluster, routes may send requests there; its endpoints go with it.
            let clusters = &self.watches[ResourceType::Cluster.index()];
            missing.retain(|name| !clusters.known.contains(&**name));
        }
        let watch = &mut self.watches[kind.index()];

        let mut removed = Vec::new();
        for name in missing {
            let told_by_name = mode == Mode::Delta && matches!(&asked, Names::Some(names) if names.contains(&name));
            let known = watch.known.contains(&*name);
            match kind {
                // A secret that is missing, or that may not be seen, is not mentioned.
                ResourceType::Secret => {}
                ResourceType::Cluster if known && keeps_removed => {
                    self.held.entry(name).or_insert(self.step);
                }
                _ if known || told_by_name => removed.push(name),
                _ => {}
            }
        }
        for name in &removed {
            watch.known.remove(&**name);
            watch.refused.remove(name);
            self.held.remove(name);
            self.warming.remove(name);
        }

        let whole = mode == Mode::Sotw && kind.is_wildcard();
        let mut changed = Vec::new();
        let mut adds = false;
        let mut later = Vec::new();
        let mut size = 0;
        for resource in found {
            if kind == ResourceType::Cluster {
                self.held.remove(&resource.name);
            }
            let old = watch.known.get(&*resource.name);
            let shared = old.is_some_and(|known| known.shares(&resource));
            let old = old.map(Known::version);
            watch.share_name(&resource.name);
            if old == Some(resource.version) {
                if !shared {
                    watch.known.replace(Known::sent(&resource, whole));
                }
                continue;
            }
            if mode == Mode::Delta && size > 0 && size + resource.body.len() > part {
                later.push(resource.name.clone());
                continue;
            }
            size += resource.body.len();
            adds |= old.is_none();
            watch.known.replace(Known::sent(&resource, whole));
            changed.push((resource, old.is_none()));
        }
        let covers = (!waits && later.is_empty()).then_some(self.step);
        // Looked at again when the client has answered this part: so each part is as new as can be.
        for name in later {
            if asked.contains(&name) { watch.asked.insert(name) } else { watch.dirty.insert(name) }
        }
        if changed.is_empty() && !(watch.respond || sends_removals(mode, kind, &removed)) {
            watch.clean_at = covers.unwrap_or(watch.clean_at);
            return None;
        }
        if kind == ResourceType::Cluster {
            self.warm(&changed, now);
        }
        let changed = changed.into_iter().map(|(resource, _)| resource).collect();
        Some(self.send(kind, changed, removed, Sending { adds, covers, now }))
    }

    /// New clusters need endpoints before routes may point at them, and a client rebuilds a changed cluster, for which
    /// it needs its endpoints again even though they are the same.
    fn warm(&mut self, changed: &[(Arc<Resource>, bool)], now: Instant) {
        let endpoints = &mut self.watches[ResourceType::Endpoint.index()];
        for (cluster, new) in changed {
            let Some(name) = endpoint_name(&cluster.body) else { continue };
            let name: Arc<str> = if name == *cluster.name { cluster.name.clone() } else { name.into() };
            if endpoints.watches(&name) {
                endpoints.force(name.clone());
            }
            if *new {
                self.warming.insert(name);
                self.warm_by.get_or_insert(now + WARM_TIMEOUT);
            }
        }
    }

    /// Step 3: removes the clusters that nothing points at any more.
    fn release(&mut self, now: Instant) -> Option<Response> {
        let clusters = &self.watches[ResourceType::Cluster.index()];
        if self.held.is_empty() || clusters.in_flight.is_some() || !clusters.dirty.is_empty() {
            return None;
        }
        let ripe = |(name, step): (&Arc<str>, &u64)| self.routes_reached(*step).then(|| name.clone());
        let removed: Vec<_> = self.held.iter().filter_map(ripe).collect();
        if removed.is_empty() {
            return None;
        }
        self.held.retain(|name, _| removed.binary_search(name).is_err());
        let clusters = &mut self.watches[ResourceType::Cluster.index()];
        for name in &removed {
            clusters.known.remove(&**name);
            clusters.refused.remove(name);
            self.warming.remove(name);
        }
        Some(self.send(ResourceType::Cluster, Vec::new(), removed, Sending { adds: false, covers: None, now }))
    }

    fn send(
        &mut self,
        kind: ResourceType,
        changed: Vec<Arc<Resource>>,
        removed: Vec<Arc<str>>,
        Sending { adds, covers, now }: Sending,
    ) -> Response {
        let watch = &mut self.watches[kind.index()];
        watch.respond = false;
        let names = changed.iter().map(|it| it.name.clone()).collect();
        let resources = if self.mode == Mode::Sotw && kind.is_wildcard() {
            // The whole set; in the order of names, so that equal sets are equal bytes.
            let mut all: Vec<_> = watch.known.iter().map(|known| known.resource().clone()).collect();
            all.sort_by(|a, b| a.name.cmp(&b.name));
            all
        } else {
            changed
        };
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        watch.last_nonce = nonce;
        watch.in_flight = Some(InFlight { nonce, since: now, names, adds, covers });
        let version = resources.iter().fold(removed.len() as u64, |sum, it| sum.rotate_left(1) ^ it.version);
        let gone = removed.len();
        let removed = if self.mode == Mode::Delta { removed } else { Vec::new() };
        let bytes = resources.iter().map(|it| it.body.len()).sum();
        self.observed.push(Observed::Sent { kind, nonce, version, resources: resources.len(), removed: gone, bytes });
        Response { mode: self.mode, kind, nonce, version, resources, removed }
    }
}

/// Circumstances of a response.
struct Sending {
    adds: bool,
    covers: Option<u64>,
    now: Instant,
}

/// State-of-the-world says that something is gone by leaving it out of a whole set, and only types with whole sets can.
fn sends_removals(mode: Mode, kind: ResourceType, removed: &[Arc<str>]) -> bool {
    !removed.is_empty() && (mode == Mode::Delta || kind.is_wildcard())
}

/// The wanted resources that exist, and the names of those that do not.
fn lookup(
    watch: &Watch,
    kind: ResourceType,
    wanted: &Names,
    content: &mut dyn Content,
) -> (Vec<Arc<Resource>>, Vec<Arc<str>>) {
    let names: Vec<Arc<str>> = match wanted {
        Names::All if watch.wildcard => {
            let found = content.resources(kind, Wanted::All);
            let present: HashSet<&Arc<str>> = found.iter().map(|it| &it.name).collect();
            let gone = watch.known.iter().map(Known::name).filter(|name| !present.contains(name));
            let mut missing: Vec<_> = gone.cloned().collect();
            missing.sort();
            return (found, missing);
        }
        Names::All => {
            let mut names: Vec<_> = watch.names.iter().cloned().collect();
            names.sort();
            names
        }
        Names::Some(names) => names.iter().filter(|name| watch.watches(name)).cloned().collect(),
    };
    if names.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let found = content.resources(kind, Wanted::Names(&names));
    let present: HashSet<&Arc<str>> = found.iter().map(|it| &it.name).collect();
    let missing = names.iter().filter(|name| !present.contains(name)).cloned().collect();
    (found, missing)
}
