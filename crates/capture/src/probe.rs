//! A look with real connections: is what shall be caught really caught, and does it arrive with its destination?
//!
//! Nothing leaves the machine: the probe listens in the proxy's place, and connects to an address that nobody has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use socket2::SockRef;

use crate::options::{Options, Ports, Ranges};
use crate::rules::Family;

/// Nobody has these (RFC 5737, RFC 3849).
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub direction: Direction,
    pub family: Family,
    pub result: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Outbound,
    /// What the proxy sends to its own machine, and so takes the inbound way.
    Inbound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Caught,
    /// Why there was nothing to look at.
    NotChecked(String),
    /// What is wrong, and what may be the cause.
    Wrong(String),
}

/// Looks at each direction and family that the options catch. `port` is where the probe's connections go.
pub fn probe(options: &Options, port: u16, patience: Duration) -> Vec<Finding> {
    let families = if options.ipv6 { &Family::ALL[..] } else { &Family::ALL[..1] };
    let mut findings = Vec::new();
    for family in families.iter().copied() {
        findings.push(Finding {
            direction: Direction::Outbound,
            family,
            result: outbound(options, family, port, patience),
        });
        findings.push(Finding {
            direction: Direction::Inbound,
            family,
            result: inbound(options, family, port, patience),
        });
    }
    findings
}

fn outbound(options: &Options, family: Family, port: u16, patience: Duration) -> Outcome {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if options.proxy_uids.contains(&own.0) || options.proxy_gids.contains(&own.1) {
        return Outcome::NotChecked("it runs as the proxy's own user or group".to_owned());
    }
    match caught_destination(options, family, port) {
        Some(to) => connect(to, options.proxy_port, patience, Acting::Ourselves),
        None => Outcome::NotChecked("no outbound destination is caught".to_owned()),
    }
}

/// A destination that the options catch.
fn caught_destination(options: &Options, family: Family, port: u16) -> Option<SocketAddr> {
    let left = |address: IpAddr, port: u16| {
        !address.is_loopback()
            && !options.exclude_outbound_ranges.iter().any(|range| range.contains(&address))
            && !options.exclude_outbound_ports.contains(&port)
    };
    let nobody = NOBODY.into_iter().find(|address| Family::of(*address) == family)?;
    let by_range: Vec<IpAddr> = match &options.outbound_ranges {
        Ranges::All => vec![nobody],
        Ranges::These(ranges) => ranges.iter().filter(|range| Family::of(range.addr()) == family).map(last).collect(),
    };
    let by_range = by_range.into_iter().map(|address| (address, port));
    let by_port = options.outbound_ports.iter().map(|port| (nobody, *port));
    by_range.chain(by_port).find(|(address, port)| left(*address, *port)).map(SocketAddr::from)
}

/// The last address of a range but one: seldom anybody's.
fn last(range: &IpNet) -> IpAddr {
    range.hosts().last().unwrap_or_else(|| range.addr())
}

fn inbound(options: &Options, family: Family, port: u16, patience: Duration) -> Outcome {
    if options.inbound_ports == Ports::These(Vec::new()) {
        return Outcome::NotChecked("no inbound port is caught".to_owned());
    }
    let acting = match (options.proxy_uids.first(), options.proxy_gids.first()) {
        (Some(uid), _) => Acting::User(*uid),
        (None, Some(gid)) => Acting::Group(*gid),
        (None, None) => return Outcome::NotChecked("no user or group is the proxy's".to_owned()),
    };
    // The proxy's own address for calls to its application, but as destination: any address of this machine but
    // localhost would do, and this one is always there.
    let to = SocketAddr::new(family.inbound_source().addr(), port);
    connect(to, options.inbound_port, patience, acting)
}

/// Who the connection is made as.
#[derive(Debug, Clone, Copy)]
enum Acting {
    Ourselves,
    User(u32),
    Group(u32),
}

impl Acting {
    /// For this thread alone.
    fn begin(self) -> rustix::io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::User(id) => rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(id)),
            Self::Group(id) => rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(id)),
        }
    }
}

/// Connects, and sees whether the connection comes in at `port` of this machine.
fn connect(to: SocketAddr, port: u16, patience: Duration, acting: Acting) -> Outcome {
    let anywhere: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let listener = match listen(SocketAddr::new(anywhere, port)) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Outcome::NotChecked(format!("port {port} is in use: a proxy runs here already"));
        }
        Err(error) => return Outcome::Wrong(format!("cannot listen on port {port}: {error}")),
    };
    // A thread of its own, because acting as somebody else lasts as long as the thread.
    let connecting = std::thread::spawn(move || {
        acting.begin().map_err(|_| Step::Acting)?;
        dial(to, patience, acting).map_err(Step::Connecting)
    });
    let deadline = Instant::now() + patience;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return arrived(&stream, to),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Outcome::Wrong(format!("cannot accept on port {port}: {error}")),
        }
        if connecting.is_finished() || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // It may have come in between the last look and the end.
    if let Ok((stream, _)) = listener.accept() {
        return arrived(&stream, to);
    }
    match connecting.is_finished().then(|| connecting.join()) {
        Some(Ok(Err(Step::Acting))) => {
            Outcome::NotChecked("this process may not act as the proxy's user (capability SETUID)".to_owned())
        }
        Some(Ok(Err(Step::Connecting(error)))) if is_unreachable(&error) => {
            Outcome::NotChecked(format!("there is no route to {}", to.ip()))
        }
        Some(Ok(Err(Step::Connecting(error)))) => Outcome::Wrong(format!(
            "a connection to {to} did not come in on port {port} ({error}); another rule may have taken it first, or \
             the loopback interface is down"
        )),
        Some(Ok(Ok(_))) => Outcome::Wrong(format!(
            "a connection to {to} went elsewhere than to port {port}: another rule took it first"
        )),
        Some(Err(_)) | None => Outcome::Wrong(format!(
            "a connection to {to} did not come in on port {port} within {} ms; another rule may drop it",
            patience.as_millis()
        )),
    }
}

fn dial(to: SocketAddr, patience: Duration, acting: Acting) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    if !matches!(acting, Acting::Ourselves) {
        // Left to itself, the kernel would call the proxy's address from that very address, which is never caught.
        let localhost = Family::of(to.ip()).localhost().addr();
        socket.bind(&SocketAddr::new(localhost, 0).into())?;
    }
    socket.connect_timeout(&to.into(), patience)?;
    Ok(socket.into())
}

enum Step {
    Acting,
    Connecting(io::Error),
}

fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), NetworkUnreachable | HostUnreachable | AddrNotAvailable)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(8)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn arrived(stream: &TcpStream, to: SocketAddr) -> Outcome {
    let socket = SockRef::from(stream);
    let original = if to.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match original.map(|address| address.as_socket()) {
        Ok(Some(original)) if original == to => Outcome::Caught,
        // TPROXY leaves the destination where it is.
        _ if stream.local_addr().is_ok_and(|local| local == to) => Outcome::Caught,
        Ok(original) => Outcome::Wrong(format!(
            "a connection to {to} was caught, but the kernel says it was meant for {}",
            original.map_or_else(|| "nothing".to_owned(), |address| address.to_string())
        )),
        Err(error) => Outcome::Wrong(format!(
            "a connection to {to} was caught, but the kernel does not know its destination ({error}): connection \
             tracking is off"
        )),
    }
}
