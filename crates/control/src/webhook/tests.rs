use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;

fn hooks() -> Hooks {
    let hooks = Hooks::new(Arc::new(Shared::new()), "istio-system");
    hooks.take(defaults(""));
    hooks
}

fn review(kind: (&str, &str, &str), object: &Value) -> Value {
    let (group, version, kind) = kind;
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": group, "version": version, "kind": kind},
            "namespace": "default",
            "operation": "CREATE",
            "object": object,
        },
    })
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}})
}

fn ask(hooks: &Hooks, path: &str, review: &Value) -> Value {
    let answer = hooks.answer(path, review.to_string().as_bytes());
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    serde_json::from_str(&answer.body).expect("an answer in JSON")
}

fn patched(pod: &Value, answer: &Value) -> Value {
    let patch = answer["response"]["patch"].as_str().expect("a patch");
    let patch: json_patch::Patch =
        serde_json::from_slice(&STANDARD.decode(patch).expect("base64")).expect("a JSON patch");
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).expect("a patch that fits");
    pod
}

#[test]
fn a_pod_gets_its_sidecar_and_the_variables_of_the_path() {
    let hooks = hooks();
    let answer = ask(&hooks, "/inject/cluster/east/net/n--slash--1", &review(("", "v1", "Pod"), &pod()));
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], "u-1");
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let pod = patched(&pod(), &answer);
    let proxy = &pod["spec"]["initContainers"][1];
    assert_eq!(proxy["name"], "istio-proxy");
    let env = proxy["env"].as_array().expect("an environment");
    for (name, value) in [("ISTIO_META_CLUSTER_ID", "east"), ("ISTIO_META_NETWORK", "n/1")] {
        let found: Vec<_> = env.iter().filter(|one| one["name"] == name).map(|one| &one["value"]).collect();
        assert_eq!(found, [value], "{name}");
    }
    assert_eq!(pod["metadata"]["labels"]["topology.istio.io/network"], "n/1");
    assert!(hooks.shared.metrics.webhooks.text().contains("sidecar_injection_success_total 1\n"));
}

#[test]
fn the_older_version_is_answered_in_kind() {
    let mut question = review(("", "v1", "Pod"), &pod());
    question["apiVersion"] = "admission.k8s.io/v1beta1".into();
    let answer = ask(&hooks(), "/inject", &question);
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
    assert_eq!(answer["response"]["allowed"], true);
}

#[test]
fn what_is_no_pod_or_is_deleted_is_let_through() {
    let mut deleted = review(("", "v1", "Pod"), &Value::Null);
    deleted["request"]["operation"] = "DELETE".into();
    for question in [review(("apps", "v1", "Deployment"), &json!({})), deleted] {
        let answer = ask(&hooks(), "/inject", &question);
        assert_eq!(answer["response"], json!({"uid": "u-1", "allowed": true}));
    }
}

#[test]
fn a_pod_that_cannot_be_injected_is_refused_with_the_reason() {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"sidecar.istio.io/interceptionMode": "BOTH"});
    let answer = ask(&hooks(), "/inject", &review(("", "v1", "Pod"), &pod));
    assert_eq!(answer["response"]["allowed"], false);
    let message = answer["response"]["status"]["message"].as_str().expect("a message");
    assert!(message.contains("interceptionMode") && message.contains("write REDIRECT"), "{message}");
}

#[test]
fn without_settings_the_api_server_is_told_to_come_again() {
    let hooks = Hooks::new(Arc::new(Shared::new()), "istio-system");
    let answer = hooks.answer("/inject", review(("", "v1", "Pod"), &pod()).to_string().as_bytes());
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    // Validation needs none.
    assert_eq!(hooks.answer("/validate", b"{}").status, StatusCode::BAD_REQUEST);
}

#[test]
fn wrong_configuration_is_refused_with_field_and_remedy() {
    let gateway = ("networking.istio.io", "v1", "Gateway");
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "default"},
        "spec": {"sevrers": []},
    });
    let answer = ask(&hooks(), "/validate", &review(gateway, &object));
    assert_eq!(answer["response"]["allowed"], false);
    let message = answer["response"]["status"]["message"].as_str().expect("a message");
    assert!(message.contains("spec.sevrers") && message.contains("did you mean `servers`"), "{message}");
    // The very words of `mizzen validate`, which has a position more.
    let told = mizzen_config::parse("f", &object.to_string()).findings;
    let told: Vec<String> = told
        .into_iter()
        .filter(|finding| finding.severity == mizzen_types::Severity::Error)
        .map(|finding| mizzen_config::report::line(&mizzen_types::Finding { position: None, ..finding }))
        .collect();
    assert_eq!(message, told.join("\n"));
}

#[test]
fn a_probe_of_the_webhook_is_refused() {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "default"},
        "spec": {},
    });
    let answer = ask(&hooks(), "/validate", &review(("networking.istio.io", "v1", "Gateway"), &object));
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
}

#[test]
fn what_asks_for_a_refusal_is_refused() {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": "s", "namespace": "default", "annotations": {"internal.istio.io/webhook-always-reject": "true"}},
        "spec": {"hosts": ["a.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]},
    });
    let answer = ask(&hooks(), "/validate", &review(("networking.istio.io", "v1", "ServiceEntry"), &object));
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
    let message = answer["response"]["status"]["message"].as_str().expect("a message");
    assert!(message.contains("webhook-always-reject") && message.contains("take the annotation away"), "{message}");
}

#[test]
fn unknown_kinds_are_none_of_our_business() {
    for kind in [("example.org", "v1", "Thing"), ("networking.istio.io", "v9", "Gateway")] {
        let object = json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "t"}});
        let answer = ask(&hooks(), "/validate", &review(kind, &object));
        assert_eq!(answer["response"], json!({"uid": "u-1", "allowed": true}));
    }
}

#[test]
fn warnings_come_back_as_admission_warnings() {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "v", "namespace": "default"},
        "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}], "corsPolicy": {"allowOrigins": []}, "delegate": {"name": "other"}}]},
    });
    let answer = ask(&hooks(), "/validate", &review(("networking.istio.io", "v1", "VirtualService"), &object));
    let said = mizzen_config::parse("f", &object.to_string()).findings;
    let expected = said.iter().any(|finding| finding.severity == mizzen_types::Severity::Warning);
    assert_eq!(answer["response"].get("warnings").is_some(), expected, "{answer}\n{said:?}");
}

#[test]
fn nonsense_is_refused_and_counted() {
    let hooks = hooks();
    let deep = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","kind":{{"kind":"Pod"}},"object":{}1{}}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let no_uid = review(("", "v1", "Pod"), &pod()).to_string().replace("u-1", "");
    let bodies: [&[u8]; 6] = [b"", b"{", b"[]", b"{\"kind\":\"AdmissionReview\"}", b"\xff\xfe", no_uid.as_bytes()];
    for path in ["/inject", "/validate"] {
        for body in bodies {
            assert_eq!(hooks.answer(path, body).status, StatusCode::BAD_REQUEST);
        }
    }
    assert_eq!(hooks.answer("/inject", deep.as_bytes()).status, StatusCode::BAD_REQUEST);
    // Here an object that is too deep is told from a question that is none.
    let answer = hooks.answer("/validate", deep.as_bytes());
    assert!(answer.body.contains("\"allowed\":false") && answer.body.contains("levels deep"), "{}", answer.body);
    assert_eq!(hooks.answer("/elsewhere", b"{}").status, StatusCode::NOT_FOUND);
    assert_eq!(hooks.answer("/injected", b"{}").status, StatusCode::NOT_FOUND);
    assert!(hooks.shared.metrics.webhooks.text().contains("galley_validation_http_error 13\n"));
}

async fn send(request: Request<Full<Bytes>>) -> StatusCode {
    serve::answer(&hooks(), &Semaphore::new(1), request).await.status
}

#[tokio::test]
async fn requests_that_are_none_are_refused_before_they_are_read() {
    let json = || Request::post("/inject").header("content-type", "application/json; charset=utf-8");
    let body = |bytes: usize| Full::new(Bytes::from(vec![b' '; bytes]));
    assert_eq!(send(Request::get("/inject").body(body(0)).expect("a request")).await, StatusCode::METHOD_NOT_ALLOWED);
    let plain = Request::post("/inject").header("content-type", "text/plain").body(body(2)).expect("a request");
    assert_eq!(send(plain).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let untyped = Request::post("/inject").body(body(2)).expect("a request");
    assert_eq!(send(untyped).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(send(json().body(body(0)).expect("a request")).await, StatusCode::BAD_REQUEST);
    let large = json().body(body(serve::LARGEST_BODY + 1)).expect("a request");
    assert_eq!(send(large).await, StatusCode::PAYLOAD_TOO_LARGE);
    let good = json().body(Full::new(Bytes::from(review(("", "v1", "Pod"), &pod()).to_string())));
    assert_eq!(send(good.expect("a request")).await, StatusCode::OK);
}
