//! Dialling an endpoint: name, TCP, TLS.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mizzen_balance::Host;
use mizzen_identity::Peer;
use mizzen_net::{Plain, Socket, Stream, listen};
use mizzen_snapshot::cluster::{Discovery, EndpointAddress};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Source, Transport, Upstream, proxy_header};
use crate::refusal::Refusal;

/// A new connection to an endpoint.
pub struct Dialled {
    pub stream: Stream,
    pub facts: Rc<ConnectionFacts>,
}

/// What the access log and the metrics want to know of an upstream connection.
#[derive(Debug, Default)]
pub struct ConnectionFacts {
    pub peer: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub tls: bool,
    pub identity: Option<Arc<Peer>>,
    pub alpn: Option<Vec<u8>>,
}

/// How a connection depends on the request, or the client, that it is made for.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsWish<'a> {
    /// Protocols to offer instead of the cluster's.
    pub alpn: Option<&'a [&'a str]>,
    /// The request's host, for `auto_sni` and `auto_san_validation`.
    pub host: Option<&'a str>,
    /// Whom to name where the endpoint is told who the client is: the client, and the address that it called.
    pub client: Option<(SocketAddr, SocketAddr)>,
    /// Whose address the endpoint shall see.
    pub source: Option<Source>,
}

/// Connects within the cluster's connect timeout, the TLS handshake included.
pub async fn dial(
    upstream: &Upstream,
    host: &Arc<Host>,
    transport: usize,
    wish: TlsWish<'_>,
) -> Result<Dialled, Refusal> {
    let policy = upstream.policy();
    let patience = policy.connect_timeout;
    match tokio::time::timeout(patience, connect(upstream, host, upstream.transport(transport), wish)).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::ConnectTimeout { endpoint: name(host), after: patience }),
    }
}

async fn connect(
    upstream: &Upstream,
    host: &Arc<Host>,
    transport: &Transport,
    wish: TlsWish<'_>,
) -> Result<Dialled, Refusal> {
    let policy = upstream.policy();
    let failed = |error: std::io::Error| Refusal::ConnectFailure { endpoint: name(host), cause: reason(&error) };
    let socket = match &host.endpoint.address {
        EndpointAddress::Socket(address) => Socket::Tcp(tcp(upstream, *address, wish.source).await.map_err(failed)?),
        EndpointAddress::Name { host, port } => Socket::Tcp(by_name(upstream, host, *port).await.map_err(failed)?),
        EndpointAddress::Pipe(path) => Socket::Unix(UnixStream::connect(path).await.map_err(failed)?),
    };
    let (peer, local) = (socket.peer_address(), socket.local_address());
    let mut plain = Plain::new(socket);
    if let Some(version) = policy.proxy_protocol {
        let header = proxy_header::of(version, wish.client, local.zip(peer));
        plain.write_all(&header).await.map_err(failed)?;
    }
    let Some(configs) = transport.configs() else {
        let facts = ConnectionFacts { peer, local, ..ConnectionFacts::default() };
        return Ok(Dialled { stream: Stream::Plain(plain), facts: Rc::new(facts) });
    };
    let tls_failed = |cause: String| Refusal::TlsFailure { endpoint: name(host), cause };
    let (config, server_name) = configs.current(wish.host).map_err(|error| tls_failed(error.to_string()))?;
    let connector = TlsConnector::from(config);
    let connecting = match wish.alpn {
        Some(alpn) => {
            let offered = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
            connector.with_alpn(offered).connect(server_name, plain)
        }
        None => connector.connect(server_name, plain),
    };
    let stream = connecting.await.map_err(|error| tls_failed(error.to_string()))?;
    let session = stream.get_ref().1;
    let identity = session.peer_certificates().and_then(|chain| chain.first()).and_then(|leaf| Peer::of(leaf).ok());
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    let facts = ConnectionFacts { peer, local, tls: true, identity: identity.map(Arc::new), alpn };
    Ok(Dialled { stream: Stream::ClientTls(Box::new(stream)), facts: Rc::new(facts) })
}

async fn tcp(upstream: &Upstream, address: SocketAddr, client: Option<Source>) -> std::io::Result<TcpStream> {
    let policy = upstream.policy();
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let mark = client.map(|client| client.mark).filter(|mark| *mark != 0).or(upstream.mark);
    if let Some(mark) = mark {
        listen::mark(&socket, mark)?;
    }
    if let Some(client) = client.filter(|client| client.address.is_ipv4() == address.is_ipv4()) {
        listen::bind_foreign_source(&socket, client.address)?;
    } else if let Some(source) = policy.bind_source.iter().find(|source| source.is_ipv4() == address.is_ipv4()) {
        listen::bind_source(&socket, *source)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    if let Some(keepalive) = &policy.tcp_keepalive {
        listen::set_keepalive(&stream, keepalive)?;
    }
    Ok(stream)
}

/// All addresses of a name in turn, until one takes the connection. With strict DNS each address counts as an endpoint,
/// so the first to be tried is drawn; logical DNS begins with the resolver's first.
async fn by_name(upstream: &Upstream, host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, format!("{host} has no address"));
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if matches!(upstream.policy().discovery, Discovery::StrictDns { .. }) && !addresses.is_empty() {
        let first = crate::worker::seed() as usize % addresses.len();
        addresses.rotate_left(first);
    }
    for address in addresses {
        match tcp(upstream, address, None).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// An endpoint as people and logs name it.
pub fn name(host: &Host) -> String {
    match &host.endpoint.address {
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Name { host, port } => format!("{host}:{port}"),
        EndpointAddress::Pipe(path) => path.display().to_string(),
    }
}

/// In the words of Envoy where it has some.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "Connection refused".to_owned(),
        _ => error.to_string(),
    }
}
