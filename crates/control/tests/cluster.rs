//! Two replicas of the control plane on a real API server: what they write to it and ask of it.
//!
//! Runs where `MIZZEN_TEST_APISERVER` names the kubeconfig of an API server that has Istio's CRDs and that may be written
//! to at will. Controllers and nodes are not needed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use mizzen_control::{Bound, ControlConfig, KubernetesConfig, Rotation, run};
use mizzen_identity::AuthorityPem;
use mizzen_identity::client::{Config as IdentityConfig, WorkloadIdentity};
use mizzen_identity::connect::{ControlPlane, RootSource};
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::google::protobuf::{Struct, Value as ProtoValue};
use mizzen_types::TrustDomain;
use mizzen_xds::ResourceType;
use mizzen_xds::client::{Authority, Config as XdsConfig, Event, Subscription, start};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const ROOT: &str = "mizzen-test-system";
const SHOP: &str = "mizzen-test-shop";

struct Cluster {
    client: Client,
    kubeconfig: PathBuf,
}

impl Cluster {
    async fn open(kubeconfig: PathBuf) -> Self {
        let file = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        let cluster = Self { client: Client::try_from(config).unwrap(), kubeconfig };
        for name in [ROOT, SHOP] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let api = Api::<Namespace>::all(cluster.client.clone());
            api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&namespace)).await.unwrap();
        }
        cluster
    }

    fn objects(&self, group: &str, version: &str, kind: &str, plural: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    fn virtual_services(&self) -> Api<DynamicObject> {
        self.objects("networking.istio.io", "v1", "VirtualService", "virtualservices", SHOP)
    }

    async fn apply(&self, api: &Api<DynamicObject>, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap();
    }

    async fn root_cert(&self, namespace: &str) -> Option<String> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        api.get_opt("istio-ca-root-cert").await.unwrap()?.data?.remove("root-cert.pem")
    }

    async fn token(&self, audience: &str) -> String {
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), SHOP);
        let spec = TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request("reviews", &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token
    }

    /// Condition of a VirtualService: status and message, for the newest generation.
    async fn condition(&self, name: &str, kind: &str) -> Option<(String, String)> {
        let object = self.virtual_services().get_opt(name).await.unwrap()?;
        let found = object.data["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)?.clone();
        let newest = found["observedGeneration"].as_i64() == object.metadata.generation;
        newest.then(|| (found["status"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned()))
    }

    async fn wait_for(&self, name: &str, kind: &str, status: &str, message: &str) {
        eventually(&format!("{name} {kind}={status} {message}"), async || {
            let condition = self.condition(name, kind).await;
            condition.is_some_and(|it| it.0 == status && it.1.contains(message))
        })
        .await;
    }
}

async fn eventually(what: &str, wished: impl AsyncFn() -> bool) {
    let waiting = async {
        while !wished().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(120), waiting).await.is_ok(), "waited in vain for: {what}");
}

struct Replica {
    bound: Bound,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Replica {
    async fn start(cluster: &Cluster, name: &str) -> Self {
        let free = ([127, 0, 0, 1], 0).into();
        let config = ControlConfig {
            xds_address: free,
            secure_xds_address: free,
            http_address: free,
            kubernetes: Some(KubernetesConfig {
                kubeconfig: Some(cluster.kubeconfig.clone()),
                namespace: ROOT.to_owned(),
                revision: "mizzen-test".to_owned(),
                cluster_id: "Kubernetes".to_owned(),
                replica: name.to_owned(),
                rotation: Rotation::default(),
            }),
            ..ControlConfig::default()
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, bound) = oneshot::channel();
        let task = tokio::spawn(async move {
            run(config, async { drop(stopped.await) }, |bound| ready.send(bound).unwrap()).await.unwrap();
        });
        Self { bound: bound.await.unwrap(), stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }

    /// A proxy `pod.SHOP` that takes everything it is told. Ends with the returned sender; a refusal comes as a text.
    async fn proxy(&self, root: &str, token: String) -> Result<oneshot::Sender<()>, String> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(root.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let authority = Authority::Tls {
            address: self.bound.secure_xds.to_string(),
            server_name: ServerName::try_from(format!("istiod.{ROOT}.svc")).unwrap(),
            config: Arc::new(tls),
        };
        let text = |text: &str| ProtoValue { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [("NAMESPACE".to_owned(), text(SHOP)), ("SERVICE_ACCOUNT".to_owned(), text("reviews"))];
        let node = Node {
            id: format!("sidecar~127.0.0.1~pod.{SHOP}~{SHOP}.svc.cluster.local"),
            metadata: Some(Struct { fields: fields.into() }),
            ..Default::default()
        };
        let mut config = XdsConfig::new(authority, node);
        config.metadata = Arc::new(move || vec![("authorization".to_owned(), format!("Bearer {token}"))]);
        let (handle, mut events) = start(config);
        for kind in [ResourceType::Cluster, ResourceType::Listener] {
            handle.subscribe(kind, Subscription::Wildcard);
        }
        match tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap() {
            Event::Disconnected { reason, .. } => return Err(reason),
            Event::Update(update) => handle.accept(update.id),
            Event::Connected => {}
        }
        let (stop, mut stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    event = events.recv() => match event {
                        Some(Event::Update(update)) => handle.accept(update.id),
                        Some(_) => {}
                        None => return,
                    }
                }
            }
        });
        Ok(stop)
    }

    /// The identity that a workload with this token gets.
    async fn identity(&self, root: &str, token: &str, dir: &Path) -> String {
        let file = dir.join("token");
        std::fs::write(&file, token).unwrap();
        let mut control_plane =
            ControlPlane::new(&self.bound.secure_xds.to_string(), RootSource::Pem(root.as_bytes().to_vec()));
        control_plane.server_name = format!("istiod.{ROOT}.svc");
        let config = IdentityConfig { control_plane, token: file, id: None, ttl: None, state_dir: None };
        let identity = WorkloadIdentity::start(config);
        let mut watch = identity.watch();
        let found = tokio::time::timeout(Duration::from_secs(60), watch.wait_for(Option::is_some));
        found.await.unwrap().unwrap().as_ref().unwrap().id.to_string()
    }
}

fn virtual_service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": SHOP}, "spec": spec})
}

fn delayed(seconds: u32) -> Value {
    let route = json!([{"destination": {"host": format!("reviews.{SHOP}.svc.cluster.local")}}]);
    virtual_service(
        "reviews",
        json!({"hosts": ["reviews"], "http": [{"timeout": format!("{seconds}s"), "route": route}]}),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_look_after_a_cluster() {
    let Some(kubeconfig) = std::env::var_os("MIZZEN_TEST_APISERVER") else {
        return mizzen_testing::skip("two_replicas_look_after_a_cluster", "MIZZEN_TEST_APISERVER names no API server");
    };
    let cluster = Cluster::open(kubeconfig.into()).await;
    let services = cluster.objects("", "v1", "Service", "services", SHOP);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews"},
        "spec": {"selector": {"app": "reviews"}, "ports": [{"name": "http", "port": 9080}]}});
    cluster.apply(&services, service).await;
    let accounts = cluster.objects("", "v1", "ServiceAccount", "serviceaccounts", SHOP);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reviews"}});
    cluster.apply(&accounts, account).await;
    let hooks = cluster.objects(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "",
    );
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "mizzen-test", "labels": {"app": "sidecar-injector", "istio.io/rev": "mizzen-test"}},
        "webhooks": [{"name": "test.sidecar-injector.istio.io", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "rules": [],
            "clientConfig": {"service": {"name": "istiod", "namespace": ROOT, "path": "/inject"}}}]});
    cluster.apply(&hooks, hook).await;

    // Both start at once, and have one authority.
    let (a, b) = tokio::join!(Replica::start(&cluster, "a"), Replica::start(&cluster, "b"));
    eventually("the roots", async || cluster.root_cert(SHOP).await.is_some()).await;
    let root = cluster.root_cert(SHOP).await.unwrap();
    assert_eq!(cluster.root_cert("kube-system").await, None);
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), SHOP);
    maps.delete("istio-ca-root-cert", &DeleteParams::default()).await.unwrap();
    eventually("the roots again", async || cluster.root_cert(SHOP).await.as_deref() == Some(&root)).await;
    let bundle = async || {
        let hook = hooks.get("mizzen-test").await.unwrap();
        let bundle = hook.data["webhooks"][0]["clientConfig"]["caBundle"].clone();
        serde_json::from_value::<ByteString>(bundle).map(|it| String::from_utf8(it.0).unwrap()).unwrap_or_default()
    };
    eventually("the webhook's bundle", async || bundle().await == root).await;

    // Tokens of the cluster's own making.
    let dir = tempfile::tempdir().unwrap();
    let token = cluster.token("istio-ca").await;
    for replica in [&a, &b] {
        let id = replica.identity(&root, &token, dir.path()).await;
        assert_eq!(id, format!("spiffe://cluster.local/ns/{SHOP}/sa/reviews"));
    }
    let refused = a.proxy(&root, cluster.token("somebody-else").await).await.unwrap_err();
    assert!(refused.contains("Unauthenticated"), "{refused}");
    let of_a = a.proxy(&root, token.clone()).await.unwrap();
    let of_b = b.proxy(&root, token).await.unwrap();

    // Both replicas' proxies count, as soon as the replicas have told each other.
    let leases = cluster.objects("coordination.k8s.io", "v1", "Lease", "leases", ROOT);
    for replica in ["istio-replica-a", "istio-replica-b"] {
        eventually("the report of a replica", async || {
            let lease = leases.get_opt(replica).await.unwrap();
            let report = lease.and_then(|lease| lease.metadata.annotations?.remove("mizzen.dev/in-force"));
            report.is_some_and(|report| report.contains("\"proxies\":1"))
        })
        .await;
    }
    cluster.apply(&cluster.virtual_services(), delayed(1)).await;
    cluster.wait_for("reviews", "Reconciled", "True", "2 of 2 proxies").await;
    cluster.wait_for("reviews", "ResolvedRefs", "True", "").await;
    let bad = json!({"hosts": ["x"], "http": [{"match": [{"uri": {"regex": "a(b"}}],
        "route": [{"destination": {"host": "reviews"}}]}]});
    cluster.apply(&cluster.virtual_services(), virtual_service("wrong", bad)).await;
    cluster.wait_for("wrong", "Accepted", "False", "spec.http[0].match[0].uri").await;
    cluster.wait_for("wrong", "Reconciled", "False", "not in force").await;

    // An authority is plugged in: first trusted beside the old one, and then the one that signs.
    let secrets = Api::<Secret>::namespaced(cluster.client.clone(), ROOT);
    let new = AuthorityPem::self_signed(&TrustDomain::default(), SystemTime::now()).unwrap();
    let both = [root.as_bytes(), &new.roots].concat();
    let data =
        [("ca-cert.pem", new.certificate.clone()), ("ca-key.pem", new.key.clone()), ("root-cert.pem", both.clone())];
    let data: BTreeMap<_, _> = data.into_iter().map(|(name, value)| (name.to_owned(), ByteString(value))).collect();
    let plugged = Secret { data: Some(data), ..Secret::default() };
    let mut plugged = serde_json::to_value(plugged).unwrap();
    plugged["metadata"]["name"] = json!("cacerts");
    secrets.patch("cacerts", &PatchParams::apply("test").force(), &Patch::Apply(&plugged)).await.unwrap();
    let both = String::from_utf8(both).unwrap();
    eventually("both roots", async || cluster.root_cert(SHOP).await.as_deref() == Some(&both)).await;
    eventually("both roots in the bundle", async || bundle().await == both).await;
    let token = cluster.token("istio-ca").await;
    a.identity(&String::from_utf8(new.roots).unwrap(), &token, dir.path()).await;

    // One of them goes, and the other goes on; whichever leads.
    drop(of_a);
    a.stop().await;
    cluster.apply(&cluster.virtual_services(), delayed(2)).await;
    cluster.wait_for("reviews", "Reconciled", "True", "1 of 1 proxy").await;
    drop(of_b);
    b.stop().await;
    for lease in leases.list(&Default::default()).await.unwrap() {
        assert_eq!(lease.data["spec"]["holderIdentity"], "", "{:?} is not given back", lease.metadata.name);
    }

    for name in [ROOT, SHOP] {
        let api = Api::<Namespace>::all(cluster.client.clone());
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
    hooks.delete("mizzen-test", &DeleteParams::default()).await.unwrap();
}
