//! Wires between network namespaces: a bridge in one, and a pair of interfaces from it into each of the others.
//!
//! Everything is done in the namespace that we are in, and goes away with the last process in it. IPv4 only.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use rustix::process::Pid;

use crate::netlink::{Refused, links};

/// What the kernel did not do.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}")]
pub struct LinkError {
    pub what: String,
    pub error: io::Error,
}

impl From<Refused> for LinkError {
    fn from(Refused { what, error }: Refused) -> Self {
        Self { what, error }
    }
}

/// Addresses of the machine itself begin to answer.
pub fn loopback_up() -> Result<(), LinkError> {
    Ok(links::up("lo")?)
}

/// A bridge that has `address` itself.
pub fn bridge(name: &str, address: Ipv4Net) -> Result<(), LinkError> {
    links::bridge(name)?;
    Ok(links::address(index(name)?, address)?)
}

/// A wire from `bridge` to the namespace of `process`, where its end is called `peer`.
pub fn wire(bridge: &str, port: &str, peer: &str, process: Pid) -> Result<(), LinkError> {
    Ok(links::pair(port, index(bridge)?, peer, process.as_raw_nonzero().get().unsigned_abs())?)
}

/// Gives an interface its address, and sends everything that is for elsewhere through it to `gateway`.
pub fn settle(interface: &str, address: Ipv4Net, gateway: Ipv4Addr) -> Result<(), LinkError> {
    links::address(index(interface)?, address)?;
    links::up(interface)?;
    Ok(links::default_route(gateway)?)
}

fn index(name: &str) -> Result<u32, LinkError> {
    let failed = |error: rustix::io::Errno| LinkError { what: format!("interface {name}"), error: error.into() };
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(failed)?;
    netdevice::name_to_index(&any, name).map_err(failed)
}
