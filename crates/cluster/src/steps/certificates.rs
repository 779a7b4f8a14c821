//! A gateway's TLS, with the certificate of a Secret.

use anyhow::{Context, ensure};

use super::bookinfo::gateway_address;
use crate::applied::Applied;
use crate::call::{Answer, from_outside};
use crate::kube::{SOON, eventually};
use crate::pki::{Authority, literal};
use crate::place::Place;
use crate::run::Report;

const HOST: &str = "secure.mizzen.test";

const GATEWAY: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: mizzen-test-secure, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: mizzen-test-secure}
    hosts: [secure.mizzen.test]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mizzen-test-secure, namespace: default}
spec:
  hosts: [secure.mizzen.test]
  gateways: [mizzen-test-secure]
  http: [{route: [{destination: {host: productpage, port: {number: 9080}}}]}]
"#;

/// In the namespace of the gateway's pods.
fn secret(authority: &Authority) -> anyhow::Result<String> {
    let (certificate, key) = authority.server(HOST)?;
    Ok(format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: mizzen-test-secure, namespace: istio-ingress}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        literal(&certificate, 4),
        literal(&key, 4)
    ))
}

/// A caller who trusts this authority alone.
fn call(place: &Place, address: &str, authority: &Authority) -> anyhow::Result<Answer> {
    let file = std::env::temp_dir().join(format!("mizzen-test-root-{}.pem", std::process::id()));
    std::fs::write(&file, &authority.certificate)?;
    let resolve = format!("{HOST}:443:{address}");
    let path = file.display().to_string();
    let url = format!("https://{HOST}/productpage");
    let answer = from_outside(place, &["--resolve", &resolve, "--cacert", &path, &url]);
    std::fs::remove_file(&file)?;
    answer
}

pub(super) fn of_a_secret(place: &Place, _: &Report) -> anyhow::Result<()> {
    let address = gateway_address()?;
    let (first, second) = (Authority::root("first")?, Authority::root("second")?);
    let _gateway = Applied::new(GATEWAY)?;
    let refused = call(place, &address, &first)?;
    ensure!(refused.status == 0, "without a Secret the answer is {}", refused.status);

    let _secret = Applied::new(secret(&first)?)?;
    eventually(SOON, || {
        let answer = call(place, &address, &first)?.expect(200)?;
        ensure!(answer.body.contains("Comedy of Errors"), "this is not the page: {:.300}", answer.body);
        Ok(())
    })
    .context("the Secret came after the Gateway")?;
    ensure!(call(place, &address, &second)?.status == 0, "a caller who trusts another authority is answered");

    let _renewed = Applied::new(secret(&second)?)?;
    eventually(SOON, || call(place, &address, &second)?.expect(200))
        .context("the Secret has another certificate")
        .map(drop)
}
