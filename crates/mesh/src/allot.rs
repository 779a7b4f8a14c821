//! Addresses for services that have none, so that a name server can answer for them and connections to them can be told
//! apart: one of each family per host (reference: features 5.6, semantics 209).
//!
//! A pure function of all that is declared: replicas of a control plane come to the same addresses without speaking to each
//! other, and so does one that starts anew. What stands in a ServiceEntry's status stays; whatever is not written down
//! there follows from namespace and host, and is another only where two hosts meet and the older one comes or goes.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::rules::Order;
use crate::service::{Registry, Service, ServiceKey};

/// What a service says of addresses in the ranges that are given from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It was declared with these.
    Own(Vec<IpAddr>),
    /// It is to be given some; of two that want the same, the older has it.
    Wants { age: Order, before: Vec<IpAddr> },
}

impl Claim {
    pub(crate) fn of(service: &Service) -> Option<Self> {
        let key = &service.key;
        match &service.wants_addresses {
            Some(before) if service.registry == Registry::ServiceEntry => {
                let age = Order {
                    created: service.created,
                    name: key.host.as_str().into(),
                    namespace: key.namespace.clone(),
                };
                Some(Self::Wants { age, before: before.clone() })
            }
            _ => {
                let own: Vec<IpAddr> =
                    service.addresses.iter().filter_map(|text| text.parse().ok()).filter(is_from_here).collect();
                (!own.is_empty()).then_some(Self::Own(own))
            }
        }
    }
}

/// How many addresses of a family there are: a prime, so that every step leads through all of them.
const ROOM: u64 = 65011;

/// The addresses of all that want some. Only when there are more hosts than addresses are some left without.
pub(crate) fn allot<'a>(
    claims: impl Iterator<Item = (&'a ServiceKey, &'a Claim)>,
) -> BTreeMap<&'a ServiceKey, Vec<IpAddr>> {
    let mut taken: HashSet<IpAddr> = HashSet::new();
    let mut wanting: Vec<(&Order, &ServiceKey, &[IpAddr])> = Vec::new();
    for (key, claim) in claims {
        match claim {
            Claim::Own(addresses) => taken.extend(addresses),
            Claim::Wants { age, before } => wanting.push((age, key, before)),
        }
    }
    wanting.sort_unstable();
    let mut given: BTreeMap<&ServiceKey, Vec<IpAddr>> = BTreeMap::new();
    for (_, key, before) in &wanting {
        if !before.is_empty() && before.iter().all(|address| !taken.contains(address)) {
            taken.extend(*before);
            given.insert(key, before.to_vec());
        }
    }
    for (_, key, _) in &wanting {
        if given.contains_key(key) {
            continue;
        }
        if let Some(free) = places(key).map(addresses).find(|pair| pair.iter().all(|it| !taken.contains(it))) {
            taken.extend(free);
            given.insert(key, free.to_vec());
        }
    }
    given
}

/// The places at which a host is put, the best one first.
fn places(key: &ServiceKey) -> impl Iterator<Item = u64> {
    let hash = hash(&key.namespace, key.host.as_str());
    let (first, step) = (hash % ROOM, 1 + (hash >> 32) % (ROOM - 1));
    (0..ROOM).map(move |turn| (first + turn * step) % ROOM)
}

/// FNV-1a. Releases and replicas have to agree on it, which the standard library's hash does not promise.
fn hash(namespace: &str, host: &str) -> u64 {
    let bytes = namespace.bytes().chain([b'/']).chain(host.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// 240.240.0.0/16 and 2001:2::/48 are nobody's on the Internet. Bytes 0 and 255 at the end are left out: not everybody takes
/// them for the address of a host.
fn addresses(place: u64) -> [IpAddr; 2] {
    let [third, fourth] = [(place / 254) as u8, (1 + place % 254) as u8];
    [
        Ipv4Addr::new(240, 240, third, fourth).into(),
        Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0xf0f0, u16::from_be_bytes([third, fourth])).into(),
    ]
}

fn is_from_here(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets().starts_with(&[240, 240]),
        IpAddr::V6(address) => address.segments().starts_with(&[0x2001, 2, 0]),
    }
}

#[cfg(test)]
mod tests {
    use mizzen_types::Hostname;

    use super::*;

    fn key(host: &str) -> ServiceKey {
        ServiceKey { host: Hostname::new(host), namespace: "shop".into() }
    }

    fn wants(host: &str, created: i64, before: &[IpAddr]) -> (ServiceKey, Claim) {
        let age = Order { created, name: host.into(), namespace: "shop".into() };
        (key(host), Claim::Wants { age, before: before.to_vec() })
    }

    fn given(claims: &[(ServiceKey, Claim)]) -> BTreeMap<ServiceKey, Vec<IpAddr>> {
        allot(claims.iter().map(|(key, claim)| (key, claim))).into_iter().map(|(key, ips)| (key.clone(), ips)).collect()
    }

    /// Two hosts that are both best put at the same place.
    fn rivals() -> [String; 2] {
        let best = |host: &String| places(&key(host)).next();
        let mut seen: BTreeMap<_, String> = BTreeMap::new();
        for number in 0.. {
            let host = format!("host-{number}.example.com");
            if let Some(other) = seen.insert(best(&host), host.clone()) {
                return [other, host];
            }
        }
        unreachable!()
    }

    #[test]
    fn an_address_follows_from_the_host_and_stays_through_releases() {
        let all = given(&[wants("api.example.com", 0, &[])]);
        let addresses: Vec<String> = all[&key("api.example.com")].iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["240.240.210.109", "2001:2::f0f0:d26d"]);
    }

    #[test]
    fn no_two_hosts_have_one_address() {
        let claims: Vec<_> = (0..10_000).map(|n| wants(&format!("host-{n}.example.com"), n, &[])).collect();
        let all = given(&claims);
        assert_eq!(all.len(), claims.len());
        let mut seen = HashSet::new();
        assert!(all.values().flatten().all(|address| is_from_here(address) && seen.insert(*address)));
        // In whatever order they are heard of.
        let backwards: Vec<_> = claims.into_iter().rev().collect();
        assert_eq!(given(&backwards), all);
    }

    #[test]
    fn the_older_of_two_has_the_address_that_both_want() {
        let [a, b] = rivals();
        let alone = given(&[wants(&a, 5, &[])])[&key(&a)].clone();
        assert_eq!(given(&[wants(&b, 5, &[])])[&key(&b)], alone);
        let both = given(&[wants(&a, 5, &[]), wants(&b, 6, &[])]);
        assert!(both[&key(&a)] == alone && both[&key(&b)] != alone);
        let both = given(&[wants(&a, 7, &[]), wants(&b, 6, &[])]);
        assert!(both[&key(&b)] == alone && both[&key(&a)] != alone);
    }

    #[test]
    fn what_is_written_down_stays() {
        let [a, b] = rivals();
        let both = given(&[wants(&a, 5, &[]), wants(&b, 6, &[])]);
        let (first, second) = (both[&key(&a)].clone(), both[&key(&b)].clone());
        // The one that made it go elsewhere is gone, and then something older comes.
        assert_eq!(given(&[wants(&b, 6, &second)])[&key(&b)], second);
        assert_eq!(given(&[wants(&b, 6, &first), wants(&a, 5, &[])])[&key(&b)], first);
        // Another control plane may give of other ranges, and of one family only.
        let other: [IpAddr; 1] = [Ipv4Addr::new(198, 18, 0, 7).into()];
        assert_eq!(given(&[wants(&a, 5, &other)])[&key(&a)], other);
        // Two have the same written down: the older keeps it.
        let both = given(&[wants(&a, 6, &other), wants(&b, 5, &other)]);
        assert_eq!(both[&key(&b)], other);
        assert_eq!(both[&key(&a)], first);
    }

    #[test]
    fn what_somebody_has_chosen_is_not_given() {
        let free = given(&[wants("api.example.com", 0, &[])])[&key("api.example.com")].clone();
        for chosen in &free {
            let own = (key("own.example.com"), Claim::Own(vec![*chosen]));
            for before in [&[][..], &free] {
                let all = given(&[wants("api.example.com", 0, before), own.clone()]);
                assert!(!all[&key("api.example.com")].contains(chosen), "{all:?}");
            }
        }
    }

    #[test]
    fn every_place_is_reached_once() {
        let mut seen = HashSet::new();
        assert!(places(&key("api.example.com")).all(|place| seen.insert(addresses(place))));
        assert_eq!(seen.len() as u64, ROOM);
    }
}
