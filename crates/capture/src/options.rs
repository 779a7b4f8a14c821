//! What to catch and what not: the flags of Istio's `istio-iptables`, as values that cannot be wrong.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Ports of the proxy that are never caught: metrics, health and the agent.
pub const PROXY_PORTS: [u16; 3] = [15090, 15021, 15020];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where outbound connections go.
    pub proxy_port: u16,
    /// Where inbound connections go.
    pub inbound_port: u16,
    /// Mesh tunnels come in here by themselves (HBONE).
    pub tunnel_port: u16,
    /// Users and groups whose connections are the proxy's own. They are never sent back to it.
    pub proxy_uids: Vec<u32>,
    pub proxy_gids: Vec<u32>,
    /// The same, told by the mark of the proxy's sockets: where proxy and application have to be the same user.
    pub proxy_marks: Vec<u32>,
    pub interception: Interception,
    /// Inbound ports to catch.
    pub inbound_ports: Ports,
    /// Inbound ports to leave alone, where all are caught.
    pub exclude_inbound_ports: Vec<u16>,
    /// Destinations to catch outbound.
    pub outbound_ranges: Ranges,
    /// Destinations to leave alone; this beats `outbound_ranges`.
    pub exclude_outbound_ranges: Vec<IpNet>,
    /// Ports to catch outbound, whatever the destination.
    pub outbound_ports: Vec<u16>,
    /// Ports to leave alone outbound.
    pub exclude_outbound_ports: Vec<u16>,
    /// Interfaces of virtual machines in this namespace: what comes from them counts as outbound.
    pub virtual_interfaces: Vec<String>,
    /// Interfaces that are left alone in both directions.
    pub exclude_interfaces: Vec<String>,
    /// Where DNS queries go, if they are caught.
    pub dns: Option<Dns>,
    /// Drop packets that connection tracking does not understand.
    pub drop_invalid: bool,
    /// Mark and routing table by which TPROXY finds its way to the proxy.
    pub tproxy_mark: u32,
    pub tproxy_table: u32,
    /// Also catch IPv6.
    pub ipv6: bool,
}

impl Default for Options {
    /// Istio's defaults, and everything is caught.
    fn default() -> Self {
        Self {
            proxy_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            proxy_uids: vec![1337],
            proxy_gids: vec![1337],
            proxy_marks: Vec::new(),
            interception: Interception::Redirect,
            inbound_ports: Ports::All,
            exclude_inbound_ports: PROXY_PORTS.to_vec(),
            outbound_ranges: Ranges::All,
            exclude_outbound_ranges: Vec::new(),
            outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            virtual_interfaces: Vec::new(),
            exclude_interfaces: Vec::new(),
            dns: None,
            drop_invalid: false,
            tproxy_mark: 1337,
            tproxy_table: 133,
            ipv6: true,
        }
    }
}

/// How inbound connections reach the proxy. Outbound ones are always redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interception {
    /// The destination is rewritten; the application sees `127.0.0.6` as its client.
    #[default]
    Redirect,
    /// The destination stays; the application can be shown the client's own address.
    Tproxy,
}

/// DNS queries go to this port of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    pub port: u16,
    /// Only queries to these servers; all queries when `None`.
    pub servers: Option<Vec<IpAddr>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    All,
    These(Vec<u16>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    All,
    These(Vec<IpNet>),
}

/// What is wrong with an option's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("{0:?} is no port: write numbers from 1 to 65535 with commas between them{1}")]
    Port(String, &'static str),
    #[error("{0:?} is no address range: write ranges such as 10.0.0.0/8 or fd00::/8 with commas between them{1}")]
    Range(String, &'static str),
    #[error("{0:?} is no interface name: at most 15 letters, digits and the characters . _ - @")]
    Interface(String),
    #[error("{0:?} is no user or group number")]
    Id(String),
}

impl FromStr for Ports {
    type Err = OptionError;

    /// `*` is all ports, nothing is none.
    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text.trim() {
            "*" => Ok(Self::All),
            list => {
                each(list).map(|word| port(word, ", or * for all of them")).collect::<Result<_, _>>().map(Self::These)
            }
        }
    }
}

impl FromStr for Ranges {
    type Err = OptionError;

    /// `*` is all destinations, nothing is none.
    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text.trim() {
            "*" => Ok(Self::All),
            list => {
                each(list).map(|word| range(word, ", or * for everything")).collect::<Result<_, _>>().map(Self::These)
            }
        }
    }
}

/// Ports with commas between them. `*` stands in templates for "nothing special" and is no port.
pub fn ports(list: &str) -> Result<Vec<u16>, OptionError> {
    each(list).map(|word| port(word, "")).collect()
}

pub fn ranges(list: &str) -> Result<Vec<IpNet>, OptionError> {
    each(list).map(|word| range(word, "")).collect()
}

pub fn ids(list: &str) -> Result<Vec<u32>, OptionError> {
    each(list).map(|word| word.parse().map_err(|_| OptionError::Id(word.to_owned()))).collect()
}

/// Interface names. The kernel's limit is 15 bytes; no patterns.
pub fn interfaces(list: &str) -> Result<Vec<String>, OptionError> {
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    let fits = |name: &&str| name.len() <= 15 && !matches!(*name, "." | "..") && name.chars().all(usual);
    each(list)
        .map(|name| Some(name).filter(fits).map(str::to_owned).ok_or_else(|| OptionError::Interface(name.to_owned())))
        .collect()
}

/// The name servers that `resolv.conf` names.
pub fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next()
        {
            // A link-local address may carry a zone; it is reached by the same address.
            let address = address.split('%').next().unwrap_or(address);
            if let Ok(address) = address.parse()
                && !servers.contains(&address)
            {
                servers.push(address);
            }
        }
    }
    servers
}

fn each(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn port(word: &str, or: &'static str) -> Result<u16, OptionError> {
    let number = word.parse().ok().filter(|number| *number != 0);
    number.ok_or_else(|| OptionError::Port(word.to_owned(), or))
}

/// A range; an address alone is itself. Bits behind the prefix do not matter.
fn range(word: &str, or: &'static str) -> Result<IpNet, OptionError> {
    let parsed = match word.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => word.parse::<IpNet>().map(|net| net.trunc()),
    };
    parsed.map_err(|_| OptionError::Range(word.to_owned(), or))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_refused() {
        assert_eq!("*".parse(), Ok(Ports::All));
        assert_eq!("".parse(), Ok(Ports::These(vec![])));
        assert_eq!(" 80, 443,".parse(), Ok(Ports::These(vec![80, 443])));
        for wrong in ["0", "65536", "http", "80-90", "*,80"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
        assert_eq!("*".parse(), Ok(Ranges::All));
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().expect("a network")).collect::<Vec<IpNet>>();
        assert_eq!("10.1.2.3/8,fd00::1".parse(), Ok(Ranges::These(nets(&["10.0.0.0/8", "fd00::1/128"]))));
        assert!("10.0.0.0/33".parse::<Ranges>().is_err());
        assert!("*,10.0.0.0/8".parse::<Ranges>().is_err());
        assert!(ports("*").is_err());
        assert_eq!(ids("1337,0"), Ok(vec![1337, 0]));
        assert!(ids("istio-proxy").is_err());
        assert_eq!(interfaces("eth0, net1"), Ok(vec!["eth0".to_owned(), "net1".to_owned()]));
        for wrong in ["sixteen-letters-", "a/b", "a b", "..", "eth+", "\"x\""] {
            assert!(interfaces(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn name_servers_are_found() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.10\n nameserver  fe80::1%eth0 \nnameserver 10.0.0.10\nnameserver x\n";
        let found: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.10", "fe80::1"]);
    }
}
