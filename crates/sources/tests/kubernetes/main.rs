//! The source against an API server that pages, forgets, refuses, hangs and breaks off.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mizzen_config::{Change, Kind, Object};
use mizzen_sources::kubernetes::Options;
use mizzen_sources::{Batch, KubernetesSource};
use mizzen_types::Finding;
use serde_json::{Value, json};
use server::{Mood, Server};

const SERVICES: &str = "v1/services";
const RULES: &str = "networking.istio.io/v1/virtualservices";

/// What a listener of the source has put together.
struct Seen {
    source: KubernetesSource,
    objects: BTreeMap<String, Arc<Object>>,
    findings: Vec<Finding>,
    /// How often each object was told.
    told: BTreeMap<String, usize>,
}

fn options() -> Options {
    let ms = Duration::from_millis;
    Options { retry_after: ms(5), retry_at_most: ms(50), look_again: ms(20), ..Options::default() }
}

impl Seen {
    fn watch(server: &Server) -> Self {
        let source = KubernetesSource::watch(&server.client, &options());
        Self { source, objects: BTreeMap::new(), findings: Vec::new(), told: BTreeMap::new() }
    }

    async fn of(server: &Server) -> Self {
        let mut seen = Self::watch(server);
        seen.first().await;
        seen
    }

    async fn first(&mut self) {
        let first = tokio::time::timeout(Duration::from_secs(60), self.source.first()).await;
        self.take(first.expect("everything is listed"));
    }

    fn take(&mut self, batch: Batch) {
        for change in batch.changes {
            match change {
                Change::Put(object) => {
                    *self.told.entry(object.key.to_string()).or_default() += 1;
                    self.objects.insert(object.key.to_string(), object);
                }
                Change::Delete(key) => assert!(self.objects.remove(&key.to_string()).is_some(), "{key} was not there"),
            }
        }
        self.findings = batch.findings.unwrap_or(std::mem::take(&mut self.findings));
    }

    /// Takes batches until what they say together fulfils a condition.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let all = async {
            while !holds(self) {
                let batch = self.source.next().await;
                self.take(batch);
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), all).await.is_err() {
            panic!("{what}: {:?}", self.objects.keys());
        }
    }

    fn has(&self, key: &str) -> bool {
        self.objects.contains_key(key)
    }

    fn port(&self, key: &str) -> u16 {
        match self.objects.get(key).map(|object| &object.kind) {
            Some(Kind::Service(service)) => service.spec.ports[0].port,
            _ => 0,
        }
    }
}

fn service(port: u16) -> Value {
    json!({"metadata": {}, "spec": {"ports": [{"name": "http", "port": port}]}})
}

fn rule(host: &str) -> Value {
    json!({"metadata": {}, "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": host}}]}]}})
}

#[tokio::test]
async fn all_pages_of_all_kinds_are_the_first_batch() {
    let server = Server::start().await;
    for number in 0..1200 {
        server.put(SERVICES, "shop", &format!("s{number}"), service(80));
    }
    server.put("v1/nodes", "", "n1", json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a"}}}));
    server.put("v1/configmaps", "istio-system", "istio", json!({"metadata": {}, "data": {"mesh": "trustDomain: td"}}));
    server.put("v1/configmaps", "istio-system", "other", json!({"metadata": {}, "data": {"mesh": "trustDomain: no"}}));
    server.put(RULES, "shop", "r", rule("s1"));
    server.put("networking.istio.io/v1alpha3/envoyfilters", "shop", "e", json!({"metadata": {}, "spec": {}}));
    let seen = Seen::of(&server).await;
    assert_eq!(seen.objects.keys().filter(|key| key.starts_with("Service/")).count(), 1200);
    let others: Vec<&str> =
        seen.objects.keys().map(String::as_str).filter(|key| !key.starts_with("Service/")).collect();
    assert_eq!(
        others,
        [
            "ConfigMap/istio-system/istio",
            "EnvoyFilter/shop/e",
            "MeshConfig/istio-system/istio",
            "Node//n1",
            "VirtualService/shop/r"
        ]
    );
    let lists = server.asked(SERVICES).into_iter().filter(|query| query.contains_key("limit")).count();
    assert!(lists >= 3, "{lists} pages");
    assert!(server.asked("v1/pods").iter().all(|query| query["fieldSelector"].contains("status.phase!=Failed")));
}

#[tokio::test]
async fn nothing_is_told_while_a_list_has_not_come() {
    let server = Server::start().await;
    server.put(SERVICES, "shop", "a", service(80));
    server.mood("v1/pods", Mood::Hangs);
    let mut seen = Seen::watch(&server);
    // All others have been listed by then, or will be: the first batch must wait in any case.
    assert!(tokio::time::timeout(Duration::from_millis(300), seen.source.first()).await.is_err());
    server.put(SERVICES, "shop", "b", service(80));
    server.mood("v1/pods", Mood::Well);
    seen.first().await;
    seen.until("both", |seen| seen.has("Service/shop/a") && seen.has("Service/shop/b")).await;
}

#[tokio::test]
async fn changes_are_told() {
    let server = Server::start().await;
    let mut seen = Seen::of(&server).await;
    server.put(SERVICES, "shop", "a", service(80));
    seen.until("added", |seen| seen.has("Service/shop/a")).await;
    server.put(SERVICES, "shop", "a", service(81));
    server.put(SERVICES, "shop", "b", service(80));
    seen.until("modified", |seen| seen.port("Service/shop/a") == 81 && seen.has("Service/shop/b")).await;
    server.delete(SERVICES, "shop", "a");
    seen.until("deleted", |seen| !seen.has("Service/shop/a")).await;
    assert!(seen.has("Service/shop/b"));
}

#[tokio::test]
async fn a_broken_object_rejects_itself_alone() {
    let server = Server::start().await;
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    server.put(RULES, "shop", "broken", json!({"metadata": {}, "spec": {"hosts": 5}}));
    server.put(RULES, "shop", "good", rule("a"));
    server.put(RULES, "shop", "misspelt", json!({"metadata": {}, "spec": {"hosts": ["a"], "htp": []}}));
    server.put("networking.istio.io/v1alpha3/envoyfilters", "shop", "shallow", json!({"metadata": {}, "spec": {}}));
    let mut seen = Seen::of(&server).await;
    let kept: Vec<_> = seen.objects.keys().map(String::as_str).collect();
    assert_eq!(kept, ["EnvoyFilter/shop/shallow", "VirtualService/shop/good"]);
    let origins: Vec<_> = seen.findings.iter().filter_map(|finding| finding.origin.as_ref()).collect();
    assert!(origins.iter().any(|origin| origin.to_string() == "VirtualService/shop/broken spec.hosts"), "{origins:?}");
    assert!(origins.iter().any(|origin| origin.to_string() == "VirtualService/shop/misspelt spec.htp"), "{origins:?}");
    // The good one goes bad and stays in force, the bad one is corrected; a watch goes on after what it cannot read.
    server.put(RULES, "shop", "good", json!({"metadata": {}, "spec": [deep]}));
    server.put(RULES, "shop", "broken", rule("b"));
    seen.until("corrected", |seen| seen.has("VirtualService/shop/broken")).await;
    assert!(seen.has("VirtualService/shop/good"));
}

#[tokio::test]
async fn a_forgotten_version_is_caught_up_with() {
    for by_status in [false, true] {
        let server = Server::start().await;
        server.put(SERVICES, "shop", "stays", service(80));
        server.put(SERVICES, "shop", "goes", service(80));
        let mut seen = Seen::of(&server).await;
        server.mood("", Mood::Refuses(503));
        server.drop_watches();
        server.asked_again(SERVICES, 2).await;
        // Nobody sees these happen.
        server.delete(SERVICES, "shop", "goes");
        server.put(SERVICES, "shop", "comes", service(80));
        server.compact(by_status);
        server.mood("", Mood::Well);
        seen.until("caught up", |seen| seen.has("Service/shop/comes") && !seen.has("Service/shop/goes")).await;
        assert_eq!(seen.told["Service/shop/stays"], 1, "what stayed is not told again");
    }
}

#[tokio::test]
async fn an_api_server_that_restarts_takes_nothing_away() {
    let server = Server::start().await;
    server.put(SERVICES, "shop", "a", service(80));
    server.put(RULES, "shop", "r", rule("a"));
    let mut seen = Seen::of(&server).await;
    for code in [500, 503, 401, 429] {
        server.mood("", Mood::Refuses(code));
        server.drop_watches();
        server.asked_again(SERVICES, 2).await;
        server.asked_again(RULES, 2).await;
    }
    // A server that is starting may not know its own definitions yet.
    server.mood(RULES, Mood::Refuses(404));
    server.mood("", Mood::Well);
    server.asked_again(RULES, 2).await;
    server.mood(RULES, Mood::Well);
    server.put(SERVICES, "shop", "a", service(81));
    server.put(RULES, "shop", "r2", rule("a"));
    seen.until("caught up", |seen| seen.port("Service/shop/a") == 81 && seen.has("VirtualService/shop/r2")).await;
    assert!(seen.has("VirtualService/shop/r"));
    assert_eq!(seen.told["VirtualService/shop/r"], 1);
}

#[tokio::test]
async fn a_definition_may_be_installed_later() {
    let server = Server::start().await;
    server.serve(RULES, false);
    server.put(SERVICES, "shop", "a", service(80));
    let mut seen = Seen::of(&server).await;
    assert!(seen.has("Service/shop/a"));
    server.put(RULES, "shop", "r", rule("a"));
    server.serve(RULES, true);
    seen.until("installed", |seen| seen.has("VirtualService/shop/r")).await;
}

#[tokio::test]
async fn secrets_that_may_not_be_read_are_done_without() {
    let server = Server::start().await;
    server.mood("v1/secrets", Mood::Refuses(403));
    let tls = json!({"metadata": {}, "type": "kubernetes.io/tls", "data": {"tls.crt": "YQ==", "tls.key": "Yg==", "other": "Yw=="}});
    server.put("v1/secrets", "shop", "cert", tls.clone());
    server.put("v1/secrets", "istio-system", "cacerts", tls);
    server.put(
        "v1/secrets",
        "shop",
        "password",
        json!({"metadata": {}, "type": "Opaque", "data": {"password": "YQ=="}}),
    );
    let mut seen = Seen::of(&server).await;
    assert!(seen.objects.is_empty());
    server.mood("v1/secrets", Mood::Well);
    seen.until("permitted", |seen| seen.has("Secret/shop/cert")).await;
    assert_eq!(seen.objects.len(), 1, "{:?}", seen.objects.keys());
    let Kind::Secret(secret) = &seen.objects["Secret/shop/cert"].kind else { panic!("a secret") };
    assert_eq!((secret.value("tls.crt"), secret.value("other")), (Some(&b"a"[..]), None));
    assert!(server.asked("v1/secrets").iter().all(|query| query["fieldSelector"].contains("type!=helm.sh/release.v1")));
}
