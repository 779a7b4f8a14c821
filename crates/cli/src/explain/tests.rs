use super::*;

#[test]
fn questions_are_written_as_for_curl() {
    let question = Question::parse("get", "reviews:9080/reviews/0?a=b", &["end-user: jason".into()]).expect("valid");
    assert_eq!(question.method, Method::GET);
    assert_eq!((question.authority().as_str(), question.port()), ("reviews:9080", 9080));
    assert_eq!(question.headers["end-user"], "jason");
    let question = Question::parse("GET", "http://127.0.0.1:8080/x", &["Host: shop.test".into()]).expect("valid");
    assert_eq!((question.authority().as_str(), question.port()), ("shop.test", 8080));
    assert_eq!(Question::parse("GET", "https://a/", &[]).expect("valid").port(), 443);
}

#[test]
fn what_is_wrong_with_a_question_is_said() {
    for (method, url, headers, word) in [
        ("G ET", "http://a/", vec![], "method"),
        ("GET", "http://", vec![], "URL"),
        ("GET", "http://a/", vec!["nonsense".to_owned()], "name: value"),
        ("GET", "http://a/", vec!["a b: c".to_owned()], "header name"),
    ] {
        let error = Question::parse(method, url, &headers).expect_err("invalid");
        assert!(error.to_string().contains(word), "{error} has {word}");
    }
}

fn instance(node: &str, proxy_port: Option<&str>) -> Instance {
    let address: SocketAddr = "127.64.1.1:15000".parse().expect("an address");
    Instance {
        workload: "web".into(),
        pod: "web-0".into(),
        namespace: "default".into(),
        node: node.into(),
        metadata: proxy_port.map_or_else(|| json!({}), |port| json!({"HTTP_PROXY_PORT": port})),
        address: String::new(),
        admin: address,
        health: address,
        stats: address,
        identity: String::new(),
        state: String::new(),
        bootstrap: Default::default(),
        logs: Default::default(),
        sandbox: None,
    }
}

#[test]
fn a_proxy_without_the_listener_says_what_it_has() {
    let question = Question::parse("GET", "http://reviews:9080/", &[]).expect("valid");
    let sidecar = instance("sidecar~127.64.1.1~web-0.default~default.svc.cluster.local", Some("15002"));
    let error = listener(&Snapshot::default(), &sidecar, &question, &BTreeMap::new()).expect_err("no listener");
    assert!(error.to_string().contains("no listener at all"), "{error}");
}

#[test]
fn the_observer_has_the_proxy_s_node() {
    let node = observe::node(&instance("sidecar~1~a.b~b.svc.cluster.local", Some("15002")));
    let metadata = node.metadata.expect("metadata");
    assert_eq!(node.id, "sidecar~1~a.b~b.svc.cluster.local");
    assert!(metadata.fields.contains_key("MIZZEN_OBSERVER") && metadata.fields.contains_key("HTTP_PROXY_PORT"));
}
