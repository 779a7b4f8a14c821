//! Routes of one VirtualService or service, encoded, and what they are made from: most tables of most proxies have the same,
//! and a change touches those of one rule.
//!
//! Not here: where they are remembered. That is the caller's, who gives [`route_table_with`](super::route_table_with) a [`Memo`].

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use mizzen_api::mesh::MeshConfig;
use mizzen_api::networking::{Destination, HttpRoute};
use mizzen_mesh::{Attachment, VirtualServiceRule};
use mizzen_proto::envoy::config::route::v3::Route;
use mizzen_types::{Hostname, Percent};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::rule::{self, Place};
use crate::canonical;

/// Remembers routes by all that they are made from.
pub trait Memo {
    /// What was remembered, or what `make` gives, remembered from now on.
    fn routes(&self, of: RoutesOf, make: &mut dyn FnMut() -> Bytes) -> Bytes;
}

/// Remembers nothing.
#[derive(Debug)]
pub struct NoMemo;

impl Memo for NoMemo {
    fn routes(&self, _: RoutesOf, make: &mut dyn FnMut() -> Bytes) -> Bytes {
        make()
    }
}

/// All that routes of sidecars are made from: equal ones come to equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutesOf {
    config: Same<MeshConfig>,
    rule: OneRule,
    port: u16,
    one_port: bool,
    /// What the destinations mean to the client, in the order in which they are written.
    to: Vec<(Hostname, u16)>,
    /// How requests to them are hashed, where DestinationRules say that they are.
    hashes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum OneRule {
    VirtualService(Same<VirtualServiceRule>),
    /// No rule: requests go to the service.
    None,
}

/// One and the same object, not an equal one.
#[derive(Debug)]
struct Same<T>(Arc<T>);

impl<T> Clone for Same<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Same<T> {}

impl<T> Hash for Same<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The routes of a VirtualService at a place. Empty when it has none there.
pub(super) fn of_rule(place: &Place<'_>, service: &Arc<VirtualServiceRule>, memo: &dyn Memo) -> Bytes {
    let make = || encode(&rule::routes(place, service));
    if *place.attachment != Attachment::Mesh || service.spec.http.iter().any(depends_on_more) {
        return make();
    }
    let mut to = Vec::new();
    let mut hashes = Vec::new();
    let namespace = &service.order.namespace;
    for destination in service.spec.http.iter().flat_map(destinations) {
        let (host, port) = rule::target_of(place, destination, namespace);
        hash(place, &host, port, &destination.subset, &mut hashes);
        to.push((host, port));
    }
    remember(place, OneRule::VirtualService(Same(service.clone())), to, hashes, memo, make)
}

/// The route to a service about which no rule says anything.
pub(super) fn of_service(place: &Place<'_>, host: &Hostname, memo: &dyn Memo) -> Bytes {
    let make = || encode(&[rule::default_route(place.mesh, place.scope, host, place.port)]);
    let mut hashes = Vec::new();
    hash(place, host, place.port, "", &mut hashes);
    remember(place, OneRule::None, vec![(host.clone(), place.port)], hashes, memo, make)
}

fn remember(
    place: &Place<'_>,
    rule: OneRule,
    to: Vec<(Hostname, u16)>,
    hashes: Vec<u8>,
    memo: &dyn Memo,
    mut make: impl FnMut() -> Bytes,
) -> Bytes {
    let config = Same(place.mesh.config().clone());
    let Place { port, one_port, .. } = *place;
    memo.routes(RoutesOf { config, rule, port, one_port, to, hashes }, &mut make)
}

/// Conditions on the client, and rules that are written elsewhere.
fn depends_on_more(http: &HttpRoute) -> bool {
    let on_client = http.r#match.iter().any(|request| {
        !(request.source_namespace.is_empty() && request.source_labels.is_empty() && request.gateways.is_empty())
    });
    on_client || http.delegate.is_some()
}

fn destinations(http: &HttpRoute) -> impl Iterator<Item = &Destination> {
    let mirrors = http.all_mirrors().into_iter().filter(|(_, share)| *share != Percent::NEVER);
    http.route.iter().map(|route| &route.destination).chain(mirrors.map(|(destination, _)| destination))
}

/// Notes the hash of one destination, such that different sequences are different bytes.
fn hash(place: &Place<'_>, host: &Hostname, port: u16, subset: &str, out: &mut Vec<u8>) {
    match rule::consistent_hash(place.mesh, place.scope, host, port, subset) {
        Some(policy) => {
            let bytes = policy.encode_length_delimited_to_vec();
            out.push(1);
            out.extend(bytes);
        }
        // Most have none, and most rules none at all.
        None if out.is_empty() => {}
        None => out.push(0),
    }
}

/// Routes as field 3 of a virtual host.
pub(super) fn encode(routes: &[Route]) -> Bytes {
    let mut bytes = Vec::with_capacity(routes.iter().map(|route| field_len(route.encoded_len())).sum());
    for route in routes {
        put_header(3, route.encoded_len(), &mut bytes);
        // A vector grows as needed.
        let _ = route.encode(&mut bytes);
    }
    canonical::sort(&mut bytes, canonical::VIRTUAL_HOST);
    bytes.into()
}

/// A virtual host of a sidecar's table.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) domains: Vec<String>,
    /// As [`encode`] makes them.
    pub(super) routes: Bytes,
}

impl Host {
    fn len(&self) -> usize {
        let domains: usize = self.domains.iter().map(|domain| field_len(domain.len())).sum();
        field_len(self.name.len()) + domains + self.routes.len() + 2
    }

    /// Of the virtual host as field 2 of a table.
    pub(super) fn len_in_table(&self) -> usize {
        field_len(self.len())
    }

    /// Writes the virtual host as field 2 of a table.
    pub(super) fn put(&self, table: &mut Vec<u8>) {
        put_header(2, self.len(), table);
        put_text(1, &self.name, table);
        for domain in &self.domains {
            put_text(2, domain, table);
        }
        table.put_slice(&self.routes);
        // `include_request_attempt_count`, as Istio has it.
        encode_key(14, WireType::Varint, table);
        table.put_u8(1);
    }
}

/// Of a field with a number below 16.
pub(super) fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn put_header(number: u32, len: usize, out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

pub(super) fn put_text(number: u32, text: &str, out: &mut Vec<u8>) {
    put_header(number, text.len(), out);
    out.put_slice(text.as_bytes());
}
