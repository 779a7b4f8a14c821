use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use mizzen_types::{ObjectKey, Origin};

use super::explain::Verdict;
use super::*;
use crate::cluster::*;
use crate::header::{HeaderCondition, HeaderKey, HeaderMatch};
use crate::listener::*;
use crate::matcher::StringMatch;
use crate::route::*;

fn cluster(name: &str) -> Arc<Cluster> {
    let endpoint = Endpoint {
        address: EndpointAddress::Socket("10.0.0.1:9080".parse().unwrap()),
        weight: 1,
        health: Health::Healthy,
        transport_labels: vec![],
        hostname: None,
        workload: None,
    };
    let locality = LocalityEndpoints {
        locality: Default::default(),
        priority: 0,
        weight: None,
        endpoints: vec![Arc::new(endpoint)],
    };
    Arc::new(Cluster {
        policy: Arc::new(ClusterPolicy::plain(name.into(), Discovery::Static)),
        endpoints: Arc::new(EndpointSet { localities: vec![locality], overprovisioning: 140 }),
    })
}

fn route(name: &str, prefix: &str, action: Action) -> Route {
    Route {
        name: name.to_owned(),
        matches: RouteMatch {
            path: PathMatch::Prefix { prefix: prefix.into(), ignore_case: false },
            headers: vec![],
            query: vec![],
            grpc: false,
            share: None,
        },
        action,
        request_headers: Default::default(),
        response_headers: Default::default(),
        fault: None,
        cors: None,
        origin: None,
        match_field: None,
        operation: None,
    }
}

fn forward(to: &str) -> Action {
    Action::Forward(Box::new(Forward::to_cluster(to)))
}

fn weighted(clusters: &[(&str, u32)]) -> Action {
    let choice = |(name, weight): &(&str, u32)| WeightedCluster {
        cluster: (*name).into(),
        weight: *weight,
        request_headers: Default::default(),
        response_headers: Default::default(),
        rewrite_host: None,
    };
    let total = clusters.iter().map(|(_, weight)| weight).sum();
    let target = Target::Weighted { clusters: clusters.iter().map(choice).collect(), total };
    Action::Forward(Box::new(Forward { target, ..Forward::to_cluster("unused") }))
}

/// The routes of Istio's sample `virtual-service-reviews-test-v2`, a weighted one, and others.
fn snapshot() -> (Snapshot, HttpHandler) {
    let mut jason = route("jason", "/", forward("outbound|9080|v2|reviews"));
    jason.matches.headers.push(HeaderMatch {
        name: HeaderKey::Name("end-user".parse().unwrap()),
        condition: HeaderCondition::Matches(StringMatch::exact("jason")),
        invert: false,
        missing_as_empty: false,
    });
    let object = ObjectKey::new("VirtualService", "default", "reviews");
    jason.origin = Some(Origin { object, field: "spec.http[0]".to_owned() });
    let rest = route("default", "/", forward("outbound|9080|v1|reviews"));
    let reviews = VirtualHost {
        name: "reviews:9080".to_owned(),
        domains: vec!["reviews".to_owned()],
        routes: vec![Arc::new(jason), Arc::new(rest)],
        ..VirtualHost::default()
    };
    let redirect = Redirect {
        status: StatusCode::FOUND,
        scheme: None,
        host: Some("new".to_owned()),
        port: None,
        path: None,
        strip_query: false,
    };
    let response = DirectResponse { status: StatusCode::BAD_GATEWAY, body: Arc::from(&b"no"[..]) };
    let other = VirtualHost {
        name: "other".to_owned(),
        domains: vec!["other".to_owned()],
        routes: vec![
            Arc::new(route(
                "split",
                "/split",
                weighted(&[("outbound|9080|v1|reviews", 90), ("outbound|9080|v2|reviews", 10)]),
            )),
            Arc::new(route("gone", "/gone", forward("outbound|9080|v9|reviews"))),
            Arc::new(route("redirect", "/redirect", Action::Redirect(Box::new(redirect)))),
            Arc::new(route("respond", "/respond", Action::Respond(Box::new(response)))),
        ],
        ..VirtualHost::default()
    };
    let secure = VirtualHost {
        name: "secure".to_owned(),
        domains: vec!["secure".to_owned()],
        require_tls: true,
        ..VirtualHost::default()
    };
    let hosts = vec![Arc::new(reviews), Arc::new(other), Arc::new(secure)];
    let mut table = RouteTable::new("9080".into(), hosts);
    table.ignore_port_in_host = true;
    let mut snapshot = Snapshot::default();
    snapshot.routes.insert_mut("9080".into(), Arc::new(table));
    for name in ["outbound|9080||reviews", "outbound|9080|v1|reviews", "outbound|9080|v2|reviews"] {
        snapshot.clusters.insert_mut(name.into(), cluster(name));
    }
    (snapshot, HttpHandler::plain(crate::http::RouteSource::Named("9080".into())))
}

fn view<'a>(authority: &'a str, path_and_query: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView { method: &Method::GET, authority, scheme: "http", path_and_query, headers, client_ip: None }
}

fn decide(authority: &str, path: &str, headers: &HeaderMap, draws: Draws) -> Plan {
    let (snapshot, handler) = snapshot();
    plan(&snapshot, &handler, &view(authority, path, headers), draws)
}

#[track_caller]
fn check(authority: &str, path: &str, headers: &HeaderMap, weight: u32, expect: &str) {
    match decide(authority, path, headers, Draws { weight, ..Draws::default() }) {
        Plan::Forward(plan) => assert_eq!(plan.cluster.policy.name.as_str(), expect),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(authority: &str, path: &str, expect: NoPlan) {
    match decide(authority, path, &HeaderMap::new(), Draws::default()) {
        Plan::Refuse(no) => assert_eq!(no, expect),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_matching_route_wins() {
    let none = HeaderMap::new();
    let mut jason = HeaderMap::new();
    jason.insert("end-user", HeaderValue::from_static("jason"));
    check("reviews:9080", "/reviews/0", &jason, 0, "outbound|9080|v2|reviews");
    check("reviews:9080", "/reviews/0", &none, 0, "outbound|9080|v1|reviews");
}

#[test]
fn weights_share_the_draws() {
    let none = HeaderMap::new();
    check("other", "/split", &none, 0, "outbound|9080|v1|reviews");
    check("other", "/split", &none, 89, "outbound|9080|v1|reviews");
    check("other", "/split", &none, 90, "outbound|9080|v2|reviews");
    check("other", "/split", &none, 199, "outbound|9080|v2|reviews");
}

#[test]
fn what_cannot_be_routed_is_refused_with_its_reason() {
    refused("nobody", "/", NoPlan::NoVirtualHost);
    refused("other", "/", NoPlan::NoRoute { host: "other".to_owned() });
    refused(
        "other",
        "/gone",
        NoPlan::NoCluster {
            cluster: "outbound|9080|v9|reviews".to_owned(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            route: "gone".to_owned(),
        },
    );
    refused("secure", "/a?b", NoPlan::TlsRequired { location: "https://secure/a?b".to_owned() });
    let (_, handler) = snapshot();
    let headers = HeaderMap::new();
    let plan = plan(&Snapshot::default(), &handler, &view("reviews", "/", &headers), Draws::default());
    assert!(matches!(plan, Plan::Refuse(NoPlan::NoRouteTable)));
}

#[test]
fn redirects_and_answers_are_plans() {
    let none = HeaderMap::new();
    let Plan::Redirect { status, location, .. } = decide("other", "/redirect?a", &none, Draws::default()) else {
        panic!("not redirected")
    };
    assert_eq!((status.as_u16(), location.as_str()), (302, "http://new/redirect?a"));
    let Plan::Respond { response, .. } = decide("other", "/respond", &none, Draws::default()) else {
        panic!("not answered")
    };
    assert_eq!((response.status.as_u16(), &*response.body), (502, &b"no"[..]));
}

fn explained(authority: &str, path: &str) -> Explanation {
    let (snapshot, handler) = snapshot();
    let chain = FilterChain {
        name: "http".to_owned(),
        matches: ChainMatch::default(),
        tls: None,
        handler: Handler::Http(Arc::new(handler)),
        handshake_timeout: Some(Duration::from_secs(15)),
    };
    let listener = Listener {
        name: "0.0.0.0_9080".into(),
        address: ListenAddress::Tcp("0.0.0.0:9080".parse().unwrap()),
        bind: true,
        transparent: false,
        use_original_dst: false,
        direction: Direction::Outbound,
        inspect: Inspect::default(),
        chains: vec![Arc::new(chain)],
        default_chain: None,
        drain: Drain::Default,
        max_connections: None,
        unmatched: None,
        notes: Vec::new(),
        origin: None,
        fingerprint: 0,
    };
    let facts = ConnectionFacts {
        destination: "10.96.0.1:9080".parse().unwrap(),
        source: "10.0.0.9:1".parse().unwrap(),
        direct_source: "10.0.0.9".parse().unwrap(),
        transport: Transport::RawBuffer,
        server_name: None,
        application_protocols: &[],
    };
    let headers = HeaderMap::new();
    explain(&snapshot, &listener, &facts, &view(authority, path, &headers), Draws::default())
}

#[test]
fn an_explanation_names_the_winner_and_why_others_lost() {
    let explanation = explained("reviews:9080", "/reviews/0");
    assert_eq!(explanation.table.as_deref(), Some("9080"));
    assert_eq!(explanation.host.as_ref().map(|host| host.name.as_str()), Some("reviews:9080"));
    let [jason, winner] = explanation.routes.as_slice() else { panic!("{:?}", explanation.routes) };
    assert_eq!(jason.reason.as_deref(), Some(r#"header end-user: wanted exact "jason", request has none"#));
    assert_eq!(jason.because.as_ref().map(|because| because.field.as_str()), Some("spec.http[0]"));
    assert!(winner.matched && winner.reason.is_none());
    let Verdict::Forward(step) = &explanation.verdict else { panic!("{:?}", explanation.verdict) };
    let [choice] = step.choices.as_slice() else { panic!("{:?}", step.choices) };
    assert_eq!(choice.cluster.subset.as_deref(), Some("v1"));
    assert_eq!(choice.cluster.endpoints[0].address, "10.0.0.1:9080");
    assert_eq!(choice.cluster.endpoints[0].security, "plaintext");
}

#[test]
fn an_explanation_of_a_missing_subset_says_what_is_missing() {
    let Verdict::Refuse { status, flag, reason } = explained("other", "/gone").verdict else { panic!("not refused") };
    assert_eq!((status, flag.as_deref()), (Some(503), Some("NC")));
    assert!(reason.contains(r#"no DestinationRule in force defines its subset "v9""#), "{reason}");
}
