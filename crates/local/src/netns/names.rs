//! Addresses of Services, and the names that the mesh's name server knows. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use mizzen_dns::Table;

use crate::instance::CLUSTER_DOMAIN;
use crate::manifest::Service;
use crate::runtime::Placed;

/// Namespace and name of a Service.
type Named = (String, String);

/// Which Service has which address. One that it was once given is not given to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assigned {
    addresses: BTreeMap<Named, Ipv4Addr>,
    next: u32,
}

/// The first addresses are left to those who choose one themselves.
const FIRST: u32 = 256;

impl Assigned {
    /// Gives an address to each Service that needs one and has none.
    pub fn assign<'a>(&mut self, services: impl Iterator<Item = &'a Service> + Clone, range: Ipv4Net) {
        let chosen: Vec<Ipv4Addr> = services.clone().filter_map(|service| service.cluster_ip.parse().ok()).collect();
        for service in services.filter(|service| service.cluster_ip.is_empty() && !service.external_name) {
            let key = (service.namespace.clone(), service.name.clone());
            if self.addresses.contains_key(&key) {
                continue;
            }
            let room = 1u32 << (32 - u32::from(range.prefix_len()));
            let candidate = |number: u32| Ipv4Addr::from(u32::from(range.network()) + number % room);
            let free = (0..room).map(|step| FIRST + self.next + step).find(|number| {
                let address = candidate(*number);
                let edge = address == range.network() || address == range.broadcast();
                !edge && !chosen.contains(&address) && !self.addresses.values().any(|used| *used == address)
            });
            // 65,000 Services on one machine: the next one has only its pods' addresses.
            let Some(number) = free else { return };
            self.next = number + 1 - FIRST;
            self.addresses.insert(key, candidate(number));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Named, &Ipv4Addr)> {
        self.addresses.iter()
    }

    /// The address of a Service; `None` for a headless one.
    fn of(&self, service: &Service) -> Option<IpAddr> {
        let given = || self.addresses.get(&(service.namespace.clone(), service.name.clone())).copied().map(IpAddr::V4);
        service.cluster_ip.parse().ok().or_else(given)
    }
}

/// What the name server answers: `NAME.NAMESPACE.svc.cluster.local`, with the addresses of ready pods where the Service
/// itself has none.
pub fn table<'a>(services: impl Iterator<Item = &'a Service>, assigned: &Assigned, placed: &[Placed<'_>]) -> Table {
    let pods = |service: &Service| {
        let of_it = |place: &&Placed<'_>| {
            place.ready && !place.leaving && service.selects(&place.instance.namespace, &place.instance.labels)
        };
        placed.iter().filter(of_it).map(|place| place.instance.mesh.into()).collect()
    };
    let names = services.filter(|service| !service.external_name).map(|service| {
        let name = format!("{}.{}.svc.{CLUSTER_DOMAIN}", service.name, service.namespace);
        (name, assigned.of(service).map_or_else(|| pods(service), |address| vec![address]))
    });
    Table::new(names.collect::<Vec<_>>(), [CLUSTER_DOMAIN.to_owned()])
}

#[cfg(test)]
mod tests {
    use mizzen_dns::Found;

    use super::*;
    use crate::instance::tests::instance;

    fn service(name: &str, cluster_ip: &str) -> Service {
        Service {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            ports: Vec::new(),
            cluster_ip: cluster_ip.to_owned(),
            external_name: false,
        }
    }

    #[test]
    fn services_keep_their_addresses() {
        let range: Ipv4Net = "10.96.0.0/16".parse().expect("a range");
        let mut services = vec![service("b", ""), service("headless", "None"), service("chosen", "10.96.1.1")];
        let mut assigned = Assigned::default();
        assigned.assign(services.iter(), range);
        let of_b = assigned.of(&services[0]);
        assert_eq!(of_b, Some([10, 96, 1, 0].into()));
        services.insert(0, service("a", ""));
        assigned.assign(services.iter(), range);
        assert_eq!(assigned.of(&services[1]), of_b);
        assert_eq!(assigned.of(&services[0]), Some([10, 96, 1, 2].into()), "10.96.1.1 is somebody's choice");
        let instance = instance();
        let table = |ready| {
            let placed = [Placed { instance: &instance, ready, leaving: false }];
            table(services.iter(), &assigned, &placed)
        };
        let one = |address: [u8; 4]| vec![IpAddr::from(address)];
        assert_eq!(table(true).find("b.shop.svc.cluster.local"), Found::Addresses(&one([10, 96, 1, 0])));
        assert_eq!(table(true).find("chosen.shop.svc.cluster.local"), Found::Addresses(&one([10, 96, 1, 1])));
        let pod = vec![IpAddr::V4(instance.mesh)];
        assert_eq!(table(true).find("headless.shop.svc.cluster.local"), Found::Addresses(&pod));
        assert_eq!(table(false).find("headless.shop.svc.cluster.local"), Found::Addresses(&[]));
        assert_eq!(table(true).find("gone.shop.svc.cluster.local"), Found::NoSuchName);
    }
}
