//! Which pods the injection webhooks are asked about: the selectors, evaluated as the API server does.

use serde_json::Value;

use super::helm::helm_or_skip;

type Labels = [(&'static str, &'static str)];

/// Whether a label selector matches.
fn matches(selector: &Value, labels: &[(&str, &str)]) -> bool {
    assert!(selector.get("matchLabels").is_none(), "not evaluated here");
    selector["matchExpressions"].as_array().unwrap().iter().all(|expression| {
        let key = expression["key"].as_str().unwrap();
        let value = labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let listed = |value: &str| expression["values"].as_array().unwrap().iter().any(|one| one == value);
        match expression["operator"].as_str().unwrap() {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("operator {other}"),
        }
    })
}

/// Names of the webhooks that are asked about a pod.
fn asked(hooks: &[&Value], namespace: &str, of_namespace: &Labels, of_pod: &Labels) -> Vec<String> {
    let mut of_namespace = of_namespace.to_vec();
    of_namespace.push(("kubernetes.io/metadata.name", namespace));
    hooks
        .iter()
        .flat_map(|configuration| {
            let name = configuration["metadata"]["name"].as_str().unwrap();
            configuration["webhooks"].as_array().unwrap().iter().map(move |hook| (name, hook))
        })
        .filter(|(_, hook)| {
            matches(&hook["namespaceSelector"], &of_namespace) && matches(&hook["objectSelector"], of_pod)
        })
        .map(|(name, hook)| {
            format!("{name} {}", hook["name"].as_str().unwrap().trim_end_matches(".sidecar-injector.istio.io"))
        })
        .collect()
}

const INJECTION: (&str, &str) = ("istio-injection", "enabled");
const DISABLED: (&str, &str) = ("istio-injection", "disabled");
const CANARY: (&str, &str) = ("istio.io/rev", "canary");
const STABLE: (&str, &str) = ("istio.io/rev", "stable");
const DEFAULT: (&str, &str) = ("istio.io/rev", "default");
const YES: (&str, &str) = ("sidecar.istio.io/inject", "true");
const NO: (&str, &str) = ("sidecar.istio.io/inject", "false");

/// The default revision, and a canary with the tag `stable`, side by side.
#[test]
fn each_pod_is_asked_about_once_and_by_the_right_revision() {
    let Some(helm) = helm_or_skip("each_pod_is_asked_about_once_and_by_the_right_revision") else { return };
    let default = helm.template("control", "istio", "istio-system", &[]).unwrap();
    let canary =
        helm.template("control", "canary", "istio-system", &["revision=canary", "revisionTags={stable}"]).unwrap();
    let kind = "MutatingWebhookConfiguration";
    let hooks: Vec<&Value> = default.all(kind).into_iter().chain(canary.all(kind)).collect();
    let own = "istio-sidecar-injector";
    let of_canary = "istio-sidecar-injector-canary";
    let of_tag = "istio-revision-tag-stable";
    for (namespace, of_namespace, of_pod, wanted) in [
        ("shop", &[][..], &[][..], None),
        ("shop", &[INJECTION], &[], Some((own, "namespace"))),
        ("shop", &[INJECTION], &[YES], Some((own, "namespace"))),
        ("shop", &[INJECTION], &[NO], None),
        ("shop", &[DISABLED], &[YES], None),
        ("shop", &[DISABLED], &[CANARY], None),
        ("shop", &[], &[YES], Some((own, "object"))),
        ("shop", &[], &[CANARY], Some((of_canary, "rev.object"))),
        ("shop", &[], &[YES, CANARY], Some((of_canary, "rev.object"))),
        ("shop", &[], &[STABLE], Some((of_tag, "rev.object"))),
        ("shop", &[], &[DEFAULT], Some((own, "rev.object"))),
        ("shop", &[DEFAULT], &[], Some((own, "rev.namespace"))),
        ("shop", &[CANARY], &[], Some((of_canary, "rev.namespace"))),
        ("shop", &[CANARY], &[STABLE], Some((of_canary, "rev.namespace"))),
        ("shop", &[CANARY], &[NO], None),
        ("shop", &[STABLE], &[], Some((of_tag, "rev.namespace"))),
        // `istio-injection` beats the revision.
        ("shop", &[INJECTION, CANARY], &[], Some((own, "namespace"))),
        // What the cluster needs to live.
        ("kube-system", &[INJECTION], &[YES], None),
        ("kube-node-lease", &[CANARY], &[], None),
        // The control plane's namespace: only what asks for it.
        ("istio-system", &[], &[], None),
        ("istio-system", &[], &[YES], Some((own, "object"))),
    ] {
        let wanted: Vec<String> =
            wanted.iter().map(|(configuration, hook)| format!("{configuration} {hook}")).collect();
        assert_eq!(asked(&hooks, namespace, of_namespace, of_pod), wanted, "{namespace} {of_namespace:?} {of_pod:?}");
    }
}

#[test]
fn the_control_plane_never_waits_for_itself() {
    let Some(helm) = helm_or_skip("the_control_plane_never_waits_for_itself") else { return };
    let set = ["sidecarInjectorWebhook.enableNamespacesByDefault=true", "revisionTags={default,stable}"];
    let rendered = helm.template("control", "istio", "istio-system", &set).unwrap();
    let hooks = rendered.all("MutatingWebhookConfiguration");
    let labels = rendered.one("Deployment").pointer("/spec/template/metadata/labels").unwrap().as_object().unwrap();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap())).collect();
    for of_namespace in [&[][..], &[INJECTION], &[DEFAULT], &[STABLE]] {
        let mut of_namespace = of_namespace.to_vec();
        of_namespace.push(("kubernetes.io/metadata.name", "istio-system"));
        for hook in hooks.iter().flat_map(|configuration| configuration["webhooks"].as_array().unwrap()) {
            let called =
                matches(&hook["namespaceSelector"], &of_namespace) && matches(&hook["objectSelector"], &labels);
            assert!(!called, "{} with {of_namespace:?}", hook["name"]);
        }
    }
}

#[test]
fn all_namespaces_if_asked_for() {
    let Some(helm) = helm_or_skip("all_namespaces_if_asked_for") else { return };
    let set = ["sidecarInjectorWebhook.enableNamespacesByDefault=true"];
    let rendered = helm.template("control", "istio", "istio-system", &set).unwrap();
    let hooks = rendered.all("MutatingWebhookConfiguration");
    assert_eq!(asked(&hooks, "shop", &[], &[]), ["istio-sidecar-injector auto"]);
    assert_eq!(asked(&hooks, "shop", &[], &[YES]), ["istio-sidecar-injector object"]);
    for (namespace, of_namespace, of_pod) in [
        ("shop", &[DISABLED][..], &[][..]),
        ("shop", &[], &[NO]),
        ("kube-system", &[], &[]),
        ("istio-system", &[], &[]),
    ] {
        assert_eq!(asked(&hooks, namespace, of_namespace, of_pod), [""; 0], "{namespace}");
    }
}
