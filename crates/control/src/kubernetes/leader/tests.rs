#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

use super::*;
use crate::kubernetes::fake::{Fake, failure};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/istio-leader";

fn seen(holder: &str, since: Instant) -> Seen {
    let spec = LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(15),
        ..LeaseSpec::default()
    };
    Seen { spec, since }
}

#[test]
fn a_lease_is_taken_only_when_its_holder_is_gone() {
    let now = Instant::now();
    assert_eq!(next("a", &seen("a", now), now), Next::Renew);
    assert_eq!(next("a", &seen("b", now), now), Next::Wait);
    assert_eq!(next("a", &seen("", now), now), Next::Take);
    assert_eq!(next("a", &seen("b", now), now + Duration::from_secs(14)), Next::Wait);
    assert_eq!(next("a", &seen("b", now), now + Duration::from_secs(15)), Next::Take);
}

#[test]
fn transitions_are_counted_and_the_time_of_taking_is_kept() {
    let (then, now) = (Timestamp::from_second(1000).unwrap(), Timestamp::from_second(2000).unwrap());
    let first = held("a", None, then);
    assert_eq!(first.lease_transitions, Some(0));
    let renewed = held("a", Some(&first), now);
    assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(0), &first.acquire_time));
    assert_eq!(renewed.renew_time, Some(MicroTime(now)));
    let taken = held("b", Some(&renewed), now);
    assert_eq!((taken.lease_transitions, taken.acquire_time), (Some(1), Some(MicroTime(now))));
}

fn candidate(fake: &Fake, name: &str) -> (Leading, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let election = Election::new(&fake.place(name), "istio-leader".to_owned());
    let (stop, stopped) = watch::channel(false);
    (election.leading(), stop, tokio::spawn(election.run(stopped)))
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_another_follows_at_once_when_it_stops() {
    let fake = Fake::new();
    let (mut a, stop_a, task_a) = candidate(&fake, "a");
    a.begun().await;
    let (mut b, _stop_b, _task_b) = candidate(&fake, "b");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(a.now() && !b.now());
    stop_a.send(true).unwrap();
    task_a.await.unwrap();
    assert!(!a.now());
    assert_eq!(fake.get(PATH).unwrap()["spec"]["holderIdentity"], json!(""));
    let began = Instant::now();
    b.begun().await;
    // It need not wait for the Lease to end.
    assert!(began.elapsed() < LEASE, "{:?}", began.elapsed());
    assert_eq!(fake.get(PATH).unwrap()["spec"]["holderIdentity"], json!("b"));
}

#[tokio::test(start_paused = true)]
async fn who_vanishes_is_followed_when_the_lease_has_ended() {
    let fake = Fake::new();
    let (mut a, _stop, task) = candidate(&fake, "a");
    a.begun().await;
    task.abort();
    let (mut b, _stop_b, _task_b) = candidate(&fake, "b");
    let began = Instant::now();
    b.begun().await;
    assert!(began.elapsed() >= LEASE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_is_deposed_before_others_may_lead() {
    let fake = Fake::new();
    let (mut a, _stop, _task) = candidate(&fake, "a");
    a.begun().await;
    fake.hook(|_, _, _| Some(failure(503, "away")));
    let began = Instant::now();
    a.ended().await;
    assert!(began.elapsed() <= DEADLINE && !a.now());
    fake.no_hook();
    a.begun().await;
}

#[tokio::test(start_paused = true)]
async fn work_ends_with_the_leadership() {
    let fake = Fake::new();
    let (a, _stop, _task) = candidate(&fake, "a");
    let (working, mut work) = watch::channel(false);
    let working = std::sync::Arc::new(working);
    struct Done(std::sync::Arc<watch::Sender<bool>>);
    impl Drop for Done {
        fn drop(&mut self) {
            self.0.send_replace(false);
        }
    }
    tokio::spawn(super::super::while_leading(a, move |_| {
        let working = working.clone();
        async move {
            working.send_replace(true);
            let _done = Done(working);
            std::future::pending().await
        }
    }));
    work.wait_for(|working| *working).await.unwrap();
    fake.hook(|_, _, _| Some(failure(503, "away")));
    work.wait_for(|working| !*working).await.unwrap();
    fake.no_hook();
    work.wait_for(|working| *working).await.unwrap();
}
