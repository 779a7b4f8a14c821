//! Debug pages and metrics over HTTP: read only, and without any secret.
//!
//! Pages other than health and metrics are for this machine: they are refused to callers from elsewhere, and to
//! requests whose `Host` is not this machine's (a web page could otherwise have a browser read them by a name that it
//! has resolved to a loopback address).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, Uri, header};
use mizzen_config::Kind;
use mizzen_types::{Finding, ObjectKey, Position, Severity};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::Shared;
use crate::inspect::{self, Refusal, Sight};
use crate::metrics::Gauges;

/// The pages.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let debug = Router::new()
        .route("/debug", get(index))
        .route("/version", get(version))
        // As `istioctl` spells it.
        .route("//version", get(version))
        .route("/debug/syncz", get(inspected))
        .route("/debug/config_dump", get(inspected))
        .route("/debug/connections", get(inspected))
        .route("/debug/nodes", get(nodes))
        .route("/debug/positions", get(positions))
        .route("/debug/findings", get(findings))
        .route("/debug/configz", get(configz))
        .layer(middleware::from_fn(only_from_here));
    Router::new().route("/ready", get(ready)).route("/metrics", get(metrics)).merge(debug).with_state(shared)
}

/// Refuses callers and host names from elsewhere.
async fn only_from_here(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    if !peer.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "debug pages are served to this machine alone\n").into_response();
    }
    if !host.is_none_or(is_this_machine) {
        return (StatusCode::FORBIDDEN, "the Host header does not name this machine\n").into_response();
    }
    next.run(request).await
}

/// Whether a `Host` header is a loopback address or `localhost`, with any port.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", shared.waiting.load())).into_response()
}

async fn index() -> &'static str {
    "/debug/syncz        who is connected, and what each was sent, has acknowledged and has refused\n\
     /debug/connections  who is connected, and since when\n\
     /debug/config_dump  ?proxyID=NAME.NAMESPACE what a proxy should have now; &include_eds with endpoints\n\
     /debug/nodes        what each proxy says of itself\n\
     /debug/positions    ?kind=&namespace=&name=&field= where something stands\n\
     /debug/findings     what a person should know about the configuration\n\
     /debug/configz      the objects in force\n\
     /version            of this control plane\n\
     /metrics            Prometheus text\n\
     /ready              200 once all configuration has been read, 503 before\n"
}

/// What `istioctl version` asks.
async fn version() -> Json<Value> {
    Json(json!({"clientVersion": inspect::version()}))
}

/// The pages that tools read over the discovery port as well.
async fn inspected(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let whole = uri.path_and_query().map_or("", |whole| whole.as_str());
    let name = whole.strip_prefix("/debug/").unwrap_or_default().to_owned();
    // A dump of a large mesh is long.
    let page = tokio::task::spawn_blocking(move || inspect::page(&shared, Sight::All, &name)).await;
    match page {
        Ok(Ok(page)) => Json(page).into_response(),
        Ok(Err(refusal)) => {
            let status = match refusal {
                Refusal::NoPage(_) | Refusal::NotConnected(_) => StatusCode::NOT_FOUND,
                Refusal::NoProxy => StatusCode::BAD_REQUEST,
                Refusal::Unshown { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, format!("{refusal}\n")).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn nodes(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.status().nodes())
}

#[derive(Deserialize)]
struct Place {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
    #[serde(default)]
    field: String,
}

async fn positions(State(shared): State<Arc<Shared>>, Query(place): Query<Place>) -> Response {
    let key = ObjectKey::new(&place.kind, &place.namespace, &place.name);
    let found = shared.objects.load().get(&key).map(|object| object.at(&place.field));
    match found {
        Some(Some(position)) => Json(position_json(&position)).into_response(),
        Some(None) => (StatusCode::NOT_FOUND, format!("{key} was not read from a file\n")).into_response(),
        None => (StatusCode::NOT_FOUND, format!("there is no {key}\n")).into_response(),
    }
}

fn position_json(position: &Position) -> Value {
    json!({"file": &*position.file, "line": position.line, "column": position.column, "text": position.to_string()})
}

async fn findings(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (reading, across) = &**shared.findings.load();
    Json(reading.iter().chain(across).map(finding_json).collect())
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "code": finding.code,
        "severity": match finding.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        },
        "origin": finding.origin.as_ref().map(|origin| json!({
            "kind": &*origin.object.kind,
            "namespace": &*origin.object.namespace,
            "name": &*origin.object.name,
            "field": origin.field,
        })),
        "position": finding.position.as_ref().map(position_json),
        "message": finding.message,
        "hint": finding.hint,
    })
}

async fn configz(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let object = |(key, object): (&ObjectKey, &Arc<mizzen_config::Object>)| {
        let mut entry = json!({
            "kind": &*key.kind,
            "metadata": {
                "name": &*key.name,
                "namespace": &*key.namespace,
                "labels": object.meta.labels.iter().collect::<std::collections::BTreeMap<_, _>>(),
            },
            "position": object.at("").as_ref().map(position_json),
        });
        if matches!(object.kind, Kind::Secret(_)) {
            entry["redacted"] = true.into();
        }
        entry
    };
    Json(shared.objects.load().iter().map(object).collect())
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let world = shared.world.load_full();
    let count = |kind: &str| shared.objects.load().keys().filter(|key| *key.kind == *kind).count();
    let findings = shared.findings.load();
    let gauges = Gauges {
        streams: shared.status().proxies.len(),
        services: count("Service") + count("ServiceEntry"),
        virtual_services: count("VirtualService"),
        findings: findings.0.len() + findings.1.len(),
        revision: world.revision,
        resident_bytes: crate::metrics::resident_bytes(),
    };
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.text(&gauges)).into_response()
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn only_loopback_names_are_this_machine() {
        for host in ["localhost", "LocalHost:15014", "127.0.0.1", "127.64.0.1:15014", "[::1]:15014", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:15014",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "10.0.0.1",
            "[::2]:1",
            "::1.evil",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
