//! Addresses inside the mesh's own network. It is closed, so any would do; those that the machine itself reaches are
//! avoided, since applications may want to reach them too. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The addresses of pods and of Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    pub pods: Ipv4Net,
    pub services: Ipv4Net,
}

/// How many pairs of ranges are looked at.
const CHOICES: u8 = 12;

/// The first ranges that none of the machine's routes leads to: usually those that clusters have by default.
/// `routes` is the text of `/proc/net/route`.
pub fn choose(routes: &str) -> Ranges {
    let taken: Vec<Ipv4Net> = routes.lines().skip(1).filter_map(route).filter(|net| net.prefix_len() > 0).collect();
    let free = |net: &Ipv4Net| !taken.iter().any(|other| other.contains(net) || net.contains(other));
    let all = || (0..CHOICES).map(Ranges::numbered);
    all().find(|ranges| free(&ranges.pods) && free(&ranges.services)).unwrap_or_else(|| Ranges::numbered(0))
}

/// Destination and mask of one line: hexadecimal, as the memory of a little-endian machine has them.
fn route(line: &str) -> Option<Ipv4Net> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let address = |text: &str| u32::from_str_radix(text, 16).ok().map(|number| Ipv4Addr::from(number.to_ne_bytes()));
    let destination = address(words.next()?)?;
    let mask = address(words.nth(5)?)?;
    Ipv4Net::with_netmask(destination, mask).ok()
}

impl Ranges {
    fn numbered(number: u8) -> Self {
        let net = |second: u8| Ipv4Net::new_assert(Ipv4Addr::new(10, second, 0, 0), 16);
        Self { pods: net(244 - number), services: net(96 + number) }
    }

    /// The one address that is no pod's: way out, name server, control plane.
    pub fn node(&self) -> Ipv4Addr {
        self.pod(Ipv4Addr::new(0, 0, 0, 1))
    }

    pub fn node_net(&self) -> Ipv4Net {
        self.net_of(self.node())
    }

    /// The pod whose proxy this machine knows as `host`: the same last two numbers.
    pub fn pod(&self, host: Ipv4Addr) -> Ipv4Addr {
        let ([a, b, _, _], [_, _, c, d]) = (self.pods.network().octets(), host.octets());
        Ipv4Addr::new(a, b, c, d)
    }

    pub fn net_of(&self, pod: Ipv4Addr) -> Ipv4Net {
        Ipv4Net::new_assert(pod, self.pods.prefix_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";

    /// A line as the kernel writes it.
    fn line(net: &str) -> String {
        let net: Ipv4Net = net.parse().expect("a network");
        let hex = |address: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(address.octets()));
        format!("eth0\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", hex(net.network()), hex(net.netmask()))
    }

    #[test]
    fn ranges_of_the_machine_are_avoided() {
        let chosen = |nets: &[&str]| {
            let lines: String = nets.iter().map(|net| line(net)).collect();
            let ranges = choose(&format!("{HEAD}{lines}"));
            (ranges.pods.to_string(), ranges.services.to_string())
        };
        let usual = ("10.244.0.0/16".to_owned(), "10.96.0.0/16".to_owned());
        assert_eq!(chosen(&[]), usual);
        assert_eq!(chosen(&["0.0.0.0/0", "192.168.0.0/16"]), usual);
        assert_eq!(chosen(&["10.244.3.0/24"]), ("10.243.0.0/16".to_owned(), "10.97.0.0/16".to_owned()));
        assert_eq!(chosen(&["10.96.0.0/12"]).1, "10.96.0.0/16", "all are taken: the first");
        assert_eq!(choose("nonsense\nnonsense").pods.to_string(), usual.0);
    }

    #[test]
    fn pods_have_the_numbers_of_their_proxies() {
        let ranges = choose("");
        assert_eq!(ranges.pod(Ipv4Addr::new(127, 64, 3, 9)), Ipv4Addr::new(10, 244, 3, 9));
        assert_eq!(ranges.node_net().to_string(), "10.244.0.1/16");
    }
}
