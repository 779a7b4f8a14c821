//! One replica of several writes: the one that holds a Lease.
//!
//! The holder renews the Lease well before it ends, and takes itself for deposed before anybody else may. Clocks of
//! different machines are not compared: others wait until they themselves have seen no renewal for the Lease's whole time.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Place;

/// For so long a Lease that is not renewed keeps others out.
const LEASE: Duration = Duration::from_secs(15);
/// A holder that could not renew for this time has lost.
const DEADLINE: Duration = Duration::from_secs(10);
/// The holder renews this often …
const RENEW: Duration = Duration::from_secs(4);
/// … and others look this often.
const LOOK: Duration = Duration::from_secs(2);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(4);

/// A candidate for one Lease.
#[derive(Debug, Clone)]
pub(crate) struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    /// Until when this replica leads; `None` when it does not.
    until: watch::Sender<Option<Instant>>,
}

/// Whether this replica leads.
#[derive(Debug, Clone)]
pub(crate) struct Leading(watch::Receiver<Option<Instant>>);

impl Leading {
    /// Whether it still does: asked before every write.
    pub(crate) fn now(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it does.
    pub(crate) async fn begun(&mut self) {
        let leads = |until: &Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        if self.0.wait_for(leads).await.is_err() {
            // The election has ended: nobody leads here any more.
            std::future::pending().await
        }
    }

    /// Waits until it does not.
    pub(crate) async fn ended(&mut self) {
        loop {
            let Some(until) = *self.0.borrow_and_update() else { return };
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = self.0.changed() => if changed.is_err() { return },
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(watch::channel(None).1)
    }

    #[cfg(test)]
    pub(crate) fn always() -> Self {
        Self(watch::channel(Some(Instant::now() + Duration::from_secs(3600))).1)
    }
}

/// What a candidate has seen of the Lease.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    spec: LeaseSpec,
    /// When it was first seen like this.
    since: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Renew,
    Take,
    Wait,
}

/// What to do about a Lease.
fn next(me: &str, seen: &Seen, now: Instant) -> Next {
    let holder = seen.spec.holder_identity.as_deref().unwrap_or_default();
    if holder == me {
        return Next::Renew;
    }
    let time = u64::try_from(seen.spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    if holder.is_empty() || now >= seen.since + Duration::from_secs(time) { Next::Take } else { Next::Wait }
}

/// The Lease as its holder writes it.
fn held(me: &str, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
    let mine = before.filter(|before| before.holder_identity.as_deref() == Some(me));
    let changes = before.and_then(|before| before.lease_transitions).unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
        acquire_time: mine.and_then(|mine| mine.acquire_time.clone()).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if mine.is_some() || before.is_none() { changes } else { changes.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

impl Election {
    pub(crate) fn new(place: &Place, name: String) -> Self {
        Self {
            api: Api::namespaced(place.client.clone(), &place.namespace),
            name,
            me: place.replica.clone(),
            until: watch::Sender::new(None),
        }
    }

    pub(crate) fn leading(&self) -> Leading {
        Leading(self.until.subscribe())
    }

    /// Takes part until `stop`, then gives the Lease back.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut seen = None;
        loop {
            let began = Instant::now();
            let attempt = async {
                let taken = tokio::time::timeout(TIMEOUT, self.step(&mut seen)).await;
                self.judge(taken.unwrap_or_else(|_| Err("no answer in time".to_owned())), began);
                let leads = self.until.borrow().is_some();
                tokio::time::sleep(if leads { RENEW } else { LOOK }).await;
            };
            tokio::select! {
                () = attempt => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        let led = self.until.send_replace(None).is_some();
        if led {
            let released = tokio::time::timeout(TIMEOUT, self.release()).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::warn!(lease = self.name, "the lease was not given back; another replica waits until it ends");
            }
        }
    }

    /// Takes in how an attempt ended that began at `began`.
    fn judge(&self, outcome: Result<bool, String>, began: Instant) {
        let before = *self.until.borrow();
        match outcome {
            Ok(true) => {
                if before.is_none() {
                    tracing::info!(lease = self.name, "this replica leads");
                }
                self.until.send_replace(Some(began + DEADLINE));
            }
            Ok(false) => {
                if before.is_some() {
                    tracing::warn!(lease = self.name, "another replica leads now");
                    self.until.send_replace(None);
                }
            }
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "the lease cannot be read or renewed");
                if before.is_some_and(|until| until <= Instant::now()) {
                    tracing::warn!(lease = self.name, "this replica does not lead any more");
                    self.until.send_replace(None);
                }
            }
        }
    }

    /// Looks at the Lease and takes or renews it; whether it is ours then.
    async fn step(&self, seen: &mut Option<Seen>) -> Result<bool, String> {
        let text = |error: kube::Error| error.to_string();
        let Some(lease) = self.api.get_opt(&self.name).await.map_err(text)? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(held(&self.me, None, Timestamp::now())),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let now = Instant::now();
        let current = match seen.take() {
            Some(old) if old.spec == spec => old,
            _ => Seen { spec, since: now },
        };
        let decided = next(&self.me, &current, now);
        let spec = held(&self.me, Some(&current.spec), Timestamp::now());
        *seen = Some(current);
        if decided == Next::Wait {
            return Ok(false);
        }
        // With the resource version that was read: of two that try at once, one gets it.
        let lease = Lease { spec: Some(spec), ..lease };
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) else {
            return Ok(());
        };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        tracing::info!(lease = self.name, "the lease is given back");
        Ok(())
    }
}

/// A conflict means that somebody else was faster.
fn won<T>(written: Result<T, kube::Error>) -> Result<bool, String> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
