//! Listening sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// Connections that the kernel may queue for us.
const BACKLOG: i32 = 1024;

/// Binds a TCP listener that every worker accepts from. Not `SO_REUSEPORT`: a second process that wants the address
/// shall be told, and one queue loses nothing when workers or configurations come and go.
/// `[::]` takes IPv4 as well.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = bound(address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether [`bind`] would succeed now. Nothing listens in the meantime, so no client is taken and dropped.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    bound(address).map(drop)
}

/// An address as a client of its family knows it: a socket that takes both families shows IPv4 in the form of IPv6.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address that a client dialled before the kernel redirected it to us; `None` when it was not redirected.
pub fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = canonical(stream.local_addr().ok()?);
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok().and_then(|address| address.as_socket()).filter(|address| *address != local)
}

/// Chooses the local address of a connection that is yet to be made, and leaves its port to the kernel until the
/// destination is known: then a port that is in use towards another destination will do.
pub fn bind_source(socket: &tokio::net::TcpSocket, source: IpAddr) -> io::Result<()> {
    port_at_connect(socket)?;
    socket.bind(SocketAddr::new(source, 0))
}

#[allow(unsafe_code)]
fn port_at_connect(socket: &tokio::net::TcpSocket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the option's value is a live integer of
    // the length that is given. The standard ways of setting options have none for this one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            std::ptr::from_ref(&on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Probes an idle peer, so that one that vanished is noticed. Absent fields keep the kernel's values.
pub fn set_keepalive(stream: &TcpStream, settings: &mizzen_snapshot::cluster::TcpKeepalive) -> io::Result<()> {
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = settings.time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = settings.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = settings.probes {
        keepalive = keepalive.with_retries(probes);
    }
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Whether accepting failed for lack of descriptors or memory: wait a moment and go on. Other errors concern the one
/// connection that was about to be accepted.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
