//! What a pod or machine says in files: the downward API, interfaces, processors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// What is read besides flags and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub labels: Option<String>,
    pub annotations: Option<String>,
    pub mesh: Option<String>,
    pub addresses: Vec<IpAddr>,
    pub hostname: String,
    pub processors: usize,
}

/// Largest file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// Reads it all. `root` is where the pod's files lie. A file that is missing is none; one that cannot be read is told.
pub fn machine(root: &Path) -> io::Result<Machine> {
    let file = |path: &str| text(&root.join(path));
    let proc = |path: &str| std::fs::read_to_string(Path::new("/proc").join(path)).unwrap_or_default();
    let mut addresses = ipv4_addresses(&proc("net/fib_trie"));
    addresses.extend(ipv6_addresses(&proc("net/if_inet6")));
    Ok(Machine {
        labels: file("etc/istio/pod/labels")?,
        annotations: file("etc/istio/pod/annotations")?,
        mesh: file("etc/istio/config/mesh")?,
        addresses,
        hostname: proc("sys/kernel/hostname").trim().to_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

fn text(path: &Path) -> io::Result<Option<String>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(named(error)),
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            Err(named(io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {MAX_BYTES} bytes"))))
        }
        Ok(_) => std::fs::read_to_string(path).map(Some).map_err(named),
    }
}

/// The machine's own IPv4 addresses: the kernel's table of routes marks them `LOCAL`.
fn ipv4_addresses(table: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in table.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !address.is_loopback()
            && !address.is_link_local()
            && !found.contains(&IpAddr::V4(address))
        {
            found.push(IpAddr::V4(address));
        }
    }
    found
}

/// The machine's own IPv6 addresses that others can reach.
fn ipv6_addresses(table: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let digits = line.split_ascii_whitespace().next()?;
        u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from_bits)
    };
    let reachable = |address: &Ipv6Addr| !address.is_loopback() && !address.is_unicast_link_local();
    table.lines().filter_map(address).filter(reachable).map(IpAddr::V6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_once_and_local_ones_left_out() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n     +-- 10.244.0.0/24 2 0 2\n        |-- 10.244.0.7\n           /32 host LOCAL\n        |-- 10.244.0.255\n           /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 169.254.1.1\n        /32 host LOCAL\n     |-- 10.244.0.7\n        /32 host LOCAL\n";
        assert_eq!(ipv4_addresses(table), [IpAddr::from([10, 244, 0, 7])]);
        let table = "fd000000000000000000000000000007 02 40 00 80     eth0\n00000000000000000000000000000001 01 80 10 80       lo\nfe800000000000000042acfffe110002 02 40 20 80     eth0\nnonsense\n";
        assert_eq!(ipv6_addresses(table), ["fd00::7".parse::<IpAddr>().unwrap()]);
        assert!(ipv4_addresses("").is_empty() && ipv6_addresses("").is_empty());
    }

    #[test]
    fn files_that_are_missing_are_none() {
        let root = tempfile::tempdir().unwrap();
        let machine = machine(root.path()).unwrap();
        assert_eq!((machine.labels, machine.annotations), (None, None));
        assert!(machine.processors > 0 && !machine.hostname.is_empty());
    }
}
