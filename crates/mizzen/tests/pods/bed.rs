//! Network namespaces joined by wires, for one test.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const INSIDE: &str = "MIZZEN_TEST_NAMESPACE";

/// Runs `body` in namespaces of its own: the test starts itself again under `unshare`. All that it starts ends with it.
pub(crate) fn in_namespaces(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("mount", "-t tmpfs tmpfs /run/netns");
        run("ip", "link set lo up");
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            std::fs::write(Path::new("/proc/sys").join(name), "1").unwrap();
        }
        return body();
    }
    let possible = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    let shell = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !possible("ip", &["-V"]) || !possible("unshare", &[&shell[..], &["true"]].concat()) {
        return mizzen_testing::skip(test, "no network namespaces here: root, `unshare` and `ip` are needed");
    }
    std::fs::create_dir_all("/run/netns").unwrap();
    let mut again = Command::new("unshare");
    again.args(shell).arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().unwrap().success(), "{test} failed in its namespaces");
}

pub(crate) fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace with a wire to ours, which routes between all of them.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
}

impl Pod {
    pub(crate) fn new(name: &str, number: u8) -> Self {
        for arguments in [
            format!("netns add {name}"),
            format!("link add to{number} type veth peer name eth0 netns {name}"),
            format!("address add 10.66.{number}.1/24 dev to{number}"),
            format!("address add fd66:{number}::1/64 dev to{number} nodad"),
            format!("link set to{number} up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} address add 10.66.{number}.2/24 dev eth0"),
            format!("-n {name} address add fd66:{number}::2/64 dev eth0 nodad"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via 10.66.{number}.1"),
            format!("-n {name} -6 route add default via fd66:{number}::1"),
        ] {
            run("ip", &arguments);
        }
        Self { name: name.to_owned(), address: [10, 66, number, 2].into() }
    }

    /// A program in the pod.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// The same as the sidecar's user.
    pub(crate) fn command_as_proxy(&self, program: &Path) -> Command {
        let mut command = self.command(Path::new("setpriv"));
        command.args(["--reuid=1337", "--regid=1337", "--clear-groups"]).arg(program);
        command
    }

    /// As the sidecar's user who may change the network, as TPROXY needs it.
    pub(crate) fn command_as_mighty_proxy(&self, program: &Path) -> Command {
        let mut command = self.command(Path::new("setpriv"));
        command.args(["--reuid=1337", "--regid=1337", "--clear-groups"]);
        command.args(["--inh-caps=+net_admin", "--ambient-caps=+net_admin"]).arg(program);
        command
    }

    /// What an application of the pod does.
    pub(crate) fn call<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let doing = scope.spawn(|| {
                self.enter();
                what()
            });
            doing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// An application that goes on; `start` returns once it listens.
    pub(crate) fn run(&self, start: impl FnOnce() + Send) {
        // Sockets stay in the namespace that they were made in, whoever holds them.
        self.call(start);
    }

    fn enter(&self) {
        let namespace = std::fs::File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}
