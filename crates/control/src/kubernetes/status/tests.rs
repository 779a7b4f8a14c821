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

/// Starts to watch and to write.
fn start(fake: &Fake, shared: &Arc<Shared>) {
    let place = fake.place("a");
    let mut source = mizzen_sources::KubernetesSource::watch(&place.client, &place.watched());
    let statuses = source.statuses();
    tokio::spawn(async move {
        loop {
            source.next().await;
        }
    });
    tokio::spawn(write(place, shared.clone(), statuses, Leading::always()));
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

#[tokio::test(start_paused = true)]
async fn an_object_says_when_all_proxies_obey_it() {
    let (fake, shared) = (Fake::new(), Arc::new(Shared::new()));
    fake.put(PATH, manifest("1s"));
    for id in [1, 2] {
        shared.progress().connected(StreamId(id), 0);
        settle(&shared, id, 0);
    }
    start(&fake, &shared);
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
    // A proxy that comes is counted when it has been told everything, and does not take back what was said.
    shared.progress().connected(StreamId(3), 2);
    shared.news.send_modify(|count| *count += 1);
    tokio::time::sleep(RECOUNT * 4).await;
    assert!(is(&fake, "Reconciled", "True", "2 of 2 proxies"));
    settle(&shared, 3, 2);
    fake.until("the one that came", |fake| is(fake, "Reconciled", "True", "3 of 3 proxies")).await;
    // It refuses something later on, which takes it back.
    let key = ObjectKey::new("VirtualService", "shop", "reviews");
    shared.progress().gone(StreamId(2));
    shared.progress().connected(StreamId(4), 2);
    shared.progress().refused(StreamId(4), Some(Arc::new([key].into())));
    shared.progress().settled(StreamId(4), 2, false);
    fake.until("the one that refuses", |fake| is(fake, "Reconciled", "False", "2 of 3 proxies; 1 proxy refused")).await;
    shared.progress().settled(StreamId(4), 2, true);
    fake.until("the end of it", |fake| is(fake, "Reconciled", "True", "3 of 3 proxies")).await;
    for id in [1, 3, 4] {
        shared.progress().gone(StreamId(id));
    }
    fake.until("nobody", |fake| is(fake, "Reconciled", "True", "no proxy is connected")).await;
    // What is the same is not written again.
    let writes = fake.writes("/status");
    tokio::time::sleep(RECOUNT * 4).await;
    assert_eq!(fake.writes("/status"), writes);
}

/// Nobody who waits for `ResolvedRefs` is told yes before it was looked.
#[tokio::test(start_paused = true)]
async fn what_is_wrong_across_objects_stands_in_the_first_status() {
    let (fake, shared) = (Fake::new(), Arc::new(Shared::new()));
    fake.put(PATH, manifest("1s"));
    start(&fake, &shared);
    let begun = Instant::now();
    apply(&shared, 1, 1);
    tokio::time::sleep(PATIENCE / 4).await;
    assert_eq!(condition(&fake, "ResolvedRefs"), None);
    let origin =
        mizzen_types::Origin { object: ObjectKey::new("VirtualService", "shop", "reviews"), field: String::new() };
    let finding = Finding {
        code: "MZ0101",
        severity: mizzen_types::Severity::Error,
        origin: Some(origin),
        position: None,
        message: "there is no such host".to_owned(),
        hint: None,
    };
    shared.findings.store(Arc::new((Vec::new(), vec![finding])));
    shared.analysed.store(1, Ordering::Release);
    shared.news.send_modify(|count| *count += 1);
    fake.until("told", |fake| is(fake, "ResolvedRefs", "False", "no such host")).await;
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    // Where it takes long to look at everything, what is known is told.
    apply(&shared, 1, 2);
    fake.put(PATH, manifest("2s"));
    apply(&shared, 2, 3);
    fake.until("all the same", |fake| fake.get(PATH).is_some_and(|it| it["status"]["observedGeneration"] == 2)).await;
}

#[tokio::test(start_paused = true)]
async fn counting_again_is_done_at_a_limited_rate() {
    let (fake, shared) = (Fake::new(), Arc::new(Shared::new()));
    const OBJECTS: usize = 40;
    let path = |index: usize| PATH.replace("reviews", &format!("rule-{index}"));
    let mut objects = (**shared.objects.load()).clone();
    for index in 0..OBJECTS {
        let mut manifest = manifest("1s");
        manifest["metadata"]["name"] = json!(format!("rule-{index}"));
        let mut object = (*parse("a.yaml", &manifest.to_string()).objects.remove(0)).clone();
        object.meta.version.generation = 1;
        shared.progress().changed(&object.key, 1);
        objects.insert_mut(object.key.clone(), Arc::new(object));
        fake.put(&path(index), manifest);
    }
    shared.objects.store(Arc::new(objects));
    shared.progress().applied(Some(1), std::time::Instant::now());
    shared.progress().connected(StreamId(1), 1);
    settle(&shared, 1, 1);
    start(&fake, &shared);
    let says = |fake: &Fake, index: usize, message: &str| {
        fake.get(&path(index)).is_some_and(|object| object["status"].to_string().contains(message))
    };
    let all = |message: &'static str| move |fake: &Fake| (0..OBJECTS).all(|index| says(fake, index, message));
    fake.until("all in force", all("1 of 1 proxy")).await;
    tokio::time::sleep(RECOUNT * 4).await;
    shared.progress().connected(StreamId(2), 1);
    settle(&shared, 2, 1);
    let some = |fake: &Fake| (0..OBJECTS).any(|index| says(fake, index, "2 of 2 proxies"));
    fake.until("the first that is counted again", some).await;
    let began = Instant::now();
    fake.until("all counted again", all("2 of 2 proxies")).await;
    assert!(began.elapsed() >= RECOUNT_PACE * (OBJECTS as u32 - 2), "{:?}", began.elapsed());
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
    start(&fake, &shared);
    fake.until("an attempt", |_| tried.load(Ordering::Relaxed) > 0).await;
    fake.no_hook();
    fake.until("why it is wrong", |fake| is(fake, "Accepted", "False", "htp")).await;
    assert!(is(&fake, "Reconciled", "False", "not in force"));
    fake.put(PATH, manifest("1s"));
    shared.findings.store(Arc::default());
    apply(&shared, 2, 1);
    fake.until("that it is right", |fake| is(fake, "Accepted", "True", "") && is(fake, "Reconciled", "True", "")).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_entry_says_which_addresses_its_hosts_are_given() {
    let (fake, shared) = (Fake::new(), Arc::new(Shared::new()));
    let path = PATH.replace("virtualservices/reviews", "serviceentries/api");
    let entry = |name: &str, more: &[(&str, Value)]| {
        let mut spec = json!({
            "hosts": [format!("{name}.example.com"), format!("*.{name}.example.com")],
            "ports": [{"number": 3306, "name": "tcp", "protocol": "TCP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "192.0.2.1"}],
        });
        spec.as_object_mut().unwrap().extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let metadata = json!({"name": name, "namespace": "shop"});
        json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": metadata, "spec": spec})
    };
    // The engine's part.
    let apply = |manifest: &Value, revision| {
        let mut object = (*parse("a.yaml", &manifest.to_string()).objects.remove(0)).clone();
        object.meta.version.generation = 1;
        let object = Arc::new(object);
        let mut objects = (**shared.objects.load()).clone();
        objects.insert_mut(object.key.clone(), object.clone());
        shared.objects.store(Arc::new(objects));
        let (mesh, _) = shared.world.load().mesh.apply(&[mizzen_config::Change::Put(object.clone())]);
        shared.world.store(Arc::new(shared.world.load().with(mesh)));
        shared.progress().changed(&object.key, 1);
        shared.progress().applied(Some(revision), std::time::Instant::now());
        shared.news.send_modify(|count| *count += 1);
    };
    let said = |fake: &Fake| fake.get(&path).map(|object| object["status"]["addresses"].clone()).unwrap_or_default();
    let given = || {
        let key = ObjectKey::new("ServiceEntry", "shop", "api");
        let all = shared.world.load().mesh.given_addresses(&key).unwrap_or_default();
        all.into_iter().map(|(host, value)| json!({"value": value.to_string(), "host": host})).collect::<Value>()
    };
    fake.put(&path, entry("api", &[]));
    start(&fake, &shared);
    apply(&entry("api", &[]), 1);
    fake.until("the addresses", |fake| said(fake).as_array().is_some_and(|all| all.len() == 2)).await;
    let first = said(&fake);
    assert_eq!((&first, &first[0]["host"]), (&given(), &json!("api.example.com")));
    let writes = fake.writes("/status");
    tokio::time::sleep(RECOUNT * 4).await;
    assert_eq!(fake.writes("/status"), writes, "said once");
    // Somebody chooses one of them for himself.
    apply(&entry("other", &[("addresses", json!([first[0]["value"]]))]), 2);
    fake.until("other addresses", |fake| said(fake) != first).await;
    assert_eq!(said(&fake), given());
}
