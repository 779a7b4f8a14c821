#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use base64::Engine;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::fake::Fake;

const SECRETS: &str = "/api/v1/namespaces/istio-system/secrets";

fn new_pem() -> AuthorityPem {
    AuthorityPem::self_signed(&TrustDomain::default(), SystemTime::now()).unwrap()
}

fn secret(pem: &AuthorityPem, roots: &[u8]) -> Value {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let data = json!({"ca-cert.pem": encode(&pem.certificate), "ca-key.pem": encode(&pem.key),
        "cert-chain.pem": "", "root-cert.pem": encode(roots)});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": data})
}

fn secrets(fake: &Fake) -> CaSecrets {
    CaSecrets::new(&fake.place("a"), TrustDomain::default(), Rotation::default())
}

#[tokio::test]
async fn replicas_that_start_together_have_one_authority() {
    let fake = Fake::new();
    let start = || {
        let secrets = secrets(&fake);
        tokio::spawn(async move { secrets.open().await.unwrap().authority.roots().pem() })
    };
    let all = [start(), start(), start(), start()];
    let mut roots = Vec::new();
    for one in all {
        roots.push(one.await.unwrap());
    }
    assert!(roots.iter().all(|it| *it == roots[0]), "{roots:?}");
    let secret = fake.get(&format!("{SECRETS}/istio-ca-secret")).unwrap();
    assert_eq!(secret["type"], "istio.io/ca-root");
    // One that starts later takes it too.
    assert_eq!(secrets(&fake).open().await.unwrap().authority.roots().pem(), roots[0]);
}

#[tokio::test]
async fn a_secret_of_istios_own_making_is_read() {
    let (fake, pem) = (Fake::new(), new_pem());
    fake.put(&format!("{SECRETS}/istio-ca-secret"), secret(&pem, b""));
    let opened = secrets(&fake).open().await.unwrap();
    assert_eq!(opened.authority.roots().pem().as_bytes(), pem.certificate);
}

#[tokio::test]
async fn what_is_plugged_in_goes_first_and_is_never_replaced_by_our_own() {
    let fake = Fake::new();
    let (own, plugged) = (new_pem(), new_pem());
    fake.put(&format!("{SECRETS}/istio-ca-secret"), secret(&own, &own.roots));
    fake.put(&format!("{SECRETS}/cacerts"), secret(&plugged, &plugged.roots));
    assert_eq!(secrets(&fake).open().await.unwrap().authority.roots().pem().as_bytes(), plugged.roots);
    let mut broken = secret(&plugged, &plugged.roots);
    broken["data"]["ca-key.pem"] = json!("");
    fake.put(&format!("{SECRETS}/cacerts"), broken);
    let error = secrets(&fake).open().await.unwrap_err().to_string();
    assert!(error.contains("istio-system/cacerts") && error.contains("ca-key.pem"), "{error}");
}

#[tokio::test]
async fn a_new_authority_is_taken_over_and_a_broken_one_is_not() {
    let (fake, path) = (Fake::new(), format!("{SECRETS}/cacerts"));
    let (one, two) = (new_pem(), new_pem());
    fake.put(&path, secret(&one, &one.roots));
    let secrets = secrets(&fake);
    let held = secrets.open().await.unwrap().held;
    let taken = Arc::new(Mutex::new(Vec::new()));
    let into = taken.clone();
    tokio::spawn(async move {
        let take = move |authority: Authority| into.lock().unwrap().push(authority.roots().pem());
        secrets.follow(held, &Leading::always(), take).await;
    });
    let is_taken = |count: usize| {
        let taken = taken.clone();
        move |_: &Fake| taken.lock().unwrap().len() == count
    };
    // First both are trusted, then the new one signs: no moment in which half of the mesh distrusts the other.
    let both = [one.roots.as_slice(), &two.roots].concat();
    fake.put(&path, secret(&one, &both));
    fake.until("two roots", is_taken(1)).await;
    let mut broken = secret(&two, &both);
    broken["data"]["ca-key.pem"] = secret(&one, b"")["data"]["ca-key.pem"].clone();
    fake.put(&path, broken);
    fake.put(&path, secret(&two, &both));
    fake.until("the new signer", is_taken(2)).await;
    let roots = taken.lock().unwrap().clone();
    assert_eq!(roots[0].as_bytes(), both);
    assert_eq!(roots[1].as_bytes(), both);
}

#[tokio::test]
async fn an_authority_that_was_deleted_is_written_again_by_the_leader() {
    let (fake, path) = (Fake::new(), format!("{SECRETS}/istio-ca-secret"));
    let secrets = secrets(&fake);
    let held = secrets.open().await.unwrap().held;
    let before = fake.get(&path).unwrap();
    tokio::spawn(async move { secrets.follow(held, &Leading::always(), |_| panic!("it is the same")).await });
    fake.delete(&path);
    fake.until("the Secret", |fake| fake.get(&path).is_some()).await;
    assert_eq!(fake.get(&path).unwrap()["data"], before["data"]);
}

#[tokio::test]
async fn a_root_near_its_end_is_renewed_by_the_leader_and_both_are_trusted() {
    let (fake, path) = (Fake::new(), format!("{SECRETS}/istio-ca-secret"));
    let hour = Duration::from_secs(3600);
    // Two hours after its begin a root of two hours has ended for all but the clock's skew.
    let begun = SystemTime::now() - 2 * hour + Duration::from_secs(600);
    let old = AuthorityPem::self_signed_for(&TrustDomain::default(), begun, 2 * hour).unwrap();
    fake.put(&path, secret(&old, &old.roots));
    let rotation = Rotation { ttl: 100 * hour, check: Duration::from_secs(1), grace_percent: 20 };
    assert!(rotation.is_due(&old, SystemTime::now()) && !rotation.is_due(&old, begun + hour));
    let start = |leading: Leading| {
        let secrets = CaSecrets::new(&fake.place("a"), TrustDomain::default(), rotation);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let into = taken.clone();
        tokio::spawn(async move {
            let held = secrets.open().await.unwrap().held;
            secrets.follow(held, &leading, move |it| into.lock().unwrap().push(it.roots().pem())).await;
        });
        taken
    };
    let idle = start(Leading::never());
    tokio::time::sleep(rotation.check * 2).await;
    assert_eq!(fake.writes("istio-ca-secret"), 0, "only the leader writes");
    let taken = start(Leading::always());
    fake.until("the new root here and there", |_| [&taken, &idle].iter().all(|taken| taken.lock().unwrap().len() == 1))
        .await;
    let roots = taken.lock().unwrap()[0].clone();
    assert!(roots.ends_with(std::str::from_utf8(&old.roots).unwrap()), "the old one stays trusted");
    assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 2);
    tokio::time::sleep(rotation.check * 2).await;
    assert_eq!(fake.writes("istio-ca-secret"), 1, "once");
}
