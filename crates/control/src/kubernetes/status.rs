//! The status of configuration objects: accepted or not and why, what it conflicts with, and whether proxies obey it.
//!
//! [`decide`] says what a status ought to be; this file finds out when to look, and writes: one replica only, at a limited
//! rate, and nothing that stands there already. `docs/status.md` describes the conditions to users.

mod decide;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use mizzen_sources::kubernetes::{ShownStatus, Statuses};
use mizzen_types::{Finding, ObjectKey};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::leader::Leading;
use super::objects::{Work, in_time, sleep_until};
use super::replicas::Others;
use super::{FIELD_MANAGER, Place};
use crate::engine::Shared;
use crate::progress::{Census, Count, SEEN_EVERYWHERE};
use decide::{InForce, Known};

/// At most 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// News that come close together are looked at together.
const GATHER: Duration = Duration::from_millis(100);
/// A new generation that is not in force everywhere is said to be so after this time: mostly it is by then.
const PATIENCE: Duration = Duration::from_secs(2);
/// A generation may be seen here before the engine has read it.
const READING: Duration = Duration::from_millis(300);
/// What the API server keeps of a status may differ from what was sent. It is not sent again before this time.
const REPEAT: Duration = Duration::from_secs(60);
/// How often it is looked for what replicas left behind.
const SWEEP: Duration = Duration::from_secs(60);

/// How often it is looked whether proxies have come, gone, or changed their answers since everything was counted. When they
/// have, and have rested for so long, what is in force is counted again.
const RECOUNT: Duration = Duration::from_secs(5);
/// Counting again writes at most 10 a second, so that a change of scale in a large mesh costs the API server little.
const RECOUNT_PACE: Duration = Duration::from_millis(100);

/// Writes statuses while this replica leads.
pub(crate) async fn write(place: Place, shared: Arc<Shared>, statuses: Statuses, leading: Leading) {
    let follower = statuses.follow();
    let mut news = shared.news.subscribe();
    let others = Others::new(&place);
    let mut writer = Writer {
        place,
        shared,
        leading,
        statuses,
        since: HashMap::new(),
        wrote: HashMap::new(),
        read: None,
        findings: HashMap::new(),
        open: BTreeSet::new(),
        work: Work::new(PACE),
        others,
        counted: None,
        resting: None,
        recounted: Instant::now(),
    };
    let mut gather = Some(Instant::now());
    let mut reports = std::pin::pin!(writer.others.watch());
    let mut sweep = tokio::time::interval(SWEEP);
    let mut recount = tokio::time::interval(RECOUNT);
    loop {
        tokio::select! {
            event = reports.next() => {
                let Some(event) = event else { return };
                writer.others.seen(event);
                gather.get_or_insert(Instant::now() + GATHER);
            }
            _ = sweep.tick() => if writer.leading.now() {
                writer.others.sweep(Instant::now()).await;
            },
            _ = recount.tick() => {
                writer.readdress(Instant::now());
                writer.recount(Instant::now());
            }
            touched = follower.touched() => writer.seen(touched, Instant::now()),
            changed = news.changed(), if gather.is_none() => {
                if changed.is_err() {
                    return;
                }
                gather = Some(Instant::now() + GATHER);
            }
            () = sleep_until(gather) => {
                gather = None;
                news.mark_unchanged();
                writer.news();
            }
            () = sleep_until(writer.work.wake()) => writer.next().await,
        }
    }
}

struct Writer {
    place: Place,
    shared: Arc<Shared>,
    leading: Leading,
    /// Objects as the API server has them, without what they say.
    statuses: Statuses,
    /// Which generation of an object was seen first when.
    since: HashMap<ObjectKey, (i64, Instant)>,
    /// Digest of what was written last.
    wrote: HashMap<ObjectKey, (u64, Instant)>,
    /// Findings as the engine has them, and by object.
    read: Option<Arc<(Vec<Finding>, Vec<Finding>)>>,
    findings: HashMap<ObjectKey, Vec<Finding>>,
    /// Objects of which the last word is not said yet.
    open: BTreeSet<ObjectKey>,
    work: Work<ObjectKey>,
    others: Others,
    /// Who was there when everything was counted last, …
    counted: Option<Census>,
    /// … and when it was looked last.
    resting: Option<Census>,
    /// When everything that was to be written for the last counting is written.
    recounted: Instant,
}

impl Writer {
    /// Takes in what the API server says.
    fn seen(&mut self, touched: BTreeSet<ObjectKey>, now: Instant) {
        for key in touched {
            match self.statuses.get(&key) {
                Some(ShownStatus { generation, .. }) => {
                    let since = self.since.entry(key.clone()).or_insert((generation, now));
                    if since.0 != generation {
                        *since = (generation, now);
                    }
                    self.work.add(key, now);
                }
                None => {
                    self.since.remove(&key);
                    self.wrote.remove(&key);
                    self.open.remove(&key);
                }
            }
        }
    }

    /// Counts everything again that said where it is in force, if that has become another number.
    fn recount(&mut self, now: Instant) {
        if now < self.recounted || !self.others.are_known() || !self.leading.now() {
            return;
        }
        let census = self.others.reports(now).fold(self.shared.progress().census(), Census::with);
        let rests = self.resting.as_ref() == Some(&census);
        let known = self.counted.as_ref() == Some(&census);
        self.resting = Some(census.clone());
        // While proxies load, the numbers are others in a moment.
        if known || !rests || census.is_loading() {
            return;
        }
        self.counted = Some(census);
        for key in self.statuses.keys() {
            let Some(shown) = self.statuses.get(&key).filter(|_| !self.open.contains(&key)) else { continue };
            let since = self.since.get(&key).map_or(now, |(_, since)| *since);
            let in_force = self.in_force(&key, shown.generation, now, since);
            if matches!(in_force, InForce::Nothing) || decide::says(&shown.status, in_force) {
                continue;
            }
            self.work.add_later(key, self.recounted.max(now));
            self.recounted = self.recounted.max(now) + RECOUNT_PACE;
        }
    }

    /// Looks at ServiceEntries that say other addresses than their hosts have: those of others may have made them others.
    fn readdress(&mut self, now: Instant) {
        if !self.leading.now() {
            return;
        }
        let world = self.shared.world.load_full();
        for key in world.mesh.given_anew() {
            if !self.open.contains(key) && self.statuses.get(key).is_some() {
                self.work.add(key.clone(), now);
            }
        }
    }

    /// Findings or the progress of proxies are different.
    fn news(&mut self) {
        let now = Instant::now();
        self.read_findings(now);
        for key in &self.open {
            self.work.add(key.clone(), now);
        }
    }

    fn read_findings(&mut self, now: Instant) {
        let read = self.shared.findings.load_full();
        if self.read.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &read)) {
            self.findings(&read, now);
            self.read = Some(read);
        }
    }

    fn findings(&mut self, (reading, across): &(Vec<Finding>, Vec<Finding>), now: Instant) {
        let mut findings = HashMap::<ObjectKey, Vec<Finding>>::new();
        for finding in reading.iter().chain(across) {
            if let Some(origin) = &finding.origin {
                findings.entry(origin.object.clone()).or_default().push(finding.clone());
            }
        }
        let changed = |key: &&ObjectKey| self.findings.get(*key) != findings.get(*key);
        let keys: BTreeSet<&ObjectKey> = self.findings.keys().chain(findings.keys()).filter(changed).collect();
        for key in keys {
            self.work.add(key.clone(), now);
        }
        self.findings = findings;
    }

    /// Looks at one object, and writes its status if that is not what it ought to be.
    async fn next(&mut self) {
        let now = Instant::now();
        let Some(key) = self.work.take(now) else { return };
        let Some(shown) = self.statuses.get(&key) else { return };
        let Some(patch) = self.look(&key, &shown, now) else { return };
        if !self.leading.now() {
            return;
        }
        let api = Api::<DynamicObject>::namespaced_with(self.place.client.clone(), &key.namespace, &shown.resource);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let outcome = in_time(api.patch_status(&key.name, &params, &Patch::Merge(&patch))).await;
        let now = Instant::now();
        match outcome {
            Ok(_) => {
                self.wrote.insert(key.clone(), (decide::digest(&patch["status"]), now));
                self.work.wrote(&key, now);
            }
            Err(error) if error.is_gone() => self.work.wrote(&key, now),
            Err(error) => {
                // A conflict is the ordinary case: the newer object is on its way here.
                tracing::debug!(object = %key, %error, "the status is not written; trying again");
                self.work.failed(key, now);
            }
        }
    }

    /// What has to be written for an object, if anything; else notes whether and when to look again.
    fn look(&mut self, key: &ObjectKey, shown: &ShownStatus, now: Instant) -> Option<Value> {
        let before: Value = serde_json::from_str(&shown.status).unwrap_or_default();
        self.read_findings(now);
        if !self.others.are_known() {
            self.open.insert(key.clone());
            return None;
        }
        let since = self.since.get(key).map_or(now, |(_, since)| *since);
        let findings = self.findings.get(key).map(Vec::as_slice).unwrap_or_default();
        let known = Known {
            generation: shown.generation,
            findings,
            in_force: self.in_force(key, shown.generation, now, since),
            addresses: self.shared.world.load().mesh.given_addresses(key),
        };
        self.open.remove(key);
        // What is wrong across objects is found a moment after an object is in force, and belongs into the same status.
        if now < since + PATIENCE && !known.rejected() && self.is_unanalysed(key) {
            self.open.insert(key.clone());
            self.work.add_later(key.clone(), since + PATIENCE);
            return None;
        }
        let mut again = None;
        let wait = match (known.rejected(), &known.in_force) {
            // Either is old: the other has been read since.
            (true, InForce::Newest(_)) | (false, InForce::Nothing | InForce::Older(..)) => {
                self.open.insert(key.clone());
                return None;
            }
            (true, _) => READING,
            (false, InForce::Newest(count)) if count.on == count.of => {
                if count.of == 0 {
                    self.open.insert(key.clone());
                }
                Duration::ZERO
            }
            // Proxies that have come since are told before they serve; they are counted when they have been.
            (false, InForce::Newest(count)) if count.refused == 0 && known.was_in_force(&before) => Duration::ZERO,
            (false, InForce::Newest(_)) => {
                self.open.insert(key.clone());
                // Then all replicas must have seen it; nothing else may tell us to look again.
                if now < since + SEEN_EVERYWHERE {
                    again = Some(since + SEEN_EVERYWHERE);
                }
                PATIENCE
            }
        };
        if now < since + wait {
            self.work.add_later(key.clone(), since + wait);
            return None;
        }
        if let Some(again) = again {
            self.work.add_later(key.clone(), again);
        }
        let status = known.status(&before, Timestamp::now())?;
        if let Some((wrote, at)) = self.wrote.get(key)
            && *wrote == decide::digest(&status)
            && now < *at + REPEAT
        {
            return None;
        }
        // Fails when the object is another one by now.
        Some(json!({"metadata": {"resourceVersion": &*shown.version}, "status": status}))
    }

    /// Whether findings across objects do not take in this one yet.
    fn is_unanalysed(&self, key: &ObjectKey) -> bool {
        let analysed = self.shared.analysed.load(Ordering::Acquire);
        self.shared.progress().revision(key).is_some_and(|revision| revision > analysed)
    }

    fn in_force(&self, key: &ObjectKey, generation: i64, now: Instant, since: Instant) -> InForce {
        let Some(object) = self.shared.objects.load().get(key).cloned() else { return InForce::Nothing };
        let of = object.meta.version.generation;
        let own = self.shared.progress().count(key, of);
        let seen = now.saturating_duration_since(since);
        let all = own.map(|own| self.others.reports(now).map(|it| it.count(key, of, seen)).fold(own, Count::plus));
        match all {
            Some(count) if of == generation => InForce::Newest(count),
            Some(count) if of < generation => InForce::Older(of, count),
            _ => InForce::Nothing,
        }
    }
}

#[cfg(test)]
mod tests;
