#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};

use mizzen_config::parse;

use super::*;
use crate::kubernetes::fake::{Fake, failure};
use crate::status::StreamId;

const PATH: &str = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/reviews";

fn manifest(timeout: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": [{"timeout": timeout, "route": [{"destination": {"host": "reviews"}}]}]},
    })
}

/// The engine's part: an object of this generation is in force, with this revision.
fn apply(shared: &Shared, generation: i64, revision: u64) {
    let mut object = (*parse("a.yaml", &manifest("1s").to_string()).objects.remove(0)).clone();
    object.meta.version.generation = generation;
    let mut objects = (**shared.objects.load()).clone();
    objects.insert_mut(object.key.clone(), Arc::new(object.clone()));
    shared.objects.store(Arc::new(objects));
    shared.progress().changed(&object.key, generation);
    shared.progress().applied(Some(revision), std::time::Instant::now());
    shared.news.send_modify(|count| *count += 1);
}

fn settle(shared: &Shared, id: u64, revision: u64) {
    shared.progress().settled(StreamId(id), revision, true);
    shared.news.send_modify(|count| *count += 1);
}

fn condition(fake: &Fake, kind: &str) -> Option<(String, String)> {
    let object = fake.get(PATH)?;
    let found = object["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)?.clone();
    Some((found["status"].as_str()?.to_owned(), found["message"].as_str()?.to_owned()))
}

fn is(fake: &Fake, kind: &str, status: &str, message: &str) -> bool {
    condition(fake, kind).is_some_and(|it| it.0 == status && it.1.contains(message))
}

#[tokio::test]
async fn an_object_says_when_all_proxies_obey_it() {
    let (fake, shared) = (Fake::new(), Arc::new(Shared::new()));
    fake.put(PATH, manifest("1s"));
    for id in [1, 2] {
        shared.progress().connected(StreamId(id), 0);
        settle(&shared, id, 0);
    }
    tokio::spawn(write(fake.place("a"), shared.clone(), Leading::always()));
    apply(&shared, 1, 1);
    fake.until("in force", |fake| is(fake, "Reconciled", "True", "2 of 2 proxies")).await;
    assert!(is(&fake, "Accepted", "True", "") && is(&fake, "ResolvedRefs", "True", ""));
    assert_eq!(fake.get(PATH).unwrap()["status"]["observedGeneration"], 1);
    // One of them is slow.
    fake.put(PATH, manifest("2s"));
    for id in [1, 2] {
        shared.progress().concerns(StreamId(id), 2);
    }
    apply(&shared, 2, 2);
    settle(&shared, 1, 2);
    fake.until("the one that is slow", |fake| is(fake, "Reconciled", "False", "1 of 2 proxies")).await;
    settle(&shared, 2, 2);
    fake.until("in force again", |fake| is(fake, "Reconciled", "True", "2 of 2 proxies")).await;
    assert_eq!(fake.get(PATH).unwrap()["status"]["observedGeneration"], 2);
    // What is new for nobody is written to nobody.
    let writes = fake.writes("/status");
    shared.progress().connected(StreamId(3), 2);
    settle(&shared, 3, 2);
    settle(&shared, 1, 2);
    tokio::time::sleep(GATHER * 4).await;
    assert_eq!(fake.writes("/status"), writes);
}

#[tokio::test]
async fn a_wrong_object_says_why_and_a_right_one_again_that_it_is_right() {
    let (fake, shared) = (Fake::new(), Arc::new(Shared::new()));
    let mut wrong = manifest("1s");
    wrong["spec"]["htp"] = json!([]);
    fake.put(PATH, wrong.clone());
    let findings = parse("a.yaml", &wrong.to_string()).findings;
    assert!(!findings.is_empty());
    shared.findings.store(Arc::new((findings, Vec::new())));
    // The API server is away for the first write.
    let tried = Arc::new(AtomicUsize::new(0));
    let count = tried.clone();
    fake.hook(move |method, _, _| {
        let write = *method == http::Method::PATCH;
        count.fetch_add(usize::from(write), Ordering::Relaxed);
        write.then(|| failure(500, "away"))
    });
    tokio::spawn(write(fake.place("a"), shared.clone(), Leading::always()));
    fake.until("an attempt", |_| tried.load(Ordering::Relaxed) > 0).await;
    fake.no_hook();
    fake.until("why it is wrong", |fake| is(fake, "Accepted", "False", "htp")).await;
    assert!(is(&fake, "Reconciled", "False", "not in force"));
    fake.put(PATH, manifest("1s"));
    shared.findings.store(Arc::default());
    apply(&shared, 2, 1);
    fake.until("that it is right", |fake| is(fake, "Accepted", "True", "") && is(fake, "Reconciled", "True", "")).await;
}
