//! Addresses of one run: a loopback network `127.N.0.0/16` of its own, in which every workload instance has an address,
//! so that all of them use Istio's standard ports and several runs live side by side.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

/// Ports of the control plane, on the first address of the network.
pub const XDS_PORT: u16 = 15010;
pub const SECURE_XDS_PORT: u16 = 15012;
pub const DEBUG_PORT: u16 = 15014;
/// Ports of every proxy, on its own address.
pub const ADMIN_PORT: u16 = 15000;
pub const HTTP_PROXY_PORT: u16 = 15002;
pub const HEALTH_PORT: u16 = 15021;
pub const STATS_PORT: u16 = 15090;

/// Held by the supervisor for as long as it runs: whoever can bind it owns the network.
const CLAIM_PORT: u16 = 15009;
const NETWORKS: std::ops::RangeInclusive<u8> = 64..=254;

/// A loopback network that belongs to this run.
#[derive(Debug)]
pub struct Network {
    number: u8,
    /// Keeps others away until it is dropped; `None` in tests.
    _claim: Option<TcpListener>,
}

#[derive(Debug, thiserror::Error)]
#[error("no free loopback network: 127.{first}.0.0 to 127.{last}.0.0 are all taken ({reason}); stop a mesh that you no longer need",
    first = NETWORKS.start(), last = NETWORKS.end())]
pub struct NoNetwork {
    reason: io::Error,
}

impl Network {
    /// Takes the first network in which nothing listens on the control plane's ports.
    pub fn claim() -> Result<Self, NoNetwork> {
        let mut reason = io::Error::other("none was tried");
        for number in NETWORKS {
            let first = Ipv4Addr::new(127, number, 0, 1);
            let bind = |port| TcpListener::bind(SocketAddrV4::new(first, port));
            match bind(CLAIM_PORT).and_then(|claim| bind(XDS_PORT).map(|_| claim)) {
                Ok(claim) => return Ok(Self { number, _claim: Some(claim) }),
                Err(error) => reason = error,
            }
        }
        Err(NoNetwork { reason })
    }

    #[cfg(test)]
    pub(crate) fn for_test(number: u8) -> Self {
        Self { number, _claim: None }
    }

    pub fn control(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.number, 0, 1)
    }

    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.number, 0, 2)
    }

    /// The same for all instances of one run; the pods' node in Kubernetes' words.
    pub fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.number, 0, 0)
    }

    fn instance(&self, index: u16) -> Ipv4Addr {
        Ipv4Addr::new(127, self.number, (index / 254) as u8 + 1, (index % 254) as u8 + 1)
    }
}

/// Hands out mesh addresses. An address that was given back is used again as late as possible, so that a proxy with an
/// old endpoint in its hands does not reach another workload.
#[derive(Debug, Default)]
pub struct Addresses {
    next: u16,
    used: BTreeSet<u16>,
}

/// How many instances one network has room for: 127.N.1.1 to 127.N.254.254.
const ROOM: u16 = 254 * 254;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more than {ROOM} workload instances in one mesh: no loopback address is left")]
pub struct NoAddress;

impl Addresses {
    pub fn take(&mut self, network: &Network) -> Result<Ipv4Addr, NoAddress> {
        let free = (0..ROOM).map(|step| (self.next + step) % ROOM).find(|index| !self.used.contains(index));
        let index = free.ok_or(NoAddress)?;
        self.used.insert(index);
        self.next = (index + 1) % ROOM;
        Ok(network.instance(index))
    }

    pub fn give_back(&mut self, address: Ipv4Addr) {
        let [_, _, high, low] = address.octets();
        let index = u16::from(high.saturating_sub(1)) * 254 + u16::from(low.saturating_sub(1));
        self.used.remove(&index);
    }
}

/// Ports for applications: below those that the kernel gives to outgoing connections, so that an application finds its
/// port free again after a restart.
const APP_PORTS: std::ops::Range<u16> = 20000..32000;

/// A port of `listen` on which nothing listens now and that is not in `taken`. `draw` is any number.
pub fn free_port(listen: Ipv4Addr, taken: &BTreeSet<u16>, draw: u16) -> io::Result<u16> {
    let room = APP_PORTS.end - APP_PORTS.start;
    let candidates = (0..room).map(|step| APP_PORTS.start + (draw % room + step) % room);
    let free = |port: &u16| !taken.contains(port) && TcpListener::bind((listen, *port)).is_ok();
    candidates.into_iter().find(free).ok_or_else(|| io::Error::other("no port for an application is free"))
}

/// Why a gateway port cannot be had, with a port that can.
#[derive(Debug, thiserror::Error)]
pub enum GatewayPortError {
    #[error("port {port} of {bind} is taken by {by}; use a free one: --gateway-port {free}")]
    Taken { bind: Ipv4Addr, port: u16, by: String, free: u16 },
    #[error(
        "port {port} of {bind} needs privilege (ports below 1024 do); use one that does not: --gateway-port {free}"
    )]
    NotPermitted { bind: Ipv4Addr, port: u16, free: u16 },
    #[error("cannot listen on {bind}:{port}: {reason}")]
    Other { bind: Ipv4Addr, port: u16, reason: io::Error },
}

impl GatewayPortError {
    /// Names who holds the port, when `holder` knows.
    pub fn with_holder(self, holder: impl FnOnce() -> Option<String>) -> Self {
        match self {
            Self::Taken { bind, port, by, free } => Self::Taken { bind, port, by: holder().unwrap_or(by), free },
            other => other,
        }
    }
}

/// Checks that the gateway will be able to listen on `bind:port`.
pub fn check_gateway_port(bind: Ipv4Addr, port: u16) -> Result<(), GatewayPortError> {
    let reason = match TcpListener::bind((bind, port)) {
        Ok(_) => return Ok(()),
        Err(reason) => reason,
    };
    let free = (8080..=8180).chain(18080..=18180).find(|&other| TcpListener::bind((bind, other)).is_ok()).unwrap_or(0);
    Err(match reason.kind() {
        io::ErrorKind::AddrInUse => GatewayPortError::Taken { bind, port, by: "another program".to_owned(), free },
        io::ErrorKind::PermissionDenied => GatewayPortError::NotPermitted { bind, port, free },
        _ => GatewayPortError::Other { bind, port, reason },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_never_share_an_address_and_never_have_the_networks_own() {
        let network = Network::for_test(77);
        let mut addresses = Addresses::default();
        let all: BTreeSet<Ipv4Addr> =
            (0..ROOM).map(|_| addresses.take(&network).expect("there is room for all of them")).collect();
        assert_eq!(all.len(), usize::from(ROOM));
        assert_eq!(all.first().copied(), Some(Ipv4Addr::new(127, 77, 1, 1)));
        assert_eq!(all.last().copied(), Some(Ipv4Addr::new(127, 77, 254, 254)));
        assert!(all.iter().all(|address| address.octets()[2] >= 1 && (1..=254).contains(&address.octets()[3])));
        assert_eq!(addresses.take(&network), Err(NoAddress));
    }

    #[test]
    fn an_address_that_was_given_back_is_used_last() {
        let network = Network::for_test(70);
        let mut addresses = Addresses::default();
        let first = addresses.take(&network).expect("room");
        addresses.give_back(first);
        assert_ne!(addresses.take(&network), Ok(first));
        for _ in 0..ROOM - 2 {
            assert_ne!(addresses.take(&network), Ok(first));
        }
        assert_eq!(addresses.take(&network), Ok(first));
    }

    #[test]
    fn two_runs_have_two_networks() {
        let (one, two) = (Network::claim().expect("a network"), Network::claim().expect("another"));
        assert_ne!(one.control(), two.control());
    }

    #[test]
    fn a_taken_port_is_refused_with_a_free_one() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let port = held.local_addr().expect("an address").port();
        let error = check_gateway_port(Ipv4Addr::LOCALHOST, port).expect_err("the port is taken");
        let GatewayPortError::Taken { free, .. } = error else { panic!("{error}") };
        assert_ne!(free, port);
        check_gateway_port(Ipv4Addr::LOCALHOST, free).expect("the port offered is free");
    }
}
