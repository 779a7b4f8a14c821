#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mizzen_types::TrustDomain;
use serde_json::json;

use super::*;
use crate::kubernetes::fake::{Fake, failure};

fn account(name: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", name)
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_remembered_and_a_missing_one_changes_nothing() {
    let (fake, asked) = (Fake::new(), Arc::new(AtomicUsize::new(0)));
    let permissions = Permissions::new(fake.client());
    fake.hook(|_, _, _| Some(failure(500, "etcd is away")));
    assert_eq!(permissions.may_read_secrets(&account("gateway")).await, None);

    let count = asked.clone();
    fake.hook(move |_, path, body| {
        assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
        assert_eq!(
            body["spec"]["resourceAttributes"],
            json!({"namespace": "shop", "verb": "list", "resource": "secrets"})
        );
        count.fetch_add(1, Ordering::Relaxed);
        let mut review = body.clone();
        review["status"] = json!({"allowed": body["spec"]["user"] == "system:serviceaccount:shop:gateway"});
        Some((201, review))
    });
    for _ in 0..2 {
        assert_eq!(permissions.may_read_secrets(&account("gateway")).await, Some(true));
        assert_eq!(permissions.may_read_secrets(&account("default")).await, Some(false));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);

    fake.hook(|_, _, _| Some(failure(500, "etcd is away")));
    tokio::time::advance(REMEMBER).await;
    assert_eq!(permissions.may_read_secrets(&account("gateway")).await, Some(true));
    assert_eq!(permissions.may_read_secrets(&account("default")).await, Some(false));
}
