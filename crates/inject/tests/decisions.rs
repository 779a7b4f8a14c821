//! Tables: which pods are asked about, which are injected, and whose they are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mizzen_inject::{Decision, Labels, Request, Settings, Sources, Workload, asked_by, entries, environment, inject};
use serde_json::{Map, Value, json};

/// `a=b,c=d` as labels.
fn labels(text: &str) -> Map<String, Value> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.into())).collect()
}

const INJECT: &str = "sidecar.istio.io/inject";

/// Namespace labels, pod labels, and which revision's webhooks are asked (in a mesh with `default` and `canary`).
#[test]
fn the_api_server_asks_the_revision_that_the_labels_name() {
    for (namespace, pod, asked) in [
        ("", "", ""),
        ("istio-injection=enabled", "", "default"),
        ("istio-injection=enabled", "sidecar.istio.io/inject=false", ""),
        ("istio-injection=enabled", "sidecar.istio.io/inject=true", "default"),
        // Nothing on a pod switches on what its namespace has switched off.
        ("istio-injection=disabled", "sidecar.istio.io/inject=true", ""),
        ("istio-injection=disabled", "istio.io/rev=canary", ""),
        ("istio-injection=disabled,istio.io/rev=canary", "sidecar.istio.io/inject=true", ""),
        // `istio-injection` goes before `istio.io/rev` on a namespace.
        ("istio-injection=enabled,istio.io/rev=canary", "", "default"),
        ("istio.io/rev=canary", "", "canary"),
        ("istio.io/rev=canary", "sidecar.istio.io/inject=false", ""),
        ("istio.io/rev=default", "", "default"),
        ("istio.io/rev=other", "", ""),
        // A pod's revision counts where the namespace has neither label.
        ("istio.io/rev=default", "istio.io/rev=canary", "default"),
        ("", "istio.io/rev=canary", "canary"),
        ("", "istio.io/rev=canary,sidecar.istio.io/inject=true", "canary"),
        ("", "istio.io/rev=default", "default"),
        ("", "sidecar.istio.io/inject=true", "default"),
        ("kubernetes.io/metadata.name=kube-system,istio-injection=enabled", "", ""),
        ("kubernetes.io/metadata.name=kube-system", "sidecar.istio.io/inject=true", ""),
    ] {
        let (of_namespace, of_pod) = (labels(namespace), labels(pod));
        let asked_of: Vec<&str> = ["default", "canary"]
            .into_iter()
            .filter(|name| {
                asked_by(&entries(name, false), Labels(Some(&of_namespace)), Labels(Some(&of_pod))).is_some()
            })
            .collect();
        assert_eq!(asked_of.join(","), asked, "namespace {namespace:?} pod {pod:?}");
    }
}

#[test]
fn by_default_namespaces_without_a_label_are_asked_about() {
    let all = entries("", true);
    let name = |namespace: &str, pod: &str| {
        let (namespace, pod) = (labels(namespace), labels(pod));
        asked_by(&all, Labels(Some(&namespace)), Labels(Some(&pod))).map(|entry| entry.name)
    };
    assert_eq!(name("", ""), Some("auto.sidecar-injector.istio.io"));
    assert_eq!(name("", "sidecar.istio.io/inject=false"), None);
    assert_eq!(name("istio-injection=disabled", ""), None);
    assert_eq!(name("kubernetes.io/metadata.name=kube-system", ""), None);
}

fn settings(values: &str, config: &str) -> Settings {
    Settings::read(Sources { values, config, ..Sources::default() }).unwrap().0
}

fn said(settings: &Settings, pod: &Value, namespace: &str) -> String {
    match inject(settings, &Request::new(pod, namespace)).unwrap() {
        Decision::Injected(_) => "injected".to_owned(),
        Decision::Skipped { why, .. } => why.to_string(),
    }
}

/// Policy, label, annotation, further labels, and what becomes of the pod.
#[test]
fn a_pod_is_decided_about_in_istios_order() {
    let selectors = "neverInjectSelector: [{matchLabels: {never: a}}, {matchExpressions: [{key: never, operator: In, values: [b]}]}, {}]\n\
                     alwaysInjectSelector: [{matchExpressions: [{key: always, operator: Exists}]}]\n";
    for (policy, label, annotation, further, expected) in [
        ("enabled", "", "", "", "injected"),
        ("disabled", "", "", "", "the policy"),
        ("enabled", "false", "", "", "its label"),
        ("disabled", "true", "", "", "injected"),
        ("enabled", "", "false", "", "its annotation"),
        ("disabled", "", "true", "", "injected"),
        // The label goes before the annotation.
        ("disabled", "true", "false", "", "injected"),
        ("enabled", "false", "true", "", "its label"),
        // A word without a meaning leaves it to the policy.
        ("enabled", "maybe", "", "", "injected"),
        ("disabled", "yes", "", "", "the policy"),
        ("enabled", "maybe", "false", "", "injected"),
        // Selectors decide where the pod does not; never goes before always.
        ("enabled", "", "", "never=a", "neverInjectSelector[0]"),
        ("enabled", "", "", "never=b", "neverInjectSelector[1]"),
        ("enabled", "true", "", "never=a", "injected"),
        ("disabled", "", "", "always=x", "injected"),
        ("disabled", "", "", "always=x,never=a", "neverInjectSelector[0]"),
        ("disabled", "false", "", "always=x", "its label"),
        // Neither enabled nor disabled: nothing is.
        ("off", "true", "", "", "the policy"),
    ] {
        let settings = settings("", &format!("policy: {policy}\n{selectors}"));
        let mut of_pod = labels(further);
        if !label.is_empty() {
            of_pod.insert(INJECT.to_owned(), label.into());
        }
        let annotations = if annotation.is_empty() { json!({}) } else { json!({INJECT: annotation}) };
        let pod = json!({"metadata": {"labels": of_pod, "annotations": annotations}, "spec": {"containers": []}});
        let said = said(&settings, &pod, "default");
        assert!(said.contains(expected), "{policy} {label} {annotation} {further}: {said}");
    }
}

#[test]
fn the_network_of_the_node_and_the_systems_namespaces_are_left_alone() {
    let settings = settings("", "");
    let pod = |host: bool| json!({"metadata": {"labels": {INJECT: "true"}}, "spec": {"hostNetwork": host}});
    assert!(said(&settings, &pod(true), "default").contains("hostNetwork"));
    for namespace in ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"] {
        assert!(said(&settings, &pod(false), namespace).contains(namespace));
    }
    assert_eq!(said(&settings, &pod(false), "istio-system"), "injected");
}

#[test]
fn the_values_decide_where_the_configuration_is_silent() {
    let pod = json!({"metadata": {"labels": {"job": "x"}}, "spec": {}});
    let never = "{sidecarInjectorWebhook: {neverInjectSelector: [{matchLabels: {job: x}}]}}";
    assert!(said(&settings(never, ""), &pod, "n").contains("neverInjectSelector[0]"));
    assert_eq!(said(&settings(never, "neverInjectSelector: [{matchLabels: {job: y}}]"), &pod, "n"), "injected");
    assert!(said(&settings("{global: {proxy: {autoInject: disabled}}}", ""), &pod, "n").contains("the policy"));
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    for (values, config, mesh, told) in [
        ("global: {proxy: {statusPort: many}}", "", "", "global.proxy.statusPort"),
        ("global: 1", "", "", "global"),
        ("a: b: c", "", "", "line 1"),
        ("", "alwaysInjectSelector: [{matchExpressions: [{key: a, operator: Near}]}]", "", "operator"),
        ("", "", "defaultConfig: yes", "defaultConfig"),
    ] {
        let error = Settings::read(Sources { values, config, mesh, ..Sources::default() }).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_pods_workload_is_what_made_its_owner() {
    for (kind, version, owner, of_pod, expected) in [
        ("ReplicaSet", "apps/v1", "web-5d4f", "pod-template-hash=5d4f", "apps/v1 Deployment web"),
        ("ReplicaSet", "apps/v1", "web-5d4f", "", "apps/v1 ReplicaSet web-5d4f"),
        ("ReplicaSet", "apps/v1", "5d4f", "pod-template-hash=5d4f", "apps/v1 ReplicaSet 5d4f"),
        ("ReplicaSet", "apps/v1", "r-7", "rollouts-pod-template-hash=7", "argoproj.io/v1alpha1 Rollout r"),
        ("Job", "batch/v1", "nightly-28473321", "", "batch/v1 CronJob nightly"),
        ("Job", "batch/v1", "once", "", "batch/v1 Job once"),
        ("Job", "batch/v1", "once-12", "", "batch/v1 Job once-12"),
        ("StatefulSet", "apps/v1", "db", "", "apps/v1 StatefulSet db"),
    ] {
        let pod = json!({"metadata": {
            "generateName": "x-",
            "labels": labels(of_pod),
            "ownerReferences": [{"kind": "Other", "name": "no"}, {"apiVersion": version, "kind": kind, "name": owner, "controller": true}],
        }});
        let Workload { api_version, kind, name, namespace } = Workload::of(&pod, "n");
        assert_eq!((format!("{api_version} {kind} {name}"), namespace.as_str()), (expected.to_owned(), "n"));
    }
    let alone = Workload::of(&json!({"metadata": {"name": "p"}}), "n");
    assert_eq!(alone, Workload::new("v1", "Pod", "p", "n"));
}

#[test]
fn the_path_of_the_webhook_is_variables() {
    for (path, expected) in [
        ("/inject", ""),
        ("/inject/", ""),
        ("/inject/cluster/c1", "ISTIO_META_CLUSTER_ID=c1"),
        ("/inject/net/a--slash--b/cluster/c", "ISTIO_META_CLUSTER_ID=c ISTIO_META_NETWORK=a/b"),
        ("/inject/own_name/v/", "OWN_NAME=v"),
        ("/inject/odd", ""),
        ("/inject/a/1/a/2", "A=1"),
    ] {
        let found: Vec<String> = environment(path).iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(found.join(" "), expected, "{path}");
    }
}

#[test]
fn values_that_change_nothing_are_told() {
    let notes = |values: &str| Settings::read(Sources { values, ..Sources::default() }).unwrap().1;
    assert_eq!(
        notes(
            "global: {mountMtlsCerts: false, sts: {servicePort: 0}, proxy: {enableCoreDump: false, tracer: none}, caName: ''}"
        ),
        [""; 0]
    );
    for (values, told) in [
        ("global: {mountMtlsCerts: true}", "`global.mountMtlsCerts: true` is not obeyed"),
        ("global: {sts: {servicePort: 15463}}", "`global.sts.servicePort: 15463` is not obeyed"),
        ("global: {proxy: {enableCoreDump: true}}", "`global.proxy.enableCoreDump: true` is not obeyed"),
        ("global: {proxy: {tracer: zipkin}}", "`global.proxy.tracer: zipkin` is not obeyed"),
        ("global: {caName: GkeWorkloadCertificate}", "`global.caName: GkeWorkloadCertificate` is not obeyed"),
    ] {
        let notes = notes(values);
        assert!(notes.len() == 1 && notes[0].starts_with(told), "{values}: {notes:?}");
    }
}
