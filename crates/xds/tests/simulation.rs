//! Client and server against each other over a bad network, in virtual time and with many seeds.
//!
//! The network delays, and breaks connections with everything on the way; the client's consumer answers late and in any
//! order of types, and refuses what is marked bad; the world changes all the time. However it goes:
//!
//! - a client that has been complete never has a route to a cluster that it does not have, or that has no endpoints;
//! - once it is quiet, the client has exactly what it should have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mizzen_proto::envoy::config::cluster::v3::Cluster;
use mizzen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_xds::client::{Refusal, Session, Subscription, Update};
use mizzen_xds::server::stream::PART;
use mizzen_xds::server::{Content, Mark, Stream, Touched, Wanted};
use mizzen_xds::wire::{DeltaResponse, Request, SotwResponse, encode_response};
use mizzen_xds::{Mode, Resource, ResourceType};
use prost::Message;

/// Chance that can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Clusters with endpoints, and one route table that points at one of them. Text starting with `bad` is refused.
#[derive(Default)]
struct World {
    clusters: BTreeMap<String, String>,
    endpoints: BTreeMap<String, String>,
    route: String,
}

impl World {
    fn change(&mut self, chance: &mut Chance, serial: u64) {
        // A service comes, and another goes with all that pointed at it.
        let new = format!("c{serial}");
        self.clusters.insert(new.clone(), format!("good {serial}"));
        self.endpoints.insert(new, format!("{serial}"));
        while self.clusters.len() > 3 {
            let index = chance.below(self.clusters.len() as u64) as usize;
            let gone = self.clusters.keys().nth(index).unwrap().clone();
            self.clusters.remove(&gone);
            self.endpoints.remove(&gone);
        }
        for text in self.clusters.values_mut() {
            if chance.one_in(5) {
                *text = format!("good {serial}");
            }
        }
        let target = chance.below(self.clusters.len() as u64) as usize;
        let quality = if chance.one_in(8) { "bad" } else { "good" };
        self.route = format!("{quality} {serial} {}", self.clusters.keys().nth(target).unwrap());
    }

    fn all(&self, kind: ResourceType) -> BTreeMap<String, Vec<u8>> {
        // Any message whose first field is the name will do where nobody looks further.
        let named = |name: &String, text: &String| {
            let message = Cluster { name: name.clone(), alt_stat_name: text.clone(), ..Default::default() };
            (name.clone(), message)
        };
        let messages: BTreeMap<String, Cluster> = match kind {
            ResourceType::Cluster => {
                let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
                let all = self.clusters.iter().map(|(name, text)| named(name, text));
                all.map(|(name, it)| (name, Cluster { cluster_discovery_type: eds.clone(), ..it })).collect()
            }
            ResourceType::Endpoint => self.endpoints.iter().map(|(name, text)| named(name, text)).collect(),
            ResourceType::Listener => [named(&"listener".to_owned(), &"good".to_owned())].into(),
            ResourceType::Route => [named(&"80".to_owned(), &self.route)].into(),
            ResourceType::Secret | ResourceType::NameTable => BTreeMap::new(),
        };
        messages.into_iter().map(|(name, message)| (name, message.encode_to_vec())).collect()
    }
}

impl Content for World {
    fn resources(&mut self, kind: ResourceType, wanted: Wanted<'_>) -> Vec<Arc<Resource>> {
        let all = self.all(kind).into_iter().map(|(name, body)| Arc::new(Resource::new(name, body)));
        match wanted {
            Wanted::All => all.collect(),
            Wanted::Names(names) => all.filter(|it| names.contains(&it.name)).collect(),
        }
    }
}

/// What the proxy obeys.
#[derive(Default)]
struct Proxy {
    held: BTreeMap<ResourceType, BTreeMap<String, Vec<u8>>>,
}

impl Proxy {
    fn apply(&mut self, update: &Update) -> Vec<Refusal> {
        let held = self.held.entry(update.kind).or_default();
        let mut refused = Vec::new();
        if update.full {
            let names: BTreeSet<_> = update.resources.iter().map(|it| &it.name).collect();
            held.retain(|name, _| names.contains(name));
        }
        for name in &update.removed {
            held.remove(name);
        }
        for resource in &update.resources {
            if text(&resource.body).starts_with("bad") {
                refused.push(Refusal { name: resource.name.clone(), message: "bad".to_owned() });
            } else {
                held.insert(resource.name.clone(), resource.body.to_vec());
            }
        }
        refused
    }

    fn names(&self, kind: ResourceType) -> BTreeSet<String> {
        self.held.get(&kind).map(|held| held.keys().cloned().collect()).unwrap_or_default()
    }

    /// The cluster that the route table points at.
    fn target(&self) -> Option<String> {
        let body = self.held.get(&ResourceType::Route)?.get("80")?;
        text(body).rsplit(' ').next().map(str::to_owned)
    }
}

fn text(body: &[u8]) -> String {
    Cluster::decode(body).unwrap().alt_stat_name
}

/// Messages on the way, each with its time of arrival; they do not overtake each other.
struct Wire<T>(VecDeque<(Instant, T)>);

impl<T> Wire<T> {
    fn send(&mut self, message: T, now: Instant, chance: &mut Chance) {
        let delay = Duration::from_millis(chance.below(30));
        let after = self.0.back().map_or(now, |(at, _)| *at);
        self.0.push_back((after.max(now + delay), message));
    }

    fn receive(&mut self, now: Instant) -> Option<T> {
        self.0.front().is_some_and(|(at, _)| *at <= now).then(|| self.0.pop_front())?.map(|(_, message)| message)
    }
}

/// `part`: delta responses carry about so many bytes each.
fn simulate(mode: Mode, part: usize, seed: u64) {
    const STEPS: u64 = 6_000;
    const QUIET_FROM: u64 = 3_000;
    let mut chance = Chance(seed);
    let start = Instant::now();
    let mut world = World::default();
    world.change(&mut chance, 0);
    let mut session = Session::new(mode, Node { id: "node".to_owned(), ..Default::default() });
    session.subscribe(ResourceType::Cluster, Subscription::Wildcard);
    session.subscribe(ResourceType::Listener, Subscription::Wildcard);
    session.subscribe(ResourceType::Route, Subscription::Names(["80".to_owned()].into()));
    let mut proxy = Proxy::default();
    let mut stream = Stream::with_parts(mode, part);
    let mut up: Wire<Request> = Wire(VecDeque::new());
    let mut down: Wire<Vec<u8>> = Wire(VecDeque::new());
    let mut answers: Vec<(Instant, Update)> = Vec::new();
    let (mut connected, mut complete) = (false, false);

    for step in 0..STEPS {
        let now = start + Duration::from_millis(step);
        let quiet = step >= QUIET_FROM;
        if !quiet && chance.one_in(40) {
            world.change(&mut chance, step);
            for kind in ResourceType::ALL {
                stream.mark(Mark { kind, touched: Touched::All });
            }
        }
        // A state-of-the-world client that comes back does not tell what it has, so its old routes cannot be honoured.
        if mode == Mode::Delta && connected && !quiet && chance.one_in(400) {
            session.disconnected();
            connected = false;
            up.0.clear();
            down.0.clear();
        }
        if !connected && (quiet || chance.one_in(20)) {
            connected = true;
            stream = Stream::with_parts(mode, part);
            for request in session.connected() {
                up.send(request, now, &mut chance);
            }
        }
        while let Some(request) = up.receive(now) {
            stream.request(request, now).unwrap();
        }
        if connected {
            for response in stream.advance(now, &mut world) {
                let mut bytes = Vec::new();
                encode_response(&response, &mut bytes);
                down.send(bytes, now, &mut chance);
            }
        }
        while let Some(bytes) = down.receive(now) {
            let update = match mode {
                Mode::Delta => session.delta_response(DeltaResponse::decode(&bytes[..]).unwrap()),
                Mode::Sotw => session.sotw_response(SotwResponse::decode(&bytes[..]).unwrap()),
            };
            answers.push((now + Duration::from_millis(chance.below(20)), update.unwrap()));
        }
        // Taken up in the order of arrival within a type; no type waits for another.
        while let Some((_, due)) = answers.iter().find(|(at, _)| *at <= now) {
            let kind = due.kind;
            let index = answers.iter().position(|(_, update)| update.kind == kind).unwrap();
            let (_, update) = answers.remove(index);
            let refused = proxy.apply(&update);
            if update.kind == ResourceType::Cluster {
                let names = proxy.names(ResourceType::Cluster);
                proxy.held.entry(ResourceType::Endpoint).or_default().retain(|name, _| names.contains(name));
                if let Some(request) = session.subscribe(ResourceType::Endpoint, Subscription::Names(names)) {
                    up.send(request, now, &mut chance);
                }
            }
            for request in session.answer(update.id, refused) {
                up.send(request, now, &mut chance);
            }
        }
        // From the moment it could serve, it can serve always.
        if let Some(target) = proxy.target() {
            let served = proxy.names(ResourceType::Cluster).contains(&target)
                && proxy.names(ResourceType::Endpoint).contains(&target);
            complete |= served;
            assert!(served || !complete, "{mode:?}, seed {seed}, step {step}: the route to {target} leads nowhere");
        }
    }
    assert!(complete, "{mode:?}, seed {seed}: it was never complete");
    for kind in [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Route] {
        let should = world.all(kind);
        let mut has = proxy.held[&kind].clone();
        if world.route.starts_with("bad") {
            // The last good routes stay, and what they need with them.
            if kind == ResourceType::Route {
                continue;
            }
            has.retain(|name, _| should.contains_key(name));
        }
        assert_eq!(has, should, "{mode:?}, seed {seed}: {kind} in the end");
    }
}

#[test]
fn delta_over_a_bad_network() {
    for seed in 0..20 {
        simulate(Mode::Delta, PART, seed);
    }
}

#[test]
fn delta_in_parts_over_a_bad_network() {
    for seed in 0..20 {
        // One resource at a time, or two or three.
        simulate(Mode::Delta, if seed % 2 == 0 { 1 } else { 60 }, seed);
    }
}

#[test]
fn state_of_the_world_over_a_bad_network() {
    for seed in 0..20 {
        simulate(Mode::Sotw, PART, seed);
    }
}
