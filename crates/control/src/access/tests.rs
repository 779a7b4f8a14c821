#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};

use mizzen_types::TrustDomain;
use serde_json::json;

use super::*;
use crate::kubernetes::fake::Fake;

fn caller() -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", "gateway")
}

// A client of the API server wants a runtime.
#[tokio::test]
async fn without_a_cluster_proof_is_enough_and_without_proof_nothing_is() {
    assert!(Access::new(true, Some(&caller()), None).allowed());
    assert!(!Access::new(true, None, None).allowed());
    let permissions = Arc::new(Permissions::new(Fake::new().client()));
    assert!(!Access::new(true, None, Some(&permissions)).allowed());
    assert!(!Access::new(false, Some(&caller()), Some(&permissions)).allowed());
}

#[tokio::test(start_paused = true)]
async fn s33_a_role_decides_and_may_come_and_go() {
    let (fake, role) = (Fake::new(), Arc::new(AtomicBool::new(false)));
    let asked = role.clone();
    fake.hook(move |_, path, body| {
        assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
        let mut review = body.clone();
        review["status"] = json!({"allowed": asked.load(Ordering::Relaxed)});
        Some((201, review))
    });
    let permissions = Arc::new(Permissions::new(fake.client()));
    let mut access = Access::new(true, Some(&caller()), Some(&permissions));
    assert!(!access.allowed());
    // Nothing changes for the stream by a first no.
    let silence = tokio::time::timeout(Duration::from_secs(10), access.changed()).await;
    assert!(silence.is_err() && !access.take_change());
    for allowed in [true, false] {
        role.store(allowed, Ordering::Relaxed);
        tokio::time::timeout(2 * REMEMBER, access.changed()).await.unwrap();
        assert_eq!((access.allowed(), access.take_change(), access.take_change()), (allowed, true, false));
    }
}
