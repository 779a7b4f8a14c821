//! An API server for tests: lists and watches from memory, and everything that can go wrong with one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

pub(crate) const GROUPS: &[(&str, &[&str])] = &[
    (
        "networking.istio.io/v1",
        &["virtualservices", "destinationrules", "gateways", "serviceentries", "workloadentries", "sidecars"],
    ),
    ("networking.istio.io/v1alpha3", &["envoyfilters", "workloadgroups"]),
    ("networking.istio.io/v1beta1", &["proxyconfigs"]),
    ("security.istio.io/v1", &["peerauthentications", "requestauthentications", "authorizationpolicies"]),
    ("telemetry.istio.io/v1", &["telemetries"]),
];

/// How lists and watches of one kind are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// This status.
    Refuses(u16),
    /// Not at all, until it is well again.
    Hangs,
}

#[derive(Debug, Default)]
struct Inner {
    version: u64,
    /// By path of the kind, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    events: Vec<(u64, String, Value)>,
    /// Versions before this are forgotten.
    oldest: u64,
    /// Forgotten versions are told by a status, not by an event.
    gone_by_status: bool,
    moods: HashMap<String, Mood>,
    unserved: BTreeSet<String>,
    /// What was asked for: path of the kind and query.
    asked: Vec<(String, HashMap<String, String>)>,
}

#[derive(Clone)]
pub(crate) struct Server {
    inner: Arc<Mutex<Inner>>,
    /// Counts changes of anything.
    changed: watch::Sender<u64>,
    /// Counts the times that all watches were broken off.
    broken: watch::Sender<u64>,
    pub(crate) client: Client,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = kube::Config::new(url.parse().unwrap());
        config.default_retry = false;
        let server = Self {
            inner: Arc::default(),
            changed: watch::Sender::new(0),
            broken: watch::Sender::new(0),
            client: Client::try_from(config).unwrap(),
        };
        server.lock().version = 1;
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Creates or replaces an object. `path`: `v1/services` or `networking.istio.io/v1/gateways`.
    pub(crate) fn put(&self, path: &str, namespace: &str, name: &str, mut content: Value) {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        content["metadata"]["name"] = name.into();
        if !namespace.is_empty() {
            content["metadata"]["namespace"] = namespace.into();
        }
        content["metadata"]["resourceVersion"] = version.to_string().into();
        content["metadata"]["managedFields"] = json!([{"manager": "test", "fieldsV1": {"f:spec": {}}}]);
        let key = (path.to_owned(), namespace.to_owned(), name.to_owned());
        let old = inner.objects.insert(key, content.clone());
        let event = json!({"type": if old.is_some() { "MODIFIED" } else { "ADDED" }, "object": content});
        inner.events.push((version, path.to_owned(), event));
        drop(inner);
        self.touch();
    }

    pub(crate) fn delete(&self, path: &str, namespace: &str, name: &str) {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        let key = (path.to_owned(), namespace.to_owned(), name.to_owned());
        let mut content = inner.objects.remove(&key).unwrap();
        content["metadata"]["resourceVersion"] = version.to_string().into();
        inner.events.push((version, path.to_owned(), json!({"type": "DELETED", "object": content})));
        drop(inner);
        self.touch();
    }

    /// Forgets all versions before the present one.
    pub(crate) fn compact(&self, gone_by_status: bool) {
        let mut inner = self.lock();
        inner.version += 1;
        inner.oldest = inner.version;
        inner.events.clear();
        inner.gone_by_status = gone_by_status;
    }

    /// How a kind is answered from now on; an empty path means all.
    pub(crate) fn mood(&self, path: &str, mood: Mood) {
        self.lock().moods.insert(path.to_owned(), mood);
        self.touch();
    }

    /// Breaks off all watches, in the middle of the answer.
    pub(crate) fn drop_watches(&self) {
        self.broken.send_modify(|count| *count += 1);
    }

    /// Whether a kind has a definition.
    pub(crate) fn serve(&self, path: &str, served: bool) {
        let mut inner = self.lock();
        if served {
            inner.unserved.remove(path)
        } else {
            inner.unserved.insert(path.to_owned())
        };
    }

    /// The queries with which a kind was asked for.
    pub(crate) fn asked(&self, path: &str) -> Vec<HashMap<String, String>> {
        self.lock().asked.iter().filter(|(asked, _)| asked == path).map(|(_, query)| query.clone()).collect()
    }

    /// Waits until a kind was asked for `times` times more.
    pub(crate) async fn asked_again(&self, path: &str, times: usize) {
        let before = self.asked(path).len();
        let mut changed = self.changed.subscribe();
        let enough = async {
            while self.asked(path).len() < before + times {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), enough).await.expect("the kind is asked for again");
    }

    fn mood_of(&self, path: &str) -> Mood {
        let moods = &self.lock().moods;
        let own = moods.get(path).copied().filter(|mood| *mood != Mood::Well);
        own.or_else(|| moods.get("").copied()).unwrap_or_default()
    }

    async fn is_well(&self, path: &str) {
        let mut changed = self.changed.subscribe();
        while self.mood_of(path) == Mood::Hangs {
            changed.changed().await.unwrap();
        }
    }
}

async fn answer(State(server): State<Server>, uri: Uri, Query(query): Query<HashMap<String, String>>) -> Response {
    let path = uri.path().trim_start_matches("/apis/").trim_start_matches("/api/");
    if let Some((_, plurals)) = GROUPS.iter().find(|(group, _)| *group == path) {
        if let Mood::Refuses(code) = server.mood_of("") {
            return status(code);
        }
        let served = |plural: &&&str| !server.lock().unserved.contains(&format!("{path}/{plural}"));
        let resources: Vec<Value> = plurals.iter().filter(served).map(resource).collect();
        if resources.is_empty() {
            return status(404);
        }
        return axum::Json(json!({"kind": "APIResourceList", "groupVersion": path, "resources": resources}))
            .into_response();
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    let namespace = parts.iter().position(|part| *part == "namespaces").filter(|at| at + 2 < parts.len());
    let namespace = namespace.map(|at| parts.drain(at..at + 2).next_back().unwrap_or_default().to_owned());
    let kind = parts.join("/");
    server.lock().asked.push((kind.clone(), query.clone()));
    server.touch();
    let known = ["v1/", "discovery.k8s.io/v1/"].iter().any(|prefix| kind.starts_with(prefix))
        || GROUPS.iter().any(|(group, plurals)| plurals.iter().any(|plural| kind == format!("{group}/{plural}")));
    if !known || server.lock().unserved.contains(&kind) {
        return status(404);
    }
    server.is_well(&kind).await;
    if let Mood::Refuses(code) = server.mood_of(&kind) {
        return status(code);
    }
    if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
        return follow(server, kind, &query);
    }
    list(&server, &kind, namespace.as_deref(), &query)
}

fn resource(plural: &&str) -> Value {
    json!({"name": plural, "singularName": "", "namespaced": true, "kind": "Any", "verbs": ["list", "watch"]})
}

fn status(code: u16) -> Response {
    let body = json!({"kind": "Status", "status": "Failure", "message": "as told", "reason": "Told", "code": code});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

fn list(server: &Server, kind: &str, namespace: Option<&str>, query: &HashMap<String, String>) -> Response {
    let inner = server.lock();
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
    let wanted_name = query.get("fieldSelector").and_then(|text| text.strip_prefix("metadata.name="));
    let of_kind = inner.objects.iter().filter(|((of, within, name), _)| {
        of == kind && namespace.is_none_or(|wanted| within == wanted) && wanted_name.is_none_or(|wanted| name == wanted)
    });
    let all: Vec<&Value> = of_kind.map(|(_, object)| object).collect();
    let page: Vec<&Value> = all.iter().skip(from).take(limit).copied().collect();
    let mut metadata = json!({"resourceVersion": inner.version.to_string()});
    if from + page.len() < all.len() {
        metadata["continue"] = (from + page.len()).to_string().into();
    }
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": page})).into_response()
}

fn follow(server: Server, kind: String, query: &HashMap<String, String>) -> Response {
    let from: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    let (oldest, by_status) = {
        let inner = server.lock();
        (inner.oldest, inner.gone_by_status)
    };
    if from < oldest && by_status {
        return status(410);
    }
    let (send, lines) = mpsc::channel::<Result<String, std::io::Error>>(16);
    tokio::spawn(async move {
        let (mut changed, mut broken) = (server.changed.subscribe(), server.broken.subscribe());
        if from < oldest {
            let gone = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410,
                "message": "too old resource version", "reason": "Expired"}});
            let _ = send.send(Ok(format!("{gone}\n"))).await;
            return;
        }
        let mut sent = from;
        loop {
            let waiting: Vec<(u64, Value)> = {
                let inner = server.lock();
                let new = inner.events.iter().filter(|(version, of, _)| *version > sent && *of == kind);
                new.map(|(version, _, event)| (*version, event.clone())).collect()
            };
            for (version, event) in waiting {
                sent = version;
                if send.send(Ok(format!("{event}\n"))).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                _ = broken.changed() => {
                    let _ = send.send(Ok("{\"type\": \"ADD".to_owned())).await;
                    let _ = send.send(Err(std::io::Error::other("broken off"))).await;
                    return;
                }
                () = send.closed() => return,
            }
        }
    });
    Body::from_stream(ReceiverStream::new(lines)).into_response()
}
