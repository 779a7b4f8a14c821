//! Which objects a proxy's refusal is about, as far as its words tell. Pure.
//!
//! A proxy refuses xDS resources, by name: `outbound|9080||reviews.shop.svc.cluster.local: …`. An object may have shaped such a
//! resource when its kind goes into that type; when the words hold the host of some of them, it is one of those.

use std::collections::HashSet;
use std::sync::Arc;

use mizzen_config::{Kind, Object};
use mizzen_types::ObjectKey;
use mizzen_xds::ResourceType;
use rpds::RedBlackTreeMapSync;

use crate::progress::Blamed;

type Objects = RedBlackTreeMapSync<ObjectKey, Arc<Object>>;

/// Answers, and the last answer: what is refused by one proxy is mostly refused by many, in the same words.
#[derive(Debug, Default)]
pub(crate) struct Blame(Option<(ResourceType, String, Arc<Objects>, Blamed)>);

impl Blame {
    pub(crate) fn of(&mut self, kind: ResourceType, message: &str, objects: &Arc<Objects>) -> Blamed {
        if let Some((of, words, among, blamed)) = &self.0
            && *of == kind
            && words == message
            && Arc::ptr_eq(among, objects)
        {
            return blamed.clone();
        }
        let blamed = blamed(kind, message, objects);
        self.0 = Some((kind, message.to_owned(), objects.clone(), blamed.clone()));
        blamed
    }
}

/// `None` when it may be any object.
fn blamed(kind: ResourceType, message: &str, objects: &Objects) -> Blamed {
    let candidates: Vec<&Arc<Object>> = objects.values().filter(|object| shapes(&object.kind, kind)).collect();
    let named: HashSet<ObjectKey> =
        candidates.iter().filter(|object| is_named(object, message)).map(|object| object.key.clone()).collect();
    let blamed = if named.is_empty() { candidates.into_iter().map(|it| it.key.clone()).collect() } else { named };
    (!blamed.is_empty()).then(|| Arc::new(blamed))
}

/// Whether objects of a kind go into resources of a type.
fn shapes(kind: &Kind, resource: ResourceType) -> bool {
    use ResourceType::{Cluster, Endpoint, Listener, Route, Secret};
    let into: &[ResourceType] = match kind {
        Kind::VirtualService(_) => &[Route, Listener],
        Kind::DestinationRule(_) => &[Cluster, Endpoint, Route, Secret],
        Kind::Gateway(_) => &[Listener, Route, Secret],
        Kind::ServiceEntry(_) => &[Cluster, Endpoint, Listener, Route],
        Kind::WorkloadEntry(_) | Kind::WorkloadGroup(_) => &[Endpoint],
        Kind::Sidecar(_) | Kind::EnvoyFilter(_) => &[Cluster, Listener, Route],
        Kind::PeerAuthentication(_) => &[Cluster, Listener],
        Kind::RequestAuthentication(_) | Kind::AuthorizationPolicy(_) | Kind::Telemetry(_) | Kind::ProxyConfig(_) => {
            &[Listener]
        }
        _ => &[],
    };
    into.contains(&resource)
}

/// Whether the words of a refusal hold a host of the object.
fn is_named(object: &Object, message: &str) -> bool {
    let hosts: Vec<&str> = match &object.kind {
        Kind::VirtualService(rule) => rule.hosts.iter().map(String::as_str).collect(),
        Kind::DestinationRule(rule) => vec![&rule.host],
        Kind::ServiceEntry(entry) => entry.hosts.iter().map(String::as_str).collect(),
        Kind::Gateway(gateway) => {
            let hosts = gateway.servers.iter().flat_map(|server| &server.hosts);
            hosts.map(|host| host.rsplit('/').next().unwrap_or(host)).collect()
        }
        _ => Vec::new(),
    };
    hosts.into_iter().any(|host| {
        // A short name is that of a service in the object's namespace.
        let full = if host.contains('.') { host.to_owned() } else { format!("{host}.{}.svc", object.key.namespace) };
        holds(message, &full)
    })
}

/// Whether a text holds a host, or for `*.domain` one below it, and not merely a longer name that ends or begins so.
fn holds(text: &str, host: &str) -> bool {
    let wildcard = host.starts_with('*');
    let host = host.trim_start_matches('*');
    // `*` alone is in everything, and so says nothing.
    if host.trim_matches('.').is_empty() {
        return false;
    }
    let part = |char: char| char.is_ascii_alphanumeric() || char == '-';
    text.match_indices(host).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let begins = wildcard || !before.is_some_and(|char| part(char) || char == '.');
        let rest = text.get(at + host.len()..).unwrap_or_default();
        let mut after = rest.chars();
        let ends = match after.next() {
            // A short form of a service's host goes on to the full one.
            Some('.') => rest.starts_with(".svc") || host.ends_with(".svc") || !after.next().is_some_and(part),
            next => !next.is_some_and(part),
        };
        begins && ends
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const OBJECTS: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: short, namespace: shop}
spec: {host: reviews}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: other, namespace: shop}
spec: {host: ratings.shop.svc.cluster.local}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mid, namespace: shop}
spec: {host: details.shop}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: route, namespace: shop}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec: {hosts: ["*.example.com"], ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: nothing, namespace: shop}
spec: {}
"#;

    #[track_caller]
    fn check(kind: ResourceType, message: &str, expected: &[&str]) {
        let parsed = mizzen_config::parse("a.yaml", OBJECTS);
        let objects: Objects = parsed.objects.into_iter().map(|object| (object.key.clone(), object)).collect();
        assert_eq!(objects.size(), 6, "{:?}", parsed.findings);
        let mut blame = Blame::default();
        let objects = Arc::new(objects);
        let blamed = blame.of(kind, message, &objects);
        let mut names: Vec<_> = blamed.iter().flat_map(|it| it.iter()).map(|key| key.name.to_string()).collect();
        names.sort();
        assert_eq!(names, expected, "{message}");
        assert_eq!(blame.of(kind, message, &objects), blamed, "asked again");
    }

    #[test]
    fn a_refusal_is_of_the_objects_whose_hosts_it_names() {
        use ResourceType::{Cluster, Endpoint, Listener, Route, Secret};
        check(Cluster, "outbound|9080||reviews.shop.svc.cluster.local: lb_policy: no such", &["short"]);
        check(
            Cluster,
            "outbound|9080|v1|ratings.shop.svc.cluster.local: x; outbound|1||details.shop.svc.cluster.local: y",
            &["mid", "other"],
        );
        check(Cluster, "outbound|80||api.example.com: x", &["outside"]);
        // Names that are parts of other names.
        let any = ["mid", "nothing", "other", "outside", "short"];
        check(Cluster, "outbound|9080||my-reviews.shop.svc.cluster.local: x", &any);
        check(Cluster, "outbound|9080||details.shopping.svc.cluster.local: x", &any);
        // A name that says nothing: any of the kinds that go into the type.
        check(Listener, "virtualInbound: no such filter", &["nothing", "outside", "route"]);
        check(Route, "9080: virtual_hosts[reviews.shop.svc.cluster.local:9080]: x", &["route", "short"]);
        check(Endpoint, "outbound|9080||reviews.shop.svc.cluster.local: no room", &["short"]);
        check(Secret, "kubernetes://x: no key", &["mid", "other", "short"]);
    }
}
