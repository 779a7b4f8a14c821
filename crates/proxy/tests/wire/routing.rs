//! What routes ask for besides forwarding.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use mizzen_snapshot::cluster::{ClusterPolicy, Discovery};
use mizzen_snapshot::header::{AppendAction, HeaderEdit, HeaderEdits, HeaderTemplate};
use mizzen_snapshot::matcher::StringMatch;
use mizzen_snapshot::route::{
    Abort, Action, Cors, DirectResponse, Fault, Forward, HostRewrite, Mirror, PathRewrite, Redirect,
};
use mizzen_types::Percent;

use crate::support::*;

fn set(name: &'static str, value: &str) -> HeaderEdit {
    HeaderEdit {
        name: http::HeaderName::from_static(name),
        value: HeaderTemplate::parse(value).unwrap(),
        action: AppendAction::OverwriteOrAdd,
        keep_empty: false,
    }
}

#[test]
fn path_host_and_headers_are_rewritten() {
    let mut world = World::to(echo());
    world.forward(|forward| {
        forward.rewrite_path = Some(PathRewrite::Full("/new".into()));
        forward.rewrite_host = Some(HostRewrite::Literal(http::HeaderValue::from_static("other")));
    });
    world.routes[0].request_headers = HeaderEdits {
        remove: vec![http::HeaderName::from_static("x-secret")],
        set: vec![set("x-path", "%REQ(:path)%")],
    };
    world.routes[0].response_headers = HeaderEdits { remove: Vec::new(), set: vec![set("x-out", "1")] };
    let proxy = Proxy::start(world.snapshot());
    let answer = proxy.client().send("GET /old?q=1 HTTP/1.1\r\nhost: t\r\nx-secret: s\r\n\r\n").answer();
    assert!(answer.text().starts_with("GET /new?q=1 HTTP/1.1\r\nhost: other\r\n"), "{}", answer.text());
    assert_eq!(header(answer.text(), "x-secret"), None);
    assert_eq!(header(answer.text(), "x-path"), Some("/old?q=1"));
    assert_eq!(header(answer.text(), "x-envoy-original-path"), Some("/old?q=1"));
    assert_eq!(answer.header("x-out"), Some("1"));
}

#[test]
fn redirects_and_direct_responses_need_no_upstream() {
    let mut world = World::to_all(&[]);
    world.routes[0].action = Action::Redirect(Box::new(Redirect {
        status: StatusCode::FOUND,
        scheme: None,
        host: Some("other".to_owned()),
        port: None,
        path: None,
        strip_query: false,
    }));
    let proxy = Proxy::start(world.snapshot());
    let answer = proxy.client().get("/x?y");
    assert_eq!((answer.status, answer.header("location")), (302, Some("http://other/x?y")));
    let mut world = World::to_all(&[]);
    world.routes[0].action =
        Action::Respond(Box::new(DirectResponse { status: StatusCode::IM_A_TEAPOT, body: b"short".to_vec().into() }));
    let proxy = Proxy::start(world.snapshot());
    let answer = proxy.client().get("/");
    assert_eq!((answer.status, answer.text()), (418, "short"));
}

#[test]
fn faults_are_injected() {
    let mut world = World::to(echo());
    world.routes[0].fault = Some(Arc::new(Fault {
        delay: Some((Duration::from_millis(60), Percent::ALWAYS)),
        abort: Some((Abort::Http(StatusCode::BAD_REQUEST), Percent::ALWAYS)),
    }));
    let proxy = Proxy::start(world.snapshot());
    let began = Instant::now();
    let answer = proxy.client().get("/");
    assert_eq!((answer.status, answer.text()), (400, "fault filter abort"));
    assert!(began.elapsed() >= Duration::from_millis(60));
    assert_eq!(proxy.recorded(1)[0].flags, ["DI", "FI"]);
}

#[test]
fn preflights_are_answered_and_answers_are_marked() {
    let mut world = World::to(echo());
    world.routes[0].cors = Some(Arc::new(Cors {
        origins: vec![StringMatch::exact("http://a")],
        methods: Some("GET".to_owned()),
        headers: None,
        expose_headers: None,
        max_age: None,
        credentials: false,
        forward_unmatched_preflights: true,
    }));
    let proxy = Proxy::start(world.snapshot());
    let mut client = proxy.client();
    let preflight = "OPTIONS / HTTP/1.1\r\nhost: t\r\norigin: http://a\r\naccess-control-request-method: GET\r\n\r\n";
    let answer = client.send(preflight).answer();
    assert_eq!((answer.status, answer.header("access-control-allow-methods")), (200, Some("GET")));
    assert_eq!(answer.text(), "");
    let answer = client.send("GET / HTTP/1.1\r\nhost: t\r\norigin: http://a\r\n\r\n").answer();
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://a"));
}

#[test]
fn a_mirror_gets_a_copy_and_nobody_waits_for_it() {
    let (told, seen) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let shadow = upstream(move |client, _| {
        let (head, body) = request(client).unwrap();
        told.lock().unwrap().send((head, body)).unwrap();
        // It never answers.
        request(client);
    });
    let mut world = World::to(echo());
    world.clusters.push((ClusterPolicy::plain("shadow".into(), Discovery::Static), vec![shadow]));
    world.forward(|forward| {
        forward.mirrors = vec![Mirror { cluster: "shadow".into(), share: Percent::ALWAYS, shadow_host: true }];
    });
    let proxy = Proxy::start(world.snapshot());
    let answer = proxy.client().send("POST / HTTP/1.1\r\nhost: t:80\r\ncontent-length: 4\r\n\r\nbody").answer();
    assert_eq!(answer.status, 200);
    let (head, body) = seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!((header(&head, "host"), body.as_slice()), (Some("t-shadow:80"), &b"body"[..]));
}

#[test]
fn s12_at_the_edge_nothing_a_client_says_about_itself_is_believed() {
    let mut world = World::to(echo());
    world.handler.use_remote_address = true;
    let proxy = Proxy::start(world.snapshot());
    let answer = proxy
        .client()
        .send(
            "GET / HTTP/1.1\r\nhost: t\r\nx-envoy-original-path: /admin\r\nx-envoy-internal: true\r\n\
             x-envoy-retry-on: 5xx\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\nx-request-id: mine\r\n\
             x-forwarded-client-cert: By=spiffe://evil\r\n\r\n",
        )
        .answer();
    let head = answer.text();
    for name in ["x-envoy-original-path", "x-envoy-internal", "x-envoy-retry-on", "x-forwarded-client-cert"] {
        assert_eq!(header(head, name), None, "{head}");
    }
    assert_eq!(header(head, "x-forwarded-for"), Some("10.0.0.1,127.0.0.1"));
    assert_eq!(header(head, "x-forwarded-proto"), Some("http"));
    assert_ne!(header(head, "x-request-id"), Some("mine"));
}

#[test]
fn s13_hosts_are_matched_without_case_port_or_dot() {
    // The virtual host is chosen by the same function for all spellings (security S13).
    let mut world = World::to(echo());
    world.host.domains = vec!["reviews.default".to_owned()];
    world.handler.strip_port = true;
    let proxy = Proxy::start(world.snapshot());
    let mut client = proxy.client();
    for (host, status) in [
        ("reviews.default", 200),
        ("REVIEWS.Default", 200),
        ("reviews.default:9080", 200),
        ("reviews.defaultx", 404),
        ("xreviews.default", 404),
    ] {
        let answer = client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).answer();
        assert_eq!(answer.status, status, "{host}");
    }
}

#[test]
fn s13_a_host_has_one_spelling_only() {
    let mut world = World::to(echo());
    world.host.domains = vec!["xn--bcher-kva.example".to_owned(), "[::1]".to_owned(), "shop.example".to_owned()];
    world.handler.strip_port = true;
    let proxy = Proxy::start(world.snapshot());
    for (host, found) in [
        ("xn--bcher-kva.example", true),
        ("XN--BCHER-KVA.example:80", true),
        ("b\u{fc}cher.example", false),
        ("[::1]", true),
        ("[::1]:9080", true),
        ("[0:0::1]", false),
        ("::1", false),
        ("shop.example", true),
        ("user@shop.example", false),
        ("shop.example:80:80", false),
        ("shop.example/x", false),
        ("shop.example other.example", false),
        ("%73hop.example", false),
    ] {
        let answer = proxy.client().send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).answer();
        assert_eq!(answer.status == 200, found, "{host}: {}", answer.status);
        assert!(found || [400, 404].contains(&answer.status), "{host}: {}", answer.status);
    }
}

#[test]
fn unused_parts_do_not_get_in_the_way() {
    let mut world = World::to(echo());
    world.routes.insert(0, {
        let mut never = route(Forward::to_cluster("missing"));
        never.matches.share = Some(Percent::NEVER);
        never
    });
    let proxy = Proxy::start(world.snapshot());
    assert_eq!(proxy.client().get("/").status, 200);
}
