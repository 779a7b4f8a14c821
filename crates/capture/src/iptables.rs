//! The rules for `iptables-restore`: for kernels without `nf_tables`, where that program is installed.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use crate::rules::{Action, Chain, Condition, Family, Kind, Rule, RuleSet, Table};

/// Names of all chains that any rule set of ours has.
const OURS: [&str; 13] = [
    "raw_prerouting",
    "raw_output",
    "mangle_prerouting",
    "mangle_output",
    "nat_prerouting",
    "nat_output",
    "ISTIO_INBOUND",
    "ISTIO_OUTPUT",
    "ISTIO_IN_REDIRECT",
    "ISTIO_REDIRECT",
    "ISTIO_INBOUND_TPROXY",
    "ISTIO_DIVERT",
    "ISTIO_TPROXY",
];

/// Why rules could not be set this way.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    #[error("{program} is not installed")]
    Missing { program: &'static str },
    #[error("{program} failed: {reason}")]
    Failed { program: &'static str, reason: String },
}

/// Input for `iptables-restore --noflush` that replaces our chains. `present` is what `iptables-save` said before.
pub fn script(table: Option<&Table>, present: &str) -> String {
    let mut out = String::new();
    for kind in [Kind::Raw, Kind::Mangle, Kind::Nat] {
        let chains: Vec<&Chain> =
            table.into_iter().flat_map(|table| &table.chains).filter(|chain| chain.kind == kind).collect();
        let old = ours_in(present, kind);
        if chains.is_empty() && old.chains.is_empty() {
            continue;
        }
        let _ = writeln!(out, "*{}", kind.table());
        // A declaration empties a chain that is there.
        let stale = old.chains.iter().copied().filter(|name| chains.iter().all(|chain| chain.name != *name));
        let stale: Vec<&str> = stale.collect();
        for name in chains.iter().map(|chain| chain.name).chain(stale.iter().copied()) {
            let _ = writeln!(out, ":{name} - [0:0]");
        }
        for jump in &old.jumps {
            let _ = writeln!(out, "-D {jump}");
        }
        for name in &stale {
            let _ = writeln!(out, "-X {name}");
        }
        for chain in &chains {
            if let Some(hook) = chain.hook {
                let _ = writeln!(out, "-A {} -j {}", hook.keyword().to_uppercase(), chain.name);
            }
            for rule in &chain.rules {
                let _ = writeln!(out, "-A {}{}", chain.name, words(rule));
            }
        }
        out.push_str("COMMIT\n");
    }
    out
}

/// What an earlier run left in one table: our chains, and the rules of the built-in chains that jump there.
struct Ours<'a> {
    chains: Vec<&'a str>,
    jumps: Vec<&'a str>,
}

fn ours_in(saved: &str, kind: Kind) -> Ours<'_> {
    let mut ours = Ours { chains: Vec::new(), jumps: Vec::new() };
    let mut inside = false;
    for line in saved.lines() {
        if let Some(table) = line.strip_prefix('*') {
            inside = table.trim() == kind.table();
        } else if !inside {
            continue;
        } else if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap_or_default();
            if OURS.contains(&name) {
                ours.chains.push(name);
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let from = rule.split(' ').next().unwrap_or_default();
            let to = rule.rsplit(' ').next().unwrap_or_default();
            if matches!(from, "PREROUTING" | "OUTPUT") && OURS.contains(&to) {
                ours.jumps.push(rule);
            }
        }
    }
    ours
}

fn words(rule: &Rule) -> String {
    let mut out = String::new();
    let transport = rule.conditions.iter().find_map(|condition| match condition {
        Condition::Protocol(transport)
        | Condition::ToPort(transport, _)
        | Condition::NotToPort(transport, _)
        | Condition::FromPort(transport, _) => Some(*transport),
        _ => None,
    });
    if let Some(transport) = transport {
        let _ = write!(out, " -p {}", transport.keyword());
    }
    for condition in &rule.conditions {
        let _ = match condition {
            Condition::Protocol(_) => Ok(()),
            Condition::From(net) => write!(out, " -s {net}"),
            Condition::To(net) => write!(out, " -d {net}"),
            Condition::NotTo(net) => write!(out, " ! -d {net}"),
            Condition::ToPort(transport, port) => write!(out, " -m {} --dport {port}", transport.keyword()),
            Condition::NotToPort(transport, port) => write!(out, " -m {} ! --dport {port}", transport.keyword()),
            Condition::FromPort(transport, port) => write!(out, " -m {} --sport {port}", transport.keyword()),
            Condition::In(name) => write!(out, " -i {name}"),
            Condition::Out(name) => write!(out, " -o {name}"),
            Condition::User(id) => write!(out, " -m owner --uid-owner {id}"),
            Condition::NotUser(id) => write!(out, " -m owner ! --uid-owner {id}"),
            Condition::Group(id) => write!(out, " -m owner --gid-owner {id}"),
            Condition::NotGroup(id) => write!(out, " -m owner ! --gid-owner {id}"),
            Condition::Mark(mark) => write!(out, " -m mark --mark {mark}"),
            Condition::NotMark(mark) => write!(out, " -m mark ! --mark {mark}"),
            Condition::ConnectionMark(mark) => write!(out, " -m connmark --mark {mark}"),
            Condition::Established => write!(out, " -m conntrack --ctstate RELATED,ESTABLISHED"),
            Condition::Invalid => write!(out, " -m conntrack --ctstate INVALID"),
        };
    }
    let _ = write!(out, " -m comment --comment \"{}\" -j ", rule.why);
    let _ = match &rule.action {
        Action::Return => write!(out, "RETURN"),
        Action::Accept => write!(out, "ACCEPT"),
        Action::Drop => write!(out, "DROP"),
        Action::Jump(chain) => write!(out, "{chain}"),
        Action::Redirect(port) => write!(out, "REDIRECT --to-ports {port}"),
        Action::Tproxy { port, mark } => write!(out, "TPROXY --on-port {port} --tproxy-mark {mark}/0xffffffff"),
        Action::SetMark(mark) => write!(out, "MARK --set-mark {mark}"),
        Action::SaveMark => write!(out, "CONNMARK --save-mark"),
        Action::RestoreMark => write!(out, "CONNMARK --restore-mark"),
        Action::Zone(zone) => write!(out, "CT --zone {zone}"),
    };
    out
}

/// Puts the rules in force; families without a table are cleaned.
pub fn apply(rules: &RuleSet) -> Result<(), IptablesError> {
    for table in &rules.tables {
        replace(table.family, Some(table))?;
    }
    Ok(())
}

/// Takes away what [`apply`] set. Nothing is done where the program is missing: then nothing was set.
pub fn clean() -> Result<(), IptablesError> {
    for family in Family::ALL {
        match replace(family, None) {
            Ok(()) | Err(IptablesError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn replace(family: Family, table: Option<&Table>) -> Result<(), IptablesError> {
    let (save, restore) = match family {
        Family::V4 => ("iptables-save", "iptables-restore"),
        Family::V6 => ("ip6tables-save", "ip6tables-restore"),
    };
    let present = run(save, &[], "")?;
    let script = script(table, &present);
    if !script.is_empty() {
        run(restore, &["--noflush", "--wait"], &script)?;
    }
    Ok(())
}

fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, IptablesError> {
    let failed = |reason: String| IptablesError::Failed { program, reason };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => IptablesError::Missing { program },
        _ => failed(error.to_string()),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended early says why on stderr.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Kind {
    fn table(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
        }
    }
}
