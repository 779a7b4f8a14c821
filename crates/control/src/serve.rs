//! The ports: discovery and certificate signing in plaintext and over TLS, and the debug pages.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mizzen_identity::incoming::TlsConnection;
use mizzen_identity::service::SigningService;
use mizzen_identity::tls::ServerConfigs;
use mizzen_xds::server::Discovery;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::admission::Admission;
use crate::places::{Place, Places};

/// Connections that have been silent are probed this often; an unanswered probe ends them.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at once on one connection. A proxy has one stream and now and then asks for a certificate.
const CALLS: u32 = 100;

/// A connection that holds its place among those that may be open.
#[derive(Debug)]
pub(crate) struct Limited<C> {
    connection: C,
    _place: Place,
}

/// Who is at the other end.
trait Remote {
    fn address(&self) -> Option<IpAddr>;
}

impl Remote for TcpStream {
    fn address(&self) -> Option<IpAddr> {
        self.peer_addr().ok().map(|address| address.ip())
    }
}

impl Remote for TlsConnection {
    fn address(&self) -> Option<IpAddr> {
        Some(self.remote_address().ip())
    }
}

impl<C: Connected> Connected for Limited<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Limited<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Limited<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

/// Accepts plaintext connections. An error (no file descriptor left, for instance) is logged and waited out.
fn accept(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send + 'static {
    let (ready, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            match accepted {
                Ok((connection, _)) => {
                    // Without it each small message would wait for the acknowledgement of the one before.
                    let _ = connection.set_nodelay(true);
                    if ready.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the plaintext port could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

/// Drops connections beyond the limits.
fn limited<C: Remote + Send + 'static>(
    connections: impl Stream<Item = io::Result<C>> + Send + 'static,
    places: Places,
) -> impl Stream<Item = io::Result<Limited<C>>> + Send + 'static {
    connections.filter_map(move |connection| match connection {
        Ok(connection) => {
            // Without an address it is gone already.
            let address = connection.address()?;
            match places.take(address) {
                Ok(place) => Some(Ok(Limited { connection, _place: place })),
                Err(full) => {
                    tracing::warn!(%address, reason = %full, "a connection is closed");
                    None
                }
            }
        }
        Err(error) => Some(Err(error)),
    })
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(CALLS))
        .http2_max_header_list_size(Some(64 << 10))
}

/// Serves discovery, and signing where there is an authority, on a plaintext port.
pub(crate) async fn plaintext(
    listener: TcpListener,
    admission: Arc<Admission>,
    signing: Option<SigningService>,
    places: Places,
    end: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    server()
        .add_service(Discovery::new(admission))
        .add_optional_service(signing.map(SigningService::into_server))
        .serve_with_incoming_shutdown(limited(accept(listener), places), end)
        .await
}

/// The same over TLS.
pub(crate) async fn secure(
    listener: TcpListener,
    tls: ServerConfigs,
    admission: Arc<Admission>,
    signing: SigningService,
    places: Places,
    end: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let connections = mizzen_identity::incoming::incoming(listener, tls);
    server()
        .add_service(Discovery::new(admission))
        .add_service(signing.into_server())
        .serve_with_incoming_shutdown(limited::<TlsConnection>(connections, places), end)
        .await
}

/// Opens a listening socket.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
