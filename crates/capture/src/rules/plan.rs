//! From options to rules (reference: features 5.4, semantics 219 to 222).

use ipnet::IpNet;

use super::{Action, Chain, Condition, Family, Hook, Kind, Routing, Rule, RuleSet, Table, Transport};
use crate::options::{Dns, Interception, Options, Ports, Ranges};

use Action::{Accept, Drop, Jump, Redirect, RestoreMark, Return, SaveMark, SetMark, Tproxy, Zone};
use Condition::{
    ConnectionMark, Established, From, FromPort, Group, In, Invalid, Mark, NotMark, NotTo, NotToPort, Out, Protocol,
    To, ToPort, User,
};
use Transport::{Tcp, Udp};

const LOOPBACK: &str = "lo";
const INBOUND: &str = "ISTIO_INBOUND";
const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
const OUTPUT: &str = "ISTIO_OUTPUT";
const REDIRECT: &str = "ISTIO_REDIRECT";
const DIVERT: &str = "ISTIO_DIVERT";
const TPROXY: &str = "ISTIO_TPROXY";
const INBOUND_TPROXY: &str = "ISTIO_INBOUND_TPROXY";

/// What the proxy marks its own calls over loopback with, so that they are seen as inbound.
const OUTBOUND_MARK: u32 = 1338;
/// A port for DNS.
const DNS: u16 = 53;

/// The rules that do what the options say.
pub fn plan(options: &Options) -> RuleSet {
    let families = if options.ipv6 { &Family::ALL[..] } else { &Family::ALL[..1] };
    let tables = families.iter().map(|family| Table { family: *family, chains: chains(options, *family) }).collect();
    let mut routing = Vec::new();
    for family in families {
        if *family == Family::V6 {
            // 127.0.0.6 is an address of every machine; its counterpart has to be made one.
            routing.push(Routing::LoopbackAddress(family.inbound_source().addr()));
        }
        if options.interception == Interception::Tproxy && catches_inbound(options) {
            let (mark, table) = (options.tproxy_mark, options.tproxy_table);
            routing.push(Routing::LocalByMark { family: *family, mark, table });
        }
    }
    RuleSet { tables, routing }
}

/// One family's chains; those without a rule, and those that nothing jumps to, are left out.
fn chains(options: &Options, family: Family) -> Vec<Chain> {
    let hooked = |name, kind, hook, rules| Chain { name, kind, hook: Some(hook), rules };
    let plain = |name, kind, rules| Chain { name, kind, hook: None, rules };
    let tproxy = options.interception == Interception::Tproxy;
    let redirected = || if tproxy { Vec::new() } else { inbound(options, IN_REDIRECT) };
    let mut chains = vec![
        hooked("raw_prerouting", Kind::Raw, Hook::Prerouting, raw_prerouting(options)),
        hooked("raw_output", Kind::Raw, Hook::Output, raw_output(options)),
        hooked("mangle_prerouting", Kind::Mangle, Hook::Prerouting, mangle_prerouting(options)),
        hooked("mangle_output", Kind::Mangle, Hook::Output, mangle_output(options, family)),
        hooked("nat_prerouting", Kind::Nat, Hook::Prerouting, nat_prerouting(options)),
        hooked("nat_output", Kind::Nat, Hook::Output, nat_output(options)),
        plain(INBOUND, Kind::Nat, redirected()),
        plain(OUTPUT, Kind::Nat, output(options, family)),
        plain(IN_REDIRECT, Kind::Nat, vec![tcp(Redirect(options.inbound_port), "to the proxy's inbound port")]),
        plain(REDIRECT, Kind::Nat, vec![tcp(Redirect(options.proxy_port), "to the proxy's outbound port")]),
    ];
    if tproxy && catches_inbound(options) {
        chains.push(plain(INBOUND_TPROXY, Kind::Mangle, inbound_tproxy(options, family)));
        chains.push(plain(DIVERT, Kind::Mangle, divert(options)));
        chains.push(plain(TPROXY, Kind::Mangle, to_tproxy(options, family)));
    }
    for chain in &mut chains {
        chain.rules.retain(|rule| rule.is_for(family));
    }
    let jumped: Vec<&str> = chains.iter().flat_map(|chain| &chain.rules).filter_map(target).collect();
    chains.retain(|chain| !chain.rules.is_empty() && (chain.hook.is_some() || jumped.contains(&chain.name)));
    // A jump into a chain without rules does nothing, and would lead nowhere now.
    let left: Vec<&str> = chains.iter().map(|chain| chain.name).collect();
    for chain in &mut chains {
        chain.rules.retain(|rule| target(rule).is_none_or(|target| left.contains(&target)));
    }
    chains.retain(|chain| !chain.rules.is_empty());
    chains
}

fn target(rule: &Rule) -> Option<&'static str> {
    match rule.action {
        Jump(chain) => Some(chain),
        _ => None,
    }
}

fn rule(conditions: impl Into<Vec<Condition>>, action: Action, why: &'static str) -> Rule {
    Rule { conditions: conditions.into(), action, why }
}

fn tcp(action: Action, why: &'static str) -> Rule {
    rule([Protocol(Tcp)], action, why)
}

fn catches_inbound(options: &Options) -> bool {
    options.inbound_ports != Ports::These(Vec::new())
}

/// A condition for each user, group and mark that is the proxy's.
fn owners(options: &Options) -> impl Iterator<Item = Condition> {
    let users = options.proxy_uids.iter().copied().map(User);
    users.chain(options.proxy_gids.iter().copied().map(Group)).chain(options.proxy_marks.iter().copied().map(Mark))
}

/// Interfaces that are left alone are the first thing that every chain asks about.
fn excluded_in(options: &Options) -> impl Iterator<Item = Rule> {
    options.exclude_interfaces.iter().map(|name| rule([In(name.clone())], Return, "an excluded interface"))
}

fn excluded_out(options: &Options) -> impl Iterator<Item = Rule> {
    options.exclude_interfaces.iter().map(|name| rule([Out(name.clone())], Return, "an excluded interface"))
}

fn nat_prerouting(options: &Options) -> Vec<Rule> {
    let mut rules: Vec<Rule> = excluded_in(options).collect();
    for interface in &options.virtual_interfaces {
        let from = In(interface.clone());
        let why = "a virtual machine's call counts as outbound";
        rules.extend(
            options
                .exclude_outbound_ranges
                .iter()
                .map(|range| rule([from.clone(), To(*range)], Return, "an excluded destination of a virtual machine")),
        );
        match &options.outbound_ranges {
            Ranges::All => rules.push(rule([from, Protocol(Tcp)], Jump(REDIRECT), why)),
            Ranges::These(ranges) => {
                let each = |range: &IpNet| rule([from.clone(), To(*range), Protocol(Tcp)], Jump(REDIRECT), why);
                rules.extend(ranges.iter().map(each));
            }
        }
    }
    rules.push(tcp(Jump(INBOUND), "what comes in"));
    rules
}

/// Which inbound connections are caught; what is, goes to `caught`.
fn inbound(options: &Options, caught: &'static str) -> Vec<Rule> {
    match &options.inbound_ports {
        Ports::All => {
            let mut rules =
                vec![rule([ToPort(Tcp, options.tunnel_port)], Return, "mesh tunnels have a port of their own")];
            let excluded = &options.exclude_inbound_ports;
            rules.extend(excluded.iter().map(|port| rule([ToPort(Tcp, *port)], Return, "an excluded inbound port")));
            rules.push(tcp(Jump(caught), "every other inbound port"));
            rules
        }
        Ports::These(ports) => {
            ports.iter().map(|port| rule([ToPort(Tcp, *port)], Jump(caught), "an inbound port")).collect()
        }
    }
}

fn nat_output(options: &Options) -> Vec<Rule> {
    let mut rules: Vec<Rule> = excluded_out(options).collect();
    if let Some(dns) = &options.dns {
        rules.extend(owners(options).map(|owner| rule([ToPort(Udp, DNS), owner], Return, "the proxy's own queries")));
        rules.extend(queries(dns, Udp).map(|to| rule(to, Redirect(dns.port), "DNS queries")));
    }
    rules.push(tcp(Jump(OUTPUT), "what goes out"));
    rules
}

/// Conditions for queries that are caught, one rule each.
fn queries(dns: &Dns, transport: Transport) -> impl Iterator<Item = Vec<Condition>> {
    let any = dns.servers.is_none().then(|| vec![ToPort(transport, DNS)]);
    let each = dns.servers.iter().flatten();
    any.into_iter().chain(each.map(move |server| vec![To(IpNet::from(*server)), ToPort(transport, DNS)]))
}

/// Outbound TCP. First what must never be caught, in Istio's order, then what shall be.
fn output(options: &Options, family: Family) -> Vec<Rule> {
    let lo = || Out(LOOPBACK.to_owned());
    let localhost = family.localhost();
    let mut rules: Vec<Rule> = options
        .exclude_outbound_ports
        .iter()
        .map(|port| rule([ToPort(Tcp, *port)], Return, "an excluded outbound port"))
        .collect();
    rules.push(rule([lo(), From(family.inbound_source())], Return, "the proxy calls its own application"));
    if options.interception == Interception::Tproxy {
        // As the client, with which it has no address in common by which it would be known.
        rules.push(rule([lo(), Mark(options.tproxy_mark)], Return, "the proxy calls its own application"));
    }
    for owner in owners(options) {
        // The application called a service that it serves itself: what the proxy sends to it comes in as if from outside.
        let mut own = vec![lo(), NotTo(localhost), NotToPort(Tcp, options.tunnel_port), owner];
        if options.dns.is_some() {
            own.push(NotToPort(Tcp, DNS));
        }
        rules.push(rule(own, Jump(IN_REDIRECT), "the proxy calls a service that its own application serves"));
    }
    if !includes_loopback(options, family) {
        let mut within = vec![lo(), Protocol(Tcp)];
        if options.dns.is_some() {
            within.push(NotToPort(Tcp, DNS));
        }
        rules.push(rule(within, Return, "calls within this machine"));
    }
    rules.extend(owners(options).map(|owner| rule([owner], Return, "the proxy's own connections never come back")));
    if let Some(dns) = &options.dns {
        rules.extend(queries(dns, Tcp).map(|to| rule(to, Redirect(dns.port), "DNS queries")));
    }
    rules.push(rule([To(localhost)], Return, "calls to localhost"));
    let excluded = &options.exclude_outbound_ranges;
    rules.extend(excluded.iter().map(|range| rule([To(*range)], Return, "an excluded destination")));
    let ports = &options.outbound_ports;
    rules.extend(ports.iter().map(|port| rule([ToPort(Tcp, *port)], Jump(REDIRECT), "an outbound port")));
    match &options.outbound_ranges {
        Ranges::All => rules.push(tcp(Jump(REDIRECT), "every other destination")),
        Ranges::These(ranges) => {
            let each = |range: &IpNet| rule([To(*range), Protocol(Tcp)], Jump(REDIRECT), "a destination");
            rules.extend(ranges.iter().map(each));
        }
    }
    rules
}

/// Whoever names loopback addresses as destinations wants them caught.
fn includes_loopback(options: &Options, family: Family) -> bool {
    let Ranges::These(ranges) = &options.outbound_ranges else { return false };
    ranges.iter().any(|range| Family::of(range.addr()) == family && range.addr().is_loopback())
}

fn mangle_prerouting(options: &Options) -> Vec<Rule> {
    let mut rules: Vec<Rule> = excluded_in(options).collect();
    if options.drop_invalid {
        rules.push(rule([Invalid], Drop, "what connection tracking does not understand"));
    }
    if options.interception == Interception::Tproxy && catches_inbound(options) {
        rules.push(rule([Mark(options.tproxy_mark), Protocol(Tcp)], SaveMark, "answers come back to the proxy"));
        rules.push(tcp(Jump(INBOUND_TPROXY), "what comes in"));
    }
    // Excluding alone says nothing.
    if rules.len() == options.exclude_interfaces.len() { Vec::new() } else { rules }
}

fn inbound_tproxy(options: &Options, family: Family) -> Vec<Rule> {
    let lo = || In(LOOPBACK.to_owned());
    let mut rules = vec![
        rule([Mark(options.tproxy_mark), Protocol(Tcp)], Return, "on its way to the application already"),
        rule([lo(), From(family.inbound_source()), Protocol(Tcp)], Return, "the proxy calls its own application"),
        rule([lo(), NotMark(OUTBOUND_MARK), Protocol(Tcp)], Return, "calls within this machine"),
    ];
    for mut caught in inbound(options, TPROXY) {
        if caught.action == Jump(TPROXY) {
            let mut known = caught.conditions.clone();
            known.push(Established);
            rules.push(rule(known, Jump(DIVERT), "a connection that the proxy has"));
            caught.conditions.retain(|condition| *condition != Established);
        }
        rules.push(caught);
    }
    rules
}

fn divert(options: &Options) -> Vec<Rule> {
    vec![
        rule([], SetMark(options.tproxy_mark), "routed to this machine"),
        rule([], Accept, "and nothing else is asked"),
    ]
}

fn to_tproxy(options: &Options, family: Family) -> Vec<Rule> {
    let (port, mark) = (options.inbound_port, options.tproxy_mark);
    vec![rule(
        [NotTo(family.localhost()), Protocol(Tcp)],
        Tproxy { port, mark },
        "to the proxy's inbound port, the destination stays",
    )]
}

fn mangle_output(options: &Options, family: Family) -> Vec<Rule> {
    if options.interception != Interception::Tproxy || !catches_inbound(options) {
        return Vec::new();
    }
    let lo = || Out(LOOPBACK.to_owned());
    let mark = options.tproxy_mark;
    let mut rules: Vec<Rule> = excluded_out(options).collect();
    rules.push(rule([lo(), Mark(mark), Protocol(Tcp)], Return, "the proxy calls its own application"));
    rules.extend(owners(options).map(|owner| {
        let own = [lo(), NotTo(family.localhost()), Protocol(Tcp), owner];
        rule(own, SetMark(OUTBOUND_MARK), "the proxy calls a service that its own application serves")
    }));
    rules.push(rule([ConnectionMark(mark), Protocol(Tcp)], RestoreMark, "answers go back to the proxy"));
    rules
}

/// The application's query to a server and the proxy's to the same server look alike: zones tell them apart.
fn raw_output(options: &Options) -> Vec<Rule> {
    let Some(dns) = &options.dns else { return Vec::new() };
    let mut rules = Vec::new();
    for owner in owners(options) {
        rules.push(rule([ToPort(Udp, DNS), owner.clone()], Zone(1), "the proxy's own queries"));
        rules.push(rule([FromPort(Udp, dns.port), owner], Zone(2), "the proxy's answers"));
    }
    let not_own = |mut to: Vec<Condition>| {
        // Zones are set once; the proxy's own packets have theirs.
        to.extend(options.proxy_uids.iter().copied().map(Condition::NotUser));
        to.extend(options.proxy_gids.iter().copied().map(Condition::NotGroup));
        to.extend(options.proxy_marks.iter().copied().map(NotMark));
        rule(to, Zone(2), "the application's queries")
    };
    rules.extend(queries(dns, Udp).map(not_own));
    rules
}

fn raw_prerouting(options: &Options) -> Vec<Rule> {
    let Some(dns) = &options.dns else { return Vec::new() };
    let why = "answers to the proxy's own queries";
    match &dns.servers {
        None => vec![rule([FromPort(Udp, DNS)], Zone(1), why)],
        Some(servers) => {
            let each = |server| rule([From(IpNet::from(server)), FromPort(Udp, DNS)], Zone(1), why);
            servers.iter().copied().map(each).collect()
        }
    }
}
