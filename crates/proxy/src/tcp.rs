//! Opaque TCP: choose a cluster and an endpoint, connect, relay.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mizzen_balance::{Host, Outcome, PickContext};
use mizzen_net::Stream;
use mizzen_net::relay::{self, Prefaces};
use mizzen_snapshot::Cluster;
use mizzen_snapshot::cluster::Discovery;
use mizzen_snapshot::listener::TcpHandler;
use mizzen_snapshot::plan::NoPlan;
use tokio::io::AsyncWriteExt;

use crate::connection::Connection;
use crate::facts::TcpFacts;
use crate::peer;
use crate::refusal::{Flag, Refusal};
use crate::upstream::connect::{self, Dialled, TlsWish};

pub async fn serve(connection: Rc<Connection>, handler: Arc<TcpHandler>, mut client: Stream) {
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
    if let Err(refusal) = pass(&connection, &handler, &mut client, &mut facts).await {
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
    facts: &mut TcpFacts,
) -> Result<(), Refusal> {
    let worker = &connection.worker;
    let cluster = cluster(connection, handler)?;
    facts.cluster = Some(Arc::clone(&cluster));
    let upstream = worker.upstream(&cluster);
    let (dialled, host, _permit) = dial(connection, handler, &cluster, &upstream, facts).await?;
    let _active = host.begin_connection();
    facts.upstream_peer = dialled.facts.peer;
    facts.upstream_local = dialled.facts.local;
    facts.upstream_tls = dialled.facts.tls;
    facts.upstream_identity.clone_from(&dialled.facts.identity);
    let mut server = dialled.stream;
    let idle = handler.idle_timeout.filter(|idle| !idle.is_zero());
    let client_alpn = connection.downstream.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    let prefaces = Prefaces {
        client: exchange(connection, client, &handler.peer_exchange, client_alpn.map(str::as_bytes)).await,
        upstream: exchange(connection, &mut server, &cluster.policy.peer_exchange, dialled.facts.alpn.as_deref()).await,
    };
    let moved = relay::streams(client, prefaces, &mut server, idle).await;
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
async fn exchange(
    connection: &Connection,
    stream: &mut Stream,
    wanted: &Option<String>,
    agreed: Option<&[u8]>,
) -> Option<u32> {
    if wanted.as_deref().map(str::as_bytes) != agreed {
        return None;
    }
    let own = connection.worker.shared.own.get().filter(|_| agreed.is_some())?;
    // An end that is gone is noticed by whoever relays next.
    let _ = stream.write_all(&own.preface).await;
    let _ = stream.flush().await;
    Some(peer::MAGIC)
}

fn cluster(connection: &Connection, handler: &TcpHandler) -> Result<Arc<Cluster>, Refusal> {
    let worker = &connection.worker;
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
    connection: &Connection,
    handler: &TcpHandler,
    cluster: &Cluster,
    upstream: &crate::upstream::Upstream,
    facts: &mut TcpFacts,
) -> Result<(Dialled, Arc<Host>, mizzen_balance::Permit), Refusal> {
    let worker = &connection.worker;
    let hash = handler.hash_source_ip.then(|| hash_ip(connection.downstream.peer.ip()));
    let mut attempt = 1;
    loop {
        let host = match cluster.policy.discovery {
            Discovery::OriginalDst { port_override } => {
                let mut address = connection.downstream.local;
                if let Some(port) = port_override {
                    address.set_port(port);
                }
                Host::detached(address)
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
        facts.upstream = Some(Arc::clone(&host));
        let permit = upstream.balancer.breakers().connection(false).map_err(|exceeded| Refusal::Overflow {
            cluster: upstream.name().to_owned(),
            cause: exceeded.to_string(),
        })?;
        let server_name = connection.downstream.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let client = Some((connection.downstream.peer, connection.downstream.local));
        let wish = TlsWish { alpn: None, host: server_name, client };
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
