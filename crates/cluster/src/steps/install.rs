//! The charts, in the order of the documentation, and back.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::kube::{SOON, eventually, helm, items, kubectl, name};
use crate::place::Place;
use crate::run::Report;

pub(super) fn install(place: &Place, report: &Report) -> anyhow::Result<()> {
    let began = Instant::now();
    let image = [format!("global.hub={}", place.hub), format!("global.tag={}", place.tag)];
    let (base, control, gateway) = (place.chart("base"), place.chart("control"), place.chart("gateway"));
    kubectl(&["create", "namespace", "istio-system"])?;
    helm(&["install", "istio-base", &base, "-n", "istio-system"])?;
    let set = ["--set", &image[0], "--set", &image[1]];
    let wait = ["--wait", "--timeout", "180s"];
    let log = ["--set", "meshConfig.accessLogFile=/dev/stdout"];
    helm(&[&["install", "istio", &control, "-n", "istio-system"][..], &set, &log, &wait].concat())?;
    report.say("control plane installed and ready", format!("{:.1} s", began.elapsed().as_secs_f32()));
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
    for path in
        ["networking/bookinfo-gateway.yaml", "networking/destination-rule-all.yaml", "platform/kube/bookinfo.yaml"]
    {
        kubectl(&["delete", "--ignore-not-found", "-f", &place.bookinfo(path)])?;
    }
    kubectl(&["delete", "namespace", "--ignore-not-found", "-l", "mizzen-test=yes"])?;
    kubectl(&["label", "namespace", "default", "istio-injection-"])?;
    helm(&["uninstall", "istio-egressgateway", "-n", "istio-system", "--wait"])?;
    helm(&["uninstall", "istio-ingress", "-n", "istio-ingress", "--wait"])?;
    helm(&["uninstall", "istio", "-n", "istio-system", "--wait"])?;
    helm(&["uninstall", "istio-base", "-n", "istio-system", "--wait"])?;
    kubectl(&["delete", "namespace", "istio-ingress", "istio-system"])?;

    let left = eventually(SOON, || {
        let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings,configmaps,leases";
        let left: Vec<String> = items(&[kinds, "-A"])?.iter().filter(|object| ours(object)).map(describe).collect();
        ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        Ok(())
    });
    left.context("after all charts were uninstalled")?;
    let types =
        items(&["customresourcedefinitions"])?.iter().filter(|object| name(object).ends_with(".istio.io")).count();
    ensure!(types >= 14, "the CRDs must stay, {types} are there");
    Ok(())
}

fn ours(object: &Value) -> bool {
    let name = name(object);
    name.contains("istio") || name.contains("mizzen")
}

fn describe(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), name(object))
}
