//! The Helm charts: clean, strict about their values, and right in what they render. Without helm the tests say that they were
//! skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "charts/helm.rs"]
mod helm;
#[path = "charts/selectors.rs"]
mod selectors;

use helm::{Rendered, helm_or_skip};
use mizzen_types::Severity;
use serde_json::{Value, json};

const CHARTS: [&str; 3] = ["base", "control", "gateway"];

#[test]
fn helm_lint_is_clean() {
    let Some(helm) = helm_or_skip("helm_lint_is_clean") else { return };
    for chart in CHARTS {
        let said = helm.run(&["lint", "--strict", &helm.chart(chart)]).unwrap();
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
}

#[test]
fn a_misspelt_value_is_refused_by_name() {
    let Some(helm) = helm_or_skip("a_misspelt_value_is_refused_by_name") else { return };
    for (chart, set, named) in [
        ("base", "defaultRevison=x", "defaultRevison"),
        ("base", "base.excludeCRDs={x}", "excludeCRDs"),
        ("control", "meshconfig.accessLogFile=x", "meshconfig"),
        ("control", "meshConfig.acessLogFile=x", "acessLogFile"),
        ("control", "meshConfig.defaultConfig.concurency=2", "concurency"),
        ("control", "global.proxy.resource.limits.cpu=1", "resource"),
        ("control", "autoscaleEnable=false", "autoscaleEnable"),
        ("control", "sidecarInjectorWebhook.rewriteAppHTTPProbes=true", "rewriteAppHTTPProbes"),
        ("gateway", "replicas=2", "replicas"),
        ("gateway", "service.typ=ClusterIP", "typ"),
        ("gateway", "autoscaling.minReplica=2", "minReplica"),
        ("gateway", "global.hubb=x", "hubb"),
    ] {
        let error = helm.template(chart, "x", "istio-system", &[set]).unwrap_err();
        assert!(error.contains(&format!("'{named}' not allowed")), "{chart} {set}: {error}");
    }
    for (chart, set) in
        [("gateway", "service.type=Loadbalancer"), ("control", "replicaCount=two"), ("gateway", "kind=Job")]
    {
        let error = helm.template(chart, "x", "istio-system", &[set]).unwrap_err();
        assert!(error.contains("don't meet the specifications of the schema"), "{chart} {set}: {error}");
    }
}

#[test]
fn gateways_have_the_label_that_gateways_select_by() {
    let Some(helm) = helm_or_skip("gateways_have_the_label_that_gateways_select_by") else { return };
    for (release, set, wanted) in [
        ("istio-ingress", &[][..], "ingressgateway"),
        ("istio-ingressgateway", &[], "ingressgateway"),
        ("istio-egress", &[], "egressgateway"),
        ("istio-egressgateway", &["service.type=ClusterIP"], "egressgateway"),
        ("istio-eastwestgateway", &[], "eastwestgateway"),
        ("shop", &[], "shop"),
        ("istio-ingress", &["labels.istio=public"], "public"),
        ("anything", &["name=istio-ingressgateway"], "ingressgateway"),
    ] {
        let rendered = helm.template("gateway", release, "edge", set).unwrap();
        let deployment = rendered.one("Deployment");
        let service = rendered.one("Service");
        for path in ["/spec/template/metadata/labels/istio", "/spec/selector/matchLabels/istio"] {
            assert_eq!(deployment.pointer(path), Some(&json!(wanted)), "{release} {set:?} {path}");
        }
        assert_eq!(service["spec"]["selector"]["istio"], wanted, "{release} {set:?}");
    }
}

/// All that the charts can render, with options that add objects.
fn everything(helm: &helm::Helm) -> Vec<(&'static str, Rendered)> {
    let render =
        |chart, release, namespace, set: &[&str]| (chart, helm.template(chart, release, namespace, set).unwrap());
    vec![
        render("base", "istio-base", "istio-system", &[]),
        render("control", "istio", "istio-system", &[]),
        render(
            "control",
            "istio-canary",
            "istio-system",
            &["revision=canary", "revisionTags={stable,prod}", "global.networkPolicy.enabled=true", "replicaCount=2"],
        ),
        render(
            "gateway",
            "istio-ingress",
            "istio-ingress",
            &["networkPolicy.enabled=true", "podDisruptionBudget.minAvailable=1"],
        ),
        render("gateway", "istio-egressgateway", "istio-system", &["kind=DaemonSet", "service.type=ClusterIP"]),
    ]
}

#[test]
fn pods_need_no_privilege() {
    let Some(helm) = helm_or_skip("pods_need_no_privilege") else { return };
    let mut pods = 0;
    for (chart, rendered) in everything(&helm) {
        for object in rendered.objects.iter().filter(|object| object.pointer("/spec/template/spec").is_some()) {
            let pod = &object["spec"]["template"]["spec"];
            let own = &pod["securityContext"];
            assert_eq!(own["runAsNonRoot"], true, "{chart}");
            assert_eq!(own["seccompProfile"]["type"], "RuntimeDefault", "{chart}");
            for container in pod["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{chart}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{chart}");
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{chart}");
            }
            pods += 1;
        }
    }
    assert_eq!(pods, 4);
}

#[test]
fn our_own_reader_takes_what_is_rendered() {
    let Some(helm) = helm_or_skip("our_own_reader_takes_what_is_rendered") else { return };
    for (chart, rendered) in everything(&helm) {
        let parsed = mizzen_config::parse(chart, &rendered.text);
        let errors: Vec<_> = parsed.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{chart}: {errors:?}");
    }
}

#[test]
fn injection_takes_its_settings() {
    let Some(helm) = helm_or_skip("injection_takes_its_settings") else { return };
    let set = ["revision=canary", "global.proxy.image=example.test/proxy:1", "meshConfig.accessLogFile=/dev/stdout"];
    let rendered = helm.template("control", "istio", "istio-system", &set).unwrap();
    let data = |name: &str, key: &str| rendered.named("ConfigMap", name)["data"][key].as_str().unwrap().to_owned();
    let values = data("istio-sidecar-injector-canary", "values");
    let config = data("istio-sidecar-injector-canary", "config");
    let mesh = data("istio-canary", "mesh");
    let sources =
        mizzen_inject::Sources { values: &values, config: &config, mesh: &mesh, native: true, ..Default::default() };
    let (settings, warnings) = mizzen_inject::Settings::read(sources).unwrap();
    assert_eq!((settings.revision(), warnings), ("canary", Vec::new()));
    let pod = json!({"metadata": {"name": "app"}, "spec": {"containers": [{"name": "app", "image": "app"}]}});
    let request = mizzen_inject::Request::new(&pod, "default");
    let patch = match mizzen_inject::inject(&settings, &request).unwrap() {
        mizzen_inject::Decision::Injected(injected) => injected.pod.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(
        patch.contains("example.test/proxy:1") && patch.contains("istiod-canary.istio-system.svc:15012"),
        "{patch}"
    );
}

/// `global.logAsJson` and `global.logging.level` reach the control plane and, through injection, every proxy.
#[test]
fn logging_is_as_the_values_say() {
    let Some(helm) = helm_or_skip("logging_is_as_the_values_say") else { return };
    let arguments = |set: &[&str]| {
        let rendered = helm.template("control", "istio", "istio-system", set).unwrap();
        let own = rendered.one("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
        let map = rendered.named("ConfigMap", "istio-sidecar-injector");
        let text = |key: &str| map["data"][key].as_str().unwrap();
        let sources = mizzen_inject::Sources {
            values: text("values"),
            config: text("config"),
            native: true,
            ..Default::default()
        };
        let (settings, _) = mizzen_inject::Settings::read(sources).unwrap();
        let pod = json!({"metadata": {"name": "app"}, "spec": {"containers": [{"name": "app", "image": "app"}]}});
        match mizzen_inject::inject(&settings, &mizzen_inject::Request::new(&pod, "default")).unwrap() {
            mizzen_inject::Decision::Injected(injected) => (own, injected.pod.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let (control, pod) = arguments(&[]);
    assert!(!control.contains("log_as_json") && !pod.contains("log_as_json"), "{control}");
    let (control, pod) = arguments(&["global.logAsJson=true", "global.logging.level=default:debug"]);
    assert!(control.contains("\"--log-level=debug\",\"--log_as_json\""), "{control}");
    assert!(pod.contains("\"--log_as_json\"") && pod.contains("--log_output_level=default:debug"), "{pod}");
}

#[test]
fn the_definitions_are_all_there_and_can_be_left_out() {
    let Some(helm) = helm_or_skip("the_definitions_are_all_there_and_can_be_left_out") else { return };
    let rendered = helm.template("base", "istio-base", "istio-system", &[]).unwrap();
    let definitions = rendered.all("CustomResourceDefinition");
    assert_eq!(definitions.len(), 15);
    for definition in definitions {
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    let fewer =
        helm.template("base", "x", "istio-system", &["base.excludedCRDs={sidecars.networking.istio.io}"]).unwrap();
    assert_eq!(fewer.all("CustomResourceDefinition").len(), 14);
    let none = helm.template("base", "x", "istio-system", &["base.enableCRDTemplates=false"]).unwrap();
    assert!(none.all("CustomResourceDefinition").is_empty());
}

#[test]
fn charts_have_the_version_of_the_program() {
    let Some(helm) = helm_or_skip("charts_have_the_version_of_the_program") else { return };
    for chart in CHARTS {
        let said = helm.run(&["show", "chart", &helm.chart(chart)]).unwrap();
        for key in ["version", "appVersion"] {
            assert!(said.contains(&format!("{key}: {}\n", env!("CARGO_PKG_VERSION"))), "{chart}: {said}");
        }
    }
    let rendered = helm.template("control", "istio", "istio-system", &[]).unwrap();
    let image = rendered.one("Deployment").pointer("/spec/template/spec/containers/0/image").unwrap().clone();
    assert_eq!(image, format!("docker.io/mizzen/mizzen:{}", env!("CARGO_PKG_VERSION")));
}

/// Names that Istio's manifests and tools look for.
#[test]
fn objects_have_the_names_of_istio() {
    let Some(helm) = helm_or_skip("objects_have_the_names_of_istio") else { return };
    let rendered = helm.template("control", "any", "istio-system", &[]).unwrap();
    for (kind, name) in [
        ("Deployment", "istiod"),
        ("Service", "istiod"),
        ("ServiceAccount", "istiod"),
        ("ConfigMap", "istio"),
        ("ConfigMap", "istio-sidecar-injector"),
        ("MutatingWebhookConfiguration", "istio-sidecar-injector"),
        ("ValidatingWebhookConfiguration", "istio-validator-istio-system"),
        ("ClusterRole", "istiod-clusterrole-istio-system"),
    ] {
        rendered.named(kind, name);
    }
    let ports: Vec<Value> = rendered.one("Service")["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| json!([port["port"], port.get("targetPort").unwrap_or(&port["port"])]))
        .collect();
    assert_eq!(json!(ports), json!([[15010, 15010], [15012, 15012], [443, 15017], [15014, 15014]]));
    let base = helm.template("base", "any", "istio-system", &[]).unwrap();
    base.named("ValidatingWebhookConfiguration", "istiod-default-validator");
}
