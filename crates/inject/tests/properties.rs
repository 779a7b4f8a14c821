//! What holds for every pod, and for everything that is none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mizzen_inject::{Decision, Request, Settings, Sources, inject, offline, yaml};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn settings(native: bool) -> Settings {
    Settings::read(Sources { native, ..Sources::default() }).unwrap().0
}

/// Words that mean something somewhere in a pod, so that chance meets the code.
const WORDS: &[&str] = &[
    "metadata",
    "spec",
    "containers",
    "initContainers",
    "volumes",
    "name",
    "namespace",
    "labels",
    "annotations",
    "env",
    "value",
    "ports",
    "containerPort",
    "readinessProbe",
    "livenessProbe",
    "startupProbe",
    "lifecycle",
    "preStop",
    "httpGet",
    "tcpSocket",
    "grpc",
    "port",
    "path",
    "scheme",
    "image",
    "auto",
    "istio-proxy",
    "istio-init",
    "args",
    "securityContext",
    "runAsUser",
    "resources",
    "app",
    "kind",
    "Pod",
    "List",
    "CronJob",
    "items",
    "template",
    "$patch",
    "delete",
    "replace",
    "hostNetwork",
    "generateName",
    "ownerReferences",
    "controller",
    "sidecar.istio.io/inject",
    "sidecar.istio.io/status",
    "proxy.istio.io/config",
    "proxy.istio.io/overrides",
    "inject.istio.io/templates",
    "sidecar",
    "gateway",
    "status.sidecar.istio.io/port",
    "prometheus.io/port",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "{\"containers\":[\"app\"],\"initContainers\":[\"istio-proxy\"]}",
    "ISTIO_KUBE_APP_PROBERS",
    "mountPath",
    "true",
    "*",
    "{",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(WORDS).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        (0u32..70_000).prop_map(Value::from),
        word().prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 96, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((word(), inner), 0..8)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn probe() -> impl Strategy<Value = Value> {
    let port = prop_oneof![(1u16..).prop_map(Value::from), Just(json!("http")), Just(json!("8080")), Just(json!("no"))];
    (port, 0..5).prop_map(|(port, kind)| match kind {
        0 => json!({"httpGet": {"path": "/x", "port": port}, "periodSeconds": 3}),
        1 => json!({"httpGet": {"port": port, "scheme": "HTTPS"}, "timeoutSeconds": 2}),
        2 => json!({"tcpSocket": {"port": port}}),
        3 => json!({"failureThreshold": 2, "grpc": {"port": port, "service": "s"}}),
        _ => json!({"exec": {"command": ["true"]}}),
    })
}

fn container(name: String) -> impl Strategy<Value = Value> {
    let probes = ["readinessProbe", "livenessProbe", "startupProbe"];
    (prop::collection::vec(prop::option::of(probe()), 3), prop::option::of(probe()), any::<bool>()).prop_map(
        move |(found, hook, user)| {
            let mut container =
                json!({"name": name, "image": "auto", "ports": [{"name": "http", "containerPort": 80}]});
            for (key, probe) in probes.into_iter().zip(found) {
                if let Some(probe) = probe {
                    container[key] = probe;
                }
            }
            if let Some(hook) = hook {
                container["lifecycle"] = json!({"preStop": hook});
            }
            if user {
                container["securityContext"] = json!({"runAsUser": 7});
                container["env"] = json!([{"name": "POD_NAME", "value": "mine"}, {"name": "X", "value": "1"}]);
            }
            container
        },
    )
}

/// Something like what users write.
fn pod() -> impl Strategy<Value = Value> {
    let names = prop::sample::subsequence(vec!["istio-proxy", "a", "b", "c"], 1..4).prop_shuffle();
    let containers =
        names.prop_flat_map(|names| names.into_iter().map(|name| container(name.to_owned())).collect::<Vec<_>>());
    let inits = prop::collection::vec(prop::sample::select(vec!["one", "two", "istio-validation"]), 0..2)
        .prop_flat_map(|names| names.into_iter().map(|name| container(name.to_owned())).collect::<Vec<_>>());
    let annotations = prop::collection::vec(
        prop::sample::select(vec![
            ("sidecar.istio.io/nativeSidecar", "false"),
            ("inject.istio.io/templates", "gateway"),
            ("prometheus.io/port", "9000"),
            ("prometheus-io/path", "/m"),
            ("prometheus.io/scrape", "false"),
            ("status.sidecar.istio.io/port", "15555"),
            ("status.sidecar.istio.io/port", "0"),
            ("sidecar.istio.io/interceptionMode", "TPROXY"),
            ("traffic.sidecar.istio.io/includeInboundPorts", "80,8080"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "80"),
            ("sidecar.istio.io/userVolume", r#"{"v": {"emptyDir": {}}}"#),
            ("proxy.istio.io/config", "holdApplicationUntilProxyStarts: true"),
        ]),
        0..4,
    );
    let volumes = prop::sample::subsequence(vec!["v", "w", "istio-data"], 0..3);
    (containers, inits, annotations, volumes).prop_map(|(containers, inits, annotations, volumes)| {
        let annotations: Map<String, Value> =
            annotations.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let volumes: Vec<Value> = volumes.into_iter().map(|name| json!({"name": name, "hostPath": {}})).collect();
        let mut pod = json!({
            "metadata": {"name": "p", "annotations": annotations, "labels": {"app": "p"}},
            "spec": {"containers": containers, "volumes": volumes, "kept": [1, {"a": null}]},
        });
        if !inits.is_empty() {
            pod["spec"]["initContainers"] = inits.into();
        }
        pod
    })
}

fn injected(settings: &Settings, pod: &Value) -> Value {
    match inject(settings, &Request::new(pod, "default")).unwrap() {
        Decision::Injected(injected) => injected.pod,
        Decision::Skipped { why, .. } => panic!("skipped: {why}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// No JSON makes it panic, as a pod or as a document.
    #[test]
    fn nothing_panics(mut value in anything(), native: bool) {
        let settings = settings(native);
        let _ = inject(&settings, &Request::new(&value, "default"));
        let pod = json!({"metadata": value, "spec": {"containers": [value]}});
        let _ = inject(&settings, &Request::new(&pod, "default"));
        let pod = json!({"metadata": {"annotations": value}, "spec": value});
        let _ = inject(&settings, &Request::new(&pod, "default"));
        let _ = offline::document(&settings, &offline::Surroundings::default(), &mut value);
    }

    /// Nor does a text as values, configuration, template or annotation.
    #[test]
    fn no_text_panics(text in ".{0,200}", value in anything()) {
        let written = value.to_string();
        for text in [&text, &written] {
            let template = json!({"templates": {"t": text, "sidecar": text}, "defaultTemplates": ["sidecar", "t"]}).to_string();
            for (values, config, mesh) in [(text.as_str(), "", ""), ("", text, ""), ("", "", text), ("", &template, "")] {
                if let Ok((settings, _)) = Settings::read(Sources { values, config, mesh, ..Sources::default() }) {
                    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
                    let _ = inject(&settings, &Request::new(&pod, "n"));
                }
            }
            let _ = yaml::documents(text);
            let _ = mizzen_inject::environment(text);
        }
    }

    /// Injecting twice is injecting once, and the patch leads where it says.
    #[test]
    fn twice_is_once(pod in pod(), native: bool) {
        let settings = settings(native);
        let once = injected(&settings, &pod);
        prop_assert_eq!(&injected(&settings, &once), &once);
        let Decision::Injected(result) = inject(&settings, &Request::new(&pod, "default")).unwrap() else { panic!() };
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &result.patch(&pod)).unwrap();
        prop_assert_eq!(patched, once);
    }

    /// Changing one's mind about the form gives what it had given at first.
    #[test]
    fn another_form_replaces_the_first(pod in pod()) {
        let (native, classic) = (settings(true), settings(false));
        let there = injected(&native, &injected(&classic, &pod));
        prop_assert_eq!(names(&there), names(&injected(&native, &pod)));
        let back = injected(&classic, &there);
        prop_assert_eq!(names(&back), names(&injected(&classic, &pod)));
    }

    /// Users' containers are all there afterwards, and what nobody knows is kept.
    #[test]
    fn nothing_is_lost(pod in pod(), native: bool) {
        let after = injected(&settings(native), &pod);
        prop_assert_eq!(&after["spec"]["kept"], &pod["spec"]["kept"]);
        let (before, after) = (names(&pod), names(&after));
        for name in &before {
            prop_assert_eq!(after.iter().filter(|other| *other == name).count(), 1, "{}", name);
        }
    }
}

/// All containers, in an order of their own.
fn names(pod: &Value) -> Vec<String> {
    let lists = ["initContainers", "containers"].into_iter();
    let all = lists.filter_map(|list| pod["spec"][list].as_array()).flatten();
    let mut names: Vec<String> = all.map(|one| one["name"].to_string()).collect();
    names.sort();
    names
}
