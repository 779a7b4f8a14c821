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
    listening(bound(address)?)
}

/// The same for connections to any address that the kernel's rules lead to this port (TPROXY). Needs the capability
/// NET_ADMIN.
pub fn bind_transparent(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = bound(address)?;
    transparent(&socket)?;
    listening(socket)
}

fn listening(socket: Socket) -> io::Result<std::net::TcpListener> {
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

/// Lets a connection that is yet to be made come from an address that is not this machine's. Needs the capability
/// NET_ADMIN.
pub fn bind_foreign_source(socket: &tokio::net::TcpSocket, source: IpAddr) -> io::Result<()> {
    transparent(SockRef::from(socket))?;
    bind_source(socket, source)
}

/// Sockets of both families have this flag under the name that it has for IPv4.
fn transparent<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let needed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            io::Error::new(error.kind(), "transparent sockets (TPROXY) need the capability NET_ADMIN")
        }
        _ => error,
    };
    socket.into().set_ip_transparent_v4(true).map_err(needed)
}

/// Marks all packets of a connection that is yet to be made, for the kernel's rules. Needs the capability NET_ADMIN.
pub fn mark(socket: &tokio::net::TcpSocket, mark: u32) -> io::Result<()> {
    SockRef::from(socket).set_mark(mark)
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
