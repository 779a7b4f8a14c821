//! The rules as an `nft` script, for people: `mizzen init --dry-run` prints it, and `nft -f` takes it.

use std::fmt::{self, Display, Write};

use crate::rules::{Action, Condition, Family, Hook, Kind, Routing, Rule, RuleSet, TABLE, Transport};

/// The script. It replaces what an earlier run left, as [`crate::apply()`] does.
pub fn script(rules: &RuleSet) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(rules, &mut out);
    out
}

fn write(rules: &RuleSet, out: &mut String) -> fmt::Result {
    for table in &rules.tables {
        let family = Family::keyword(table.family);
        writeln!(out, "table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{")?;
        for chain in &table.chains {
            writeln!(out, "\tchain {} {{", chain.name)?;
            if let Some(hook) = chain.hook {
                let (kind, priority) = (chain.kind.of_chain(hook), chain.kind.priority());
                writeln!(out, "\t\ttype {kind} hook {} priority {priority}; policy accept;", hook.keyword())?;
            }
            for rule in &chain.rules {
                writeln!(out, "\t\t{}", Line { rule, family: table.family })?;
            }
            writeln!(out, "\t}}")?;
        }
        writeln!(out, "}}")?;
    }
    for routing in &rules.routing {
        writeln!(out, "# ip {routing}")?;
    }
    Ok(())
}

struct Line<'a> {
    rule: &'a Rule,
    family: Family,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.family.keyword();
        for condition in &self.rule.conditions {
            match condition {
                // A condition on a port says it too.
                Condition::Protocol(transport) => write!(f, "meta l4proto {} ", transport.keyword()),
                Condition::From(net) => write!(f, "{ip} saddr {net} "),
                Condition::To(net) => write!(f, "{ip} daddr {net} "),
                Condition::NotTo(net) => write!(f, "{ip} daddr != {net} "),
                Condition::ToPort(transport, port) => write!(f, "{} dport {port} ", transport.keyword()),
                Condition::NotToPort(transport, port) => write!(f, "{} dport != {port} ", transport.keyword()),
                Condition::FromPort(transport, port) => write!(f, "{} sport {port} ", transport.keyword()),
                Condition::In(name) => write!(f, "iifname \"{name}\" "),
                Condition::Out(name) => write!(f, "oifname \"{name}\" "),
                Condition::User(id) => write!(f, "meta skuid {id} "),
                Condition::NotUser(id) => write!(f, "meta skuid != {id} "),
                Condition::Group(id) => write!(f, "meta skgid {id} "),
                Condition::NotGroup(id) => write!(f, "meta skgid != {id} "),
                Condition::Mark(mark) => write!(f, "meta mark {mark} "),
                Condition::NotMark(mark) => write!(f, "meta mark != {mark} "),
                Condition::ConnectionMark(mark) => write!(f, "ct mark {mark} "),
                Condition::Established => f.write_str("ct state established,related "),
                Condition::Invalid => f.write_str("ct state invalid "),
            }?;
        }
        match &self.rule.action {
            Action::Return => f.write_str("return"),
            Action::Accept => f.write_str("accept"),
            Action::Drop => f.write_str("drop"),
            Action::Jump(chain) => write!(f, "jump {chain}"),
            Action::Redirect(port) => write!(f, "redirect to :{port}"),
            Action::Tproxy { port, mark } => write!(f, "meta mark set {mark} tproxy to :{port} accept"),
            Action::SetMark(mark) => write!(f, "meta mark set {mark}"),
            Action::SaveMark => f.write_str("ct mark set meta mark"),
            Action::RestoreMark => f.write_str("meta mark set ct mark"),
            Action::Zone(zone) => write!(f, "ct zone set {zone}"),
        }?;
        write!(f, " comment \"{}\"", self.rule.why)
    }
}

/// In the words of `ip`.
impl Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoopbackAddress(address) => {
                let length = if address.is_ipv4() { 32 } else { 128 };
                write!(f, "address add {address}/{length} dev lo")
            }
            Self::LocalByMark { family, mark, table } => {
                let option = if *family == Family::V4 { "-4" } else { "-6" };
                write!(f, "{option} rule add fwmark {mark} lookup {table}; ")?;
                write!(f, "ip {option} route add local default dev lo table {table}")
            }
        }
    }
}

impl Family {
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

impl Transport {
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Hook {
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        }
    }
}

impl Kind {
    /// The kernel's type of chain. Packets that are marked on their way out are routed anew.
    pub(crate) fn of_chain(self, hook: Hook) -> &'static str {
        match (self, hook) {
            (Self::Nat, _) => "nat",
            (Self::Mangle, Hook::Output) => "route",
            (Self::Mangle | Self::Raw, _) => "filter",
        }
    }

    /// As the tables of that name have in `iptables`.
    pub(crate) fn priority(self) -> i32 {
        match self {
            Self::Raw => -300,
            Self::Mangle => -150,
            Self::Nat => -100,
        }
    }
}
