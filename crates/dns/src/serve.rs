//! The server: datagrams and connections of clients.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answer::{self, Decision, Transport};
use crate::forward::Forwarder;
use crate::table::Table;

/// Queries that wait for others at once; more are dropped, and their clients ask again.
const WAITING: usize = 512;
/// Connections of clients at once.
const CONNECTIONS: usize = 128;
/// A connection without a query for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Largest query that is read from a datagram.
const MOST: usize = 4096;

/// Answers until it is dropped. The table may be exchanged at any time.
pub async fn serve(udp: UdpSocket, tcp: Option<TcpListener>, table: Arc<ArcSwap<Table>>, forwarder: Forwarder) {
    let server = Arc::new(Server { table, forwarder, turn: AtomicUsize::new(0) });
    let streams = async {
        match tcp {
            Some(listener) => Arc::clone(&server).streams(listener).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(Arc::clone(&server).datagrams(udp), streams);
}

struct Server {
    table: Arc<ArcSwap<Table>>,
    forwarder: Forwarder,
    turn: AtomicUsize,
}

impl Server {
    fn decide(&self, query: &[u8], transport: Transport) -> Decision {
        answer::decide(query, &self.table.load(), transport, self.turn.fetch_add(1, Relaxed))
    }

    async fn datagrams(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let room = Arc::new(Semaphore::new(WAITING));
        let mut waiting = tokio::task::JoinSet::new();
        let mut buffer = vec![0; MOST];
        loop {
            while waiting.try_join_next().is_some() {}
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // Mostly the echo of an answer that nobody took.
                    tracing::debug!(%error, "cannot read a query");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let query = &buffer[..length];
            match self.decide(query, Transport::Datagram) {
                Decision::Reply(answer) => drop(socket.send_to(&answer, client).await),
                Decision::Ignore => {}
                Decision::Forward => {
                    let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
                    let (server, socket, query) = (Arc::clone(&self), Arc::clone(&socket), query.to_vec());
                    waiting.spawn(async move {
                        let _place = place;
                        let answer = match server.forwarder.datagram(&query).await {
                            Ok(answer) => Some(answer),
                            Err(error) => {
                                tracing::debug!(%error, "no resolver answers");
                                answer::failure(&query)
                            }
                        };
                        if let Some(answer) = answer {
                            let _ = socket.send_to(&answer, client).await;
                        }
                    });
                }
            }
        }
    }

    async fn streams(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut open = tokio::task::JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&self);
                    open.spawn(async move {
                        let _place = place;
                        let _ = server.stream(stream).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection for queries");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let Ok(length) = timeout(IDLE, stream.read_u16()).await else { return Ok(()) };
            let mut query = vec![0; usize::from(length?)];
            timeout(IDLE, stream.read_exact(&mut query)).await??;
            let answer = match self.decide(&query, Transport::Stream) {
                Decision::Reply(answer) => answer,
                Decision::Ignore => return Ok(()),
                Decision::Forward => match self.forwarder.stream(&query).await {
                    Ok(answer) => answer,
                    Err(_) => match answer::failure(&query) {
                        Some(answer) => answer,
                        None => return Ok(()),
                    },
                },
            };
            let length = u16::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
            timeout(IDLE, stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())).await??;
        }
    }
}
