//! The served protocol in virtual time, with the client's side written out by hand.

use std::collections::{BTreeMap, HashMap};

use mizzen_proto::envoy::config::cluster::v3::Cluster;
use mizzen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use mizzen_proto::google::rpc::Status;
use prost::Message;

use super::*;
use crate::ResourceType::{Cluster as Cds, Endpoint as Eds, Listener as Lds, Route as Rds, Secret as Sds};
use crate::resource::version_text;
use crate::wire::Request;

#[derive(Default)]
struct World {
    resources: BTreeMap<(ResourceType, String), Arc<Resource>>,
    asked: usize,
}

impl World {
    fn put(&mut self, kind: ResourceType, name: &str, text: &str) {
        let body = if kind == Cds {
            let discovery = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
            let cluster = Cluster {
                name: name.to_owned(),
                cluster_discovery_type: Some(discovery),
                alt_stat_name: text.to_owned(),
                ..Default::default()
            };
            cluster.encode_to_vec()
        } else {
            text.as_bytes().to_vec()
        };
        self.resources.insert((kind, name.to_owned()), Arc::new(Resource::new(name, body)));
    }

    fn remove(&mut self, kind: ResourceType, name: &str) {
        self.resources.remove(&(kind, name.to_owned()));
    }

    fn version(&self, kind: ResourceType, name: &str) -> String {
        version_text(self.resources[&(kind, name.to_owned())].version)
    }
}

impl Content for World {
    fn resources(&mut self, kind: ResourceType, wanted: Wanted<'_>) -> Vec<Arc<Resource>> {
        self.asked += 1;
        let all = self.resources.iter().filter(|((of, _), _)| *of == kind).map(|(_, resource)| resource.clone());
        match wanted {
            Wanted::All => all.collect(),
            Wanted::Names(names) => all.filter(|resource| names.contains(&resource.name)).collect(),
        }
    }
}

struct Bench {
    world: World,
    stream: Stream,
    now: Instant,
}

impl Bench {
    fn new(mode: Mode) -> Self {
        Self { world: World::default(), stream: Stream::new(mode), now: Instant::now() }
    }

    /// Two clusters with endpoints, a listener, a route table.
    fn small(mode: Mode) -> Self {
        let mut bench = Self::new(mode);
        for cluster in ["a", "b"] {
            bench.world.put(Cds, cluster, "1");
            bench.world.put(Eds, cluster, "1");
        }
        bench.world.put(Lds, "listener", "1");
        bench.world.put(Rds, "80", "to a");
        bench
    }

    /// The same, with a client that has everything and acknowledged it.
    fn settled(mode: Mode) -> Self {
        let mut bench = Self::small(mode);
        for (kind, names) in [(Cds, &[][..]), (Eds, &["a", "b"]), (Lds, &[]), (Rds, &["80"])] {
            bench.subscribe(kind, names);
            let sent = bench.advance();
            assert_eq!(sent.len(), 1, "one answer to the subscription of {kind}");
            bench.ack_all(&sent);
        }
        assert_eq!(bench.advance().len(), 0);
        bench
    }

    fn advance(&mut self) -> Vec<Response> {
        self.stream.advance(self.now, &mut self.world)
    }

    fn after(&mut self, time: Duration) -> Vec<Response> {
        self.now += time;
        self.advance()
    }

    fn request(&mut self, request: Request) {
        self.stream.request(request, self.now).unwrap();
    }

    fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let type_url = kind.type_url().to_owned();
        self.request(match self.stream.mode() {
            Mode::Delta => Request::Delta(DeltaDiscoveryRequest {
                type_url,
                resource_names_subscribe: names,
                ..Default::default()
            }),
            Mode::Sotw => Request::Sotw(DiscoveryRequest { type_url, resource_names: names, ..Default::default() }),
        });
    }

    fn answer(&mut self, response: &Response, error: Option<&str>) {
        let error_detail = error.map(|message| Status { code: 3, message: message.to_owned(), details: Vec::new() });
        let type_url = response.kind.type_url().to_owned();
        let response_nonce = response.nonce.to_string();
        self.request(match response.mode {
            Mode::Delta => {
                Request::Delta(DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() })
            }
            Mode::Sotw => {
                let mut names: Vec<String> =
                    self.stream.subscribed(response.kind).into_iter().flatten().map(|name| name.to_string()).collect();
                names.sort();
                Request::Sotw(DiscoveryRequest {
                    type_url,
                    response_nonce,
                    error_detail,
                    resource_names: names,
                    ..Default::default()
                })
            }
        });
    }

    fn ack_all(&mut self, responses: &[Response]) {
        for response in responses {
            self.answer(response, None);
        }
    }

    fn mark_all(&mut self) {
        for kind in ResourceType::ALL {
            self.stream.mark(Mark { kind, touched: Touched::All });
        }
    }

    fn observed(&mut self, wanted: fn(&Observed) -> bool) -> usize {
        self.stream.observed().iter().filter(|it| wanted(it)).count()
    }
}

fn names(names: &[&str]) -> Touched {
    Touched::Names(names.iter().map(|name| Arc::from(*name)).collect())
}

/// `cds +a +b -c` for each response.
fn show(responses: &[Response]) -> Vec<String> {
    let line = |response: &Response| {
        let added = response.resources.iter().map(|it| format!(" +{}", it.name));
        let removed = response.removed.iter().map(|name| format!(" -{name}"));
        format!("{}{}", response.kind, added.chain(removed).collect::<String>())
    };
    responses.iter().map(line).collect()
}

#[test]
fn subscriptions_are_answered_with_what_they_ask_for() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut bench = Bench::small(mode);
        bench.subscribe(Cds, &[]);
        assert_eq!(show(&bench.advance()), ["cds +a +b"], "no names means everything");
        bench.subscribe(Eds, &["b"]);
        assert_eq!(show(&bench.advance()), ["eds +b"], "endpoints only by name, without waiting for the ACK");
        bench.subscribe(Lds, &[]);
        bench.subscribe(Rds, &["80"]);
        assert_eq!(show(&bench.advance()), ["lds +listener", "rds +80"]);
    }
}

#[test]
fn an_unchanged_world_is_not_sent_again() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut bench = Bench::settled(mode);
        bench.mark_all();
        assert!(bench.advance().is_empty());
        let before = bench.world.asked;
        assert!(bench.advance().is_empty());
        assert_eq!(bench.world.asked, before, "without a mark nothing is even looked at");
    }
}

#[test]
fn delta_sends_only_what_changed() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.world.put(Eds, "b", "2");
    bench.stream.mark(Mark { kind: Eds, touched: names(&["b", "never asked for"]) });
    assert_eq!(show(&bench.advance()), ["eds +b"]);
}

#[test]
fn only_subscribed_names_are_put_to_a_predicate() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.world.put(Eds, "a", "2");
    bench.world.put(Eds, "b", "2");
    bench.stream.mark(Mark { kind: Eds, touched: Touched::Matching(Box::new(|name| name == "b")) });
    assert_eq!(show(&bench.advance()), ["eds +b"]);
}

#[test]
fn sotw_sends_whole_sets_of_clusters_but_only_changed_endpoints() {
    let mut bench = Bench::settled(Mode::Sotw);
    bench.world.put(Cds, "c", "1");
    bench.world.put(Eds, "b", "2");
    bench.mark_all();
    assert_eq!(show(&bench.advance()), ["cds +a +b +c", "eds +b"]);
}

#[test]
fn a_named_resource_that_is_missing_is_said_to_be_removed() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.subscribe(Rds, &["81"]);
    let sent = bench.advance();
    assert_eq!(show(&sent), ["rds -81"]);
    bench.ack_all(&sent);
    bench.subscribe(Eds, &["nobody"]);
    assert_eq!(show(&bench.advance()), ["eds -nobody"]);
    // A secret may exist without this client's right to see it: nothing is said.
    bench.subscribe(Sds, &["kubernetes://secret"]);
    assert!(bench.advance().is_empty());
    bench.world.put(Sds, "kubernetes://secret", "1");
    bench.mark_all();
    assert_eq!(show(&bench.advance()), ["sds +kubernetes://secret"]);
}

#[test]
fn sotw_answers_a_subscription_even_with_nothing() {
    let mut bench = Bench::settled(Mode::Sotw);
    bench.request(Request::Sotw(DiscoveryRequest {
        type_url: Eds.type_url().to_owned(),
        resource_names: vec!["nobody".to_owned()],
        ..Default::default()
    }));
    assert_eq!(show(&bench.advance()), ["eds"], "else the client would wait for it while it warms the cluster");
}

#[test]
fn a_long_delta_response_goes_out_in_parts() {
    let mut bench = Bench::new(Mode::Delta);
    bench.stream = Stream::with_parts(Mode::Delta, 3 * 40);
    let text = "x".repeat(30);
    for name in ["a", "b", "c", "d", "e"] {
        bench.world.put(Cds, name, &text);
        bench.world.put(Eds, name, "1");
    }
    bench.world.put(Lds, "listener", "1");
    bench.world.put(Rds, "80", "to a");
    bench.subscribe(Cds, &[]);
    let first = bench.advance();
    assert_eq!(show(&first), ["cds +a +b +c"]);
    assert!(bench.advance().is_empty(), "the next part waits for the answer");
    bench.subscribe(Eds, &["a", "b", "c"]);
    let endpoints = bench.advance();
    assert_eq!(show(&endpoints), ["eds +a +b +c"], "what the client asks for does not wait");
    bench.ack_all(&endpoints);
    // In the meantime `d` is another and `a` is gone.
    bench.world.put(Cds, "d", "new");
    bench.world.remove(Cds, "a");
    let newest = bench.world.version(Cds, "d");
    bench.mark_all();
    assert!(bench.advance().is_empty());
    bench.answer(&first[0], None);
    let second = bench.advance();
    assert_eq!(show(&second), ["cds +d +e -a"], "as new as can be, once each");
    assert_eq!(version_text(second[0].resources[0].version), newest);
    bench.answer(&second[0], Some("no"));
    bench.subscribe(Eds, &["d", "e"]);
    let sent = bench.advance();
    bench.ack_all(&sent);
    assert_eq!(show(&bench.advance()), [""; 0], "a refused part is not sent again");

    // Listeners and routes wait for all parts of a change.
    let mut bench = Bench::settled(Mode::Delta);
    bench.stream.part = 1;
    bench.world.put(Cds, "c", "1");
    bench.world.put(Eds, "c", "1");
    bench.world.put(Cds, "d", "1");
    bench.world.put(Eds, "d", "1");
    bench.world.put(Rds, "80", "to c and d");
    bench.mark_all();
    let mut order = Vec::new();
    loop {
        let sent = bench.advance();
        if sent.is_empty() {
            break;
        }
        order.extend(show(&sent));
        bench.ack_all(&sent);
        for response in sent.iter().filter(|it| it.kind == Cds) {
            let names: Vec<&str> = response.resources.iter().map(|it| &*it.name).collect();
            bench.subscribe(Eds, &names);
        }
    }
    assert_eq!(order, ["cds +c", "cds +d", "eds +c", "eds +d", "rds +80"]);

    // State-of-the-world has no parts: what is left out would be gone.
    let mut bench = Bench::small(Mode::Sotw);
    bench.stream.part = 1;
    bench.subscribe(Cds, &[]);
    assert_eq!(show(&bench.advance()), ["cds +a +b"]);
}

#[test]
fn make_before_break() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut bench = Bench::settled(mode);
        // Traffic moves from `a` to the new cluster `c`; `a` goes.
        bench.world.put(Cds, "c", "1");
        bench.world.put(Eds, "c", "1");
        bench.world.remove(Cds, "a");
        bench.world.remove(Eds, "a");
        bench.world.put(Rds, "80", "to c");
        bench.mark_all();

        let clusters = bench.advance();
        let union = if mode == Mode::Delta { "cds +c" } else { "cds +a +b +c" };
        assert_eq!(show(&clusters), [union], "{mode:?}: the new one is added, the old one stays, routes wait");
        bench.ack_all(&clusters);
        assert!(bench.advance().is_empty(), "the new cluster has no endpoints yet");
        match mode {
            Mode::Delta => bench.subscribe(Eds, &["c"]),
            Mode::Sotw => {
                let nonce = bench.stream.watches[Eds.index()].last_nonce.to_string();
                bench.request(Request::Sotw(DiscoveryRequest {
                    type_url: Eds.type_url().to_owned(),
                    resource_names: ["a", "b", "c"].map(str::to_owned).to_vec(),
                    response_nonce: nonce,
                    ..Default::default()
                }));
            }
        }
        let endpoints = bench.advance();
        assert_eq!(show(&endpoints), ["eds +c"], "{mode:?}: and the endpoints of `a` are not taken away");
        bench.ack_all(&endpoints);
        let routes = bench.advance();
        assert_eq!(show(&routes), ["rds +80"], "{mode:?}: now it is warm");
        bench.ack_all(&routes);
        let reduced = bench.advance();
        let expected = if mode == Mode::Delta { "cds -a" } else { "cds +b +c" };
        assert_eq!(show(&reduced), [expected], "{mode:?}: nothing points at it any more");
        bench.ack_all(&reduced);
        assert!(bench.advance().is_empty());
    }
}

#[test]
fn a_cluster_that_comes_back_while_it_is_held_is_kept() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.world.remove(Cds, "a");
    bench.world.put(Rds, "80", "to b");
    bench.mark_all();
    let routes = bench.advance();
    assert_eq!(show(&routes), ["rds +80"]);
    bench.world.put(Cds, "a", "1");
    bench.mark_all();
    assert!(bench.advance().is_empty(), "the client still has it");
    bench.ack_all(&routes);
    assert!(bench.advance().is_empty());
}

#[test]
fn a_client_that_never_gets_warm_delays_routes_only_so_long() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.world.put(Cds, "c", "1");
    bench.world.put(Rds, "80", "to c");
    bench.mark_all();
    let clusters = bench.advance();
    bench.ack_all(&clusters);
    assert!(bench.advance().is_empty());
    let deadline = bench.stream.deadline().expect("it must be woken");
    assert!(deadline <= bench.now + WARM_TIMEOUT);
    assert_eq!(show(&bench.after(WARM_TIMEOUT)), ["rds +80"]);
}

#[test]
fn endpoints_do_not_wait_for_routes() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.world.put(Rds, "80", "to b");
    bench.mark_all();
    assert_eq!(show(&bench.advance()), ["rds +80"]);
    bench.world.put(Eds, "a", "2");
    bench.stream.mark(Mark { kind: Eds, touched: names(&["a"]) });
    assert_eq!(show(&bench.advance()), ["eds +a"], "while the routes are unanswered");
}

#[test]
fn a_changed_cluster_gets_its_endpoints_again() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut bench = Bench::settled(mode);
        bench.world.put(Cds, "a", "2");
        bench.mark_all();
        let sent = show(&bench.advance());
        assert_eq!(sent[1], "eds +a", "{mode:?}: the client warms the changed cluster anew");
    }
}

#[test]
fn changes_merge_while_a_response_is_unanswered() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut bench = Bench::settled(mode);
        bench.world.put(Rds, "80", "2");
        bench.mark_all();
        let first = bench.advance();
        assert_eq!(show(&first), ["rds +80"]);
        for text in ["3", "4", "5"] {
            bench.world.put(Rds, "80", text);
            bench.mark_all();
            assert!(bench.advance().is_empty(), "one in flight");
        }
        bench.ack_all(&first);
        let second = bench.advance();
        assert_eq!(show(&second), ["rds +80"]);
        assert_eq!(&second[0].resources[0].body[..], b"5");
    }
}

#[test]
fn a_lost_answer_blocks_only_for_a_while() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.world.put(Rds, "80", "2");
    bench.mark_all();
    let lost = bench.advance();
    bench.world.put(Rds, "80", "3");
    bench.mark_all();
    assert!(bench.after(ANSWER_TIMEOUT / 2).is_empty());
    let next = bench.after(ANSWER_TIMEOUT / 2);
    assert_eq!(show(&next), ["rds +80"]);
    assert_eq!(bench.observed(|it| matches!(it, Observed::Unanswered { .. })), 1);
    // It comes after all, and must not count for the newer response.
    bench.ack_all(&lost);
    bench.world.put(Rds, "80", "4");
    bench.mark_all();
    assert!(bench.advance().is_empty());
    assert_eq!(bench.observed(|it| matches!(it, Observed::Stale { .. })), 1);
}

#[test]
fn a_refused_resource_is_not_sent_again_until_it_changes() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut bench = Bench::settled(mode);
        bench.world.put(Rds, "80", "bad");
        bench.mark_all();
        let sent = bench.advance();
        bench.answer(&sent[0], Some("80: bad"));
        assert_eq!(bench.observed(|it| matches!(it, Observed::Refused { message, .. } if message == "80: bad")), 1);
        bench.mark_all();
        assert!(bench.advance().is_empty(), "{mode:?}: not retried");
        assert!(bench.after(ANSWER_TIMEOUT * 2).is_empty(), "{mode:?}: not even later");
        bench.world.put(Rds, "80", "good");
        bench.mark_all();
        assert_eq!(show(&bench.advance()), ["rds +80"]);
    }
}

#[test]
fn clusters_stay_while_refused_routes_keep_old_ones_in_force() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut bench = Bench::settled(mode);
        bench.world.remove(Cds, "a");
        bench.world.put(Rds, "80", "bad");
        bench.mark_all();
        let sent = bench.advance();
        assert_eq!(show(&sent), ["rds +80"], "{mode:?}");
        bench.answer(&sent[0], Some("bad"));
        assert!(bench.after(Duration::from_secs(3600)).is_empty(), "{mode:?}: the old route still uses `a`");
        bench.world.put(Rds, "80", "to b");
        bench.mark_all();
        let sent = bench.advance();
        bench.ack_all(&sent);
        let expected = if mode == Mode::Delta { "cds -a" } else { "cds +b" };
        assert_eq!(show(&bench.advance()), [expected]);
    }
}

#[test]
fn refused_clusters_do_not_hold_up_routes() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.world.put(Cds, "c", "bad");
    bench.world.put(Rds, "80", "2");
    bench.mark_all();
    let clusters = bench.advance();
    assert_eq!(show(&clusters), ["cds +c"]);
    bench.answer(&clusters[0], Some("c: bad"));
    assert_eq!(show(&bench.advance()), ["rds +80"]);
}

#[test]
fn a_stale_nonce_is_passed_over() {
    let mut bench = Bench::settled(Mode::Sotw);
    bench.world.put(Rds, "80", "2");
    bench.mark_all();
    bench.advance();
    bench.request(Request::Sotw(DiscoveryRequest {
        type_url: Rds.type_url().to_owned(),
        resource_names: vec!["80".to_owned(), "81".to_owned()],
        response_nonce: "1".to_owned(),
        ..Default::default()
    }));
    assert_eq!(bench.observed(|it| matches!(it, Observed::Stale { .. })), 1);
    assert!(bench.advance().is_empty());
    assert!(bench.stream.watches[Rds.index()].in_flight.is_some(), "it answers nothing");
}

#[test]
fn a_returning_delta_client_gets_only_what_changed() {
    let mut bench = Bench::small(Mode::Delta);
    let mut held = HashMap::from([("b".to_owned(), bench.world.version(Cds, "b"))]);
    held.insert("a".to_owned(), "0000000000000001".to_owned());
    held.insert("gone".to_owned(), "whatever another control plane called it".to_owned());
    bench.request(Request::Delta(DeltaDiscoveryRequest {
        type_url: Cds.type_url().to_owned(),
        initial_resource_versions: held,
        ..Default::default()
    }));
    let clusters = bench.advance();
    assert_eq!(show(&clusters), ["cds +a"], "`gone` stays: its old routes may use it");
    bench.ack_all(&clusters);
    bench.request(Request::Delta(DeltaDiscoveryRequest {
        type_url: Eds.type_url().to_owned(),
        resource_names_subscribe: vec!["a".to_owned(), "b".to_owned()],
        initial_resource_versions: ["a", "b"].map(|it| (it.to_owned(), bench.world.version(Eds, it))).into(),
        ..Default::default()
    }));
    assert!(bench.advance().is_empty(), "known endpoints are not sent again");
    bench.subscribe(Lds, &[]);
    bench.subscribe(Rds, &["80"]);
    let routes = bench.advance();
    assert_eq!(show(&routes), ["lds +listener", "rds +80"]);
    bench.ack_all(&routes);
    assert_eq!(show(&bench.advance()), ["cds -gone"]);
}

#[test]
fn a_resubscribed_name_is_sent_again() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.subscribe(Eds, &["a"]);
    assert_eq!(show(&bench.advance()), ["eds +a"]);
}

#[test]
fn what_is_unsubscribed_is_not_sent() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.request(Request::Delta(DeltaDiscoveryRequest {
        type_url: Eds.type_url().to_owned(),
        resource_names_unsubscribe: vec!["a".to_owned()],
        ..Default::default()
    }));
    bench.world.put(Eds, "a", "2");
    bench.world.put(Eds, "b", "2");
    bench.mark_all();
    assert_eq!(show(&bench.advance()), ["eds +b"]);
}

#[test]
fn unknown_types_are_noted_and_harmless() {
    let mut bench = Bench::settled(Mode::Delta);
    bench.request(Request::Delta(DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig".to_owned(),
        ..Default::default()
    }));
    assert!(bench.advance().is_empty());
    assert_eq!(bench.observed(|it| matches!(it, Observed::UnknownType { .. })), 1);
}

#[test]
fn too_many_names_end_the_stream() {
    let mut bench = Bench::new(Mode::Delta);
    let names = (0..=MAX_NAMES).map(|number| number.to_string()).collect();
    let request = Request::Delta(DeltaDiscoveryRequest {
        type_url: Eds.type_url().to_owned(),
        resource_names_subscribe: names,
        ..Default::default()
    });
    assert_eq!(bench.stream.request(request, bench.now), Err(BadRequest::TooManyNames(Eds)));
}

#[test]
fn a_stream_is_settled_when_the_client_has_answered_everything() {
    let settled = |it: &Observed| matches!(it, Observed::Settled { complete: true });
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut bench = Bench::settled(mode);
        assert!(bench.observed(settled) > 0, "{mode:?}");
        bench.advance();
        assert_eq!(bench.observed(settled), 0, "{mode:?}: nothing new");
        // What may have changed and did not.
        bench.mark_all();
        bench.advance();
        assert_eq!(bench.observed(settled), 1, "{mode:?}");
        bench.world.put(Cds, "a", "2");
        bench.world.put(Rds, "80", "2");
        bench.mark_all();
        let mut sent = bench.advance();
        assert_eq!(bench.observed(settled), 0, "{mode:?}: clusters are not answered, routes not even sent");
        loop {
            bench.ack_all(&sent);
            let next = bench.advance();
            if next.is_empty() {
                break;
            }
            assert_eq!(bench.observed(settled), 0, "{mode:?}");
            sent = next;
        }
        assert_eq!(bench.observed(settled), 1, "{mode:?}");
        bench.world.put(Rds, "80", "bad");
        bench.mark_all();
        let sent = bench.advance();
        bench.answer(&sent[0], Some("80: bad"));
        bench.advance();
        assert_eq!(bench.observed(|it| matches!(it, Observed::Settled { complete: false })), 1, "{mode:?}");
        bench.world.put(Rds, "80", "lost");
        bench.mark_all();
        bench.advance();
        bench.after(ANSWER_TIMEOUT);
        assert_eq!(bench.observed(|it| matches!(it, Observed::Settled { complete: false })), 1, "{mode:?}: no answer");
    }
}
