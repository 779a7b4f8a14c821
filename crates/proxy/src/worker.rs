//! A worker: one thread, one event loop, its own listeners' accept loops, connections and pools.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use mizzen_balance::Time;
use mizzen_snapshot::{Cluster, Snapshot};
use mizzen_types::ClusterName;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::drain::{Drain, Phase};
use crate::listener::{self, ListenerState, Slot};
use crate::shared::Shared;
use crate::upstream::Upstream;

/// How long connections that carry nothing are left open when a drain begins: a client that is busy sends its next
/// request within it and is told to close; for the others waiting longer changes nothing.
const QUIET_DRAIN: Duration = Duration::from_millis(500);

/// A listening socket, for as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotId(pub u64);

/// What the publisher tells every worker.
pub enum Command {
    /// Accept from this socket, for this listener.
    Listen { slot: SlotId, socket: std::net::TcpListener, state: Arc<ListenerState> },
    /// The same socket now serves this version; connections of the old one drain.
    Replace { slot: SlotId, state: Arc<ListenerState> },
    /// Stop accepting; connections drain.
    Close { slot: SlotId },
    /// Clusters changed: let go of pools that nobody will use again.
    Refresh,
    /// The process will end soon: connections are told to leave, and new ones are still accepted.
    Linger,
    /// The process ends: all listeners close, all connections drain, for at most this long.
    Drain { limit: Duration },
}

pub struct Worker {
    pub shared: Arc<Shared>,
    pub random: Random,
    /// Workloads that described themselves to this thread.
    pub peers: crate::peer::Known,
    date: RefCell<(u64, HeaderValue)>,
    upstreams: RefCell<HashMap<ClusterName, Rc<Upstream>>>,
    slots: RefCell<HashMap<SlotId, Rc<Slot>>>,
    /// Connections that come now are told to leave.
    lingering: Cell<bool>,
}

/// Random numbers of one thread (SplitMix64). Not for secrets.
pub struct Random(Cell<u64>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// For shares and weights.
    pub fn next_u32(&self) -> u32 {
        (self.next() >> 32) as u32
    }

    pub fn per_million(&self) -> u32 {
        ((u128::from(self.next()) * 1_000_000) >> 64) as u32
    }
}

/// A seed from the standard library's per-process random keys.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}

/// Starts a worker thread; it ends after [`Command::Drain`] once its connections are closed, or when the sender is gone.
pub fn start(
    index: usize,
    shared: Arc<Shared>,
) -> std::io::Result<(mpsc::UnboundedSender<Command>, std::thread::JoinHandle<()>)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let local = LocalSet::new();
        let worker = Rc::new(Worker {
            shared,
            random: Random::new(seed()),
            peers: crate::peer::Known::default(),
            date: RefCell::new((0, HeaderValue::from_static(""))),
            upstreams: RefCell::default(),
            slots: RefCell::default(),
            lingering: Cell::new(false),
        });
        local.block_on(&runtime, worker.run(receiver));
    })?;
    Ok((sender, thread))
}

impl Worker {
    async fn run(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut limit = self.shared.drain_time;
        while let Some(command) = commands.recv().await {
            match command {
                Command::Listen { slot: id, socket, state } => match tokio::net::TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let slot = Rc::new(Slot::new(state));
                        self.linger_at(&slot);
                        self.slots.borrow_mut().insert(id, Rc::clone(&slot));
                        tokio::task::spawn_local(listener::accept(Rc::clone(&self), socket, slot));
                    }
                    Err(error) => tracing::error!(listener = %state.listener.name, %error, "cannot accept"),
                },
                Command::Replace { slot, state } => {
                    if let Some(slot) = self.slots.borrow().get(&slot) {
                        self.drain_after(slot.replace(state));
                        self.linger_at(slot);
                    }
                }
                Command::Close { slot } => {
                    if let Some(slot) = self.slots.borrow_mut().remove(&slot) {
                        slot.close();
                        self.drain_after(slot.drain());
                    }
                }
                Command::Refresh => self.refresh(),
                Command::Linger => {
                    self.lingering.set(true);
                    self.slots.borrow().values().for_each(|slot| self.linger_at(slot));
                }
                Command::Drain { limit: at_most } => {
                    limit = at_most;
                    break;
                }
            }
        }
        self.end(limit).await;
    }

    fn linger_at(&self, slot: &Slot) {
        if self.lingering.get() {
            slot.drain().advance(Phase::Draining);
        }
    }

    /// Closes listeners, drains connections, and returns when they are gone or the time is over.
    async fn end(&self, limit: Duration) {
        let slots: Vec<_> = self.slots.borrow_mut().drain().map(|(_, slot)| slot).collect();
        for slot in &slots {
            slot.drain().advance(Phase::Draining);
        }
        // Clients that are connecting right now are still served: whoever sends them here needs a moment to notice.
        let moment = limit.min(Duration::from_millis(100));
        tokio::time::sleep(moment).await;
        for slot in &slots {
            slot.close();
        }
        let drains: Vec<_> = slots.iter().map(|slot| slot.drain()).collect();
        let quiet = limit.min(QUIET_DRAIN * 2) / 2;
        let gone = async {
            while slots.iter().any(|slot| slot.open() > 0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::pin!(gone);
        if tokio::time::timeout(quiet, &mut gone).await.is_err() {
            drains.iter().for_each(|drain| drain.advance(Phase::ClosingIdle));
            let _ = tokio::time::timeout(limit - quiet, &mut gone).await;
            drains.iter().for_each(|drain| drain.advance(Phase::Over));
            tokio::task::yield_now().await;
        }
    }

    /// Runs a drain through its phases.
    fn drain_after(&self, drain: Rc<Drain>) {
        let quiet = self.shared.drain_time.min(QUIET_DRAIN * 2) / 2;
        let rest = self.shared.drain_time - quiet;
        drain.advance(Phase::Draining);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(quiet).await;
            drain.advance(Phase::ClosingIdle);
            tokio::time::sleep(rest).await;
            drain.advance(Phase::Over);
        });
    }

    /// The configuration in force. A request asks once and keeps what it gets.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    pub fn time(&self, now: Instant) -> Time {
        self.shared.time(now)
    }

    /// The time as a `date` header; written anew once a second.
    pub fn date(&self) -> HeaderValue {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut date = self.date.borrow_mut();
        if date.0 != now {
            *date = (now, HeaderValue::from_str(&http_date(now)).unwrap_or_else(|_| HeaderValue::from_static("")));
        }
        date.1.clone()
    }

    /// This worker's pools for a cluster.
    pub fn upstream(self: &Rc<Self>, cluster: &Cluster) -> Rc<Upstream> {
        let name = &cluster.policy.name;
        if let Some(upstream) = self.upstreams.borrow().get(name)
            && upstream.is_current()
        {
            return Rc::clone(upstream);
        }
        let newest = self.snapshot();
        let balancer = self.shared.balancers.of(cluster, &newest, self.time(Instant::now()));
        let upstream = Rc::new(Upstream::new(balancer, &self.shared.secrets, self.shared.upstream_mark.get().copied()));
        self.upstreams.borrow_mut().insert(name.clone(), Rc::clone(&upstream));
        upstream
    }

    fn refresh(&self) {
        let newest = self.snapshot();
        self.upstreams.borrow_mut().retain(|name, upstream| match newest.cluster(name) {
            Some(cluster) if Arc::ptr_eq(&cluster.policy, upstream.balancer.policy()) => {
                upstream.keep_only_members();
                true
            }
            _ => {
                upstream.retire();
                false
            }
        });
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn http_date(seconds: u64) -> String {
    let days = seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    // Days to a civil date in the proleptic Gregorian calendar, in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let name = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"][month as usize];
    let year = year_of_era + era * 400 + u64::from(month >= 10);
    format!("{weekday}, {day:02} {name} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_written_as_http_wants_them() {
        assert_eq!(super::http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(super::http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(super::http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
