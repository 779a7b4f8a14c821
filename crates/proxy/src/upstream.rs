//! One cluster as a worker sees it: its balancer, TLS settings and keep-alive connections.
//!
//! Pools are this thread's own, so taking and giving back a connection is a push and a pop. An idle connection is
//! asked whether it is still open when it is taken, and swept from time to time, so that one that the peer closed is
//! never used and does not linger.

pub mod connect;
pub mod http1;
pub mod http2;
pub mod proxy_header;
pub mod pump;
pub mod request;
pub mod send;
pub mod timeouts;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mizzen_balance::{Balancer, Host};
use mizzen_identity::Secrets;
use mizzen_identity::tls::{ClientConfigs, client_config};
use mizzen_snapshot::cluster::{ClusterPolicy, Discovery, Endpoint};
use mizzen_snapshot::listener::Inspect;
use mizzen_snapshot::tls::ClientTls;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::upstream::http1::Idle;
use crate::upstream::http2::Multiplexed;

/// How long an idle connection is kept where the cluster says nothing (Envoy: one hour).
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Time between looks at idle connections; grows while nothing happens.
const SWEEP: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));

/// A destination that a client dialled itself, and the client where the destination sees its address.
type Original = (SocketAddr, Option<Source>);

/// So many original destinations are remembered whether or not they are used.
const ORIGINALS: usize = 64;

pub struct Upstream {
    pub balancer: Arc<Balancer>,
    /// What its connections are marked with.
    mark: Option<u32>,
    /// In the order of `transports` in the policy, the default last.
    transports: Vec<Transport>,
    hosts: RefCell<HashMap<PoolKey, Pool>>,
    /// Destinations that clients dialled themselves, while there are connections to them (`ORIGINAL_DST`).
    /// Those who see the client's own address are called over connections for this client alone.
    originals: RefCell<HashMap<Original, Arc<Host>>>,
    /// How many may be remembered before those that nobody uses are forgotten.
    originals_limit: Cell<usize>,
    /// A connection came back or ended: who waits for one may try again.
    pub freed: Notify,
    retired: Cell<bool>,
    sweeping: Cell<bool>,
}

/// The client that a server shall see in our place (Envoy: the listener filter `original_src`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    pub address: IpAddr,
    /// 0: none.
    pub mark: u32,
}

impl Source {
    /// Whom the servers of a cluster see: the client, where the listener says so and the server is the one that the client
    /// called.
    pub fn of(inspect: &Inspect, cluster: &ClusterPolicy, client: SocketAddr) -> Option<Self> {
        let mark = inspect.original_src?;
        matches!(cluster.discovery, Discovery::OriginalDst { .. }).then_some(Self { address: client.ip(), mark })
    }
}

/// How an endpoint is spoken to.
pub struct Transport {
    pub tls: Option<Arc<ClientTls>>,
    configs: Option<ClientConfigs>,
}

/// What connections are alike: same endpoint, transport and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Address of the endpoint's state, which the pool keeps alive.
    host: usize,
    transport: usize,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
}

struct Pool {
    host: Arc<Host>,
    /// Boxed once, because each request moves one out and back.
    #[expect(clippy::vec_box, reason = "moved as a box, not copied")]
    idle: Vec<Box<Idle>>,
    multiplexed: Vec<Rc<Multiplexed>>,
    /// An HTTP/2 connection is being made; others wait for it instead of making more.
    connecting: bool,
}

impl Upstream {
    pub fn new(balancer: Arc<Balancer>, secrets: &Secrets, mark: Option<u32>) -> Self {
        let policy = balancer.policy();
        let all = policy.transports.iter().map(|transport| &transport.tls).chain([&policy.default_transport]);
        let transports = all
            .map(|tls| Transport { tls: tls.clone(), configs: tls.as_ref().map(|tls| client_config(tls, secrets)) })
            .collect();
        Self {
            balancer,
            mark,
            transports,
            hosts: RefCell::default(),
            originals: RefCell::default(),
            originals_limit: Cell::new(ORIGINALS),
            freed: Notify::new(),
            retired: Cell::new(false),
            sweeping: Cell::new(false),
        }
    }

    pub fn policy(&self) -> &Arc<ClusterPolicy> {
        self.balancer.policy()
    }

    pub fn name(&self) -> &str {
        self.policy().name.as_str()
    }

    pub fn is_current(&self) -> bool {
        !self.retired.get()
    }

    /// The destination that a client dialled itself, as an endpoint: the same one for all who dial it, so that they share
    /// connections.
    pub fn original(&self, address: SocketAddr, source: Option<Source>) -> Arc<Host> {
        let mut originals = self.originals.borrow_mut();
        if let Some(host) = originals.get(&(address, source)) {
            return Arc::clone(host);
        }
        if originals.len() >= self.originals_limit.get() {
            // Whoever uses one holds it.
            originals.retain(|_, host| Arc::strong_count(host) > 1);
            self.originals_limit.set((originals.len() * 2).max(ORIGINALS));
        }
        let host = Host::detached(address);
        originals.insert((address, source), Arc::clone(&host));
        host
    }

    /// Index of the transport for an endpoint: the first whose labels the endpoint has.
    pub fn transport_for(&self, endpoint: &Endpoint) -> usize {
        let policy = self.policy();
        let matching = |wanted: &[(String, String)]| wanted.iter().all(|pair| endpoint.transport_labels.contains(pair));
        policy.transports.iter().position(|transport| matching(&transport.labels)).unwrap_or(policy.transports.len())
    }

    pub fn transport(&self, index: usize) -> &Transport {
        &self.transports[index]
    }

    pub fn key(host: &Arc<Host>, transport: usize, protocol: Protocol) -> PoolKey {
        PoolKey { host: Arc::as_ptr(&host.state) as usize, transport, protocol }
    }

    /// An idle HTTP/1 connection that is still open.
    pub fn take_idle(&self, key: &PoolKey) -> Option<Box<Idle>> {
        let mut hosts = self.hosts.borrow_mut();
        let pool = hosts.get_mut(key)?;
        while let Some(idle) = pool.idle.pop() {
            if idle.is_usable(Instant::now(), self.idle_timeout()) {
                return Some(idle);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub fn give_back(self: &Rc<Self>, key: PoolKey, idle: Box<Idle>) {
        if self.retired.get() {
            return;
        }
        let mut hosts = self.hosts.borrow_mut();
        hosts.entry(key).or_insert_with(|| Pool::new(idle.host())).idle.push(idle);
        drop(hosts);
        self.freed.notify_one();
        self.start_sweeping();
    }

    /// An HTTP/2 connection with room for another stream.
    pub fn multiplexed(&self, key: &PoolKey) -> Option<Rc<Multiplexed>> {
        let mut hosts = self.hosts.borrow_mut();
        let pool = hosts.get_mut(key)?;
        pool.multiplexed.retain(|connection| !connection.is_closed());
        pool.multiplexed.iter().find(|connection| connection.has_room()).cloned()
    }

    /// Claims the making of an HTTP/2 connection; `None` when somebody is at it.
    pub fn claim_connecting(self: &Rc<Self>, key: PoolKey, host: &Arc<Host>) -> Option<Connecting> {
        let mut hosts = self.hosts.borrow_mut();
        let pool = hosts.entry(key).or_insert_with(|| Pool::new(host));
        if std::mem::replace(&mut pool.connecting, true) {
            return None;
        }
        Some(Connecting { upstream: Rc::clone(self), key })
    }

    pub fn add_multiplexed(&self, key: PoolKey, host: &Arc<Host>, connection: Rc<Multiplexed>) {
        if !self.retired.get() {
            self.hosts.borrow_mut().entry(key).or_insert_with(|| Pool::new(host)).multiplexed.push(connection);
        }
    }

    /// Whether this worker has no connection to the endpoint: it may then have one whatever the limit.
    pub fn has_none(&self, host: &Arc<Host>) -> bool {
        host.state.active_connections() == 0
    }

    /// Closes idle connections to endpoints that are gone from the cluster.
    pub fn keep_only_members(&self) {
        if matches!(self.policy().discovery, Discovery::OriginalDst { .. }) {
            return;
        }
        let members = self.balancer.hosts();
        self.hosts.borrow_mut().retain(|_, pool| members.iter().any(|host| Arc::ptr_eq(&host.state, &pool.host.state)));
    }

    /// Closes idle connections to one endpoint; those in use end with their exchange.
    pub fn close_idle(&self, host: &Arc<Host>) {
        self.hosts.borrow_mut().retain(|_, pool| !Arc::ptr_eq(&pool.host.state, &host.state));
    }

    /// No more requests come here; connections in use end with their exchange.
    pub fn retire(&self) {
        self.retired.set(true);
        self.hosts.borrow_mut().clear();
        self.freed.notify_waiters();
    }

    fn idle_timeout(&self) -> Duration {
        self.policy().http.idle_timeout.unwrap_or(IDLE_TIMEOUT)
    }

    /// Runs while there are idle connections, and then ends.
    fn start_sweeping(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let upstream = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let mut pause = SWEEP.0;
            loop {
                tokio::time::sleep(pause).await;
                let Some(upstream) = upstream.upgrade() else { return };
                let (closed, left) = upstream.sweep(Instant::now());
                if left == 0 {
                    upstream.sweeping.set(false);
                    return;
                }
                pause = if closed > 0 { SWEEP.0 } else { (pause * 2).min(SWEEP.1) };
            }
        });
    }

    fn sweep(&self, now: Instant) -> (usize, usize) {
        let (mut closed, mut left) = (0, 0);
        let timeout = self.idle_timeout();
        self.hosts.borrow_mut().retain(|_, pool| {
            let before = pool.idle.len();
            pool.idle.retain(|idle| idle.is_usable(now, timeout));
            closed += before - pool.idle.len();
            left += pool.idle.len();
            pool.multiplexed.retain(|connection| !connection.is_closed());
            !pool.idle.is_empty() || !pool.multiplexed.is_empty() || pool.connecting
        });
        (closed, left)
    }
}

impl Transport {
    pub fn configs(&self) -> Option<&ClientConfigs> {
        self.configs.as_ref()
    }
}

impl Pool {
    fn new(host: &Arc<Host>) -> Self {
        Self { host: Arc::clone(host), idle: Vec::new(), multiplexed: Vec::new(), connecting: false }
    }
}

/// The right to make an HTTP/2 connection; given up when dropped.
pub struct Connecting {
    upstream: Rc<Upstream>,
    key: PoolKey,
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(pool) = self.upstream.hosts.borrow_mut().get_mut(&self.key) {
            pool.connecting = false;
        }
        self.upstream.freed.notify_waiters();
    }
}
