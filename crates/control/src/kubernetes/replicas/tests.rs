#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mizzen_types::ObjectKey;
use tokio_stream::StreamExt;

use super::*;
use crate::kubernetes::fake::Fake;
use crate::status::StreamId;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/istio-replica-a";

#[tokio::test]
async fn one_replica_knows_of_the_proxies_of_another_until_it_stops() {
    let (fake, shared) = (Fake::new(), Arc::new(Shared::new()));
    let key = ObjectKey::new("VirtualService", "shop", "reviews");
    shared.progress().connected(StreamId(1), 0);
    shared.progress().settled(StreamId(1), 0, true);
    shared.progress().changed(&key, 7);
    shared.progress().applied(None, std::time::Instant::now());
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(report(fake.place("a"), shared, stopped));
    let mut others = Others::new(&fake.place("b"));
    let mut events = std::pin::pin!(others.watch());
    let mut next = async |others: &mut Others| {
        let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap();
        others.seen(event);
    };
    while others.reports(Instant::now()).count() == 0 {
        next(&mut others).await;
    }
    let count = others.reports(Instant::now()).next().unwrap().count(&key, 7, Duration::ZERO);
    assert_eq!((count.on, count.of), (1, 1));
    // Who is silent is gone, and in the end forgotten.
    assert_eq!(others.reports(Instant::now() + GONE * 2).count(), 0);
    stop.send(true).unwrap();
    task.await.unwrap();
    assert_eq!(fake.get(PATH), None);
    while others.reports(Instant::now()).count() > 0 {
        next(&mut others).await;
    }
}

#[tokio::test]
async fn what_the_dead_left_behind_is_taken_away_and_the_own_report_is_not_counted() {
    let fake = Fake::new();
    let lease = |replica: &str| {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/istio-replica-{replica}");
        fake.put(
            &path,
            json!({"metadata": {"labels": {LABEL: "true"}, "annotations": {ANNOTATION: "{}"}}, "spec": {}}),
        );
        path
    };
    let (dead, own) = (lease("a"), lease("b"));
    let mut others = Others::new(&fake.place("b"));
    let mut events = std::pin::pin!(others.watch());
    while !others.are_known() {
        let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap();
        others.seen(event);
    }
    assert_eq!(others.reports(Instant::now()).count(), 1);
    others.sweep(Instant::now()).await;
    assert!(fake.get(&dead).is_some());
    others.sweep(Instant::now() + FORGOTTEN).await;
    assert!(fake.get(&dead).is_none() && fake.get(&own).is_some());
}
