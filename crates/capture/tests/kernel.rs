//! The rules in a real kernel: each test runs in a network namespace of its own, with real connections.
//!
//! A test starts itself again under `unshare --net`; where the kernel does not allow that, it is skipped by name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use mizzen_capture::probe::{Outcome, probe};
use mizzen_capture::{Backend, Interception, Options, Ports, Ranges, apply, clean, plan};
use socket2::{Domain, SockRef, Socket, Type};

const INSIDE: &str = "MIZZEN_TEST_NAMESPACE";
const PATIENCE: Duration = Duration::from_secs(60);
/// Addresses of the namespace's interface, and of nobody.
const OWN: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2))];
const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), IpAddr::V6(Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 7))];

/// Runs `body` in a new network namespace with an interface, once with each backend.
fn in_namespace(test: &str, body: impl Fn(Backend)) {
    if std::env::var_os(INSIDE).is_some() {
        for arguments in [
            "link set lo up",
            "link add eth0 type veth peer name wire0",
            "link add net1 type veth peer name wire1",
            "link set eth0 up",
            "link set wire0 up",
            "link set net1 up",
            "link set wire1 up",
            "address add 10.1.0.2/24 dev eth0",
            "address add fd01::2/64 dev eth0 nodad",
            "address add 10.2.0.2/24 dev net1",
            "route add default via 10.1.0.1",
            "-6 route add default via fd01::1",
        ] {
            ip(arguments);
        }
        body(Backend::Nftables);
        clean(&Options::default()).unwrap();
        if Command::new("iptables-restore").arg("--version").output().is_ok() {
            body(Backend::Iptables);
        } else {
            mizzen_testing::skip(&format!("{test} with iptables"), "iptables-restore is not installed");
        }
        return;
    }
    let possible = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if !possible("ip", &["-V"]) || !possible("unshare", &["--net", "true"]) {
        return mizzen_testing::skip(test, "no network namespaces here: root, `unshare` and `ip` are needed");
    }
    let mut again = Command::new("unshare");
    again.arg("--net").arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().unwrap().success(), "{test} failed in its namespace");
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Stands in the place of the proxy, or of an application.
struct Server(TcpListener);

impl Server {
    fn at(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(64).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket.into())
    }

    fn everywhere(of: IpAddr, port: u16) -> Self {
        let any = if of.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([0u16; 8]) };
        Self::at(SocketAddr::new(any, port))
    }

    /// The next connection's original destination, else its local address, and its source.
    fn next(&self) -> (SocketAddr, SocketAddr) {
        let (stream, from) = self.0.accept().unwrap();
        let socket = SockRef::from(&stream);
        let original = if from.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
        let meant = original.ok().and_then(|address| address.as_socket());
        (meant.unwrap_or(stream.local_addr().unwrap()), from)
    }
}

/// Begins a connection and does not wait for it. The socket keeps it going.
fn call(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    // In progress.
    let _ = socket.connect(&to.into());
    socket
}

/// As [`call`], made as another user.
fn call_as(uid: u32, to: SocketAddr) -> Socket {
    let called = std::thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).unwrap();
        call(to)
    });
    called.join().unwrap()
}

/// Calls each address, and says which of them came in. A last call, to an address that surely is caught, ends the list:
/// connections come in in the order in which they are made.
fn caught(server: &Server, calls: &[(Option<u32>, SocketAddr)], last: SocketAddr) -> Vec<SocketAddr> {
    let call = |(user, to): &(Option<u32>, SocketAddr)| match user {
        None => call(*to),
        Some(uid) => call_as(*uid, *to),
    };
    let _open: Vec<Socket> = calls.iter().map(call).collect();
    let _last = self::call(last);
    let mut caught = Vec::new();
    loop {
        let (meant, _) = server.next();
        if meant == last {
            return caught;
        }
        caught.push(meant);
    }
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn options() -> Options {
    Options::default()
}

#[test]
fn outbound_connections_arrive_with_their_destination() {
    in_namespace("outbound_connections_arrive_with_their_destination", |backend| {
        apply(&plan(&options()), Some(backend)).unwrap();
        for far in FAR {
            let proxy = Server::everywhere(far, 15001);
            let _calls = [call(at(far, 80)), call(at(far, 6379))];
            assert_eq!([proxy.next().0, proxy.next().0], [at(far, 80), at(far, 6379)]);
        }
    });
}

#[test]
fn what_shall_not_be_caught_is_not() {
    in_namespace("what_shall_not_be_caught_is_not", |backend| {
        let options = Options {
            exclude_outbound_ports: vec![3306, 5432],
            exclude_outbound_ranges: vec!["203.0.113.8/31".parse().unwrap(), "fd03::/16".parse().unwrap()],
            exclude_interfaces: vec!["net1".to_owned()],
            ..options()
        };
        apply(&plan(&options), Some(backend)).unwrap();
        for (index, far) in FAR.into_iter().enumerate() {
            let other: IpAddr = ["203.0.113.9", "fd03::9"][index].parse().unwrap();
            let proxy = Server::everywhere(far, 15001);
            let _application = Server::everywhere(far, 8080);
            let localhost: IpAddr = ["127.0.0.1", "::1"][index].parse().unwrap();
            let calls = [
                (None, at(far, 3306)),
                (None, at(far, 5432)),
                (None, at(other, 80)),
                (Some(1337), at(far, 80)),
                (None, at(localhost, 8080)),
                (None, at(OWN[index], 8080)),
                (None, "10.2.0.9:80".parse().unwrap()),
                (Some(1000), at(far, 81)),
            ];
            assert_eq!(caught(&proxy, &calls, at(far, 82)), [at(far, 81)]);
        }
    });
}

#[test]
fn only_what_is_included_is_caught() {
    in_namespace("only_what_is_included_is_caught", |backend| {
        let ranges = ["203.0.113.0/24", "fd02::/64"].map(|range| range.parse().unwrap());
        let options =
            Options { outbound_ranges: Ranges::These(ranges.to_vec()), outbound_ports: vec![9000], ..options() };
        apply(&plan(&options), Some(backend)).unwrap();
        for (index, far) in FAR.into_iter().enumerate() {
            let other: IpAddr = ["198.51.100.1", "fd03::9"][index].parse().unwrap();
            let proxy = Server::everywhere(far, 15001);
            let calls = [(None, at(other, 80)), (None, at(other, 9000)), (None, at(far, 80))];
            assert_eq!(caught(&proxy, &calls, at(far, 82)), [at(other, 9000), at(far, 80)]);
        }
    });
}

#[test]
fn the_proxy_reaches_its_own_machine_by_the_inbound_way() {
    in_namespace("the_proxy_reaches_its_own_machine_by_the_inbound_way", |backend| {
        apply(&plan(&options()), Some(backend)).unwrap();
        for own in OWN {
            let proxy = Server::everywhere(own, 15006);
            let application = Server::everywhere(own, 8080);
            // Not the tunnel port, and not localhost.
            let calls = [(Some(1337), at(own, 15008)), (Some(1337), at(own, 8080))];
            let _open = calls.map(|(user, to)| call_as(user.unwrap(), to));
            assert_eq!(proxy.next().0, at(own, 8080));
            // From the address for it the proxy reaches its application.
            let source: IpAddr = if own.is_ipv4() { [127, 0, 0, 6].into() } else { "::6".parse().unwrap() };
            let direct = std::thread::spawn(move || {
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(1337)).unwrap();
                let socket = Socket::new(Domain::for_address(at(own, 0)), Type::STREAM, None).unwrap();
                socket.bind(&at(source, 0).into()).unwrap();
                socket.connect_timeout(&at(own, 8080).into(), PATIENCE).unwrap();
                TcpStream::from(socket).local_addr().unwrap()
            });
            let (_, from) = application.next();
            assert_eq!(from.ip(), source);
            assert_eq!(direct.join().unwrap(), from);
        }
    });
}

#[test]
fn another_run_replaces_and_clean_leaves_nothing() {
    in_namespace("another_run_replaces_and_clean_leaves_nothing", |backend| {
        let far = FAR[0];
        let proxy = Server::everywhere(far, 15001);
        let other = Server::everywhere(far, 16001);
        let excluding = Options { exclude_outbound_ports: vec![80], ..options() };
        let elsewhere = Options { proxy_port: 16001, interception: Interception::Tproxy, ..options() };
        for _ in 0..3 {
            apply(&plan(&excluding), Some(backend)).unwrap();
            assert_eq!(caught(&proxy, &[(None, at(far, 80)), (None, at(far, 81))], at(far, 82)), [at(far, 81)]);
            apply(&plan(&elsewhere), Some(backend)).unwrap();
            assert_eq!(caught(&other, &[(None, at(far, 80))], at(far, 82)), [at(far, 80)]);
            apply(&plan(&options()), Some(backend)).unwrap();
            assert_eq!(caught(&proxy, &[(None, at(far, 80))], at(far, 82)), [at(far, 80)]);
        }
        clean(&options()).unwrap();
        clean(&options()).unwrap();
        let _lost = call(at(far, 80));
        // What comes in next is this one, which needs no rule.
        let direct = at("127.0.0.1".parse().unwrap(), 15001);
        let _direct = call(direct);
        assert_eq!(proxy.next().0, direct);
    });
}

#[test]
fn the_look_tells_what_works_and_what_does_not() {
    in_namespace("the_look_tells_what_works_and_what_does_not", |backend| {
        let results = |options: &Options, patience| -> Vec<Outcome> {
            probe(options, 15002, patience).into_iter().map(|finding| finding.result).collect()
        };
        apply(&plan(&options()), Some(backend)).unwrap();
        let all = results(&options(), PATIENCE);
        assert!(all.len() == 4 && all.iter().all(|result| *result == Outcome::Caught), "{all:?}");
        let none = Options { inbound_ports: Ports::These(vec![]), outbound_ranges: Ranges::These(vec![]), ..options() };
        let nothing = results(&none, PATIENCE);
        assert!(nothing.iter().all(|result| matches!(result, Outcome::NotChecked(_))), "{nothing:?}");
        // The rules send to another port than the options say.
        let wrong = Options { proxy_port: 16001, inbound_port: 16006, ..options() };
        let wrong = results(&wrong, Duration::from_millis(300));
        assert!(wrong.iter().all(|result| matches!(result, Outcome::Wrong(_))), "{wrong:?}");
        clean(&options()).unwrap();
        let off = results(&options(), Duration::from_millis(300));
        assert!(off.iter().all(|result| matches!(result, Outcome::Wrong(_))), "{off:?}");
        // A proxy that runs already is left alone.
        let _proxy = Server::everywhere(FAR[0], 15001);
        let busy = results(&Options { ipv6: false, ..options() }, Duration::from_millis(300));
        assert!(matches!(&busy[0], Outcome::NotChecked(why) if why.contains("15001")), "{busy:?}");
    });
}
