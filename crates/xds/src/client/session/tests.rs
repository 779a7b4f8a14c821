//! The client's protocol against a hand-written server: reconnects, nonces, ACK and NACK.

use super::*;
use crate::ResourceType::{Cluster as Cds, Endpoint as Eds, Listener as Lds, Route as Rds};
use crate::wire::NamedResource;

fn names(names: &[&str]) -> Subscription {
    Subscription::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

fn session(mode: Mode) -> Session {
    let mut session = Session::new(mode, Node { id: "node".to_owned(), ..Default::default() });
    session.subscribe(Rds, names(&["80"]));
    session.subscribe(Lds, Subscription::Wildcard);
    session.subscribe(Eds, names(&["a", "b"]));
    session.subscribe(Cds, Subscription::Wildcard);
    session
}

fn delta(kind: ResourceType, nonce: &str, resources: &[(&str, &str)], removed: &[&str]) -> DeltaResponse {
    let resource = |(name, version): &(&str, &str)| NamedResource {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        resource: Some(Any { type_url: kind.type_url().to_owned(), value: Bytes::from_static(b"body") }),
    };
    DeltaResponse {
        resources: resources.iter().map(resource).collect(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_owned(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn sotw(kind: ResourceType, version: &str, nonce: &str, resources: &[&str]) -> SotwResponse {
    let any = |name: &&str| {
        let mut value = vec![10, u8::try_from(name.len()).unwrap()];
        value.extend(name.as_bytes());
        Any { type_url: kind.type_url().to_owned(), value: value.into() }
    };
    SotwResponse {
        version_info: version.to_owned(),
        resources: resources.iter().map(any).collect(),
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_owned(),
    }
}

#[track_caller]
fn as_delta(request: impl IntoIterator<Item = Request>) -> DeltaDiscoveryRequest {
    match request.into_iter().next() {
        Some(Request::Delta(request)) => request,
        other => panic!("a delta request, not {other:?}"),
    }
}

#[track_caller]
fn as_sotw(request: impl IntoIterator<Item = Request>) -> DiscoveryRequest {
    match request.into_iter().next() {
        Some(Request::Sotw(request)) => request,
        other => panic!("a state-of-the-world request, not {other:?}"),
    }
}

fn refusal(name: &str) -> Vec<Refusal> {
    vec![Refusal { name: name.to_owned(), message: "no".to_owned() }]
}

#[test]
fn types_are_asked_for_in_order_and_only_the_first_request_has_the_node() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let requests = session(mode).connected();
        let order: Vec<_> = requests.iter().map(|it| ResourceType::from_type_url(it.type_url()).unwrap()).collect();
        assert_eq!(order, [Cds, Eds, Lds, Rds]);
        let with_node = |request: &Request| match request {
            Request::Delta(request) => request.node.is_some(),
            Request::Sotw(request) => request.node.is_some(),
        };
        assert_eq!(requests.iter().map(with_node).collect::<Vec<_>>(), [true, false, false, false]);
    }
}

#[test]
fn nothing_is_asked_for_an_empty_set_of_names() {
    let mut session = Session::new(Mode::Delta, Node::default());
    session.subscribe(Eds, names(&[]));
    assert!(session.connected().is_empty(), "it would mean everything");
    let request = as_delta(session.subscribe(Eds, names(&["a"])));
    assert_eq!(request.resource_names_subscribe, ["a"]);
    let request = as_delta(session.subscribe(Eds, names(&[])));
    assert_eq!(request.resource_names_unsubscribe, ["a"], "but leaving the last one is said");
}

#[test]
fn delta_subscriptions_are_sent_as_differences() {
    let mut session = session(Mode::Delta);
    session.connected();
    let request = as_delta(session.subscribe(Eds, names(&["b", "c"])));
    assert_eq!(request.resource_names_subscribe, ["c"]);
    assert_eq!(request.resource_names_unsubscribe, ["a"]);
    assert_eq!(request.response_nonce, "", "it answers nothing");
    assert_eq!(session.subscribe(Eds, names(&["b", "c"])), None);
}

#[test]
fn an_update_is_answered_with_its_nonce() {
    let mut session = session(Mode::Delta);
    session.connected();
    let update = session.delta_response(delta(Cds, "n1", &[("a", "1")], &[])).unwrap();
    let ack = as_delta(session.answer(update.id, Vec::new()));
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n1", None));

    let update = session.delta_response(delta(Cds, "n2", &[("a", "2")], &[])).unwrap();
    let nack = as_delta(session.answer(update.id, refusal("a")));
    assert_eq!(nack.response_nonce, "n2");
    assert_eq!(nack.error_detail.unwrap().message, "a: no");
    assert_eq!(session.answer(update.id, Vec::new()), [], "only once");
}

#[test]
fn after_a_reconnect_delta_tells_what_was_accepted() {
    let mut session = session(Mode::Delta);
    session.connected();
    let update = session.delta_response(delta(Cds, "1", &[("a", "1"), ("b", "1"), ("c", "1")], &[])).unwrap();
    session.answer(update.id, Vec::new());
    let update = session.delta_response(delta(Cds, "2", &[("a", "2"), ("b", "2")], &["c"])).unwrap();
    session.answer(update.id, refusal("b"));
    session.disconnected();
    let mut requests = session.connected();
    let request = as_delta(Some(requests.remove(0)));
    let held = request.initial_resource_versions;
    assert_eq!(held.len(), 2);
    assert_eq!((held["a"].as_str(), held["b"].as_str()), ("2", "1"), "the refused one is held in its old version");
    assert!(request.resource_names_subscribe.is_empty());
    assert!(request.node.is_some(), "every stream needs the node");
}

#[test]
fn a_new_stream_begins_when_the_updates_of_the_last_are_answered() {
    let mut session = session(Mode::Delta);
    session.connected();
    let first = session.delta_response(delta(Cds, "1", &[("a", "1")], &[])).unwrap();
    let second = session.delta_response(delta(Lds, "2", &[("x", "1")], &[])).unwrap();
    session.disconnected();
    assert_eq!(session.connected(), [], "what it holds is about to change");
    assert_eq!(session.subscribe(Rds, names(&["80", "81"])), None);
    assert_eq!(session.answer(first.id, Vec::new()), [], "its nonce means nothing on the new stream");
    let requests = session.answer(second.id, Vec::new());
    assert_eq!(requests.len(), 4);
    assert_eq!(as_delta(requests[..1].to_vec()).initial_resource_versions["a"], "1");
    assert_eq!(as_delta(requests[3..].to_vec()).resource_names_subscribe, ["80", "81"]);
}

#[test]
fn subscriptions_made_while_disconnected_are_sent_at_the_next_connect() {
    let mut session = session(Mode::Delta);
    session.connected();
    session.disconnected();
    assert_eq!(session.subscribe(Eds, names(&["z"])), None);
    let request = as_delta(session.connected().into_iter().nth(1));
    assert_eq!(request.resource_names_subscribe, ["z"]);
}

#[test]
fn versions_of_unsubscribed_names_are_forgotten() {
    let mut session = session(Mode::Delta);
    session.connected();
    let update = session.delta_response(delta(Eds, "1", &[("a", "1"), ("b", "1")], &[])).unwrap();
    session.answer(update.id, Vec::new());
    session.subscribe(Eds, names(&["b"]));
    session.disconnected();
    let request = as_delta(session.connected().into_iter().nth(1));
    assert_eq!(request.initial_resource_versions.into_keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_resource_of_another_type_is_refused_and_the_rest_is_handed_over() {
    let mut session = session(Mode::Delta);
    session.connected();
    let mut response = delta(Cds, "1", &[("a", "1"), ("b", "1")], &[]);
    response.resources[0].resource.as_mut().unwrap().type_url = "type.googleapis.com/other".to_owned();
    let update = session.delta_response(response).unwrap();
    assert_eq!(update.resources.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let nack = as_delta(session.answer(update.id, Vec::new()));
    assert!(nack.error_detail.unwrap().message.starts_with("a: has type"));
}

#[test]
fn responses_of_types_never_asked_for_are_dropped() {
    let mut session = Session::new(Mode::Delta, Node::default());
    session.subscribe(Cds, Subscription::Wildcard);
    session.connected();
    assert_eq!(session.delta_response(delta(Lds, "1", &[("x", "1")], &[])), None);
    let unknown = DeltaResponse { type_url: "nonsense".to_owned(), ..Default::default() };
    assert_eq!(session.delta_response(unknown), None);
}

#[test]
fn sotw_repeats_the_last_good_version_in_a_nack_and_all_names() {
    let mut session = session(Mode::Sotw);
    session.connected();
    let update = session.sotw_response(sotw(Rds, "v1", "n1", &["80"])).unwrap();
    assert_eq!(update.resources[0].name, "80");
    assert!(!update.full, "a set of routes does not say what is gone");
    let ack = as_sotw(session.answer(update.id, Vec::new()));
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str()), ("v1", "n1"));
    assert_eq!(ack.resource_names, ["80"]);

    let update = session.sotw_response(sotw(Rds, "v2", "n2", &["80"])).unwrap();
    let nack = as_sotw(session.answer(update.id, refusal("80")));
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("v1", "n2"));
    assert_eq!(nack.resource_names, ["80"]);
    let more = as_sotw(session.subscribe(Rds, names(&["80", "81"])));
    assert_eq!((more.version_info.as_str(), more.response_nonce.as_str()), ("v1", "n2"));
}

#[test]
fn sotw_clusters_are_a_whole_set() {
    let mut session = session(Mode::Sotw);
    session.connected();
    assert!(session.sotw_response(sotw(Cds, "1", "1", &["a"])).unwrap().full);
    let mut with_garbage = sotw(Cds, "2", "2", &["a"]);
    let garbage = Any { type_url: Cds.type_url().to_owned(), value: Bytes::from_static(&[0xff; 9]) };
    with_garbage.resources.push(garbage);
    let update = session.sotw_response(with_garbage).unwrap();
    assert!(!update.full, "the unreadable one may be any of those that seem to be missing");
    assert!(as_sotw(session.answer(update.id, Vec::new())).error_detail.is_some());
}
