//! The rules as values: what the kernel is to do with a packet, before anybody says so in `nft`'s or `iptables`' words.
//!
//! The order of the rules is Istio's, and its names of chains, so that people find what they know. One difference:
//! where several users or groups are the proxy's, each is treated as the first (Istio lets loopback traffic of all but
//! the first escape).

mod plan;

use std::net::IpAddr;

use ipnet::IpNet;

pub use plan::plan;

/// Name of the table that holds everything.
pub const TABLE: &str = "mizzen";

/// All rules, the same list for each address family; rules for addresses of one family stand only there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    pub tables: Vec<Table>,
    pub routing: Vec<Routing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub chains: Vec<Chain>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: &'static str,
    pub kind: Kind,
    /// Where packets enter; `None` for a chain that others jump to.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// What a chain is for; each is a table of its own in `iptables`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Raw,
    Mangle,
    Nat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Output,
}

/// All conditions hold: do it. A packet for which a rule only marks goes on to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub conditions: Vec<Condition>,
    pub action: Action,
    /// Why the rule is there; shown by `nft list ruleset`.
    pub why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Protocol(Transport),
    From(IpNet),
    To(IpNet),
    NotTo(IpNet),
    ToPort(Transport, u16),
    NotToPort(Transport, u16),
    FromPort(Transport, u16),
    In(String),
    Out(String),
    User(u32),
    NotUser(u32),
    Group(u32),
    NotGroup(u32),
    Mark(u32),
    NotMark(u32),
    ConnectionMark(u32),
    /// Packets of a connection that is known already.
    Established,
    Invalid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Leave this chain.
    Return,
    Accept,
    Drop,
    Jump(&'static str),
    /// To this port of this machine.
    Redirect(u16),
    /// To the transparent listener on this port, marked so that routing finds it.
    Tproxy {
        port: u16,
        mark: u32,
    },
    SetMark(u32),
    /// The packet's mark becomes the connection's, and the other way round.
    SaveMark,
    RestoreMark,
    /// Tell equal connections apart that take different ways.
    Zone(u16),
}

/// What else the kernel's routing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// An address on the loopback interface.
    LoopbackAddress(IpAddr),
    /// Marked packets are for this machine, whatever their destination.
    LocalByMark { family: Family, mark: u32, table: u32 },
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The loopback address that applications use.
    pub fn localhost(self) -> IpNet {
        match self {
            Self::V4 => IpNet::from(IpAddr::from([127, 0, 0, 1])),
            Self::V6 => IpNet::from(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])),
        }
    }

    /// The address from which the proxy calls its own application.
    pub fn inbound_source(self) -> IpNet {
        match self {
            Self::V4 => IpNet::from(IpAddr::from([127, 0, 0, 6])),
            Self::V6 => IpNet::from(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 6u16])),
        }
    }
}

impl Condition {
    /// The family that a condition on an address is for.
    fn family(&self) -> Option<Family> {
        match self {
            Self::From(net) | Self::To(net) | Self::NotTo(net) => Some(Family::of(net.addr())),
            _ => None,
        }
    }
}

impl Rule {
    /// Whether the rule makes sense for packets of this family.
    fn is_for(&self, family: Family) -> bool {
        self.conditions.iter().all(|condition| condition.family().is_none_or(|own| own == family))
    }
}

impl RuleSet {
    /// Rules in all tables.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules)
    }
}

#[cfg(test)]
mod tests;
