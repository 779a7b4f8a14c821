//! The status of configuration objects: accepted or not and why, what it conflicts with, and whether proxies obey it.
//!
//! [`decide`] says what a status ought to be; this file finds out when to look, and writes: one replica only, at a limited
//! rate, and nothing that stands there already. `docs/status.md` describes the conditions to users.

mod decide;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use mizzen_types::{Finding, ObjectKey};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::leader::Leading;
use super::objects::{Shown, Work, in_time, sleep_until};
use super::replicas::Others;
use super::{FIELD_MANAGER, Place};
use crate::engine::Shared;
use crate::progress::{Count, SEEN_EVERYWHERE};
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

/// An object as the API server has it, without what it says.
#[derive(Debug, Clone)]
struct Entry {
    generation: i64,
    version: String,
    status: Value,
}

/// Writes statuses while this replica leads.
pub(crate) async fn write(place: Place, shared: Arc<Shared>, leading: Leading) {
    let mut events = watch::watch(&place.client);
    let mut news = shared.news.subscribe();
    let others = Others::new(&place);
    let mut writer = Writer {
        place,
        shared,
        leading,
        resources: BTreeMap::new(),
        shown: BTreeMap::new(),
        since: HashMap::new(),
        wrote: HashMap::new(),
        read: None,
        findings: HashMap::new(),
        open: BTreeSet::new(),
        work: Work::new(PACE),
        others,
    };
    let mut gather = Some(Instant::now());
    let mut reports = std::pin::pin!(writer.others.watch());
    let mut sweep = tokio::time::interval(SWEEP);
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
            event = events.recv() => match event {
                Some((resource, event)) => writer.seen(&resource, event),
                None => return,
            },
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
    /// How a kind is called by the API server.
    resources: BTreeMap<Arc<str>, ApiResource>,
    shown: BTreeMap<Arc<str>, Shown<Entry>>,
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
}

impl Writer {
    /// Takes in what the API server says.
    fn seen(&mut self, resource: &ApiResource, event: kube::runtime::watcher::Event<DynamicObject>) {
        let kind: Arc<str> = resource.kind.as_str().into();
        self.resources.entry(kind.clone()).or_insert_with(|| resource.clone());
        let shown = self.shown.entry(kind.clone()).or_default();
        let now = Instant::now();
        for (namespace, name) in shown.take(event, read) {
            let key =
                ObjectKey { kind: kind.clone(), namespace: namespace.as_str().into(), name: name.as_str().into() };
            match shown.get(&(namespace, name)) {
                Some(entry) => {
                    let since = self.since.entry(key.clone()).or_insert((entry.generation, now));
                    if since.0 != entry.generation {
                        *since = (entry.generation, now);
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

    /// Findings or the progress of proxies are different.
    fn news(&mut self) {
        let now = Instant::now();
        let read = self.shared.findings.load_full();
        if self.read.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &read)) {
            self.findings(&read, now);
            self.read = Some(read);
        }
        for key in &self.open {
            self.work.add(key.clone(), now);
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
        let Some(patch) = self.look(&key, now) else { return };
        let Some(resource) = self.resources.get(&key.kind) else { return };
        if !self.leading.now() {
            return;
        }
        let api = Api::<DynamicObject>::namespaced_with(self.place.client.clone(), &key.namespace, resource);
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
    fn look(&mut self, key: &ObjectKey, now: Instant) -> Option<Value> {
        let name = (key.namespace.to_string(), key.name.to_string());
        let entry = self.shown.get(&key.kind)?.get(&name)?;
        if !self.others.are_known() {
            self.open.insert(key.clone());
            return None;
        }
        let since = self.since.get(key).map_or(now, |(_, since)| *since);
        let findings = self.findings.get(key).map(Vec::as_slice).unwrap_or_default();
        let known = Known {
            generation: entry.generation,
            findings,
            in_force: self.in_force(key, entry.generation, now, since),
        };
        self.open.remove(key);
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
        let status = known.status(&entry.status, Timestamp::now())?;
        if let Some((wrote, at)) = self.wrote.get(key)
            && *wrote == decide::digest(&status)
            && now < *at + REPEAT
        {
            return None;
        }
        // Fails when the object is another one by now.
        Some(json!({"metadata": {"resourceVersion": entry.version}, "status": status}))
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

fn read(object: DynamicObject) -> Entry {
    let DynamicObject { metadata, mut data, .. } = object;
    Entry {
        generation: metadata.generation.unwrap_or_default(),
        version: metadata.resource_version.unwrap_or_default(),
        status: data.get_mut("status").map(Value::take).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
