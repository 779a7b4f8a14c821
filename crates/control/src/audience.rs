//! Whom a change concerns: from what it touched to the resource types and names of one proxy. Pure.
//!
//! Naming too much costs time (the stream compares versions and sends nothing), naming too little would leave a proxy
//! with old configuration: where an effect is indirect, this errs on the side of too much.

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_mesh::{Dirty, Mesh, Resolution, ServiceKey};
use mizzen_types::Hostname;
use mizzen_xds::ResourceType;
use mizzen_xds::server::{Mark, Touched};

use crate::node::Node;

/// What may differ for one proxy. Merges while the proxy is busy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extent {
    all: [bool; ResourceType::ALL.len()],
    /// Hosts whose endpoints may differ.
    endpoints: BTreeSet<Hostname>,
}

impl Extent {
    pub(crate) fn everything() -> Self {
        Self { all: [true; ResourceType::ALL.len()], ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.all.iter().all(|all| !all)
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (mine, other) in self.all.iter_mut().zip(other.all) {
            *mine |= other;
        }
        self.endpoints.extend(other.endpoints);
    }

    pub(crate) fn add(&mut self, kinds: &[ResourceType]) {
        for (kind, all) in ResourceType::ALL.iter().zip(&mut self.all) {
            *all |= kinds.contains(kind);
        }
    }

    /// In the words of the stream.
    pub(crate) fn into_marks(self) -> Vec<Mark> {
        let mut marks: Vec<_> = ResourceType::ALL
            .into_iter()
            .zip(self.all)
            .filter(|(_, all)| *all)
            .map(|(kind, _)| Mark { kind, touched: Touched::All })
            .collect();
        let all_endpoints = marks.iter().any(|mark| mark.kind == ResourceType::Endpoint);
        if !all_endpoints && !self.endpoints.is_empty() {
            let hosts = self.endpoints;
            // `outbound|9080|v2|reviews.default.svc.cluster.local`
            let of_host = move |cluster: &str| {
                cluster.rsplit('|').next().is_some_and(|host| hosts.iter().any(|it| it.as_str() == host))
            };
            marks.push(Mark { kind: ResourceType::Endpoint, touched: Touched::Matching(Box::new(of_host)) });
        }
        marks
    }
}

/// What a change touches besides what it names.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Indirect {
    /// Endpoints that proxies are not told by EDS but within clusters or listeners.
    pub(crate) endpoints_elsewhere: bool,
    /// Routes that are not in route tables but within listeners: TCP and TLS.
    pub(crate) routes_elsewhere: bool,
    /// Rules that may hold for any service: for `*.example.com`, or for a name that is no service's own.
    pub(crate) rules_of_any_host: bool,
    /// VirtualServices changed, and with them what Sidecar resources import: the destinations of imported rules.
    pub(crate) rules_import: bool,
}

impl Indirect {
    pub(crate) fn of(dirty: &Dirty, old: &Mesh, new: &Mesh) -> Self {
        // Those that proxies resolve themselves, and those of services without an address of their own.
        let resolved = |mesh: &Mesh, key: &ServiceKey| {
            mesh.service(key).is_some_and(|service| service.resolution != Resolution::Endpoints)
        };
        let in_listeners = |mesh: &Mesh| {
            mesh.all_virtual_services().any(|rule| {
                !(rule.spec.tcp.is_empty() && rule.spec.tls.is_empty())
                    && rule.hosts.iter().any(|host| dirty.virtual_services.contains(host))
            })
        };
        let known = |host: &Hostname| {
            !host.is_wildcard()
                && [old, new].iter().any(|mesh| mesh.services().any(|service| service.key.host == *host))
        };
        Self {
            rules_of_any_host: !dirty.destination_rules.iter().all(known),
            endpoints_elsewhere: dirty.endpoints.iter().any(|key| resolved(old, key) || resolved(new, key)),
            rules_import: !dirty.virtual_services.is_empty() && new.has_sidecars(),
            routes_elsewhere: !dirty.virtual_services.is_empty() && (in_listeners(old) || in_listeners(new)),
        }
    }
}

/// Facts of a change that are the same for all proxies: found once.
#[derive(Debug)]
pub(crate) struct Touch<'a> {
    dirty: &'a Dirty,
    indirect: Indirect,
    root_namespace: &'a str,
}

impl<'a> Touch<'a> {
    pub(crate) const fn new(dirty: &'a Dirty, indirect: Indirect, root_namespace: &'a str) -> Self {
        Self { dirty, indirect, root_namespace }
    }

    /// What of it concerns one proxy.
    pub(crate) fn extent(&self, node: &Node) -> Extent {
        use ResourceType::{Cluster, Endpoint, Listener, NameTable, Route, Secret};
        let Dirty {
            everything,
            services,
            endpoints,
            virtual_services,
            destination_rules,
            gateways,
            peer_authentications,
            sidecars,
            workloads,
            secrets,
        } = self.dirty;
        let own: (Arc<str>, Arc<str>) = (node.namespace.clone(), node.pod().into());
        if *everything || workloads.contains(&own) {
            return Extent::everything();
        }
        let router = node.role == "router";
        let own_or_root = |namespace: &Arc<str>| *namespace == own.0 || **namespace == *self.root_namespace;
        if !router && sidecars.iter().any(own_or_root) {
            // What is imported decides on everything that a sidecar is told.
            return Extent::everything();
        }
        let mut extent = Extent::default();
        if !services.is_empty() {
            extent.add(&[Cluster, Listener, Route, NameTable]);
        }
        if self.indirect.endpoints_elsewhere {
            extent.add(&[Cluster, Listener, NameTable]);
        }
        if !virtual_services.is_empty() {
            extent.add(&[Route]);
            if self.indirect.rules_import && !router {
                extent.add(&[Cluster, Listener, NameTable]);
            }
            // On gateways the hosts of filter chains may follow from them.
            if router || self.indirect.routes_elsewhere {
                extent.add(&[Listener]);
            }
        }
        if !destination_rules.is_empty() {
            // Routes: hash policies. Listeners: the same for TCP.
            extent.add(&[Cluster, Listener, Route]);
            if self.indirect.rules_of_any_host {
                extent.add(&[Endpoint]);
            }
        }
        if router && !gateways.is_empty() {
            extent.add(&[Cluster, Listener, Route, Secret]);
        }
        if !peer_authentications.is_empty() {
            // Callers everywhere decide by what the called accept.
            extent.add(&[Cluster, Endpoint]);
            if peer_authentications.iter().any(own_or_root) {
                extent.add(&[Listener]);
            }
        }
        if !secrets.is_empty() {
            extent.add(&[Secret]);
        }
        let services = services.iter().chain(endpoints).map(|service| &service.host);
        extent.endpoints = services.chain(destination_rules).cloned().collect();
        extent
    }
}

#[cfg(test)]
mod tests {
    use mizzen_proto::envoy::config::core::v3::Node as ProtoNode;
    use mizzen_xds::ResourceType::{Cluster, Endpoint, Listener, NameTable, Route, Secret};

    use super::*;

    fn node(role: &str) -> Node {
        let id = format!("{role}~127.0.0.1~pod-1.shop~shop.svc.cluster.local");
        Node::read(ProtoNode { id, ..Default::default() }).unwrap()
    }

    fn service(host: &str) -> ServiceKey {
        ServiceKey { host: Hostname::new(host), namespace: "shop".into() }
    }

    #[track_caller]
    fn check(role: &str, dirty: &Dirty, expect: &[ResourceType]) {
        let extent = Touch::new(dirty, Indirect::default(), "istio-system").extent(&node(role));
        let kinds: Vec<_> = extent.into_marks().into_iter().map(|mark| mark.kind).collect();
        assert_eq!(kinds, expect, "{role} {dirty:?}");
    }

    #[test]
    fn each_change_reaches_whom_it_concerns() {
        let all = ResourceType::ALL;
        let named = || [("shop".into(), "x".into())].into();
        check("sidecar", &Dirty::default(), &[]);
        check("sidecar", &Dirty { everything: true, ..Dirty::default() }, &all);
        check("sidecar", &Dirty { workloads: [("shop".into(), "pod-1".into())].into(), ..Dirty::default() }, &all);
        check("sidecar", &Dirty { workloads: [("shop".into(), "pod-2".into())].into(), ..Dirty::default() }, &[]);
        check("sidecar", &Dirty { gateways: named(), ..Dirty::default() }, &[]);
        check("router", &Dirty { gateways: named(), ..Dirty::default() }, &[Cluster, Listener, Route, Secret]);
        check("router", &Dirty { secrets: named(), ..Dirty::default() }, &[Secret]);
        let rules = [Hostname::new("reviews")];
        check("sidecar", &Dirty { virtual_services: rules.clone().into(), ..Dirty::default() }, &[Route]);
        check("router", &Dirty { virtual_services: rules.clone().into(), ..Dirty::default() }, &[Listener, Route]);
        let of_one_host = [Cluster, Listener, Route, Endpoint];
        check("sidecar", &Dirty { destination_rules: rules.into(), ..Dirty::default() }, &of_one_host);
        let of_a_service = [Cluster, Listener, Route, NameTable, Endpoint];
        check("sidecar", &Dirty { services: [service("reviews")].into(), ..Dirty::default() }, &of_a_service);
        check(
            "sidecar",
            &Dirty { peer_authentications: ["other".into()].into(), ..Dirty::default() },
            &[Cluster, Endpoint],
        );
        let imports = |namespace: &str| Dirty { sidecars: [namespace.into()].into(), ..Dirty::default() };
        check("sidecar", &imports("shop"), &all);
        check("sidecar", &imports("istio-system"), &all);
        check("sidecar", &imports("other"), &[]);
        check("router", &imports("shop"), &[]);
        let root = Dirty { peer_authentications: ["istio-system".into()].into(), ..Dirty::default() };
        check("sidecar", &root, &[Cluster, Endpoint, Listener]);
    }

    #[test]
    fn rules_for_unknown_or_many_hosts_reach_all() {
        for host in ["*.shop", "reviews.shop"] {
            let dirty = Dirty { destination_rules: [Hostname::new(host)].into(), ..Dirty::default() };
            let mesh = Mesh::empty();
            let extent =
                Touch::new(&dirty, Indirect::of(&dirty, &mesh, &mesh), "istio-system").extent(&node("sidecar"));
            let kinds: Vec<_> = extent.into_marks().into_iter().map(|mark| mark.kind).collect();
            assert_eq!(kinds, [Cluster, Endpoint, Listener, Route], "{host}");
        }
    }

    #[test]
    fn endpoints_go_the_short_way() {
        let dirty = Dirty { endpoints: [service("reviews.shop.svc.cluster.local")].into(), ..Dirty::default() };
        let marks = Touch::new(&dirty, Indirect::default(), "istio-system").extent(&node("sidecar")).into_marks();
        let [Mark { kind: Endpoint, touched: Touched::Matching(touched) }] = &marks[..] else { panic!("{marks:?}") };
        assert!(touched("outbound|9080||reviews.shop.svc.cluster.local"));
        assert!(touched("outbound|9080|v2|reviews.shop.svc.cluster.local"));
        assert!(!touched("outbound|9080||ratings.shop.svc.cluster.local"));
        assert!(!touched("outbound|9080||more-reviews.shop.svc.cluster.local"));
    }

    #[test]
    fn extents_merge() {
        let mut extent = Extent::default();
        assert!(extent.is_empty());
        let endpoints = |host| Dirty { endpoints: [service(host)].into(), ..Dirty::default() };
        for host in ["a", "b"] {
            extent.merge(Touch::new(&endpoints(host), Indirect::default(), "istio-system").extent(&node("sidecar")));
        }
        assert_eq!(extent.endpoints.len(), 2);
        extent.merge(Extent::everything());
        assert_eq!(extent.into_marks().len(), ResourceType::ALL.len(), "endpoints are named once");
    }
}
