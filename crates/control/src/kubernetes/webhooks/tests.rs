#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use http::Method;
use serde_json::json;
use tokio::sync::watch;

use super::*;
use crate::kubernetes::fake::{Fake, failure};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector";
const VALIDATING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-validator-istio-system";

fn configuration(app: &str, revision: &str) -> Value {
    let hook = |name: &str| {
        json!({"name": name, "clientConfig": {"service": {"name": "istiod", "namespace": "istio-system"}},
            "failurePolicy": "Ignore", "sideEffects": "None", "admissionReviewVersions": ["v1"]})
    };
    json!({"metadata": {"labels": {"app": app, "istio.io/rev": revision}}, "webhooks": [hook("one"), hook("two")]})
}

fn bundles(fake: &Fake, path: &str) -> Vec<Value> {
    let object = fake.get(path).unwrap();
    object["webhooks"].as_array().unwrap().iter().map(|hook| hook["clientConfig"]["caBundle"].clone()).collect()
}

#[tokio::test]
async fn bundles_of_this_revision_are_kept_at_the_roots() {
    let fake = Fake::new();
    let other = format!("{MUTATING}-canary");
    fake.put(MUTATING, configuration("sidecar-injector", "default"));
    fake.put(&other, configuration("sidecar-injector", "canary"));
    let (new_roots, roots) = watch::channel::<Arc<str>>("ONE".into());
    tokio::spawn(keep(fake.place("a"), roots, Leading::always()));
    let (one, two) = (json!("T05F"), json!("VFdP"));
    fake.until("the bundle", |fake| bundles(fake, MUTATING) == [one.clone(), one.clone()]).await;
    let mut changed = fake.get(MUTATING).unwrap();
    changed["webhooks"][1]["clientConfig"]["caBundle"] = json!("eA==");
    fake.put(MUTATING, changed);
    fake.until("the bundle again", |fake| bundles(fake, MUTATING) == [one.clone(), one.clone()]).await;
    new_roots.send_replace("TWO".into());
    fake.until("the new bundle", |fake| bundles(fake, MUTATING) == [two.clone(), two.clone()]).await;
    assert_eq!(bundles(&fake, &other), [Value::Null, Value::Null]);
    assert_eq!(fake.get(MUTATING).unwrap()["webhooks"][0]["failurePolicy"], "Ignore");
}

#[tokio::test]
async fn refusal_is_mandatory_once_the_webhook_answers() {
    let fake = Fake::new();
    fake.put(VALIDATING, configuration("istiod", "default"));
    fake.hook(|method, path, _| {
        (*method == Method::POST && path.contains("/gateways")).then(|| failure(500, "failed calling webhook \"one\""))
    });
    let (_new_roots, roots) = watch::channel::<Arc<str>>("ONE".into());
    tokio::spawn(keep(fake.place("a"), roots, Leading::always()));
    fake.until("the bundle", |fake| bundles(fake, VALIDATING)[1] == json!("T05F")).await;
    let policy = |fake: &Fake, index: usize| fake.get(VALIDATING).unwrap()["webhooks"][index]["failurePolicy"].clone();
    assert_eq!(policy(&fake, 0), "Ignore");
    fake.hook(|method, path, _| {
        let probe = *method == Method::POST && path.contains("/gateways");
        probe.then(|| failure(400, "admission webhook \"one\" denied the request: no server"))
    });
    fake.until("the policy", |fake| policy(fake, 0) == "Fail" && policy(fake, 1) == "Fail").await;
}

#[test]
fn a_patch_fails_on_what_was_changed_meanwhile_and_is_empty_when_all_is_right() {
    let mut hooks: ValidatingWebhookConfiguration = serde_json::from_value(configuration("istiod", "default")).unwrap();
    hooks.metadata.resource_version = Some("7".to_owned());
    let patch = changes(&hooks, "ONE", true);
    assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
    assert_eq!(patch.len(), 3, "the policy waits for the bundle: {patch:?}");
    for hook in hooks.webhooks.iter_mut().flatten() {
        hook.client_config.ca_bundle = Some(ByteString(b"ONE".to_vec()));
    }
    assert_eq!(changes(&hooks, "ONE", false), Vec::<Value>::new());
    assert_eq!(changes(&hooks, "ONE", true).len(), 3);
    for hook in hooks.webhooks.iter_mut().flatten() {
        hook.failure_policy = Some("Fail".to_owned());
    }
    assert_eq!(changes(&hooks, "ONE", true), Vec::<Value>::new());
}
