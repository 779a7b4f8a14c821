//! How fast it is: `cargo test --release -p mizzen-inject --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mizzen_inject::{Decision, Request, Settings, Sources, inject};
use serde_json::{Value, json};

/// A pod as an API server sends it: with defaults written out, and managed fields.
fn pod() -> Value {
    let probe = json!({"httpGet": {"path": "/health", "port": 9080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10});
    let fields: Value = (0..40)
        .map(|n| (format!("f:field-{n}"), json!({"f:name": {}, "f:value": {}})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "reviews-v1-6d5f8c7b9-", "labels": {"app": "reviews", "version": "v1", "pod-template-hash": "6d5f8c7b9"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "reviews-v1-6d5f8c7b9", "controller": true}],
            "managedFields": [{"manager": "kube-controller-manager", "fieldsV1": fields}],
        },
        "spec": {
            "serviceAccountName": "bookinfo-reviews", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "containers": [{
                "name": "reviews", "image": "reviews:1", "env": (0..20).map(|n| json!({"name": format!("V{n}"), "value": "x"})).collect::<Vec<_>>(),
                "ports": [{"containerPort": 9080, "protocol": "TCP"}], "readinessProbe": probe, "livenessProbe": probe,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
        },
    })
}

/// One admission from the bytes of the pod to the bytes of the patch.
fn admission(settings: &Settings, body: &[u8]) -> usize {
    let pod: Value = serde_json::from_slice(body).unwrap();
    let Decision::Injected(injected) = inject(settings, &Request::new(&pod, "default")).unwrap() else { panic!() };
    serde_json::to_vec(&injected.patch(&pod)).unwrap().len()
}

#[test]
#[ignore = "measures; wants a release build and a quiet machine"]
fn a_thousand_admissions_take_less_than_a_second() {
    let (settings, _) = Settings::read(Sources { native: true, ..Sources::default() }).unwrap();
    let body = serde_json::to_vec(&pod()).unwrap();
    let patch = admission(&settings, &body);
    let begun = on_processor();
    for _ in 0..1000 {
        assert_eq!(admission(&settings, &body), patch);
    }
    let took = on_processor() - begun;
    println!("1000 admissions of {} bytes, patches of {patch} bytes: {took:?}", body.len());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// How long this thread has been on a processor: a busy machine does not make it slower.
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
