//! Ports that a test may count on.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A TCP port of 127.0.0.1 that nobody listens on, and that the kernel gives to nobody else while this lives.
///
/// A program under test that is told of it can still bind it, for it sets `SO_REUSEADDR` as servers do. A port that was
/// bound and let go may be another test's a moment later, so that two servers want it, or somebody answers where nobody should.
#[derive(Debug)]
pub struct ReservedPort {
    socket: Socket,
    address: SocketAddr,
}

impl ReservedPort {
    /// # Panics
    ///
    /// When the machine has no free port.
    #[expect(clippy::new_without_default, reason = "it takes something from the machine")]
    pub fn new() -> Self {
        Self::at(Ipv4Addr::LOCALHOST)
    }

    /// One of `host`.
    ///
    /// # Panics
    ///
    /// When `host` is not an address of the machine, or has no free port.
    pub fn at(host: Ipv4Addr) -> Self {
        let reserve = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((host, 0)).into())?;
            let address = socket.local_addr()?.as_socket().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
            std::io::Result::Ok(Self { socket, address })
        };
        reserve().unwrap_or_else(|error| panic!("no port of {host} could be reserved: {error}"))
    }

    /// Address and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Somebody listens on it now.
    ///
    /// # Panics
    ///
    /// When somebody else does already.
    pub fn listen(self) -> std::net::TcpListener {
        let Self { socket, address } = self;
        socket.listen(64).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.into()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::ReservedPort;

    #[test]
    fn nobody_answers_and_the_port_can_be_bound_by_who_knows_it() {
        let reserved = ReservedPort::new();
        assert!(TcpStream::connect(reserved.address()).is_err());
        let server = TcpListener::bind(reserved.address()).expect("a server may have it");
        assert!(TcpStream::connect(reserved.address()).is_ok());
        drop(server);
        let _listener = reserved.listen();
    }

    #[test]
    fn it_is_given_to_nobody_who_asks_for_any_port() {
        let reserved = ReservedPort::new();
        let many: Vec<_> = (0..500).map(|_| TcpListener::bind("127.0.0.1:0").expect("a socket")).collect();
        assert!(many.iter().all(|other| other.local_addr().expect("an address").port() != reserved.port()));
    }
}
