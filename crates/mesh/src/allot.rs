//! Addresses for services that have none, so that a name server can answer for them and connections to them can be told
//! apart: one of each family per host (reference: features 5.6, semantics 209).
//!
//! A pure function of all that is declared: replicas of a control plane come to the same addresses without speaking to each
//! other, and so does one that starts anew. What stands in a ServiceEntry's status stays; whatever is not written down
//! there follows from namespace and host, and is another only where two hosts meet and the older one comes or goes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rpds::{HashTrieSetSync, RedBlackTreeSetSync};

use crate::Map;
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

/// Who has which of these addresses. Always what [`Allotment::rethink`] makes of the claims, whatever way led here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allotment {
    claims: Map<ServiceKey, Claim>,
    given: Map<ServiceKey, Arc<[IpAddr]>>,
    /// All that are given or somebody's own.
    taken: HashTrieSetSync<IpAddr>,
    /// Those that have not got what they wished for first, because another has it.
    moved: RedBlackTreeSetSync<ServiceKey>,
}

impl Allotment {
    /// Services that want addresses.
    pub(crate) fn wanting(&self) -> impl Iterator<Item = &ServiceKey> {
        self.claims.iter().filter(|(_, claim)| matches!(claim, Claim::Wants { .. })).map(|(key, _)| key)
    }

    pub(crate) fn given(&self, key: &ServiceKey) -> &[IpAddr] {
        self.given.get(key).map(AsRef::as_ref).unwrap_or_default()
    }

    /// After these services have come to claim this, or nothing any more; and whose addresses are others by it. Costs what it
    /// touches, as long as nobody is in another's way.
    pub(crate) fn with(&self, claims: Vec<(ServiceKey, Option<Claim>)>) -> (Self, BTreeSet<ServiceKey>) {
        let new = |(key, claim): &(ServiceKey, Option<Claim>)| self.claims.get(key) != claim.as_ref();
        let claims: Vec<_> = claims.into_iter().filter(new).collect();
        let mut next = self.clone();
        let mut touched = BTreeSet::new();
        // Of many together it is less work to think of all anew.
        let mut alone = claims.len() < 16;
        for (key, claim) in claims {
            alone = alone && next.replace(&key, claim.as_ref());
            next.claims = match claim {
                Some(claim) => next.claims.insert(key.clone(), claim),
                None => next.claims.remove(&key),
            };
            touched.insert(key);
        }
        if !alone {
            next.rethink();
            touched.extend(self.given.keys().chain(next.given.keys()).cloned());
        }
        touched.retain(|key| self.given(key) != next.given(key));
        (next, touched)
    }

    /// All addresses, from the claims alone. Only when there are more hosts than addresses are some left without.
    fn rethink(&mut self) {
        let mut taken: HashTrieSetSync<IpAddr> = HashTrieSetSync::default();
        let mut wanting: Vec<(&Order, &ServiceKey, &[IpAddr])> = Vec::new();
        for (key, claim) in &self.claims {
            match claim {
                Claim::Own(addresses) => addresses.iter().for_each(|address| taken.insert_mut(*address)),
                Claim::Wants { age, before } => wanting.push((age, key, before)),
            }
        }
        wanting.sort_unstable();
        let mut given: Map<ServiceKey, Arc<[IpAddr]>> = Map::default();
        let mut moved = RedBlackTreeSetSync::default();
        let mut open = Vec::new();
        for (_, key, before) in wanting {
            if before.is_empty() || before.iter().any(|address| taken.contains(address)) {
                open.push((key, !before.is_empty()));
                continue;
            }
            before.iter().for_each(|address| taken.insert_mut(*address));
            given.insert_mut(key.clone(), before.into());
        }
        for (key, mut denied) in open {
            for pair in places(key).map(addresses) {
                if pair.iter().any(|address| taken.contains(address)) {
                    denied = true;
                    continue;
                }
                pair.iter().for_each(|address| taken.insert_mut(*address));
                given.insert_mut(key.clone(), pair.into());
                break;
            }
            if denied {
                moved.insert_mut(key.clone());
            }
        }
        (self.given, self.taken, self.moved) = (given, taken, moved);
    }

    /// The same for one claim that becomes another, where no other service is given other addresses by it; `false` when that
    /// cannot be told without thinking of all anew.
    fn replace(&mut self, key: &ServiceKey, claim: Option<&Claim>) -> bool {
        match (self.claims.get(key), claim) {
            // What it has, is written down now.
            (Some(Claim::Wants { age: old, .. }), Some(Claim::Wants { age, before }))
                if old == age && !before.is_empty() && **before == *self.given(key) =>
            {
                self.moved = self.moved.remove(key);
                return true;
            }
            (Some(Claim::Own(_)), _) => return false,
            (Some(Claim::Wants { .. }), _) => {
                let free = self.given(key).to_vec();
                self.moved = self.moved.remove(key);
                if self.moved.iter().any(|other| self.wished_for(other, &free)) {
                    return false;
                }
                self.given = self.given.remove(key);
                free.iter().for_each(|address| self.taken = self.taken.remove(address));
            }
            (None, _) => {}
        }
        // What is free was tried by nobody: he would have it. So nobody is in the way of whom it is given to.
        let wish: Vec<IpAddr> = match claim {
            None => return true,
            Some(Claim::Own(addresses)) => addresses.clone(),
            Some(Claim::Wants { before, .. }) if before.is_empty() => {
                places(key).next().map(addresses).into_iter().flatten().collect()
            }
            Some(Claim::Wants { before, .. }) => before.clone(),
        };
        if wish.iter().any(|address| self.taken.contains(address)) {
            return false;
        }
        wish.iter().for_each(|address| self.taken = self.taken.insert(*address));
        if matches!(claim, Some(Claim::Wants { .. })) {
            self.given = self.given.insert(key.clone(), wish.into());
        }
        true
    }

    /// Whether a service that has moved would rather have had one of these.
    fn wished_for(&self, key: &ServiceKey, free: &[IpAddr]) -> bool {
        let any_of = |wish: &[IpAddr]| wish.iter().any(|address| free.contains(address));
        let before = match self.claims.get(key) {
            Some(Claim::Wants { before, .. }) => any_of(before),
            _ => false,
        };
        let has = self.given(key);
        before || places(key).map(addresses).take_while(|pair| pair[..] != *has).any(|pair| any_of(&pair))
    }
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
    use std::collections::{BTreeMap, HashSet};

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
        let claims = claims.iter().map(|(key, claim)| (key.clone(), Some(claim.clone()))).collect();
        as_map(&Allotment::default().with(claims).0)
    }

    fn as_map(allotment: &Allotment) -> BTreeMap<ServiceKey, Vec<IpAddr>> {
        allotment.given.iter().map(|(key, addresses)| (key.clone(), addresses.to_vec())).collect()
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

    /// Hosts that are in each other's way: many more than places at which they are best put.
    fn crowd() -> Vec<String> {
        let near = |host: &String| places(&key(host)).next().is_some_and(|place| place < 8);
        (0..).map(|number| format!("host-{number}.example.com")).filter(near).take(24).collect()
    }

    /// Numbers that look random, and are the same each time.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }
    }

    #[test]
    fn step_by_step_comes_to_the_same_as_all_at_once() {
        let (crowd, mut dice) = (crowd(), Dice(7));
        let mut allotment = Allotment::default();
        let (mut wide, mut narrow) = (0, 0);
        for step in 0..6000 {
            let mut claims = BTreeMap::new();
            for _ in 0..=dice.below(2) {
                let host = &crowd[dice.below(crowd.len())];
                let some = addresses(dice.below(12) as u64);
                let created = dice.below(4) as i64;
                let claim = match dice.below(8) {
                    0 | 1 => None,
                    2 => Some(Claim::Own(some[..1 + dice.below(2)].to_vec())),
                    3 => Some(wants(host, created, &some[..1 + dice.below(2)]).1),
                    // What it has is written down.
                    5 => Some(wants(host, created, allotment.given(&key(host))).1),
                    4 => match allotment.claims.get(&key(host)) {
                        Some(Claim::Wants { age, .. }) => {
                            Some(Claim::Wants { age: age.clone(), before: allotment.given(&key(host)).to_vec() })
                        }
                        other => other.cloned(),
                    },
                    _ => Some(wants(host, created, &[]).1),
                };
                claims.insert(key(host), claim);
            }
            let (next, touched) = allotment.with(claims.into_iter().collect());
            let mut anew = next.clone();
            anew.rethink();
            assert_eq!(as_map(&next), as_map(&anew), "step {step}");
            assert_eq!((&next.taken, &next.moved), (&anew.taken, &anew.moved), "step {step}");
            let differs = |key: &&ServiceKey| allotment.given(key) != next.given(key);
            let different: BTreeSet<_> =
                allotment.given.keys().chain(next.given.keys()).filter(differs).cloned().collect();
            assert_eq!(touched, different, "step {step}");
            wide += usize::from(touched.len() > 2);
            narrow += usize::from(touched.len() <= 2);
            allotment = next;
        }
        assert!(wide > 100 && narrow > 100, "{wide} {narrow}");
    }
}
