//! TLS begins at the egress gateway: plain HTTP in the application, mutual TLS to the gateway, TLS from there to the outside.
//!
//! The outside is a server with TLS in a namespace without sidecars: this program with a bootstrap of its own.

use anyhow::{Context, bail, ensure};

use super::services::{MESHED, PLAIN};
use crate::applied::Applied;
use crate::call::{Answer, from_pod};
use crate::kube::{SOON, eventually, get, items, kubectl, rolled_out, text};
use crate::pki::{Authority, literal};
use crate::place::Place;
use crate::run::Report;

const HOST: &str = "secure.example.test";
const NAMESPACE: &str = "mizzen-test-tls";

fn server(place: &Place, certificate: &str, key: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}, labels: {{istio-injection: disabled, mizzen-test: "yes"}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: server, namespace: {NAMESPACE}}}
data:
  tls.crt: |
{}  tls.key: |
{}  bootstrap.yaml: |
    static_resources:
      listeners:
      - name: tls
        address: {{socket_address: {{address: 0.0.0.0, port_value: 9443}}}}
        listener_filters:
        - name: envoy.filters.listener.tls_inspector
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
        filter_chains:
        - filter_chain_match: {{server_names: [{HOST}]}}
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                tls_certificates:
                - {{certificate_chain: {{filename: /server/tls.crt}}, private_key: {{filename: /server/tls.key}}}}
          filters:
          - name: envoy.filters.network.http_connection_manager
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
              stat_prefix: tls
              route_config:
                virtual_hosts:
                - name: all
                  domains: ["{HOST}", "{HOST}:*"]
                  routes:
                  - match: {{prefix: /}}
                    direct_response: {{status: 200, body: {{inline_string: "said over TLS"}}}}
              http_filters:
              - name: envoy.filters.http.router
                typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: server, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: server}}}}
  template:
    metadata: {{labels: {{app: server}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: server
        image: {}/mizzen:{}
        imagePullPolicy: IfNotPresent
        args: [proxy, -c, /server/bootstrap.yaml]
        readinessProbe: {{tcpSocket: {{port: 9443}}, periodSeconds: 1}}
        volumeMounts: [{{name: server, mountPath: /server}}]
      volumes: [{{name: server, configMap: {{name: server}}}}]
"#,
        literal(certificate, 4),
        literal(key, 4),
        place.hub,
        place.tag
    )
}

/// As the task of Istio's documentation, with a name and an address of our own.
fn through_the_gateway(address: &str) -> String {
    format!(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: secure, namespace: {MESHED}}}
spec:
  hosts: [{HOST}]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 443, name: https, protocol: HTTPS, targetPort: 9443}}]
  endpoints: [{{address: {address}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: secure, namespace: {MESHED}}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: 80, name: https-port-for-tls-origination, protocol: HTTPS}}
    hosts: [{HOST}]
    tls: {{mode: ISTIO_MUTUAL}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: to-the-gateway, namespace: {MESHED}}}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  subsets:
  - name: secure
    trafficPolicy:
      portLevelSettings: [{{port: {{number: 80}}, tls: {{mode: ISTIO_MUTUAL, sni: {HOST}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: secure, namespace: {MESHED}}}
spec:
  hosts: [{HOST}]
  gateways: [secure, mesh]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, subset: secure, port: {{number: 80}}}}}}]
  - match: [{{gateways: [secure], port: 80}}]
    route: [{{destination: {{host: {HOST}, port: {{number: 443}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: secure, namespace: {MESHED}}}
spec:
  host: {HOST}
  trafficPolicy:
    portLevelSettings:
    - port: {{number: 443}}
      tls: {{mode: SIMPLE, credentialName: outside-authority, sni: {HOST}}}
"#
    )
}

/// What the egress gateway trusts outside.
fn trusted(certificate: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: outside-authority, namespace: istio-system}}\nstringData:\n  ca.crt: |\n{}",
        literal(certificate, 4)
    )
}

fn call(namespace: &str, address: &str) -> anyhow::Result<Answer> {
    let resolve = format!("{HOST}:80:{address}");
    from_pod(namespace, &["--resolve", &resolve, &format!("http://{HOST}/")])
}

pub(super) fn begins_at_the_gateway(place: &Place, _: &Report) -> anyhow::Result<()> {
    let (authority, stranger) = (Authority::root("outside")?, Authority::root("stranger")?);
    let (certificate, key) = authority.server(HOST)?;
    let _server = Applied::new(server(place, &certificate, &key))?;
    rolled_out(NAMESPACE, "deploy/server")?;
    let pods = items(&["pods", "-n", NAMESPACE, "-l", "app=server"])?;
    let address = text(pods.first().context("no pod of the server")?, "/status/podIP").to_owned();

    let _trusted = Applied::new(trusted(&stranger.certificate))?;
    let _resources = Applied::new(through_the_gateway(&address))?;
    eventually(SOON, || {
        call(MESHED, &address)?.expect(503)?;
        // Only the gateway knows why: the certificate is not one of the authority that it trusts.
        let log = kubectl(&["logs", "-n", "istio-system", "deploy/istio-egressgateway", "--tail=20"])?;
        ensure!(log.contains(HOST) && log.contains("certificate"), "no word of a certificate: {log:.2000}");
        Ok(())
    })
    .context("the server's certificate is of an authority that the gateway does not trust")?;

    let _trusted = Applied::new(trusted(&authority.certificate))?;
    eventually(SOON, || {
        let answer = call(MESHED, &address)?.expect(200)?;
        ensure!(answer.body == "said over TLS", "the answer is {:?}", answer.body);
        Ok(())
    })
    .context("the gateway trusts the server's authority")?;

    // Who is not in the mesh cannot use the gateway's port: it wants a certificate of the mesh.
    let service = get(&["service", "istio-egressgateway", "-n", "istio-system"])?;
    let gateway = text(&service, "/spec/clusterIP").to_owned();
    if let Ok(answer) = call(PLAIN, &gateway)
        && answer.status != 0
    {
        bail!("the gateway answered {} to a caller without a certificate", answer.status);
    }
    // Nor does the server answer to plain HTTP: the TLS that it was asked with is the gateway's.
    if let Ok(answer) = from_pod(PLAIN, &["-H", &format!("Host: {HOST}"), &format!("http://{address}:9443/")])
        && answer.status != 0
    {
        bail!("the server answered {} to plain HTTP", answer.status);
    }
    Ok(())
}
