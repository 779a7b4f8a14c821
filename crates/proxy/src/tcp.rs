//! Opaque TCP: choose a cluster and an endpoint, connect, relay.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mizzen_balance::{Host, Outcome, PickContext};
use mizzen_net::Stream;
use mizzen_net::relay::{self, Prefaces, ReadAhead};
use mizzen_snapshot::Cluster;
use mizzen_snapshot::cluster::Discovery;
use mizzen_snapshot::listener::{Inspect, TcpHandler};
use mizzen_snapshot::plan::NoPlan;
use tokio::io::AsyncWriteExt;

use crate::connection::Connection;
use crate::facts::TcpFacts;
use crate::peer;
use crate::refusal::{Flag, Refusal};
use crate::upstream::connect::{self, Dialled, TlsWish};
use crate::upstream::{Source, Upstream};
use crate::worker::Worker;

/// Who wants to be connected.
pub struct Caller<'a> {
    pub worker: &'a Rc<Worker>,
    pub peer: SocketAddr,
    /// Where it wanted to go.
    pub local: SocketAddr,
    pub server_name: Option<&'a str>,
    /// What the listener does besides.
    pub inspect: &'a Inspect,
}

impl Caller<'_> {
    fn source(&self, upstream: &Upstream) -> Option<Source> {
        Source::of(self.inspect, upstream.policy(), self.peer)
    }
}

/// A connection to an upstream, or the reason why there is none, and how far it came.
pub struct Attempt {
    cluster: Option<Arc<Cluster>>,
    host: Option<Arc<Host>>,
    pub result: Result<Connected, Refusal>,
}

pub struct Connected {
    dialled: Dialled,
    host: Arc<Host>,
    permit: mizzen_balance::Permit,
    /// What the upstream may say of itself before the application's bytes.
    preface: Option<u32>,
    ahead: Option<ReadAhead>,
}

impl Connected {
    /// Waits until the upstream speaks (true), or closes (false). May be given up and asked again.
    pub async fn heard(&mut self) -> bool {
        let ahead = self.ahead.get_or_insert_with(|| ReadAhead::new(self.preface));
        ahead.heard(&mut self.dialled.stream).await.unwrap_or(false)
    }
}

/// Serves a connection. `attempt` is one that was made already.
pub async fn serve(
    connection: Rc<Connection>,
    handler: Arc<TcpHandler>,
    mut client: Stream,
    attempt: Option<Box<Attempt>>,
) {
    let mut facts = TcpFacts {
        downstream: Arc::clone(&connection.downstream),
        handler: Arc::clone(&handler),
        started: Instant::now(),
        started_at: SystemTime::now(),
        flags: Vec::new(),
        details: "",
        cause: None,
        bytes_received: 0,
        bytes_sent: 0,
        duration: std::time::Duration::ZERO,
        cluster: None,
        upstream: None,
        upstream_peer: None,
        upstream_local: None,
        upstream_identity: None,
        upstream_tls: false,
        client_workload: None,
        upstream_workload: None,
    };
    if let Err(refusal) = pass(&connection, &handler, &mut client, attempt, &mut facts).await {
        tracing::debug!(peer = %connection.downstream.peer, cause = %refusal, "TCP connection refused");
        let told = refusal.told();
        facts.flags.extend(told.flag);
        facts.details = told.details;
        facts.cause = Some(refusal.to_string());
    }
    facts.duration = facts.started.elapsed();
    connection.worker.shared.recorder.tcp(&facts);
}

async fn pass(
    connection: &Rc<Connection>,
    handler: &TcpHandler,
    client: &mut Stream,
    attempt: Option<Box<Attempt>>,
    facts: &mut TcpFacts,
) -> Result<(), Refusal> {
    let downstream = &connection.downstream;
    let attempt = match attempt {
        Some(attempt) => *attempt,
        None => {
            let server_name = downstream.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
            let (peer, local) = (downstream.peer, downstream.local);
            {
                let inspect = &downstream.listener.inspect;
                let caller = Caller { worker: &connection.worker, peer, local, server_name, inspect };
                connect(&caller, handler).await
            }
        }
    };
    facts.cluster = attempt.cluster;
    facts.upstream = attempt.host;
    let Connected { dialled, host, permit: _permit, preface, ahead } = attempt.result?;
    let _active = host.begin_connection();
    facts.upstream_peer = dialled.facts.peer;
    facts.upstream_local = dialled.facts.local;
    facts.upstream_tls = dialled.facts.tls;
    facts.upstream_identity.clone_from(&dialled.facts.identity);
    let mut server = dialled.stream;
    let idle = handler.idle_timeout.filter(|idle| !idle.is_zero());
    let client_alpn = connection.downstream.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    let prefaces = Prefaces {
        client: exchange(&connection.worker, client, &handler.peer_exchange, client_alpn.map(str::as_bytes)).await,
        upstream: preface,
    };
    let moved = relay::streams(client, prefaces, &mut server, ahead, idle).await;
    facts.client_workload = moved.client_preface.as_deref().and_then(peer::of_preface);
    facts.upstream_workload = moved.upstream_preface.as_deref().and_then(peer::of_preface);
    facts.bytes_received = moved.to_upstream;
    facts.bytes_sent = moved.to_client;
    if moved.idle {
        facts.flags.push(Flag::SI);
        facts.cause = Some("nothing was transferred within the idle timeout".to_owned());
    } else if let Some(error) = moved.upstream_error {
        facts.flags.push(Flag::UC);
        facts.cause = Some(format!("the upstream broke the connection: {error}"));
    } else if let Some(error) = moved.client_error {
        facts.flags.push(Flag::DC);
        facts.cause = Some(format!("the client broke the connection: {error}"));
    }
    Ok(())
}

/// Tells the other end who we are, when both have agreed on that by ALPN. It then begins with the same; the magic number
/// tells that from an end that agreed and does not do it.
async fn exchange(worker: &Worker, stream: &mut Stream, wanted: &Option<String>, agreed: Option<&[u8]>) -> Option<u32> {
    if wanted.as_deref().map(str::as_bytes) != agreed {
        return None;
    }
    let own = worker.shared.own.get().filter(|_| agreed.is_some())?;
    // An end that is gone is noticed by whoever relays next.
    let _ = stream.write_all(&own.preface).await;
    let _ = stream.flush().await;
    Some(peer::MAGIC)
}

/// Chooses cluster and endpoint, and connects.
pub async fn connect(caller: &Caller<'_>, handler: &TcpHandler) -> Attempt {
    let cluster = match cluster(caller.worker, handler) {
        Ok(cluster) => cluster,
        Err(refusal) => return Attempt { cluster: None, host: None, result: Err(refusal) },
    };
    let upstream = caller.worker.upstream(&cluster);
    let mut host = None;
    let result = match dial(caller, handler, &cluster, &upstream, &mut host).await {
        Ok((mut dialled, host, permit)) => {
            let (wanted, agreed) = (&cluster.policy.peer_exchange, dialled.facts.alpn.clone());
            let preface = exchange(caller.worker, &mut dialled.stream, wanted, agreed.as_deref()).await;
            Ok(Connected { dialled, host, permit, preface, ahead: None })
        }
        Err(refusal) => Err(refusal),
    };
    Attempt { cluster: Some(cluster), host, result }
}

fn cluster(worker: &Worker, handler: &TcpHandler) -> Result<Arc<Cluster>, Refusal> {
    let total: u32 = handler.clusters.iter().map(|(_, weight)| weight).sum();
    let mut draw = ((u64::from(worker.random.next_u32()) * u64::from(total.max(1))) >> 32) as u32;
    let chosen = handler.clusters.iter().find(|(_, weight)| {
        let hit = draw < *weight;
        draw = draw.saturating_sub(*weight);
        hit
    });
    let name = chosen.or(handler.clusters.first()).map(|(name, _)| name);
    let snapshot = worker.snapshot();
    name.and_then(|name| snapshot.cluster(name).cloned()).ok_or_else(|| {
        Refusal::NoPlan(NoPlan::NoCluster {
            cluster: name.map(ToString::to_string).unwrap_or_default(),
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            route: handler.stat_prefix.clone(),
        })
    })
}

async fn dial(
    caller: &Caller<'_>,
    handler: &TcpHandler,
    cluster: &Cluster,
    upstream: &Upstream,
    chosen: &mut Option<Arc<Host>>,
) -> Result<(Dialled, Arc<Host>, mizzen_balance::Permit), Refusal> {
    let worker = caller.worker;
    let hash = handler.hash_source_ip.then(|| hash_ip(caller.peer.ip()));
    let mut attempt = 1;
    loop {
        let host = match cluster.policy.discovery {
            Discovery::OriginalDst { port_override } => {
                let mut address = caller.local;
                if let Some(port) = port_override {
                    address.set_port(port);
                }
                upstream.original(address, caller.source(upstream))
            }
            _ => {
                let ask = PickContext {
                    now: worker.time(Instant::now()),
                    draw: worker.random.next(),
                    hash,
                    ..PickContext::default()
                };
                upstream.balancer.pick(&ask).map_err(|none| Refusal::NoHealthyUpstream {
                    cluster: upstream.name().to_owned(),
                    empty: none == mizzen_balance::NoEndpoint::Empty,
                })?
            }
        };
        *chosen = Some(Arc::clone(&host));
        let permit = upstream.balancer.breakers().connection(false).map_err(|exceeded| Refusal::Overflow {
            cluster: upstream.name().to_owned(),
            cause: exceeded.to_string(),
        })?;
        let client = Some((caller.peer, caller.local));
        let wish = TlsWish { alpn: None, host: caller.server_name, client, source: caller.source(upstream) };
        let transport = upstream.transport_for(&host.endpoint);
        let dialled = connect::dial(upstream, &host, transport, wish).await;
        let outcome = match &dialled {
            Ok(_) => Outcome::Connected,
            Err(Refusal::ConnectTimeout { .. }) => Outcome::Timeout,
            Err(_) => Outcome::ConnectFailed,
        };
        upstream.balancer.record(&host, outcome, worker.time(Instant::now()));
        match dialled {
            Ok(dialled) => return Ok((dialled, host, permit)),
            Err(refusal) if attempt >= handler.max_connect_attempts.max(1) => return Err(refusal),
            Err(_) => attempt += 1,
        }
    }
}

/// As `HashOn::SourceIp` does for requests.
fn hash_ip(ip: std::net::IpAddr) -> u64 {
    xxhash_rust::xxh64::xxh64(ip.to_string().as_bytes(), 0)
}
