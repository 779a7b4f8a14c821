//! Since when proxies work with what an object says: the pure bookkeeping behind "in force on x of y proxies".
//!
//! Nothing is kept per proxy and object. An object is remembered with the revision of the world that brought its
//! generation; a proxy with the first revision that it has not worked its way through. Every revision before that one is in
//! force there, and with it every object that came with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mizzen_types::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::status::StreamId;

/// How far everybody is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    proxies: BTreeMap<StreamId, Proxy>,
    objects: HashMap<ObjectKey, Arrival>,
    /// Objects of changes that are not applied yet.
    waiting: Vec<(ObjectKey, i64)>,
}

/// When a generation of an object came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arrival {
    generation: i64,
    revision: u64,
    at: Instant,
}

#[derive(Debug, Default)]
struct Proxy {
    /// Revisions that it has been told, or is to be told, and has not taken over.
    lag: Option<Span>,
    /// What it refused, until it refuses nothing any more.
    refused: Vec<Refusal>,
}

impl Proxy {
    /// Whether it is being told everything for the first time.
    fn is_loading(&self) -> bool {
        self.lag.is_some_and(|lag| lag.first <= 1)
    }
}

/// The objects that a refusal is about, where its words tell; else it may be about any.
pub(crate) type Blamed = Option<Arc<HashSet<ObjectKey>>>;

/// Something of these revisions was refused.
#[derive(Debug)]
struct Refusal {
    span: Span,
    blamed: Blamed,
}

impl Refusal {
    fn is_of(&self, key: &ObjectKey, revision: u64) -> bool {
        self.span.holds(revision) && self.blamed.as_ref().is_none_or(|blamed| blamed.contains(key))
    }

    /// Takes in another one: what is about any object stays so.
    fn merge(&mut self, span: Span, blamed: Blamed) {
        self.span = Span { first: self.span.first.min(span.first), last: span.last };
        self.blamed = match (self.blamed.take(), blamed) {
            (Some(mine), Some(other)) if Arc::ptr_eq(&mine, &other) => Some(mine),
            (Some(mine), Some(other)) => Some(Arc::new(mine.union(&other).cloned().collect())),
            _ => None,
        };
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Span {
    first: u64,
    last: u64,
}

impl Span {
    const fn holds(self, revision: u64) -> bool {
        self.first <= revision && revision <= self.last
    }
}

/// Refusals kept apart per proxy; beyond it they become one.
const REFUSALS: usize = 8;

/// On how many proxies an object is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    pub(crate) on: usize,
    pub(crate) of: usize,
    /// Those that refused something of the revision that brought it.
    pub(crate) refused: usize,
}

impl Count {
    /// Of two control planes together.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { on: self.on + other.on, of: self.of + other.of, refused: self.refused + other.refused }
    }
}

impl Progress {
    /// An object says something new, from the next revision on.
    pub(crate) fn changed(&mut self, key: &ObjectKey, generation: i64) {
        self.waiting.push((key.clone(), generation));
    }

    /// An object says the same in another generation.
    pub(crate) fn renamed(&mut self, key: &ObjectKey, generation: i64) {
        if let Some(arrival) = self.objects.get_mut(key) {
            arrival.generation = generation;
        }
        for (_, waiting) in self.waiting.iter_mut().filter(|(of, _)| of == key) {
            *waiting = generation;
        }
    }

    pub(crate) fn deleted(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
        self.waiting.retain(|(of, _)| of != key);
    }

    /// What was waiting is applied now, with this revision; `None` when it concerns nobody.
    pub(crate) fn applied(&mut self, revision: Option<u64>, at: Instant) {
        for (key, generation) in self.waiting.drain(..) {
            self.objects.insert(key, Arrival { generation, revision: revision.unwrap_or(0), at });
        }
    }

    /// A proxy has come, and has to be told everything up to this revision.
    pub(crate) fn connected(&mut self, id: StreamId, revision: u64) {
        let lag = Some(Span { first: 1, last: revision });
        self.proxies.insert(id, Proxy { lag, refused: Vec::new() });
    }

    pub(crate) fn gone(&mut self, id: StreamId) {
        self.proxies.remove(&id);
    }

    /// This revision concerns a proxy.
    pub(crate) fn concerns(&mut self, id: StreamId, revision: u64) {
        let Some(proxy) = self.proxies.get_mut(&id) else { return };
        proxy.lag = Some(Span { first: proxy.lag.map_or(revision, |lag| lag.first), last: revision });
    }

    /// A proxy has refused something of what it is being told.
    pub(crate) fn refused(&mut self, id: StreamId, blamed: Blamed) {
        let Some(proxy) = self.proxies.get_mut(&id) else { return };
        let Some(span) = proxy.lag else { return };
        let full = proxy.refused.len() >= REFUSALS;
        match proxy.refused.last_mut() {
            Some(before) if full || before.span.last >= span.first => before.merge(span, blamed),
            _ => proxy.refused.push(Refusal { span, blamed }),
        }
    }

    /// A proxy has answered everything up to this revision; `complete`: and refuses nothing.
    pub(crate) fn settled(&mut self, id: StreamId, revision: u64, complete: bool) {
        let Some(proxy) = self.proxies.get_mut(&id) else { return };
        if complete {
            proxy.refused.clear();
        }
        proxy.lag =
            proxy.lag.filter(|lag| lag.last > revision).map(|lag| Span { first: lag.first.max(revision + 1), ..lag });
    }

    /// The revision that brought an object; 0 when it concerns nobody.
    pub(crate) fn revision(&self, key: &ObjectKey) -> Option<u64> {
        Some(self.objects.get(key)?.revision)
    }

    /// On how many proxies this generation of an object is in force; `None` while it has not come.
    pub(crate) fn count(&self, key: &ObjectKey, generation: i64) -> Option<Count> {
        let arrival = self.objects.get(key).filter(|arrival| arrival.generation == generation)?;
        Some(self.count_of(key, arrival))
    }

    fn count_of(&self, key: &ObjectKey, arrival: &Arrival) -> Count {
        let mut count = Count { of: self.proxies.len(), ..Count::default() };
        for proxy in self.proxies.values() {
            let refused = proxy.refused.iter().any(|refusal| refusal.is_of(key, arrival.revision));
            let told = proxy.lag.is_none_or(|lag| arrival.revision < lag.first);
            count.refused += usize::from(refused);
            count.on += usize::from(told && !refused);
        }
        count
    }

    /// Who is there and refuses what: the same as long as no count becomes another by it.
    pub(crate) fn census(&self) -> Census {
        let mut hasher = DefaultHasher::new();
        for (id, proxy) in &self.proxies {
            for refusal in &proxy.refused {
                let blamed = refusal.blamed.as_ref().map(|blamed| blamed.iter().collect::<BTreeSet<_>>());
                (id.0, refusal.span, blamed).hash(&mut hasher);
            }
        }
        let loading = self.proxies.values().filter(|proxy| proxy.is_loading()).count();
        Census { proxies: self.proxies.len(), loading, refusals: hasher.finish() }
    }

    /// What other replicas are told of this one's proxies.
    pub(crate) fn report(&self, now: Instant) -> Report {
        let loading = self.proxies.values().filter(|proxy| proxy.is_loading()).count();
        let mut report = Report { proxies: self.proxies.len(), loading, ..Report::default() };
        // Before this revision everything is in force on all that are not loading, and need not be looked at one by one.
        let lags = self.proxies.values().filter_map(|proxy| proxy.lag.map(|lag| lag.first)).filter(|first| *first > 1);
        let refusals = self.proxies.values().flat_map(|proxy| proxy.refused.iter().map(|refusal| refusal.span.first));
        let open = lags.chain(refusals).min().unwrap_or(u64::MAX);
        for (key, arrival) in &self.objects {
            if arrival.revision < open && now.saturating_duration_since(arrival.at) > RECENT {
                continue;
            }
            if report.objects.len() >= LISTED {
                report.partial = true;
                break;
            }
            let count = self.count_of(key, arrival);
            report.objects.insert(key.to_string(), (arrival.generation, count.on, count.refused));
        }
        report
    }
}

/// A generation is listed in reports for so long after it came, that others know that it was seen here.
const RECENT: Duration = Duration::from_secs(60);
/// A generation that others have seen this long ago has been seen everywhere.
pub(crate) const SEEN_EVERYWHERE: Duration = Duration::from_secs(15);
/// Objects in one report; with more of them it is incomplete.
const LISTED: usize = 1000;

/// How far the proxies of one replica are: only what is new, or not in force on all of them, is listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    proxies: usize,
    /// Proxies that are being told everything for the first time.
    loading: usize,
    /// Not all that should be is listed.
    partial: bool,
    /// Generation, on how many proxies it is in force, how many refused.
    objects: BTreeMap<String, (i64, usize, usize)>,
}

impl Report {
    /// On how many proxies of that replica a generation is in force, which was seen here so long ago.
    pub(crate) fn count(&self, key: &ObjectKey, generation: i64, seen: Duration) -> Count {
        let of = self.proxies;
        match self.objects.get(&key.to_string()) {
            Some((listed, on, refused)) if *listed == generation => Count { on: *on, of, refused: *refused },
            Some(_) => Count { of, ..Count::default() },
            None if self.partial || seen < SEEN_EVERYWHERE => Count { of, ..Count::default() },
            None => Count { on: of.saturating_sub(self.loading), of, refused: 0 },
        }
    }
}

/// Who is there, over all replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census {
    proxies: usize,
    loading: usize,
    /// Digest of all refusals.
    refusals: u64,
}

impl Census {
    /// Together with those of another replica.
    pub(crate) fn with(self, report: &Report) -> Self {
        let mut hasher = DefaultHasher::new();
        self.refusals.hash(&mut hasher);
        // What is listed is mostly new and on its way: only refusals stay.
        for (key, (generation, _, refused)) in report.objects.iter().filter(|(_, (_, _, refused))| *refused > 0) {
            (key, generation, refused).hash(&mut hasher);
        }
        Self {
            proxies: self.proxies + report.proxies,
            loading: self.loading + report.loading,
            refusals: hasher.finish(),
        }
    }

    /// Whether proxies are being told everything for the first time.
    pub(crate) const fn is_loading(&self) -> bool {
        self.loading > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamId = StreamId(1);
    const B: StreamId = StreamId(2);

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("VirtualService", "shop", name)
    }

    #[track_caller]
    fn check(progress: &Progress, name: &str, generation: i64, expected: Option<(usize, usize, usize)>) {
        let count = progress.count(&key(name), generation).map(|it| (it.on, it.of, it.refused));
        assert_eq!(count, expected, "{name} {generation} {progress:?}");
    }

    /// Two proxies that have the objects `x` and `y`, both of generation 1.
    fn settled() -> Progress {
        let mut progress = Progress::default();
        for name in ["x", "y"] {
            progress.changed(&key(name), 1);
        }
        check(&progress, "x", 1, None);
        progress.applied(Some(1), Instant::now());
        for id in [A, B] {
            progress.connected(id, 1);
            check(&progress, "x", 1, Some((0, id.0 as usize, 0)));
        }
        progress.settled(A, 1, true);
        check(&progress, "x", 1, Some((1, 2, 0)));
        progress.settled(B, 1, true);
        check(&progress, "x", 1, Some((2, 2, 0)));
        progress
    }

    #[test]
    fn a_generation_is_in_force_where_its_revision_is() {
        let mut progress = settled();
        progress.changed(&key("x"), 2);
        check(&progress, "x", 2, None);
        progress.applied(Some(2), Instant::now());
        progress.concerns(A, 2);
        check(&progress, "x", 1, None);
        // It concerns A alone; B has it without being told.
        check(&progress, "x", 2, Some((1, 2, 0)));
        check(&progress, "y", 1, Some((2, 2, 0)));
        // Later revisions do not make it wait longer.
        progress.concerns(A, 3);
        progress.concerns(B, 3);
        progress.settled(A, 2, true);
        check(&progress, "x", 2, Some((2, 2, 0)));
        progress.renamed(&key("x"), 3);
        check(&progress, "x", 3, Some((2, 2, 0)));
        progress.gone(B);
        check(&progress, "x", 3, Some((1, 1, 0)));
        progress.deleted(&key("x"));
        check(&progress, "x", 3, None);
    }

    #[test]
    fn a_change_that_concerns_nobody_is_in_force() {
        let mut progress = settled();
        progress.concerns(A, 2);
        progress.changed(&key("z"), 1);
        progress.applied(None, Instant::now());
        check(&progress, "z", 1, Some((2, 2, 0)));
    }

    #[test]
    fn a_refusal_is_of_what_was_being_told() {
        let mut progress = settled();
        progress.changed(&key("x"), 2);
        progress.applied(Some(2), Instant::now());
        progress.concerns(A, 2);
        progress.refused(A, None);
        progress.settled(A, 2, false);
        check(&progress, "x", 2, Some((1, 2, 1)));
        check(&progress, "y", 1, Some((2, 2, 0)));
        // What comes later is in force all the same.
        progress.changed(&key("y"), 2);
        progress.applied(Some(3), Instant::now());
        progress.concerns(A, 3);
        progress.settled(A, 3, false);
        check(&progress, "y", 2, Some((2, 2, 0)));
        check(&progress, "x", 2, Some((1, 2, 1)));
        progress.settled(A, 3, true);
        check(&progress, "x", 2, Some((2, 2, 0)));
    }

    #[test]
    fn a_refusal_on_the_first_load_is_of_what_it_names() {
        let mut progress = settled();
        let before = progress.census();
        let c = StreamId(3);
        progress.connected(c, 1);
        assert!(progress.census().is_loading());
        progress.refused(c, Some(Arc::new([key("x")].into())));
        progress.settled(c, 1, false);
        check(&progress, "x", 1, Some((2, 3, 1)));
        check(&progress, "y", 1, Some((3, 3, 0)));
        assert_ne!(progress.census(), before);
        // A second one is about both, and one that names nothing is about any.
        progress.concerns(c, 1);
        progress.refused(c, Some(Arc::new([key("z")].into())));
        check(&progress, "x", 1, Some((2, 3, 1)));
        progress.refused(c, None);
        progress.settled(c, 1, false);
        check(&progress, "y", 1, Some((2, 3, 1)));
        progress.gone(c);
        assert_eq!(progress.census(), before);
    }

    #[test]
    fn others_are_told_what_is_new_or_open() {
        let mut progress = settled();
        let (now, later) = (Instant::now(), Instant::now() + RECENT * 2);
        assert_eq!(progress.report(now).objects.len(), 2);
        let quiet = progress.report(later);
        assert_eq!(quiet, Report { proxies: 2, ..Report::default() });
        progress.changed(&key("x"), 2);
        progress.applied(Some(2), later);
        progress.concerns(A, 2);
        let report = progress.report(later);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let check = |report: &Report, name: &str, generation, seen, expected: (usize, usize)| {
            let count = report.count(&key(name), generation, seen);
            assert_eq!((count.on, count.of), expected, "{name} {generation} {report:?}");
        };
        check(&report, "x", 2, Duration::ZERO, (1, 2));
        check(&report, "x", 1, Duration::ZERO, (0, 2));
        check(&report, "x", 3, RECENT, (0, 2));
        // What is not listed is in force, once it must have been seen there.
        check(&report, "y", 1, Duration::ZERO, (0, 2));
        check(&report, "y", 1, SEEN_EVERYWHERE, (2, 2));
        // A proxy that is loading is not a reason to list everything.
        progress.settled(A, 2, true);
        progress.connected(B, 2);
        let loading = progress.report(later + RECENT * 2);
        assert_eq!((loading.objects.len(), loading.loading), (0, 1));
        check(&loading, "y", 1, SEEN_EVERYWHERE, (1, 2));
    }

    #[test]
    fn refusals_are_bounded() {
        let mut progress = settled();
        for revision in 2..100 {
            progress.concerns(A, revision);
            progress.refused(A, None);
            progress.settled(A, revision, false);
        }
        assert!(progress.proxies[&A].refused.len() <= REFUSALS);
    }
}
