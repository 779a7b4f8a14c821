#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

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
async fn they_go_with_the_webhooks_of_the_last_revision() {
    let fake = Fake::new();
    let path_of = |name: &str| format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}");
    let hooks = |revision: &str, extra: Value| {
        let name = format!("istio-sidecar-injector-{revision}");
        let mut labels = json!({"app": "sidecar-injector", "istio.io/rev": revision});
        labels.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        fake.put(
            &path_of(&name),
            json!({"metadata": {"name": name, "uid": format!("uid-{revision}"), "labels": labels}}),
        );
        name
    };
    hooks("tag", json!({"istio.io/tag": "stable"}));
    let first = hooks("one", json!({}));
    namespace(&fake, "shop");
    let (_new_roots, roots) = watch::channel::<Arc<str>>("ONE".into());
    tokio::spawn(distribute(fake.place("a"), roots, Leading::always()));
    let owned_by = |uids: &'static [&'static str]| {
        move |fake: &Fake| {
            let map = fake.get(&path("shop")).unwrap_or_default();
            let owners = map["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            // References of revisions that have gone are the garbage collector's.
            let last = owners.len().saturating_sub(uids.len());
            let has = owners[last..].iter().map(|owner| owner["uid"].as_str().unwrap_or_default());
            has.eq(uids.iter().copied())
        }
    };
    fake.until("the first revision", owned_by(&["uid-one"])).await;
    let owners = fake.get(&path("shop")).unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!(owners[0]["kind"], "MutatingWebhookConfiguration", "{owners}");
    // Else the roots would go with the first revision while pods of the second need them.
    let second = hooks("two", json!({}));
    fake.until("both revisions", owned_by(&["uid-one", "uid-two"])).await;
    fake.delete(&path_of(&first));
    fake.delete(&path("shop"));
    fake.until("the second revision", owned_by(&["uid-two"])).await;
    // Written after the last one has gone, they go as well.
    fake.delete(&path_of(&second));
    fake.delete(&path("shop"));
    fake.until("the last one", owned_by(&["uid-two"])).await;
}

fn root() -> String {
    let made =
        mizzen_identity::AuthorityPem::self_signed(&mizzen_types::TrustDomain::default(), std::time::SystemTime::now());
    String::from_utf8(made.unwrap().roots).unwrap()
}

#[tokio::test(start_paused = true)]
async fn two_control_planes_with_authorities_of_their_own_do_not_fight() {
    let fake = Fake::new();
    namespace(&fake, "shop");
    let (one, two, three) = (root(), root(), root());
    let start = |pem: &str| {
        let (sender, roots) = watch::channel::<Arc<str>>(pem.into());
        tokio::spawn(distribute(fake.place("a"), roots, Leading::always()));
        sender
    };
    let of_one = start(&one);
    let holds = |pems: &[&str]| {
        let wanted: BTreeSet<String> = pems.iter().flat_map(|pem| certificates(pem)).collect();
        move |fake: &Fake| {
            said(fake, "shop").is_some_and(|said| certificates(said.as_str().unwrap_or_default()) == wanted)
        }
    };
    fake.until("the first one's", holds(&[&one])).await;
    let _of_two = start(&two);
    fake.until("both", holds(&[&one, &two])).await;
    let writes = fake.writes(&path("shop"));
    tokio::time::sleep(CONTEST * 5).await;
    assert_eq!(fake.writes(&path("shop")), writes, "both are content");
    // What is not the authority of the first one any more goes away.
    of_one.send_replace(three.as_str().into());
    fake.until("the new one beside the other", holds(&[&two, &three])).await;
    // Somebody who knows nothing of this and insists: no race is run with him.
    let other = root();
    let insisting = fake.clone();
    let theirs = other.clone();
    let task = tokio::spawn(async move {
        loop {
            if said(&insisting, "shop").is_none_or(|said| said != theirs) {
                let mut map = insisting.get(&path("shop")).unwrap();
                map["data"][KEY] = json!(theirs);
                insisting.put(&path("shop"), map);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    tokio::time::sleep(CONTEST).await;
    let writes = fake.writes(&path("shop"));
    tokio::time::sleep(CONTEST * 5).await;
    let more = fake.writes(&path("shop")) - writes;
    assert!((1..=20).contains(&more), "{more} writes in five minutes");
    task.abort();
}

#[test]
fn certificates_are_told_apart_by_what_they_are() {
    let (one, two) = (root(), root());
    assert_eq!(certificates(&format!("# a comment\n{one}\n\n{two}")), certificates(&(two.clone() + &one)));
    assert!(certificates("ONE").is_empty() && certificates("").is_empty());
    assert_ne!(fingerprint(&one), fingerprint(&two));
    assert_eq!(fingerprint("ONE"), "unreadable");
}
