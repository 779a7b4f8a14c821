//! From the facts of a finished exchange to metrics, counters and access log.
//!
//! The way of a request ends here. Handles of `mizzen-telemetry` are looked up once for each combination of listener,
//! cluster, endpoint and client identity, and kept.

mod labels;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::SystemTime;

use http::Version;
use mizzen_identity::Secrets;
use mizzen_snapshot::cluster::{ClusterPolicy, EndpointAddress};
use mizzen_snapshot::http::HttpHandler;
use mizzen_snapshot::listener::{AccessLog, TcpHandler, Unmatched};
use mizzen_telemetry::stats::{Group, HttpStat};
use mizzen_telemetry::{Address, Exchange, IstioMetrics, Kind, Logger, Party, Sinks, Stats, Traffic, Writers, record};

use crate::facts::{Downstream, HttpFacts, TcpFacts};
use crate::peer::Peer;
use crate::refusal::Flag;
use crate::shared::{Opened, Recorder};

pub use labels::party_of_node;

/// Kept combinations; more are only looked up anew.
const KEPT: usize = 4096;

/// Everything that this process tells about its traffic.
pub struct Record {
    pub istio: IstioMetrics,
    pub stats: Stats,
    pub writers: Writers,
    own: Arc<Party>,
    secrets: Secrets,
    hostname: Arc<str>,
    kept: RwLock<HashMap<Key, Kept>>,
    loggers: Mutex<HashMap<usize, Compiled>>,
}

type Loggers = Arc<[Logger]>;
/// The access logs of a handler.
type Compiled = (Weak<dyn Handler>, Loggers);

/// Addresses of shared parts, which stay taken as long as the [`Kept`] beside them holds them weakly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    handler: usize,
    cluster: usize,
    host: usize,
    inbound: bool,
    /// Whether there was mutual TLS, and a hash of the peer's name.
    peer: Option<u64>,
    /// Fingerprint of how the other end described its workload.
    workload: u64,
}

struct Kept {
    handler: Weak<dyn Handler>,
    cluster: Option<Weak<ClusterPolicy>>,
    host: Option<Weak<mizzen_balance::Host>>,
    peer: Option<String>,
    handles: Arc<Handles>,
}

struct Handles {
    traffic: Option<Arc<Traffic>>,
    downstream: Arc<Group>,
    cluster: Option<Arc<Group>>,
    loggers: Loggers,
}

/// What HTTP and TCP handlers have in common here.
trait Handler: Send + Sync {
    fn access_log(&self) -> &[AccessLog];
    fn downstream(&self, stats: &Stats) -> Arc<Group>;
    /// Istio's metrics are wanted.
    fn istio_stats(&self) -> bool;
}

impl Handler for HttpHandler {
    fn access_log(&self) -> &[AccessLog] {
        &self.access_log
    }

    fn downstream(&self, stats: &Stats) -> Arc<Group> {
        stats.http(&self.stat_prefix)
    }

    fn istio_stats(&self) -> bool {
        self.istio_stats
    }
}

impl Handler for TcpHandler {
    fn access_log(&self) -> &[AccessLog] {
        &self.access_log
    }

    fn downstream(&self, stats: &Stats) -> Arc<Group> {
        stats.tcp(&self.stat_prefix)
    }

    fn istio_stats(&self) -> bool {
        true
    }
}

impl Handler for Unmatched {
    fn access_log(&self) -> &[AccessLog] {
        &self.access_log
    }

    fn downstream(&self, stats: &Stats) -> Arc<Group> {
        stats.tcp("")
    }

    fn istio_stats(&self) -> bool {
        false
    }
}

/// The parts of facts that handles depend on.
struct Ends<'a> {
    handler: Arc<dyn Handler>,
    downstream: &'a Downstream,
    cluster: Option<&'a Arc<mizzen_snapshot::Cluster>>,
    upstream: Option<&'a Arc<mizzen_balance::Host>>,
    upstream_uri: Option<&'a str>,
    /// The workload at the other end, as it described itself: the client's at the destination, else the upstream's.
    told: Option<&'a Peer>,
}

impl Record {
    /// `own` is this workload as its node metadata describes it.
    pub fn new(own: Party, hostname: &str, secrets: Secrets) -> Self {
        Self {
            istio: IstioMetrics::default(),
            stats: Stats::default(),
            writers: Writers::new(),
            own: Arc::new(own),
            secrets,
            hostname: hostname.into(),
            kept: RwLock::default(),
            loggers: Mutex::default(),
        }
    }

    /// Lets go of what belongs to configuration that is gone, and of idle series. To be called once a minute.
    pub fn sweep(&self, exists: impl Fn(&str) -> bool) {
        self.istio.sweep();
        self.stats.retain_clusters(exists);
        write(&self.kept).retain(|_, kept| kept.is_alive());
        lock(&self.loggers).retain(|_, (handler, _)| handler.strong_count() > 0);
    }

    fn handles(&self, ends: &Ends<'_>) -> Arc<Handles> {
        let inbound = labels::is_inbound(ends.downstream);
        let peer = match ends.upstream_uri {
            Some(uri) if !inbound => Some(uri),
            _ => ends.downstream.peer_uri(),
        };
        let key = Key {
            handler: Arc::as_ptr(&ends.handler).cast::<()>() as usize,
            cluster: ends.cluster.map_or(0, |cluster| Arc::as_ptr(&cluster.policy) as usize),
            host: ends.upstream.map_or(0, |host| Arc::as_ptr(host) as usize),
            inbound,
            peer: peer.map(|peer| xxhash_rust::xxh64::xxh64(peer.as_bytes(), 0)),
            workload: ends.told.map_or(0, |peer| peer.fingerprint),
        };
        if let Some(kept) = read(&self.kept).get(&key)
            && kept.peer.as_deref() == peer
        {
            return Arc::clone(&kept.handles);
        }
        let handles = Arc::new(Handles {
            traffic: ends.handler.istio_stats().then(|| self.istio.traffic(self.labels(ends))),
            downstream: ends.handler.downstream(&self.stats),
            cluster: ends.cluster.map(|cluster| self.stats.cluster(cluster.policy.name.as_str())),
            loggers: self.loggers(&ends.handler),
        });
        let kept = Kept {
            handler: Arc::downgrade(&ends.handler),
            cluster: ends.cluster.map(|cluster| Arc::downgrade(&cluster.policy)),
            host: ends.upstream.map(Arc::downgrade),
            peer: peer.map(str::to_owned),
            handles: Arc::clone(&handles),
        };
        let mut all = write(&self.kept);
        if all.len() >= KEPT {
            all.retain(|_, kept| kept.is_alive());
        }
        if all.len() < KEPT {
            all.insert(key, kept);
        }
        handles
    }

    fn loggers(&self, handler: &Arc<dyn Handler>) -> Loggers {
        let mut all = lock(&self.loggers);
        let place = Arc::as_ptr(handler).cast::<()>() as usize;
        if let Some((_, loggers)) = all.get(&place) {
            return Arc::clone(loggers);
        }
        let compiled = handler.access_log().iter().filter_map(|log| {
            // The listener was refused before if its format cannot be compiled.
            Logger::new(log, &self.writers, &self.hostname)
                .inspect_err(|error| tracing::error!(%error, "an access log is left out"))
                .ok()
        });
        let loggers: Loggers = compiled.collect();
        all.insert(place, (Arc::downgrade(handler), Arc::clone(&loggers)));
        loggers
    }
}

impl Kept {
    fn is_alive(&self) -> bool {
        self.handler.strong_count() > 0
            && self.cluster.as_ref().is_none_or(|cluster| cluster.strong_count() > 0)
            && self.host.as_ref().is_none_or(|host| host.strong_count() > 0)
    }
}

impl Handles {
    fn sinks(&self) -> Sinks<'_> {
        Sinks {
            traffic: self.traffic.as_deref(),
            downstream: Some(&self.downstream),
            cluster: self.cluster.as_deref(),
            draw: 0,
        }
    }
}

impl Recorder for Record {
    fn http_connection(&self, handler: &HttpHandler, opened: &Opened, is_open: bool) {
        let group = self.stats.http(&handler.stat_prefix);
        if !is_open {
            group.dec(HttpStat::CxActive);
            return;
        }
        group.inc(HttpStat::CxTotal);
        group.inc(HttpStat::CxActive);
        group.inc(if opened.http2 { HttpStat::CxHttp2Total } else { HttpStat::CxHttp1Total });
        if opened.tls {
            group.inc(HttpStat::CxSslTotal);
        }
    }

    fn http(&self, facts: &HttpFacts) {
        let upstream_uri = facts.upstream_identity.as_ref().and_then(|peer| peer.uris.first()).map(String::as_str);
        let handler: Arc<dyn Handler> = Arc::<HttpHandler>::clone(&facts.handler);
        let handles = self.handles(&Ends {
            handler,
            downstream: &facts.downstream,
            cluster: facts.cluster.as_ref(),
            upstream: facts.upstream.as_ref(),
            upstream_uri,
            told: told(&facts.downstream, &facts.peer, &facts.upstream_workload),
        });
        let flags = Flags::of(&facts.flags);
        let exchange = Exchange {
            request_received: facts.request_received,
            upstream_sent: facts.upstream_sent,
            upstream_responded: facts.upstream_responded,
            method: Some(facts.method.as_str()),
            path: Some(&facts.path),
            authority: Some(&facts.authority),
            scheme: Some(facts.scheme),
            protocol: Some(protocol(facts.version)),
            request_headers: Some(&facts.request_headers),
            response_headers: Some(&facts.response_headers),
            response_trailers: facts.response_trailers.as_ref(),
            status: facts.status,
            flags: flags.text(),
            details: Some(facts.details),
            upstream_transport_failure: facts.upstream_failure.as_deref().filter(|_| facts.flags.contains(&Flag::UF)),
            bytes_received: facts.bytes_received,
            bytes_sent: facts.bytes_sent,
            attempts: facts.attempts,
            downstream_remote: Some(facts.remote),
            upstream_host: host_address(facts.upstream_peer, facts.upstream.as_ref()),
            upstream_remote: facts.upstream_peer,
            upstream_local: facts.upstream_local,
            cluster: facts.cluster.as_ref().map(|cluster| cluster.policy.name.as_str()),
            route: facts.route.as_ref().map(|route| route.name.as_str()).or(facts.unfollowed.as_deref()),
            virtual_host: facts.virtual_host.as_ref().map(|host| host.name.as_str()),
            upstream_peer_uri: upstream_uri,
            ..with_downstream(Exchange::new(Kind::Http, facts.started_at, facts.duration), &facts.downstream)
        };
        record(&exchange, &Sinks { draw: draw(&exchange), ..handles.sinks() }, &handles.loggers);
    }

    fn unmatched(&self, log: &Arc<Unmatched>, downstream: &Downstream, accepted_at: SystemTime) {
        let handler: Arc<dyn Handler> = Arc::<Unmatched>::clone(log);
        let lasted = accepted_at.elapsed().unwrap_or_default();
        let exchange = Exchange {
            flags: Flag::NR.as_str(),
            details: Some("filter_chain_not_found"),
            downstream_remote: Some(downstream.peer),
            ..with_downstream(Exchange::new(Kind::Tcp, accepted_at, lasted), downstream)
        };
        let sinks = Sinks { traffic: None, downstream: None, cluster: None, draw: draw(&exchange) };
        record(&exchange, &sinks, &self.loggers(&handler));
    }

    fn tcp(&self, facts: &TcpFacts) {
        let upstream_uri = facts.upstream_identity.as_ref().and_then(|peer| peer.uris.first()).map(String::as_str);
        let handler: Arc<dyn Handler> = Arc::<TcpHandler>::clone(&facts.handler);
        let handles = self.handles(&Ends {
            handler,
            downstream: &facts.downstream,
            cluster: facts.cluster.as_ref(),
            upstream: facts.upstream.as_ref(),
            upstream_uri,
            told: told(&facts.downstream, &facts.client_workload, &facts.upstream_workload),
        });
        let flags = Flags::of(&facts.flags);
        let exchange = Exchange {
            flags: flags.text(),
            details: Some(facts.details),
            upstream_transport_failure: facts.cause.as_deref().filter(|_| facts.flags.contains(&Flag::UF)),
            bytes_received: facts.bytes_received,
            bytes_sent: facts.bytes_sent,
            downstream_remote: Some(facts.downstream.peer),
            upstream_host: host_address(facts.upstream_peer, facts.upstream.as_ref()),
            upstream_remote: facts.upstream_peer,
            upstream_local: facts.upstream_local,
            cluster: facts.cluster.as_ref().map(|cluster| cluster.policy.name.as_str()),
            upstream_peer_uri: upstream_uri,
            ..with_downstream(Exchange::new(Kind::Tcp, facts.started_at, facts.duration), &facts.downstream)
        };
        record(&exchange, &Sinks { draw: draw(&exchange), ..handles.sinks() }, &handles.loggers);
    }
}

fn told<'a>(
    downstream: &Downstream,
    client: &'a Option<Arc<Peer>>,
    upstream: &'a Option<Arc<Peer>>,
) -> Option<&'a Peer> {
    if labels::is_inbound(downstream) { client.as_deref() } else { upstream.as_deref() }
}

fn with_downstream<'a>(exchange: Exchange<'a>, downstream: &'a Downstream) -> Exchange<'a> {
    let tls = downstream.tls.as_ref();
    let shown = |text: &'a str| Some(text).filter(|text| !text.is_empty());
    Exchange {
        downstream_direct_remote: Some(downstream.peer),
        downstream_local: Some(downstream.local),
        connection_id: Some(downstream.id),
        server_name: tls.and_then(|tls| tls.server_name.as_deref()),
        downstream_peer_uri: downstream.peer_uri(),
        downstream_peer_subject: tls.and_then(|tls| tls.peer.as_ref()).and_then(|peer| shown(&peer.subject)),
        downstream_tls_version: tls.and_then(|tls| shown(tls.version)),
        downstream_tls_cipher: tls.and_then(|tls| shown(&tls.cipher)),
        ..exchange
    }
}

/// Flags as logs show them; allocates only for more than one.
enum Flags {
    None,
    One(&'static str),
    Several(String),
}

impl Flags {
    fn of(flags: &[Flag]) -> Self {
        match flags {
            [] => Self::None,
            [one] => Self::One(one.as_str()),
            several => Self::Several(several.iter().map(|flag| flag.as_str()).collect::<Vec<_>>().join(",")),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::None => "",
            Self::One(flag) => flag,
            Self::Several(flags) => flags,
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn host_address(peer: Option<SocketAddr>, host: Option<&Arc<mizzen_balance::Host>>) -> Option<Address<'_>> {
    match host.map(|host| &host.endpoint.address) {
        Some(EndpointAddress::Socket(address)) => Some(Address::Socket(*address)),
        Some(EndpointAddress::Pipe(path)) => path.to_str().map(Address::Text),
        // A name was resolved to what was connected to.
        Some(EndpointAddress::Name { host, .. }) => Some(peer.map_or(Address::Text(host), Address::Socket)),
        None => peer.map(Address::Socket),
    }
}

/// The share of exchanges that a log keeps is chosen by the time they took and began, in nanoseconds: random enough,
/// and without a generator of random numbers.
fn draw(exchange: &Exchange<'_>) -> u32 {
    let began = exchange.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mixed = xxhash_rust::xxh64::xxh64(&(began + exchange.duration).as_nanos().to_le_bytes(), 0);
    (mixed % 1_000_000) as u32
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a map of handles half changed; here and below.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(kept: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    kept.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(kept: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    kept.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
