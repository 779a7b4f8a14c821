//! The charts, in the order of the documentation, and back.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::kube::{SOON, eventually, helm, items, kubectl, name};
use crate::place::Place;
use crate::run::Report;

/// The values that name the image under test.
pub(super) fn image(place: &Place) -> [String; 2] {
    [format!("global.hub={}", place.hub), format!("global.tag={}", place.tag)]
}

/// A label that lets only pods without any privilege into a namespace.
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

pub(super) fn install(place: &Place, report: &Report) -> anyhow::Result<()> {
    let began = Instant::now();
    let image = image(place);
    let (base, control, gateway) = (place.chart("base"), place.chart("control"), place.chart("gateway"));
    kubectl(&["create", "namespace", "istio-system"])?;
    helm(&["install", "istio-base", &base, "-n", "istio-system"])?;
    let set = ["--set", &image[0], "--set", &image[1]];
    let wait = ["--wait", "--timeout", "180s"];
    let log = ["--set", "meshConfig.accessLogFile=/dev/stdout"];
    helm(&[&["install", "istio", &control, "-n", "istio-system"][..], &set, &log, &wait].concat())?;
    report.say("control plane installed and ready", format!("{:.1} s", began.elapsed().as_secs_f32()));
    // Gateways need no privilege: their namespace says so before the first pod comes.
    kubectl(&["create", "namespace", "istio-ingress"])?;
    kubectl(&["label", "namespace", "istio-ingress", RESTRICTED])?;
    helm(
        &[&["install", "istio-ingress", &gateway, "-n", "istio-ingress", "--create-namespace"][..], &set, &wait]
            .concat(),
    )?;
    let egress = ["install", "istio-egressgateway", &gateway, "-n", "istio-system", "--set", "service.type=ClusterIP"];
    helm(&[&egress[..], &set, &wait].concat())?;
    kubectl(&["label", "namespace", "default", "istio-injection=enabled", "--overwrite"])?;

    for (namespace, release, wanted) in
        [("istio-ingress", "istio-ingress", "ingressgateway"), ("istio-system", "istio-egressgateway", "egressgateway")]
    {
        let pods = items(&["pods", "-n", namespace, "-l", &format!("istio={wanted}")])?;
        ensure!(!pods.is_empty(), "the release {release} has no pod with the label istio: {wanted}");
    }
    eventually(SOON, || {
        for namespace in ["default", "istio-system", "istio-ingress"] {
            kubectl(&["get", "configmap", "istio-ca-root-cert", "-n", namespace])?;
        }
        Ok(())
    })
}

pub(super) fn uninstall(place: &Place, _: &Report) -> anyhow::Result<()> {
    let uninstall = |release: &str, namespace: &str| {
        helm(&["uninstall", release, "-n", namespace, "--ignore-not-found", "--wait", "--timeout", "300s"]).map(drop)
    };
    // Users first: their pods end side by side, while their control plane is still there.
    let delete =
        |path: &str| kubectl(&["delete", "--ignore-not-found", "--wait=false", "-f", &place.bookinfo(path)]).map(drop);
    // Where the definitions were never installed, there can be no object of them.
    if types()? > 0 {
        delete("networking/bookinfo-gateway.yaml")?;
        delete("networking/destination-rule-all.yaml")?;
    }
    delete("platform/kube/bookinfo.yaml")?;
    kubectl(&["delete", "namespace", "--ignore-not-found", "--wait=false", "-l", "mizzen-test=yes"])?;
    kubectl(&["label", "namespace", "default", "istio-injection-", "istio.io/rev-"])?;
    uninstall("istio-egressgateway", "istio-system")?;
    uninstall("istio-ingress", "istio-ingress")?;
    uninstall("istio", "istio-system")?;
    uninstall("istio-canary", "istio-system")?;
    uninstall("istio-base", "istio-system")?;
    kubectl(&["delete", "namespace", "--ignore-not-found", "istio-ingress", "istio-system"])?;
    kubectl(&["wait", "--for=delete", "namespace", "-l", "mizzen-test=yes", "--timeout=300s"])?;
    kubectl(&["wait", "--for=delete", "pods", "-n", "default", "--all", "--timeout=300s"])?;

    let left = eventually(SOON, || {
        let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings,configmaps,leases";
        let left: Vec<String> = items(&[kinds, "-A"])?.iter().filter(|object| ours(object)).map(describe).collect();
        ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        Ok(())
    });
    left.context("after all charts were uninstalled")?;
    let types = types()?;
    ensure!(types >= 14, "the CRDs must stay, {types} are there");
    Ok(())
}

/// How many of Istio's kinds are defined.
fn types() -> anyhow::Result<usize> {
    let all = items(&["customresourcedefinitions"])?;
    Ok(all.iter().filter(|object| name(object).ends_with(".istio.io")).count())
}

fn ours(object: &Value) -> bool {
    // There the leases of nodes are, whatever they are called.
    if object.pointer("/metadata/namespace").is_some_and(|namespace| namespace == "kube-node-lease") {
        return false;
    }
    let name = name(object);
    name.contains("istio") || name.contains("mizzen")
}

fn describe(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), name(object))
}
