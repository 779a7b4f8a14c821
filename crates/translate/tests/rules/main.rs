//! What rules become, case by case: a small mesh, one rule, and the part of a resource that it decides.

mod dumps;
mod endpoints;
mod names;
mod proxies;
mod routes;

use std::sync::Arc;

use mizzen_config::Change;
use mizzen_mesh::Mesh;
use mizzen_proto::json::Json;
use mizzen_translate::{ProxyView, Resource};
use serde_json::{Value, json};

const BASE: &str = include_str!("base.yaml");

fn mesh(yaml: &str) -> Arc<Mesh> {
    let parsed = mizzen_config::parse("test.yaml", &format!("{BASE}\n---\n{yaml}"));
    let wrong: Vec<_> =
        parsed.findings.iter().filter(|finding| finding.severity == mizzen_types::Severity::Error).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let changes: Vec<Change> = parsed.objects.into_iter().map(Change::Put).collect();
    Mesh::empty().apply(&changes).0
}

fn sidecar(mesh: &Mesh, more: &Value) -> ProxyView {
    let id = "sidecar~10.0.0.1~front-1.shop~shop.svc.cluster.local";
    ProxyView::new(id, more, mesh).expect("a node")
}

fn gateway(mesh: &Mesh, more: &Value) -> ProxyView {
    let id = "router~10.0.0.9~gateway-1.istio-system~istio-system.svc.cluster.local";
    ProxyView::new(id, more, mesh).expect("a node")
}

fn redirected() -> Value {
    json!({"MIZZEN_VERSION": "0.1.0"})
}

fn bound() -> Value {
    json!({
        "MIZZEN_VERSION": "0.1.0",
        "INTERCEPTION_MODE": "NONE",
        "HTTP_PROXY_PORT": "15002",
        "MIZZEN_APP": {"8080": "127.0.0.1:41234"},
    })
}

fn decode(resource: &Resource) -> Value {
    Json::new().decode_any(resource.type_url, &resource.body).expect("what is sent can be read")
}

fn table(mesh: &Mesh, view: &ProxyView, name: &str) -> Value {
    let made = mizzen_translate::route_table(mesh, &view.scope(mesh), name);
    decode(&made.unwrap_or_else(|| panic!("there is no table {name}")))
}

fn named(all: &[Resource], name: &str) -> Value {
    let names: Vec<&str> = all.iter().map(|resource| resource.name.as_str()).collect();
    decode(all.iter().find(|resource| resource.name == name).unwrap_or_else(|| panic!("no {name} in {names:?}")))
}

/// The virtual host that has a domain.
fn host<'a>(table: &'a Value, domain: &str) -> &'a Value {
    let hosts = table["virtualHosts"].as_array().expect("there are some");
    let has = |host: &&Value| host["domains"].as_array().is_some_and(|all| all.iter().any(|d| d == domain));
    hosts.iter().find(has).unwrap_or_else(|| panic!("no host for {domain} in {table}"))
}

/// A VirtualService of `reviews` with these rules.
fn reviews(http: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: reviews, namespace: shop}}, spec: \
         {{hosts: [reviews], http: {http}}}}}"
    )
}

const TO: &str = "route: [{destination: {host: reviews}}]";
