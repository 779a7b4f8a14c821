//! The control plane's secure port: TLS connections for a tonic server, with the client's verified certificate.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mizzen_snapshot::tls::{CertificateSource, ClientAuth, Roots, ServerTls, TlsVersions, Validation};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::caller::VerifiedPeer;
use crate::certificate::Peer;
use crate::secrets::{IDENTITY, ROOTS, Secrets};
use crate::tls::{ServerConfigs, server_config};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; further connections wait in the kernel's queue.
const HANDSHAKES: usize = 128;

/// TLS for the control plane: its serving certificate is the secret `default`, clients may show one of the mesh
/// (`ROOTCA`), and do so when they have one.
pub fn control_plane_tls(secrets: &Secrets) -> ServerConfigs {
    let tls = ServerTls {
        certificates: vec![CertificateSource::Secret(IDENTITY.into())],
        client: ClientAuth::Optional(Validation {
            roots: Roots::Secret(ROOTS.into()),
            names: Vec::new(),
            ..Validation::default()
        }),
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
        versions: TlsVersions::default(),
        cipher_suites: Vec::new(),
    };
    server_config(&tls, secrets)
}

/// TLS for the webhooks: the same certificate, but callers are not asked for one. The API server may have one of an
/// authority that is not the mesh's, and would be turned away for it.
pub fn webhook_tls(secrets: &Secrets) -> ServerConfigs {
    let tls = ServerTls {
        certificates: vec![CertificateSource::Secret(IDENTITY.into())],
        client: ClientAuth::None,
        alpn: vec!["http/1.1".to_owned()],
        versions: TlsVersions::default(),
        cipher_suites: Vec::new(),
    };
    server_config(&tls, secrets)
}

/// Accepts connections and does their handshakes side by side, so that a slow client holds up nobody. An accept error
/// (no file descriptor left, for instance) is logged and waited out; it never ends the loop. Ends when the stream is
/// dropped.
pub fn incoming(listener: TcpListener, tls: ServerConfigs) -> ReceiverStream<io::Result<TlsConnection>> {
    let (ready, connections) = mpsc::channel(16);
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the secure port could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let config = match tls.current() {
                Ok(config) => config,
                Err(error) => {
                    tracing::warn!(%error, "the secure port has no certificate");
                    continue;
                }
            };
            let ready = ready.clone();
            tokio::spawn(async move {
                let _slot = slot;
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(TlsAcceptor::from(config), tcp, address)).await
                {
                    // The server is gone when this cannot be sent; then the connection ends with it.
                    Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn handshake(acceptor: TlsAcceptor, tcp: TcpStream, address: SocketAddr) -> io::Result<TlsConnection> {
    tcp.set_nodelay(true)?;
    let stream = acceptor.accept(tcp).await?;
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|leaf| Peer::of(leaf).ok())
        .map(Arc::new);
    Ok(TlsConnection { stream, peer, address })
}

/// A connection of which the peer is known.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    peer: Option<Arc<Peer>>,
    address: SocketAddr,
}

impl TlsConnection {
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref()
    }

    pub fn remote_address(&self) -> SocketAddr {
        self.address
    }
}

impl Connected for TlsConnection {
    type ConnectInfo = VerifiedPeer;

    fn connect_info(&self) -> VerifiedPeer {
        VerifiedPeer { peer: self.peer.clone(), address: self.address }
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
