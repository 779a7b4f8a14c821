//! The sandbox itself: a process that holds namespaces for as long as the supervisor lives, prepares them, and hands out
//! sockets that are made in them.
//!
//! It is told what to do over its standard input, one message each, and does one thing at a time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use mizzen_capture::link::{self, LinkError};
use mizzen_capture::namespace::{self, Parts};
use mizzen_capture::rules::{Action, Chain, Condition, Family, Hook, Kind, Rule, RuleSet, Table, Transport};
use mizzen_capture::{ApplyError, Options, Ports, Ranges, apply, options, plan};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Pid;
use socket2::{Domain, Socket, Type};

use super::PROXY_MARK;

/// First argument of `mizzen` when it is started as a sandbox: `mizzen __sandbox node …` or `mizzen __sandbox pod …`.
pub const SANDBOX: &str = "__sandbox";
/// Between the words of a message.
pub(super) const SEPARATOR: &str = "\0";
/// Longest message.
pub(super) const LONGEST: usize = 64 * 1024;

/// What a node has for itself.
pub(crate) const OF_NODE: Parts = Parts { mounts: false, host_name: false };
/// What a pod has for itself.
pub(crate) const OF_POD: Parts = Parts { mounts: true, host_name: true };

/// Interface of a pod.
const WIRE: &str = "eth0";
const BACKLOG: i32 = 1024;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{what}: {error}")]
    Step { what: &'static str, error: io::Error },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Rules(#[from] ApplyError),
    #[error("annotation {0}")]
    Annotation(String),
    #[error("the message {0:?} is not understood")]
    Words(String),
}

impl Failure {
    fn not_permitted(&self) -> bool {
        // The second is what a limit of no namespaces says.
        let denied =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::StorageFull);
        match self {
            Self::Io(error) | Self::Step { error, .. } | Self::Link(LinkError { error, .. }) => denied(error),
            Self::Rules(error) => matches!(error, ApplyError::NotPermitted { .. }),
            Self::Annotation(_) | Self::Words(_) => false,
        }
    }
}

/// Runs as a sandbox until the supervisor is gone. `arguments` are those after [`SANDBOX`].
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> io::Result<()> {
    let words: Vec<String> = arguments.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let begun = begin(&words);
    let failed = begun.is_err();
    reply(begun.map(|()| None))?;
    if failed {
        return Ok(());
    }
    let mut text = vec![0; LONGEST];
    loop {
        let length = match rustix::net::recv(io::stdin(), &mut text[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&text[..length]).into_owned();
        let words: Vec<&str> = message.split(SEPARATOR).collect();
        reply(obey(&words))?;
    }
}

fn reply(result: Result<Option<OwnedFd>, Failure>) -> io::Result<()> {
    let (text, socket) = match result {
        Ok(socket) => ("ok".to_owned(), socket),
        Err(failure) if failure.not_permitted() => (format!("not permitted{SEPARATOR}{failure}"), None),
        Err(failure) => (format!("refused{SEPARATOR}{failure}"), None),
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let handed: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
    if !handed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&handed)) {
        return Err(io::Error::other("there is no room for a socket"));
    }
    let text = io::IoSlice::new(text.as_bytes());
    rustix::net::sendmsg(io::stdin(), &[text], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn begin(words: &[&str]) -> Result<(), Failure> {
    match *words {
        ["node", bridge, net, way_out] => {
            let net: Ipv4Net = word(net)?;
            namespace::leave(OF_NODE)?;
            survive_nobody()?;
            link::loopback_up()?;
            link::bridge(bridge, net)?;
            apply(&way_out_rules(net, word(way_out)?), None)?;
            Ok(())
        }
        ["pod", name] => {
            namespace::leave(OF_POD)?;
            survive_nobody()?;
            namespace::keep_mounts().map_err(|error| Failure::Step { what: "a mount namespace", error })?;
            // The kernel's limit; without the name of its own a pod has the machine's.
            let _ = namespace::set_host_name(&name[..name.len().min(63)]);
            link::loopback_up()?;
            // Programs that expect to be root in their container may listen on port 80.
            let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
            Ok(())
        }
        _ => Err(Failure::Words(words.join(" "))),
    }
}

/// The signal for the death of the parent, and the permission to be looked at by our own user, are lost with a new user
/// namespace.
fn survive_nobody() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    Ok(())
}

fn obey(words: &[&str]) -> Result<Option<OwnedFd>, Failure> {
    match *words {
        ["attach", bridge, port, process] => {
            let process = Pid::from_raw(word(process)?).ok_or_else(|| Failure::Words(process.to_owned()))?;
            link::wire(bridge, port, WIRE, process)?;
            Ok(None)
        }
        ["settle", net, gateway] => {
            link::settle(WIRE, word(net)?, word(gateway)?)?;
            Ok(None)
        }
        ["file", fresh, at] => {
            let replaced = namespace::replace_file(Path::new(fresh), Path::new(at));
            replaced.map_err(|error| Failure::Step { what: "a file in the place of one in /etc", error })?;
            Ok(None)
        }
        ["hide", at] => {
            namespace::hide_folder(Path::new(at)).map_err(|error| Failure::Step { what: "hiding a folder", error })?;
            Ok(None)
        }
        ["capture", gateway, ref options @ ..] => {
            apply(&plan(&options_of(word(gateway)?, options)?), None)?;
            Ok(None)
        }
        ["stream"] => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
            Ok(Some(socket.into()))
        }
        ["listen", at] => {
            let at: SocketAddr = word(at)?;
            let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&at.into())?;
            socket.listen(BACKLOG)?;
            Ok(Some(socket.into()))
        }
        ["datagrams", at] => {
            let at: SocketAddr = word(at)?;
            let socket = Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking(), None)?;
            socket.bind(&at.into())?;
            Ok(Some(socket.into()))
        }
        _ => Err(Failure::Words(words.join(" "))),
    }
}

fn word<T: FromStr>(word: &str) -> Result<T, Failure> {
    word.parse().map_err(|_| Failure::Words(word.to_owned()))
}

/// What pods send to anywhere else than pods goes to a port of the node.
fn way_out_rules(net: Ipv4Net, port: u16) -> RuleSet {
    let tcp = || Condition::Protocol(Transport::Tcp);
    let rules = vec![
        // Machines that let bridged frames pass through their rules show us these, too.
        Rule {
            conditions: vec![Condition::To(IpNet::V4(net.trunc()))],
            action: Action::Return,
            why: "from pod to pod, or to the node",
        },
        Rule { conditions: vec![tcp()], action: Action::Redirect(port), why: "to the relay that leads out" },
    ];
    let chain = Chain { name: "way_out", kind: Kind::Nat, hook: Some(Hook::Prerouting), rules };
    RuleSet { tables: vec![Table { family: Family::V4, chains: vec![chain] }], routing: Vec::new() }
}

/// Istio's annotations that say what is caught.
pub(crate) const CAUGHT: &str = "traffic.sidecar.istio.io/";

/// Those of [`CAUGHT`] that [`options_of`] reads.
pub(crate) const OBEYED: [&str; 6] = [
    "includeOutboundIPRanges",
    "excludeOutboundIPRanges",
    "includeOutboundPorts",
    "excludeOutboundPorts",
    "includeInboundPorts",
    "excludeInboundPorts",
];

/// The annotations that [`options_of`] reads, as words of a message.
pub(super) fn options_in(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let known = annotations.iter().filter(|(key, _)| key.starts_with(CAUGHT));
    known.map(|(key, value)| format!("{}={value}", &key[CAUGHT.len()..])).collect()
}

/// Everything is caught but what the proxy sends, and what is for the node.
fn options_of(node: Ipv4Addr, annotations: &[&str]) -> Result<Options, Failure> {
    let mut found = Options {
        proxy_uids: Vec::new(),
        proxy_gids: Vec::new(),
        proxy_marks: vec![PROXY_MARK],
        exclude_outbound_ranges: vec![IpNet::from(std::net::IpAddr::V4(node))],
        ipv6: false,
        ..Options::default()
    };
    for annotation in annotations {
        let (key, value) = annotation.split_once('=').unwrap_or((annotation, ""));
        let wrong = |error: options::OptionError| Failure::Annotation(format!("{CAUGHT}{key}: {error}"));
        match key {
            "includeOutboundIPRanges" => found.outbound_ranges = Ranges::from_str(value).map_err(wrong)?,
            "excludeOutboundIPRanges" => found.exclude_outbound_ranges.extend(options::ranges(value).map_err(wrong)?),
            "includeOutboundPorts" => found.outbound_ports = options::ports(value).map_err(wrong)?,
            "excludeOutboundPorts" => found.exclude_outbound_ports = options::ports(value).map_err(wrong)?,
            "includeInboundPorts" => found.inbound_ports = Ports::from_str(value).map_err(wrong)?,
            "excludeInboundPorts" => found.exclude_inbound_ports.extend(options::ports(value).map_err(wrong)?),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_what_is_caught() {
        let annotations = BTreeMap::from([
            ("traffic.sidecar.istio.io/excludeOutboundPorts".to_owned(), "3306".to_owned()),
            ("traffic.sidecar.istio.io/includeInboundPorts".to_owned(), "8080,9090".to_owned()),
            ("other".to_owned(), "x".to_owned()),
        ]);
        let words = options_in(&annotations);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let options = options_of(Ipv4Addr::new(10, 244, 0, 1), &words).expect("they are right");
        assert_eq!(options.exclude_outbound_ports, [3306]);
        assert_eq!(options.inbound_ports, Ports::These(vec![8080, 9090]));
        assert_eq!(options.proxy_marks, [PROXY_MARK]);
        let error = options_of(Ipv4Addr::LOCALHOST, &["excludeOutboundPorts=http"]).expect_err("no port");
        assert!(
            error.to_string().contains("traffic.sidecar.istio.io/excludeOutboundPorts: \"http\" is no port"),
            "{error}"
        );
    }

    #[test]
    fn what_is_called_obeyed_is_read_and_nothing_else() {
        for key in OBEYED {
            assert!(options_of(Ipv4Addr::LOCALHOST, &[&format!("{key}=nonsense")]).is_err(), "{key}");
        }
        assert!(options_of(Ipv4Addr::LOCALHOST, &["excludeInterfaces=nonsense"]).is_ok());
    }
}
