//! `mizzen kube-inject`: what is around the manifests counts as it would in a cluster.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.test/web}]}
";

fn proxy_config(namespace: &str, concurrency: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: all, namespace: {namespace}}}\nspec: {{concurrency: {concurrency}}}\n"
    )
}

fn kube_inject(manifests: &str, beside: Option<&str>, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("web.yaml"), manifests).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mizzen"));
    command.current_dir(folder.path()).args(["kube-inject", "-f", "web.yaml"]).args(arguments);
    if let Some(text) = beside {
        std::fs::write(folder.path().join("beside.yaml"), text).unwrap();
        command.args(["--proxyConfigFile", "beside.yaml"]);
    }
    command.output().unwrap()
}

fn injected(manifests: &str, beside: Option<&str>, arguments: &[&str]) -> String {
    let output = kube_inject(manifests, beside, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn proxy_configs_count_beside_the_manifests_and_among_them() {
    let says = |text: &str, threads: &str| text.contains(&format!(r#"{{\"concurrency\":{threads}}}"#));
    assert!(!injected(DEPLOYMENT, None, &[]).contains("concurrency"));
    let beside = proxy_config("istio-system", "3") + &proxy_config("shop", "4");
    assert!(says(&injected(DEPLOYMENT, Some(&beside), &[]), "3"));
    assert!(says(&injected(DEPLOYMENT, Some(&beside), &["-n", "shop"]), "4"));
    let among = format!("{DEPLOYMENT}{}", proxy_config("default", "5"));
    let text = injected(&among, Some(&beside), &[]);
    assert!(says(&text, "5") && text.contains("kind: ProxyConfig"), "{text}");
}

#[test]
fn a_wrong_proxy_config_is_an_error_and_other_kinds_are_not_judged() {
    let output = kube_inject(DEPLOYMENT, Some(&proxy_config("default", "many")), &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("beside.yaml:") && said.contains("spec.concurrency"), "{said}");
    let wrong = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {sevrers: []}\n";
    injected(DEPLOYMENT, Some(wrong), &[]);
}
