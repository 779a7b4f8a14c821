//! Connections over the border between the mesh's network and this machine's: bytes are copied between two sockets.
//!
//! On a thread of their own, so that the supervisor's work does not delay them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mizzen_dns::{Forwarder, Table};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Sandbox;
use super::range::Ranges;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Pause after the process ran out of file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Relays {
    /// `None` once it is being dropped.
    runtime: Option<Runtime>,
}

/// A port that is relayed until this is dropped; what goes on already, goes on.
#[derive(Debug)]
pub(super) struct Door(JoinHandle<()>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Relays {
    pub(super) fn start() -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("relay").enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> io::Result<Door> {
        let runtime = self.runtime.as_ref().ok_or_else(|| io::Error::other("it is being ended"))?;
        Ok(Door(runtime.spawn(task)))
    }

    /// A listener of the standard library as one of this runtime.
    fn listener(&self, listener: std::net::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        TcpListener::from_std(listener)
    }

    /// From a port of this machine into a pod.
    pub(super) fn to_pod(&self, here: SocketAddr, pod: Arc<Sandbox>, target: SocketAddr) -> io::Result<Door> {
        let listener = self.listener(std::net::TcpListener::bind(here)?)?;
        self.spawn(accept(listener, move |client| {
            let pod = pod.clone();
            async move {
                let server = timeout(CONNECT, pod.connect(target)).await??;
                copy(client, server).await
            }
        }))
    }

    /// From a port in the mesh's network to one of this machine.
    pub(super) fn to_machine(&self, listener: std::net::TcpListener, target: SocketAddr) -> io::Result<Door> {
        let listener = self.listener(listener)?;
        self.spawn(accept(listener, move |client| async move {
            let server = timeout(CONNECT, TcpStream::connect(target)).await??;
            copy(client, server).await
        }))
    }

    /// What leaves the mesh: wherever the client wanted to go, from this machine.
    pub(super) fn way_out(&self, listener: std::net::TcpListener, ranges: Ranges) -> io::Result<Door> {
        let listener = self.listener(listener)?;
        self.spawn(accept(listener, move |client| async move {
            let wanted = SockRef::from(&client).original_dst_v4()?.as_socket_ipv4();
            let Some(target) = wanted.filter(|target| leads_out(target, &ranges)) else {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            };
            let server = timeout(CONNECT, TcpStream::connect(target)).await.map_err(io::Error::from).flatten();
            match server {
                Ok(server) => copy(client, server).await,
                Err(error) => {
                    // The kernel has accepted for us already; a reset is what comes nearest to a refusal.
                    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
                    tracing::debug!(%target, %error, "no way out");
                    Err(error)
                }
            }
        }))
    }

    /// The mesh's name server.
    pub(super) fn names(
        &self,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        table: Arc<ArcSwap<Table>>,
        forwarder: Forwarder,
    ) -> io::Result<Door> {
        udp.set_nonblocking(true)?;
        let tcp = self.listener(tcp)?;
        let entered = self.runtime.as_ref().map(Runtime::enter);
        let udp = UdpSocket::from_std(udp)?;
        drop(entered);
        self.spawn(mizzen_dns::serve(udp, Some(tcp), table, forwarder))
    }
}

/// Pods and Services are not out there, and this machine's own loopback is nobody else's.
fn leads_out(target: &SocketAddrV4, ranges: &Ranges) -> bool {
    let address: &Ipv4Addr = target.ip();
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || ranges.pods.contains(address)
        || ranges.services.contains(address))
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let serving = serve(client);
                tokio::spawn(async move {
                    if let Err(error) = serving.await {
                        tracing::debug!(%error, "a relayed connection ended");
                    }
                });
            }
            // One connection that was gone, or no descriptor is left: wait, and go on.
            Err(_) => sleep(EXHAUSTED).await,
        }
    }
}

async fn copy(mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_outside_is_reached_outside() {
        let ranges = super::super::range::choose("");
        for (target, out) in [
            ("192.0.2.1:80", true),
            ("127.0.0.1:22", false),
            ("10.244.3.4:80", false),
            ("10.96.0.9:80", false),
            ("0.0.0.0:80", false),
            ("224.0.0.1:80", false),
        ] {
            assert_eq!(leads_out(&target.parse().expect("an address"), &ranges), out, "{target}");
        }
    }
}
