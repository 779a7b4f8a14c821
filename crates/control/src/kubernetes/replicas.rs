//! What replicas of the control plane tell each other: how far their proxies are.
//!
//! Each proxy is connected to one replica, and the one that writes statuses has to know of all. Every replica keeps a Lease
//! of its own with a report as an annotation. A Lease that is not renewed is that of a replica that is gone.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::objects::{Shown, follow, in_time};
use super::{FIELD_MANAGER, Place};
use crate::engine::Shared;
use crate::progress::Report;

const LABEL: &str = "mizzen.dev/replica";
const ANNOTATION: &str = "mizzen.dev/in-force";
/// A report that is the same is written again this often.
const RENEW: Duration = Duration::from_secs(5);
/// A new one is written at most this often.
const PACE: Duration = Duration::from_secs(1);
/// After this time without renewal a replica counts as gone …
const GONE: Duration = Duration::from_secs(20);
/// … and after this one its Lease is taken away.
const FORGOTTEN: Duration = Duration::from_secs(600);

fn name(replica: &str) -> String {
    format!("istio-replica-{replica}")
}

/// Reports, until `stop`.
pub(crate) async fn report(place: Place, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let leases = Api::<Lease>::namespaced(place.client.clone(), &place.namespace);
    let name = name(&place.replica);
    let mut news = shared.news.subscribe();
    let mut written: Option<(Report, Instant)> = None;
    loop {
        news.mark_unchanged();
        let report = shared.progress().report(Instant::now().into_std());
        let now = Instant::now();
        let due = written.as_ref().is_none_or(|(before, at)| *before != report || now >= *at + RENEW);
        if due {
            match write(&leases, &name, &place, &report).await {
                Ok(()) => written = Some((report, now)),
                Err(error) => tracing::debug!(%error, "the report of this replica is not written; trying again"),
            }
        }
        let next = async {
            tokio::time::sleep(PACE).await;
            // The news are why there may be another report; the renewal has its time.
            tokio::select! {
                _ = news.changed() => {}
                () = tokio::time::sleep(RENEW - PACE) => {}
            }
        };
        tokio::select! {
            () = next => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    // The proxies are on their way to another replica, which counts them.
    if let Err(error) = in_time(leases.delete(&name, &DeleteParams::default())).await {
        tracing::debug!(%error, "the report of this replica is left behind");
    }
}

async fn write(leases: &Api<Lease>, name: &str, place: &Place, report: &Report) -> Result<(), String> {
    let report = serde_json::to_string(report).map_err(|error| error.to_string())?;
    let spec = LeaseSpec {
        holder_identity: Some(place.replica.clone()),
        lease_duration_seconds: i32::try_from(GONE.as_secs()).ok(),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "labels": {LABEL: "true", "istio.io/rev": place.revision}, "annotations": {ANNOTATION: report}},
        "spec": spec,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    in_time(leases.patch(name, &params, &Patch::Apply(&lease))).await.map(drop).map_err(|error| error.to_string())
}

/// The other replicas, as the one that writes sees them.
pub(crate) struct Others {
    leases: Api<Lease>,
    me: String,
    shown: Shown<(Report, Instant)>,
}

impl Others {
    pub(crate) fn new(place: &Place) -> Self {
        let leases = Api::namespaced(place.client.clone(), &place.namespace);
        Self { leases, me: name(&place.replica), shown: Shown::default() }
    }

    /// What to call [`Self::seen`] with.
    pub(crate) fn watch(&self) -> impl Stream<Item = Event<Lease>> + use<> {
        follow(self.leases.clone(), watcher::Config::default().labels(&format!("{LABEL}=true")))
    }

    pub(crate) fn seen(&mut self, event: Event<Lease>) {
        let now = Instant::now();
        self.shown.take(event, |lease| {
            let report = lease.annotations().get(ANNOTATION).and_then(|text| serde_json::from_str(text).ok());
            (report.unwrap_or_default(), now)
        });
    }

    /// Whether it is known who they are.
    pub(crate) const fn are_known(&self) -> bool {
        self.shown.is_complete()
    }

    /// The reports of those that live.
    pub(crate) fn reports(&self, now: Instant) -> impl Iterator<Item = &Report> {
        let living = self.shown.iter().filter(move |((_, name), (_, at))| *name != self.me && now < *at + GONE);
        living.map(|(_, (report, _))| report)
    }

    /// Takes away what replicas left behind that are gone for long.
    pub(crate) async fn sweep(&self, now: Instant) {
        let old = self.shown.iter().filter(|((_, name), (_, at))| *name != self.me && now >= *at + FORGOTTEN);
        for ((_, name), _) in old {
            if let Err(error) = in_time(self.leases.delete(name, &DeleteParams::default())).await {
                tracing::debug!(%error, name, "the report of a replica that is gone is left behind");
            }
        }
    }
}

#[cfg(test)]
mod tests;
