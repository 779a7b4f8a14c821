//! Interfaces, their addresses and routes (`linux/if_link.h`, `linux/rtnetlink.h`). IPv4 only.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Messages, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Refused};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// `struct ifinfomsg`: an interface by number (0: by name), and whether it is to be up.
fn interface(index: u32, up: bool) -> Vec<u8> {
    let flags = if up { IFF_UP } else { 0 };
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(IFF_UP.to_ne_bytes());
    bytes
}

fn send(mut messages: Messages) -> Result<(), Refused> {
    messages.acknowledge();
    messages.send(NETLINK_ROUTE)
}

pub(crate) fn up(name: &str) -> Result<(), Refused> {
    let mut messages = Messages::default();
    messages.add(format!("interface {name}"), RTM_NEWLINK, 0, &interface(0, true), |attributes| {
        attributes.text(IFLA_IFNAME, name);
    });
    send(messages)
}

pub(crate) fn bridge(name: &str) -> Result<(), Refused> {
    let mut messages = Messages::default();
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    messages.add(format!("bridge {name}"), RTM_NEWLINK, flags, &interface(0, true), |attributes| {
        attributes.text(IFLA_IFNAME, name);
        attributes.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
    });
    send(messages)
}

/// A pair of interfaces: `name` here, a port of the bridge with the number `bridge`, and `peer` in the namespace of a
/// process.
pub(crate) fn pair(name: &str, bridge: u32, peer: &str, process: u32) -> Result<(), Refused> {
    let mut messages = Messages::default();
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    messages.add(format!("interfaces {name} and {peer}"), RTM_NEWLINK, flags, &interface(0, true), |attributes| {
        attributes.text(IFLA_IFNAME, name);
        attributes.ne32(IFLA_MASTER, bridge);
        attributes.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |other| {
                    other.raw(&interface(0, false));
                    other.text(IFLA_IFNAME, peer);
                    other.ne32(IFLA_NET_NS_PID, process);
                });
            });
        });
    });
    send(messages)
}

pub(crate) fn address(index: u32, address: Ipv4Net) -> Result<(), Refused> {
    let mut fixed = vec![AF_INET, address.prefix_len(), 0, RT_SCOPE_UNIVERSE];
    fixed.extend(index.to_ne_bytes());
    let mut messages = Messages::default();
    messages.add(format!("address {address}"), RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed, |attributes| {
        attributes.bytes(IFA_LOCAL, &address.addr().octets());
        attributes.bytes(IFA_ADDRESS, &address.addr().octets());
    });
    send(messages)
}

pub(crate) fn default_route(via: Ipv4Addr) -> Result<(), Refused> {
    let fixed = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0];
    let mut messages = Messages::default();
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    messages.add(format!("route to everywhere via {via}"), RTM_NEWROUTE, flags, &fixed, |attributes| {
        attributes.bytes(RTA_GATEWAY, &via.octets());
    });
    send(messages)
}
