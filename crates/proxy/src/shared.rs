//! What all workers share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use mizzen_balance::{Balancer, Time};
use mizzen_identity::Secrets;
use mizzen_proto::istio_nds::NameTable;
use mizzen_snapshot::http::HttpHandler;
use mizzen_snapshot::listener::Unmatched;
use mizzen_snapshot::{Cluster, Snapshot};
use mizzen_types::ClusterName;
use tokio::sync::watch;

use crate::config::Limits;
use crate::facts::{Downstream, HttpFacts, TcpFacts};
use crate::peer::Own;

pub struct Shared {
    /// Only `publish` stores; only `worker` loads.
    pub snapshot: ArcSwap<Snapshot>,
    pub secrets: Secrets,
    pub balancers: Balancers,
    pub recorder: Arc<dyn Recorder>,
    /// What this workload tells others about itself, when it knows.
    pub own: OnceLock<Own>,
    pub limits: Limits,
    pub drain_time: Duration,
    /// What connections to endpoints are marked with, when they are; set once at the start.
    pub upstream_mark: OnceLock<u32>,
    /// The names that the name server beside us answers, as the control plane told them.
    pub names: watch::Sender<Arc<NameTable>>,
    /// Something large was made and let go: free memory may be given back when there is time.
    pub swollen: AtomicBool,
    /// Zero of all [`Time`]s.
    pub origin: Instant,
    /// Client connections open now.
    pub open: AtomicUsize,
    connections: AtomicU64,
}

/// Takes finished exchanges down. Called on the worker's thread after the last byte was sent.
pub trait Recorder: Send + Sync {
    fn http(&self, facts: &HttpFacts);
    fn tcp(&self, facts: &TcpFacts);
    /// A connection was closed because no filter chain of its listener matches.
    fn unmatched(&self, _log: &Arc<Unmatched>, _downstream: &Downstream, _accepted_at: SystemTime) {}
    /// A client's HTTP connection was opened, or closed again.
    fn http_connection(&self, _handler: &HttpHandler, _opened: &Opened, _is_open: bool) {}
}

/// How a client speaks HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    pub http2: bool,
    pub tls: bool,
}

/// Records nothing.
pub struct NoRecorder;

impl Recorder for NoRecorder {
    fn http(&self, _: &HttpFacts) {}
    fn tcp(&self, _: &TcpFacts) {}
}

impl Shared {
    pub fn new(secrets: Secrets, recorder: Arc<dyn Recorder>, limits: Limits, drain_time: Duration) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            secrets,
            balancers: Balancers::default(),
            recorder,
            own: OnceLock::new(),
            limits,
            drain_time,
            upstream_mark: OnceLock::new(),
            names: watch::Sender::default(),
            swollen: AtomicBool::new(false),
            origin: Instant::now(),
            open: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
        }
    }

    pub fn time(&self, now: Instant) -> Time {
        Time::between(self.origin, now)
    }

    /// Number for a new client connection.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Relaxed) + 1
    }
}

/// Balancers of the clusters that were called; made at the first call.
#[derive(Default)]
pub struct Balancers {
    by_name: Mutex<HashMap<ClusterName, Arc<Balancer>>>,
}

impl Balancers {
    /// The balancer of a cluster. `newest` is the snapshot in force now: a request that still uses an older one must
    /// not bring old endpoints back.
    pub fn of(&self, cluster: &Cluster, newest: &Snapshot, now: Time) -> Arc<Balancer> {
        let mut all = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &cluster.policy.name;
        if let Some(balancer) = all.get(name) {
            return Arc::clone(balancer);
        }
        let cluster = newest.cluster(name).map_or(cluster, |newest| newest);
        let balancer =
            Arc::new(Balancer::new(Arc::clone(&cluster.policy), &cluster.endpoints, crate::worker::seed(), now));
        all.insert(name.clone(), Arc::clone(&balancer));
        balancer
    }

    /// Brings the balancers that exist to a new snapshot.
    pub fn follow(&self, snapshot: &Snapshot, now: Time) {
        let mut all = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, balancer| {
            let Some(cluster) = snapshot.cluster(name) else {
                return false;
            };
            if Arc::ptr_eq(balancer.policy(), &cluster.policy) {
                balancer.update(&cluster.endpoints, crate::worker::seed(), now);
            } else {
                let policy = Arc::clone(&cluster.policy);
                *balancer = Arc::new(balancer.successor(policy, &cluster.endpoints, crate::worker::seed(), now));
            }
            true
        });
    }

    /// All that exist, by name.
    pub fn all(&self) -> Vec<(ClusterName, Arc<Balancer>)> {
        let all = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = all.iter().map(|(name, balancer)| (name.clone(), Arc::clone(balancer))).collect();
        list.sort_by(|left, right| left.0.cmp(&right.0));
        list
    }

    /// Whether any of them takes outliers out.
    pub fn any_outliers(&self) -> bool {
        let all = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().any(|balancer| balancer.sweep_interval().is_some())
    }

    /// Lets ejected endpoints return whose time is over.
    pub fn sweep(&self, now: Time) {
        for (name, balancer) in self.all() {
            for host in balancer.sweep(now).returned {
                tracing::info!(cluster = %name, endpoint = ?host.endpoint.address, "ejected endpoint returns");
            }
        }
    }
}
