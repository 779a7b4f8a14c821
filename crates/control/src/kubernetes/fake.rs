//! A small API server in memory, for tests: objects with resource versions, selectors, watches, patches.
//!
//! It knows nothing of kinds; what it lacks (validation, defaults, garbage collection) no test here needs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::Place;

/// Answers some requests in the place of the store: method, path, body.
type Hook = Box<dyn Fn(&Method, &str, &Value) -> Option<(u16, Value)> + Send>;
type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The server; clones are the same one.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Inner>);

struct Inner {
    store: Mutex<Store>,
    changed: watch::Sender<u64>,
    hook: Mutex<Option<Hook>>,
}

#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<Key, Value>,
    events: Vec<(u64, Key, &'static str, Value)>,
    /// Method and path of every request but reads.
    writes: Vec<String>,
}

/// API group and version, plural, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key(String, String, String, String);

impl Fake {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { store: Mutex::default(), changed: watch::Sender::new(0), hook: Mutex::new(None) }))
    }

    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Answers on a socket, for those who connect as they do to a real one.
    pub(crate) fn listen(&self, listener: tokio::net::TcpListener) -> tokio::task::JoinHandle<()> {
        let fake = self.clone();
        let answer = move |request: Request<axum::body::Body>| {
            let fake = fake.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = Body::from(body.collect().await.unwrap().to_bytes().to_vec());
                let (head, body) = fake.answer(Request::from_parts(head, body)).await.into_parts();
                // The streams of watches go through a channel that can be sent to another thread.
                let (lines, queue) = mpsc::channel::<Result<Bytes, Infallible>>(64);
                tokio::spawn(async move {
                    let mut body = body.into_data_stream();
                    while let Some(Ok(line)) = body.next().await {
                        if lines.send(Ok(line)).await.is_err() {
                            return;
                        }
                    }
                });
                Response::from_parts(head, axum::body::Body::from_stream(ReceiverStream::new(queue)))
            }
        };
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
    }

    /// A replica of a control plane in `istio-system`.
    pub(crate) fn place(&self, replica: &str) -> Place {
        Place {
            client: self.client(),
            namespace: "istio-system".to_owned(),
            revision: "default".to_owned(),
            replica: replica.to_owned(),
        }
    }

    pub(crate) fn hook(&self, hook: impl Fn(&Method, &str, &Value) -> Option<(u16, Value)> + Send + 'static) {
        *self.0.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn no_hook(&self) {
        *self.0.hook.lock().unwrap() = None;
    }

    /// The object at a path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let (key, _) = parse(path);
        self.0.store.lock().unwrap().objects.get(&key).cloned()
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        let (key, _) = parse(path);
        self.0.store.lock().unwrap().put(key, object);
        self.wake();
    }

    pub(crate) fn delete(&self, path: &str) {
        let (key, _) = parse(path);
        self.0.store.lock().unwrap().delete(&key);
        self.wake();
    }

    /// How many requests so far wrote to paths that contain this.
    pub(crate) fn writes(&self, path: &str) -> usize {
        self.0.store.lock().unwrap().writes.iter().filter(|write| write.contains(path)).count()
    }

    /// Waits until the store is as wished.
    pub(crate) async fn until(&self, what: &str, wished: impl Fn(&Self) -> bool) {
        let mut changed = self.0.changed.subscribe();
        let seen = async {
            while !wished(self) {
                // Not every wish is about objects: looks now and then all the same.
                let _ = tokio::time::timeout(Duration::from_millis(50), changed.changed()).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(120), seen).await.is_ok(), "waited in vain for: {what}");
    }

    fn wake(&self) {
        let version = self.0.store.lock().unwrap().version;
        self.0.changed.send_replace(version);
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        if let Some((code, answer)) =
            self.0.hook.lock().unwrap().as_ref().and_then(|hook| hook(&head.method, path, &body))
        {
            return respond(code, &answer);
        }
        if let ["apis", group, version] = *path.trim_matches('/').split('/').collect::<Vec<_>>() {
            return respond(200, &served(group, version));
        }
        if head.method == Method::GET && query.contains("watch=true") {
            return self.watch(path, query);
        }
        let patch = head.headers.get("content-type").map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
        let (code, answer) = self.0.store.lock().unwrap().handle(&head.method, path, query, body, &patch);
        self.wake();
        respond(code, &answer)
    }

    fn watch(&self, path: &str, query: &str) -> Answer {
        let (of, _) = parse(path);
        let selector = Selector::read(query);
        let mut from: u64 = parameter(query, "resourceVersion").parse().unwrap_or_default();
        let (lines, queue) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(64);
        let (fake, mut changed) = (self.clone(), self.0.changed.subscribe());
        tokio::spawn(async move {
            loop {
                let events: Vec<_> = {
                    let store = fake.0.store.lock().unwrap();
                    let new = store.events.iter().filter(|(version, key, _, object)| {
                        *version > from && of.covers(key) && selector.selects(object)
                    });
                    new.cloned().collect()
                };
                for (version, _, kind, object) in events {
                    from = version;
                    let line = format!("{}\n", json!({"type": kind, "object": object}));
                    if lines.send(Ok(Frame::data(line.into()))).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = changed.changed() => if changed.is_err() { return },
                    () = lines.closed() => return,
                }
            }
        });
        let body = StreamBody::new(ReceiverStream::new(queue).map(|it| it));
        Response::new(BodyExt::boxed_unsync(body))
    }
}

impl Store {
    fn put(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        let before = self.objects.get(&key);
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("name".to_owned(), key.3.clone().into());
        if !key.2.is_empty() {
            metadata.insert("namespace".to_owned(), key.2.clone().into());
        }
        metadata.insert("resourceVersion".to_owned(), self.version.to_string().into());
        let given = metadata.get("uid").cloned().unwrap_or_else(|| json!(format!("uid-{}", self.version)));
        let uid = before.map_or(given, |it| it["metadata"]["uid"].clone());
        metadata.insert("uid".to_owned(), uid);
        let generation = match before {
            Some(before) if before["spec"] == object["spec"] => before["metadata"]["generation"].clone(),
            Some(before) => json!(before["metadata"]["generation"].as_i64().unwrap() + 1),
            None => json!(1),
        };
        object["metadata"]["generation"] = generation;
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key.clone(), object.clone());
        self.events.push((self.version, key, kind, object.clone()));
        object
    }

    fn delete(&mut self, key: &Key) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.events.push((self.version, key.clone(), "DELETED", object.clone()));
        Some(object)
    }

    fn handle(&mut self, method: &Method, path: &str, query: &str, body: Value, patch: &str) -> (u16, Value) {
        let (mut key, subresource) = parse(path);
        if *method != Method::GET {
            self.writes.push(format!("{method} {path}"));
        }
        if *method == Method::GET && key.3.is_empty() {
            let selector = Selector::read(query);
            let items: Vec<_> = self
                .objects
                .iter()
                .filter(|(it, object)| key.covers(it) && selector.selects(object))
                .map(|(_, object)| object.clone())
                .collect();
            let metadata = json!({"resourceVersion": self.version.to_string()});
            return (200, json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}));
        }
        if *method == Method::POST {
            key.3 = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if self.objects.contains_key(&key) {
                return failure(409, "already exists");
            }
            if query.contains("dryRun") {
                return (201, body);
            }
            return (201, self.put(key, body));
        }
        let Some(before) = self.objects.get(&key).cloned() else {
            if patch.starts_with("application/apply-patch") {
                return (201, self.put(key, body));
            }
            return failure(404, "not found");
        };
        let version = &before["metadata"]["resourceVersion"];
        let conflict = |body: &Value| body["metadata"].get("resourceVersion").is_some_and(|it| it != version);
        let mut object = before.clone();
        match *method {
            Method::GET => return (200, before),
            Method::DELETE => return (200, self.delete(&key).unwrap()),
            Method::PUT if conflict(&body) => return failure(409, "the object has been modified"),
            Method::PUT => object = body,
            Method::PATCH if patch.starts_with("application/json-patch") => {
                let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                if let Err(error) = json_patch::patch(&mut object, &patch) {
                    return failure(422, &error.to_string());
                }
            }
            Method::PATCH if conflict(&body) => return failure(409, "the object has been modified"),
            Method::PATCH => json_patch::merge(&mut object, &body),
            _ => return failure(405, "no such method"),
        }
        if subresource == "status" {
            let status = object["status"].take();
            object = before;
            object["status"] = status;
        }
        (200, self.put(key, object))
    }
}

impl Key {
    /// Whether a collection holds an object.
    fn covers(&self, object: &Self) -> bool {
        self.0 == object.0 && self.1 == object.1 && (self.2.is_empty() || self.2 == object.2)
    }
}

#[derive(Default)]
struct Selector {
    labels: Vec<(String, String)>,
    /// Labels that must not be there.
    without: Vec<String>,
    name: Option<String>,
}

impl Selector {
    fn read(query: &str) -> Self {
        let pairs = |text: String| -> Vec<(String, String)> {
            let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            text.split(',').filter_map(pair).collect()
        };
        let fields = pairs(parameter(query, "fieldSelector"));
        let name = fields.into_iter().find(|(field, _)| field == "metadata.name").map(|(_, name)| name);
        let labels = parameter(query, "labelSelector");
        let without = labels.split(',').filter_map(|term| term.strip_prefix('!').map(str::to_owned)).collect();
        Self { labels: pairs(labels), without, name }
    }

    fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        self.name.as_ref().is_none_or(|name| metadata["name"] == **name)
            && self.labels.iter().all(|(key, value)| metadata["labels"][key] == **value)
            && self.without.iter().all(|key| metadata["labels"].get(key).is_none())
    }
}

fn parameter(query: &str, name: &str) -> String {
    let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    value
        .map(|(_, value)| value.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/").replace("%21", "!"))
        .unwrap_or_default()
}

/// The key and subresource of a path.
fn parse(path: &str) -> (Key, String) {
    let mut parts = path.trim_start_matches('/').split('/');
    let group = match parts.next().unwrap() {
        "api" => parts.next().unwrap().to_owned(),
        _ => format!("{}/{}", parts.next().unwrap(), parts.next().unwrap()),
    };
    let parts: Vec<_> = parts.collect();
    let at = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
    match parts.as_slice() {
        ["namespaces", namespace, _, ..] => (Key(group, at(2), (*namespace).to_owned(), at(3)), at(4)),
        _ => (Key(group, at(0), String::new(), at(1)), at(2)),
    }
}

pub(crate) fn failure(code: u16, message: &str) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
        "reason": reason});
    (code, status)
}

/// The kinds of a group: of those that are asked for, VirtualServices and ServiceEntries.
fn served(group: &str, version: &str) -> Value {
    let kind = |plural: &str, kind: &str| {
        json!({"name": plural, "singularName": kind.to_ascii_lowercase(), "namespaced": true, "kind": kind,
            "verbs": ["list", "watch"]})
    };
    let resources = match (group, version) {
        ("networking.istio.io", "v1") => {
            vec![kind("virtualservices", "VirtualService"), kind("serviceentries", "ServiceEntry")]
        }
        _ => Vec::new(),
    };
    json!({"kind": "APIResourceList", "groupVersion": format!("{group}/{version}"), "resources": resources})
}

fn respond(code: u16, answer: &Value) -> Answer {
    let body = Full::new(Bytes::from(answer.to_string()));
    Response::builder().status(code).body(BodyExt::boxed_unsync(body)).unwrap()
}
