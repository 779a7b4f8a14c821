//! Istio's Bookinfo sample, unchanged, in a labelled namespace.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::call::{Answer, from_outside};
use crate::kube::{SOON, apply, eventually, get, items, kubectl, name, rolled_out};
use crate::place::Place;
use crate::run::Report;

/// The Gateway and VirtualService of the documentation.
pub(super) const GATEWAY: &str = r#"
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata:
  name: bookinfo-gateway
  namespace: default
spec:
  selector:
    istio: ingressgateway
  servers:
    - port: {number: 80, name: http, protocol: HTTP}
      hosts: ["istio.k3s.local"]
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: bookinfo
  namespace: default
spec:
  hosts: ["istio.k3s.local"]
  gateways: [bookinfo-gateway]
  http:
    - match:
        - uri: {exact: /productpage}
        - uri: {prefix: /static}
        - uri: {exact: /login}
        - uri: {exact: /logout}
        - uri: {prefix: /api/v1/products}
      route:
        - destination: {host: productpage, port: {number: 9080}}
"#;

pub(super) const WORKLOADS: [&str; 6] =
    ["productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"];

pub(super) fn deploy(place: &Place, report: &Report) -> anyhow::Result<()> {
    let began = Instant::now();
    kubectl(&["apply", "-f", &place.bookinfo("platform/kube/bookinfo.yaml")])?;
    for workload in WORKLOADS {
        rolled_out("default", &format!("deploy/{workload}")).context(workload)?;
    }
    report.say("six workloads injected and ready", format!("{:.1} s", began.elapsed().as_secs_f32()));
    for pod in items(&["pods", "-n", "default", "-l", "app in (productpage,details,ratings,reviews)"])? {
        let proxies = ["/spec/initContainers", "/spec/containers"]
            .iter()
            .filter_map(|path| pod.pointer(path).and_then(Value::as_array))
            .flatten()
            .filter(|container| container.get("name").and_then(Value::as_str) == Some("istio-proxy"))
            .count();
        ensure!(proxies == 1, "pod {} has {proxies} containers istio-proxy", name(&pod));
    }
    Ok(())
}

/// Address and port 80 of the LoadBalancer.
pub(super) fn gateway_address() -> anyhow::Result<String> {
    eventually(SOON, || {
        let service = get(&["service", "istio-ingress", "-n", "istio-ingress"])?;
        let address = ["ip", "hostname"]
            .iter()
            .find_map(|kind| service.pointer(&format!("/status/loadBalancer/ingress/0/{kind}")))
            .and_then(Value::as_str);
        Ok(address.context("the LoadBalancer has no address")?.to_owned())
    })
}

/// A call of the page's host by the gateway's address.
pub(super) fn page(place: &Place, path: &str, more: &[&str]) -> anyhow::Result<Answer> {
    let url = format!("http://{}{path}", gateway_address()?);
    from_outside(place, &[&["-H", "Host: istio.k3s.local", &url][..], more].concat())
}

pub(super) fn through_the_gateway(place: &Place, _: &Report) -> anyhow::Result<()> {
    apply(GATEWAY)?;
    let answer = eventually(SOON, || page(place, "/productpage", &[])?.expect(200))?;
    ensure!(answer.body.contains("Comedy of Errors"), "this is not the page: {:.300}", answer.body);
    page(place, "/elsewhere", &[])?.expect(404)?;
    let url = format!("http://{}/productpage", gateway_address()?);
    from_outside(place, &["-H", "Host: other.example.com", &url])?.expect(404)?;
    Ok(())
}
