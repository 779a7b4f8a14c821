//! An authority of one's own in the Secret `cacerts`, taken over while everything runs.
//!
//! The way is that of Istio's documentation: first everybody trusts the old root and the new one, then the signer changes.
//! Roots reach a pod as a file, which the kubelet renews once a minute or so: the step that begins it does not wait for that.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::bookinfo::WORKLOADS;
use super::restarts::{restart, under_load};
use crate::kube::{SOON, apply, eventually, get, items, kubectl, name, run, text};
use crate::pki::Authority;
use crate::place::Place;
use crate::run::Report;

/// Common name of the new root.
const NAME: &str = "mizzen-test-root";
/// The kubelet renews files within a minute and a half; the proxies' look at them comes on top.
const ROOTS: Duration = Duration::from_secs(240);

/// The Secret `cacerts`: a signer with its chain, and all roots that are trusted.
fn cacerts(certificate: &str, key: &str, chain: &str, roots: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "cacerts", "namespace": "istio-system"},
        "stringData": {"ca-cert.pem": certificate, "ca-key.pem": key, "cert-chain.pem": chain, "root-cert.pem": roots},
    })
    .to_string()
}

/// The authority that the control plane has made for itself: certificate and key.
fn own() -> anyhow::Result<(String, String)> {
    let secret = get(&["secret", "istio-ca-secret", "-n", "istio-system"])?;
    let of = |key: &str| -> anyhow::Result<String> {
        let template = format!("{{{{index .data \"{key}\" | base64decode}}}}");
        kubectl(&["get", "secret", "istio-ca-secret", "-n", "istio-system", "-o", &format!("go-template={template}")])
    };
    ensure!(secret.pointer("/data/ca-cert.pem").is_some(), "istio-ca-secret has no ca-cert.pem");
    Ok((of("ca-cert.pem")?, of("ca-key.pem")?))
}

fn published() -> anyhow::Result<String> {
    Ok(text(&get(&["configmap", "istio-ca-root-cert", "-n", "default"])?, "/data/root-cert.pem").to_owned())
}

/// The root of the organisation, which both steps use.
fn root() -> anyhow::Result<&'static Authority> {
    static ROOT: OnceLock<Authority> = OnceLock::new();
    if ROOT.get().is_none() {
        ROOT.set(Authority::root(NAME)?).ok();
    }
    ROOT.get().context("no root")
}

/// The same signer as before, and a second root.
pub(super) fn second_root(_: &Place, _: &Report) -> anyhow::Result<()> {
    let root = root()?;
    let (certificate, key) = own()?;
    let roots = format!("{}{}", certificate, root.certificate);
    apply(&cacerts(&certificate, &key, "", &roots))?;
    eventually(SOON, || {
        let published = published()?;
        ensure!(
            published.contains(certificate.trim()) && published.contains(root.certificate.trim()),
            "istio-ca-root-cert holds {} certificates: {published}",
            published.matches("BEGIN CERTIFICATE").count()
        );
        Ok(())
    })
}

/// Namespaces and names of Bookinfo's pods and of the gateway's.
fn proxies() -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    for (namespace, label) in
        [("default", "app in (productpage,details,ratings,reviews)"), ("istio-ingress", "istio=ingressgateway")]
    {
        all.extend(items(&["pods", "-n", namespace, "-l", label])?.iter().map(|pod| (namespace, name(pod).to_owned())));
    }
    Ok(all)
}

/// The certificates that a proxy has and trusts.
fn secrets(place: &Place, pod: &str) -> anyhow::Result<Value> {
    let arguments = ["proxy-config", "secrets", pod, "-o", "json"];
    Ok(serde_json::from_str(&run(Command::new(&place.mizzen).args(arguments))?)?)
}

/// The signer becomes an authority below the new root. Workloads that have a certificate of it, and those that have one of the
/// old authority, call each other.
pub(super) fn new_signer(place: &Place, report: &Report) -> anyhow::Result<()> {
    let root = root()?;
    let (old, _) = own()?;
    eventually(ROOTS, || {
        for (namespace, pod) in proxies()? {
            let secrets = secrets(place, &format!("{pod}.{namespace}"))?.to_string();
            ensure!(secrets.contains(NAME), "{pod} does not trust the new root yet: {secrets:.500}");
        }
        Ok(())
    })?;

    let signer = root.intermediate("mizzen-test-signer")?;
    let chain = format!("{}{}", signer.certificate, root.certificate);
    let both = format!("{old}{}", root.certificate);
    under_load(place, report, "a new certificate authority", || {
        let before = replacements()?;
        apply(&cacerts(&signer.certificate, &signer.key, &chain, &both))?;
        eventually(SOON, || {
            ensure!(replacements()? > before, "the control plane has not taken the new authority over");
            Ok(())
        })?;
        // While they restart, some have certificates of the new authority and some of the old one.
        restart("default", &WORKLOADS)?;
        restart("istio-ingress", &["istio-ingress"])
    })?;
    // Nobody needs the old root any more: that all goes on without it shows whose certificates they have.
    under_load(place, report, "the end of the old root", || {
        apply(&cacerts(&signer.certificate, &signer.key, &chain, &root.certificate))?;
        eventually(SOON, || {
            let published = published()?;
            ensure!(!published.contains(old.trim()) && published.contains(root.certificate.trim()), "{published}");
            Ok(())
        })?;
        restart("default", &WORKLOADS[..2])
    })
}

/// How often the control planes that run now have taken another authority over.
fn replacements() -> anyhow::Result<usize> {
    let log = kubectl(&["logs", "-n", "istio-system", "-l", "app=istiod", "--tail=-1"])?;
    Ok(log.matches("the certificate authority is replaced").count())
}
