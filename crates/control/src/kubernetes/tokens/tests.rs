#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::json;

use super::*;
use crate::kubernetes::fake::{Fake, failure};

fn status(user: &str, audiences: &[&str]) -> TokenReviewStatus {
    TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(audiences.iter().map(|it| (*it).to_owned()).collect()),
        user: Some(UserInfo { username: Some(user.to_owned()), ..UserInfo::default() }),
        error: None,
    }
}

#[track_caller]
fn check(status: &TokenReviewStatus, expected: Result<(&str, &str), &str>) {
    match (read(status), expected) {
        (Ok(account), Ok((namespace, name))) => assert_eq!((&*account.namespace, &*account.name), (namespace, name)),
        (Err(ReviewError::Refused(reason)), Err(part)) => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_service_account_for_this_audience_is_believed() {
    check(&status("system:serviceaccount:shop:reviews", &["istio-ca"]), Ok(("shop", "reviews")));
    check(&status("system:serviceaccount:shop:reviews", &["api", "istio-ca"]), Ok(("shop", "reviews")));
    check(&status("system:serviceaccount:shop:reviews", &["api"]), Err("audience"));
    check(&status("system:serviceaccount:shop:reviews", &[]), Err("audience"));
    check(&status("jane", &["istio-ca"]), Err("not a service account"));
    check(&status("system:serviceaccount:shop/x:reviews", &["istio-ca"]), Err("not a service account"));
    let unknown = TokenReviewStatus {
        authenticated: Some(false),
        error: Some("token has expired".to_owned()),
        ..TokenReviewStatus::default()
    };
    check(&unknown, Err("token has expired"));
    check(&TokenReviewStatus::default(), Err("does not know it"));
}

#[tokio::test]
async fn an_answer_is_remembered_and_a_missing_one_is_not() {
    let (fake, asked) = (Fake::new(), Arc::new(AtomicUsize::new(0)));
    let reviewer = TokenReviewer::new(fake.client());
    let count = asked.clone();
    fake.hook(move |_, path, body| {
        assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
        assert_eq!(body["spec"]["audiences"], json!(["istio-ca"]));
        count.fetch_add(1, Ordering::Relaxed);
        Some(failure(500, "etcd is away"))
    });
    for asked_before in 0..2 {
        assert_eq!(asked.load(Ordering::Relaxed), asked_before);
        assert!(matches!(reviewer.review("a.b.c").await, Err(ReviewError::Unavailable(_))));
    }
    let count = asked.clone();
    fake.hook(move |_, _, body| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut review = body.clone();
        review["status"] = match body["spec"]["token"].as_str() {
            Some("a.b.c") => json!({"authenticated": true, "audiences": ["istio-ca"],
                "user": {"username": "system:serviceaccount:shop:reviews"}}),
            _ => json!({"authenticated": false, "error": "unknown"}),
        };
        Some((201, review))
    });
    asked.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(reviewer.review("a.b.c").await.unwrap().name, "reviews");
        assert!(matches!(reviewer.review("x.y.z").await, Err(ReviewError::Refused(_))));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert!(matches!(reviewer.review("no jwt").await, Err(ReviewError::Refused(_))));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn memory_ends_and_is_bounded() {
    let mut remembered = Remembered::default();
    let now = Instant::now();
    let accepted: Answer = Ok(ServiceAccount { namespace: "a".to_owned(), name: "b".to_owned() });
    remembered.put(hash("a"), &accepted, now);
    remembered.put(hash("b"), &Err(ReviewError::Refused(String::new())), now);
    assert!(remembered.get(&hash("a"), now).is_some() && remembered.get(&hash("b"), now).is_some());
    let later = now + REMEMBER_REFUSED;
    assert!(remembered.get(&hash("a"), later).is_some() && remembered.get(&hash("b"), later).is_none());
    assert!(remembered.get(&hash("a"), now + REMEMBER_ACCEPTED).is_none());
    for index in 0..2 * REMEMBERED {
        remembered.put(hash(&index.to_string()), &accepted, now);
        assert!(remembered.0.len() <= REMEMBERED);
    }
}
