//! What is known of one endpoint while it exists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use mizzen_snapshot::cluster::{Endpoint, EndpointAddress, Health};
use mizzen_types::Locality;

use crate::time::Time;

/// An endpoint as a member of a cluster: its configuration now, and its state over time.
#[derive(Debug)]
pub struct Host {
    pub endpoint: Arc<Endpoint>,
    /// Shared by all versions of the endpoint with this address.
    pub state: Arc<EndpointState>,
    pub priority: u32,
    pub locality: Arc<Locality>,
}

/// Counters and outlier state of one address, kept while the address is a member of the cluster.
///
/// All numbers are monotonic unless called active. They are statistics: relaxed, and never a guard for other memory.
#[derive(Debug, Default)]
pub struct EndpointState {
    pub(crate) active_requests: AtomicU32,
    pub(crate) active_connections: AtomicU32,
    pub(crate) ejected: AtomicBool,
    pub(crate) ejected_at: AtomicU64,
    /// How often the ejection time has been raised: the multiplier of the base ejection time.
    pub(crate) ejection_backoff: AtomicU32,
    pub(crate) ejections: AtomicU32,
    pub(crate) consecutive_5xx: AtomicU32,
    pub(crate) consecutive_gateway_failures: AtomicU32,
    pub(crate) consecutive_local_failures: AtomicU32,
    /// When it joined the cluster, for slow start.
    pub(crate) joined: AtomicU64,
    requests: AtomicU64,
    successes: AtomicU64,
    errors: AtomicU64,
    timeouts: AtomicU64,
    connections: AtomicU64,
    connect_failures: AtomicU64,
}

impl EndpointState {
    pub(crate) fn joined_at(now: Time) -> Self {
        let state = Self::default();
        state.joined.store(now.as_nanos(), Relaxed);
        state
    }

    /// Ends an ejection and forgets the errors that led to it.
    pub(crate) fn forgive(&self) {
        self.clear_runs();
        self.ejection_backoff.store(0, Relaxed);
        self.ejected.store(false, Relaxed);
    }

    pub fn active_requests(&self) -> u32 {
        self.active_requests.load(Relaxed)
    }

    pub fn active_connections(&self) -> u32 {
        self.active_connections.load(Relaxed)
    }

    /// Taken out of the choice by outlier detection.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// How often it has been ejected.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub fn successes(&self) -> u64 {
        self.successes.load(Relaxed)
    }

    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    pub fn timeouts(&self) -> u64 {
        self.timeouts.load(Relaxed)
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    pub fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Relaxed)
    }

    pub(crate) fn count_timeout(&self) {
        self.timeouts.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_success(&self) {
        self.successes.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_connect_failure(&self) {
        self.connect_failures.fetch_add(1, Relaxed);
    }
}

impl Host {
    /// A host outside of any endpoint set: the destination that a client dialled itself (`ORIGINAL_DST`).
    pub fn detached(address: std::net::SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            endpoint: Arc::new(Endpoint {
                address: EndpointAddress::Socket(address),
                weight: 1,
                health: Health::Healthy,
                transport_labels: Vec::new(),
                hostname: None,
                workload: None,
            }),
            state: Arc::new(EndpointState::default()),
            priority: 0,
            locality: Arc::new(Locality::default()),
        })
    }

    /// Counts a request as active until the guard is dropped.
    pub fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        self.state.active_requests.fetch_add(1, Relaxed);
        self.state.requests.fetch_add(1, Relaxed);
        ActiveRequest { host: Arc::clone(self) }
    }

    /// Counts an established connection as active until the guard is dropped.
    pub fn begin_connection(self: &Arc<Self>) -> ActiveConnection {
        self.state.active_connections.fetch_add(1, Relaxed);
        self.state.connections.fetch_add(1, Relaxed);
        ActiveConnection { host: Arc::clone(self) }
    }

    pub fn availability(&self) -> Availability {
        match (self.endpoint.health, self.state.is_ejected()) {
            (Health::Unhealthy | Health::Draining, _) | (_, true) => Availability::Unavailable,
            (Health::Degraded, false) => Availability::Degraded,
            (Health::Healthy, false) => Availability::Healthy,
        }
    }
}

/// Whether an endpoint may be chosen, from its configured health and its ejection together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    Healthy,
    /// Only when there are too few healthy ones.
    Degraded,
    /// Only in panic.
    Unavailable,
}

/// A request in flight to an endpoint; the endpoint's active count falls when this is dropped.
#[derive(Debug)]
pub struct ActiveRequest {
    host: Arc<Host>,
}

/// An open connection to an endpoint; the endpoint's active count falls when this is dropped.
#[derive(Debug)]
pub struct ActiveConnection {
    host: Arc<Host>,
}

impl ActiveRequest {
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }
}

impl ActiveConnection {
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.host.state.active_requests.fetch_sub(1, Relaxed);
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.host.state.active_connections.fetch_sub(1, Relaxed);
    }
}
