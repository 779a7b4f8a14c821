use super::*;
use crate::iptables;
use crate::nft;
use crate::options::{Dns, Interception, Options, Ports, Ranges};

fn options() -> Options {
    Options { ipv6: false, ..Options::default() }
}

/// The lines of one chain, without comments.
fn chain(options: &Options, name: &str) -> Vec<String> {
    let script = nft::script(&plan(options));
    let lines = script.lines().skip_while(|line| *line != format!("\tchain {name} {{"));
    let lines = lines.skip(1).take_while(|line| *line != "\t}").map(str::trim);
    lines.map(|line| line.split(" comment ").next().unwrap_or(line).to_owned()).collect()
}

#[test]
fn the_default_catches_all_but_the_proxys_own() {
    assert_eq!(
        chain(&options(), "ISTIO_OUTPUT"),
        [
            "oifname \"lo\" ip saddr 127.0.0.6/32 return",
            "oifname \"lo\" ip daddr != 127.0.0.1/32 tcp dport != 15008 meta skuid 1337 jump ISTIO_IN_REDIRECT",
            "oifname \"lo\" ip daddr != 127.0.0.1/32 tcp dport != 15008 meta skgid 1337 jump ISTIO_IN_REDIRECT",
            "oifname \"lo\" meta l4proto tcp return",
            "meta skuid 1337 return",
            "meta skgid 1337 return",
            "ip daddr 127.0.0.1/32 return",
            "meta l4proto tcp jump ISTIO_REDIRECT",
        ]
    );
    assert_eq!(
        chain(&options(), "ISTIO_INBOUND"),
        [
            "tcp dport 15008 return",
            "tcp dport 15090 return",
            "tcp dport 15021 return",
            "tcp dport 15020 return",
            "meta l4proto tcp jump ISTIO_IN_REDIRECT",
        ]
    );
    assert_eq!(chain(&options(), "ISTIO_REDIRECT"), ["meta l4proto tcp redirect to :15001"]);
    assert_eq!(chain(&options(), "ISTIO_IN_REDIRECT"), ["meta l4proto tcp redirect to :15006"]);
    assert_eq!(
        chain(&options(), "nat_output"),
        ["type nat hook output priority -100; policy accept;", "meta l4proto tcp jump ISTIO_OUTPUT"]
    );
}

#[test]
fn each_family_has_its_own_addresses() {
    let wanted = "10.0.0.0/8,fd00::/8".parse().expect("ranges");
    let rules = plan(&Options { outbound_ranges: wanted, ..Options::default() });
    let [v4, v6] = &rules.tables[..] else { panic!("two tables") };
    let addresses = |table: &Table| -> Vec<IpNet> {
        let conditions = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.conditions);
        let nets = conditions.filter_map(|condition| match condition {
            Condition::From(net) | Condition::To(net) | Condition::NotTo(net) => Some(*net),
            _ => None,
        });
        nets.collect()
    };
    assert!(addresses(v4).iter().all(|net| net.addr().is_ipv4()) && !addresses(v4).is_empty());
    assert!(addresses(v6).iter().all(|net| net.addr().is_ipv6()) && !addresses(v6).is_empty());
    assert_eq!(rules.routing, [Routing::LoopbackAddress("::6".parse().expect("an address"))]);
}

#[test]
fn exclusions_come_before_inclusions() {
    let options = Options {
        exclude_outbound_ports: vec![3306],
        exclude_outbound_ranges: vec!["10.9.0.0/16".parse().expect("a range")],
        outbound_ports: vec![9000],
        outbound_ranges: "10.0.0.0/8".parse().expect("ranges"),
        exclude_interfaces: vec!["net1".to_owned()],
        ..options()
    };
    let lines = chain(&options, "ISTIO_OUTPUT");
    assert_eq!(lines[0], "tcp dport 3306 return");
    assert_eq!(
        lines[lines.len() - 4..],
        [
            "ip daddr 127.0.0.1/32 return",
            "ip daddr 10.9.0.0/16 return",
            "tcp dport 9000 jump ISTIO_REDIRECT",
            "ip daddr 10.0.0.0/8 meta l4proto tcp jump ISTIO_REDIRECT",
        ]
    );
    assert_eq!(chain(&options, "nat_output")[1], "oifname \"net1\" return");
    assert_eq!(chain(&options, "nat_prerouting")[1], "iifname \"net1\" return");
}

#[test]
fn loopback_destinations_that_are_named_are_caught() {
    let options = Options { outbound_ranges: "127.0.0.2/32".parse().expect("ranges"), ..options() };
    assert!(!chain(&options, "ISTIO_OUTPUT").iter().any(|line| line == "oifname \"lo\" meta l4proto tcp return"));
}

#[test]
fn nothing_is_left_where_nothing_is_caught() {
    let options =
        Options { inbound_ports: Ports::These(vec![]), outbound_ranges: Ranges::These(vec![]), ..Options::default() };
    let names: Vec<&str> = plan(&options).tables[0].chains.iter().map(|chain| chain.name).collect();
    assert!(!names.contains(&"ISTIO_INBOUND") && !names.contains(&"ISTIO_REDIRECT"), "{names:?}");
    for table in plan(&options).tables {
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            if let Action::Jump(to) = rule.action {
                assert!(table.chains.iter().any(|chain| chain.name == to), "nothing to jump to: {to}");
            }
        }
    }
}

#[test]
fn queries_are_caught_but_not_the_proxys() {
    let servers = vec!["10.96.0.10".parse().expect("an address"), "fd00::a".parse().expect("an address")];
    let options = Options { dns: Some(Dns { port: 15053, servers: Some(servers) }), ..options() };
    assert_eq!(
        chain(&options, "nat_output")[1..],
        [
            "udp dport 53 meta skuid 1337 return",
            "udp dport 53 meta skgid 1337 return",
            "ip daddr 10.96.0.10/32 udp dport 53 redirect to :15053",
            "meta l4proto tcp jump ISTIO_OUTPUT",
        ]
    );
    let lines = chain(&options, "ISTIO_OUTPUT");
    assert!(lines.contains(&"oifname \"lo\" meta l4proto tcp tcp dport != 53 return".to_owned()), "{lines:?}");
    assert!(lines.contains(&"ip daddr 10.96.0.10/32 tcp dport 53 redirect to :15053".to_owned()), "{lines:?}");
    assert_eq!(
        chain(&options, "raw_output")[1..],
        [
            "udp dport 53 meta skuid 1337 ct zone set 1",
            "udp sport 15053 meta skuid 1337 ct zone set 2",
            "udp dport 53 meta skgid 1337 ct zone set 1",
            "udp sport 15053 meta skgid 1337 ct zone set 2",
            "ip daddr 10.96.0.10/32 udp dport 53 meta skuid != 1337 meta skgid != 1337 ct zone set 2",
        ]
    );
}

#[test]
fn tproxy_marks_and_routes() {
    let options = Options { interception: Interception::Tproxy, ..options() };
    assert_eq!(
        chain(&options, "ISTIO_TPROXY"),
        ["ip daddr != 127.0.0.1/32 meta l4proto tcp meta mark set 1337 tproxy to :15006 accept"]
    );
    assert!(chain(&options, "ISTIO_INBOUND").is_empty());
    let inbound = chain(&options, "ISTIO_INBOUND_TPROXY");
    let diverted = inbound.iter().position(|line| line.ends_with("jump ISTIO_DIVERT")).expect("a rule");
    let first = inbound.iter().position(|line| line.ends_with("jump ISTIO_TPROXY")).expect("a rule");
    assert!(diverted < first && inbound[3] == "tcp dport 15008 return", "{inbound:?}");
    assert_eq!(plan(&options).routing, [Routing::LocalByMark { family: Family::V4, mark: 1337, table: 133 }]);
}

#[test]
fn iptables_is_told_the_same() {
    let rules = plan(&options());
    let script = iptables::script(rules.tables.first(), "");
    assert!(script.starts_with("*nat\n:nat_prerouting - [0:0]\n"), "{script}");
    assert!(script.contains("-A PREROUTING -j nat_prerouting\n"));
    assert!(script.contains(
        "-A ISTIO_OUTPUT -p tcp -o lo ! -d 127.0.0.1/32 -m tcp ! --dport 15008 -m owner --uid-owner 1337 \
         -m comment --comment \"the proxy calls a service that its own application serves\" -j ISTIO_IN_REDIRECT\n"
    ));
    assert!(script.ends_with("COMMIT\n"));
    // What is there already is replaced; what others have is left.
    let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_TPROXY - [0:0]\n:ISTIO_OUTPUT - [0:0]\n:KUBE - [0:0]\n\
                 -A OUTPUT -j nat_output\n-A OUTPUT -j KUBE\nCOMMIT\n";
    let again = iptables::script(rules.tables.first(), saved);
    assert!(again.contains("-D OUTPUT -j nat_output\n-X ISTIO_TPROXY\n"), "{again}");
    assert!(!again.contains("KUBE"));
    let gone = iptables::script(None, saved);
    assert!(gone.contains("-X ISTIO_OUTPUT\n") && !gone.contains("-A"), "{gone}");
}
