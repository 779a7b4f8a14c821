#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;

use super::*;

fn map(name: &str, value: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), namespace: Some("n".to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some([("k".to_owned(), value.to_owned())].into()), ..ConfigMap::default() }
}

#[test]
fn a_list_tells_what_is_gone() {
    let mut shown = Shown::default();
    let mut take = |event| {
        let names: Vec<_> = shown.take(event, |it: ConfigMap| it).into_iter().map(|(_, name)| name).collect();
        (names.join(" "), shown.iter().map(|((_, name), _)| name.as_str()).collect::<Vec<_>>().join(" "))
    };
    let is = |names: &str, all: &str| (names.to_owned(), all.to_owned());
    assert_eq!(take(Event::Init), is("", ""));
    assert_eq!(take(Event::InitApply(map("a", "1"))), is("", ""));
    assert_eq!(take(Event::InitDone), is("a", "a"));
    assert_eq!(take(Event::Apply(map("b", "1"))), is("b", "a b"));
    assert_eq!(take(Event::Delete(map("a", "1"))), is("a", "b"));
    // Nothing is missing while a list is read again.
    assert_eq!(take(Event::Init), is("", "b"));
    assert_eq!(take(Event::InitApply(map("c", "1"))), is("", "b"));
    assert_eq!(take(Event::InitDone), is("b c", "c"));
}

#[test]
fn work_is_paced_and_failures_wait_longer() {
    let (pace, now) = (Duration::from_millis(10), Instant::now());
    let mut work = Work::new(pace);
    assert_eq!((work.wake(), work.take(now)), (None, None));
    work.add("a", now);
    work.add("b", now);
    work.add("a", now);
    assert_eq!(work.take(now), Some("a"));
    work.wrote(&"a", now);
    assert_eq!(work.take(now), None);
    assert_eq!(work.wake(), Some(now + pace));
    assert_eq!(work.take(now + pace), Some("b"));
    let mut wait = Duration::ZERO;
    for _ in 0..12 {
        work.failed("b", now);
        // What comes in meanwhile makes it no sooner.
        work.add("b", now);
        let next = work.wake().unwrap() - now;
        assert!(next >= wait && next <= LAST_RETRY);
        wait = next;
        assert_eq!(work.take(now + next), Some("b"));
    }
    assert_eq!(wait, LAST_RETRY);
    work.add_later("b", now + LAST_RETRY * 3);
    work.add("b", now + LAST_RETRY * 2);
    assert_eq!(work.wake(), Some(now + LAST_RETRY * 2), "the sooner time counts");
    assert_eq!(work.take(now + LAST_RETRY * 2), Some("b"));
    work.wrote(&"b", now);
    work.failed("b", now);
    assert_eq!(work.wake(), Some(now + FIRST_RETRY));
}
