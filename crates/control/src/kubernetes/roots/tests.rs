#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::kubernetes::fake::{Fake, failure};

fn namespace(fake: &Fake, name: &str) {
    fake.put(&format!("/api/v1/namespaces/{name}"), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}}));
}

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}")
}

fn said(fake: &Fake, namespace: &str) -> Option<Value> {
    Some(fake.get(&path(namespace))?["data"][KEY].clone())
}

#[tokio::test]
async fn every_namespace_has_the_roots_whatever_happens() {
    let fake = Fake::new();
    for name in ["default", "shop", "kube-system"] {
        namespace(&fake, name);
    }
    let (new_roots, roots) = watch::channel::<Arc<str>>("ONE".into());
    let task = tokio::spawn(distribute(fake.place("a"), roots, Leading::always()));
    let has =
        |name: &'static str, pem: &'static str| move |fake: &Fake| said(fake, name).is_some_and(|said| said == pem);
    fake.until("the namespaces that were there", |fake| has("default", "ONE")(fake) && has("shop", "ONE")(fake)).await;
    assert_eq!(fake.get(&path("default")).unwrap()["metadata"]["labels"]["istio.io/config"], "true");
    namespace(&fake, "new");
    fake.until("a new namespace", has("new", "ONE")).await;
    fake.delete(&path("shop"));
    fake.until("one that was deleted", has("shop", "ONE")).await;
    let mut changed = fake.get(&path("shop")).unwrap();
    changed["data"] = json!({KEY: "else", "other": "kept"});
    fake.put(&path("shop"), changed);
    fake.until("one that was changed", has("shop", "ONE")).await;
    assert_eq!(fake.get(&path("shop")).unwrap()["data"]["other"], "kept");
    fake.hook(|method, _, _| (*method == http::Method::PATCH).then(|| failure(500, "away")));
    new_roots.send_replace("TWO".into());
    fake.hook(|_, _, _| None);
    for name in ["default", "shop", "new"] {
        fake.until("new roots", has(name, "TWO")).await;
    }
    assert_eq!(said(&fake, "kube-system"), None);
    assert!(!task.is_finished());
}

#[tokio::test]
async fn what_is_right_is_not_written_again() {
    let fake = Fake::new();
    for name in ["a", "b"] {
        namespace(&fake, name);
    }
    fake.put(&path("a"), json!({"metadata": {}, "data": {KEY: "ONE"}}));
    let (_new_roots, roots) = watch::channel::<Arc<str>>("ONE".into());
    tokio::spawn(distribute(fake.place("a"), roots, Leading::always()));
    fake.until("the one that is missing", |fake| said(fake, "b").is_some()).await;
    assert_eq!(fake.writes(&path("a")), 0);
    assert_eq!(fake.writes(&path("b")), 1);
}

#[tokio::test]
async fn they_go_with_the_webhooks_of_the_revision() {
    let fake = Fake::new();
    let hooks = |name: &str, extra: Value| {
        let mut labels = json!({"app": "sidecar-injector", "istio.io/rev": "default"});
        labels.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}");
        fake.put(&path, json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "labels": labels}}));
    };
    hooks("a-tag", json!({"istio.io/tag": "stable"}));
    hooks("istio-sidecar-injector", json!({}));
    namespace(&fake, "shop");
    let (_new_roots, roots) = watch::channel::<Arc<str>>("ONE".into());
    tokio::spawn(distribute(fake.place("a"), roots, Leading::always()));
    fake.until("the roots", |fake| said(fake, "shop").is_some()).await;
    let owners = fake.get(&path("shop")).unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!(owners[0]["uid"], "uid-istio-sidecar-injector", "{owners}");
    assert_eq!(owners[0]["kind"], "MutatingWebhookConfiguration");
}
