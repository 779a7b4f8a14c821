//! The secure port: who is let in, and what they may have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/plane.rs"]
mod plane;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mizzen_control::{Bound, Limits};
use mizzen_identity::token::Issuer;
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::google::protobuf::{Struct, Value};
use mizzen_xds::ResourceType;
use mizzen_xds::client::{Authority, Config, Event, Subscription, start};
use rustls::pki_types::ServerName;

struct Plane {
    bound: Bound,
    issuer: Issuer,
    tls: Arc<rustls::ClientConfig>,
    _started: plane::Started,
}

impl Plane {
    async fn start(limits: Limits) -> Self {
        let issuer = Issuer::generate("test").unwrap();
        let mut started = plane::start(|dir, config| {
            let key = dir.join("issuer.pem");
            std::fs::write(&key, issuer.public_key_pem()).unwrap();
            config.token_issuer_keys = vec![key];
            config.limits = limits;
        })
        .await;
        started.tls.alpn_protocols = vec![b"h2".to_vec()];
        Self { bound: started.bound, issuer, tls: Arc::new(started.tls.clone()), _started: started }
    }

    fn token(&self, namespace: &str, account: &str) -> String {
        self.issuer.mint(namespace, account, Duration::from_secs(60), SystemTime::now()).unwrap()
    }

    /// What a proxy `pod.shop` with service account `reviews` gets: the first update, or why there is none.
    async fn ask(&self, token: Option<String>) -> Result<(), String> {
        let authority = Authority::Tls {
            address: self.bound.secure_xds.to_string(),
            server_name: ServerName::try_from("istiod.istio-system.svc").unwrap(),
            config: self.tls.clone(),
        };
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [("NAMESPACE".to_owned(), text("shop")), ("SERVICE_ACCOUNT".to_owned(), text("reviews"))];
        let node = Node {
            id: "sidecar~127.0.0.1~pod.shop~shop.svc.cluster.local".to_owned(),
            metadata: Some(Struct { fields: fields.into() }),
            ..Default::default()
        };
        let mut config = Config::new(authority, node);
        if let Some(token) = token {
            config.metadata = Arc::new(move || vec![("authorization".to_owned(), format!("Bearer {token}"))]);
        }
        let (handle, mut events) = start(config);
        handle.subscribe(ResourceType::Cluster, Subscription::Wildcard);
        loop {
            match tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap() {
                Event::Update(_) => return Ok(()),
                Event::Disconnected { reason, .. } => return Err(reason),
                Event::Connected => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_proves_itself_and_gets_only_its_own() {
    let plane = Plane::start(Limits::default()).await;
    plane.ask(Some(plane.token("shop", "reviews"))).await.unwrap();
    let refused = plane.ask(None).await.unwrap_err();
    assert!(refused.contains("Unauthenticated"), "{refused}");
    let refused = plane.ask(Some("nonsense".to_owned())).await.unwrap_err();
    assert!(refused.contains("Unauthenticated"), "{refused}");
    for (namespace, account) in [("shop", "ratings"), ("other", "reviews")] {
        let refused = plane.ask(Some(plane.token(namespace, account))).await.unwrap_err();
        assert!(refused.contains("PermissionDenied"), "{namespace}/{account}: {refused}");
    }
    let stranger = Issuer::generate("test").unwrap();
    let token = stranger.mint("shop", "reviews", Duration::from_secs(60), SystemTime::now()).unwrap();
    let refused = plane.ask(Some(token)).await.unwrap_err();
    assert!(refused.contains("Unauthenticated"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_streams_beyond_the_limit_are_refused_and_the_others_served() {
    let plane = Plane::start(Limits { streams: 0, ..Limits::default() }).await;
    let refused = plane.ask(Some(plane.token("shop", "reviews"))).await.unwrap_err();
    assert!(refused.contains("ResourceExhausted"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_garbage_on_every_port_harms_nobody() {
    use tokio::io::AsyncWriteExt;
    let plane = Plane::start(Limits::default()).await;
    let http2_garbage = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0xff; 4096]].concat();
    for address in [plane.bound.xds, plane.bound.secure_xds, plane.bound.http] {
        for bytes in [&[0; 1000][..], &[0xff; 70_000], b"GET / HTTP/1.1\r\n", &http2_garbage] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            // The other side may hang up before it has all.
            let _ = stream.write_all(bytes).await;
        }
    }
    plane.ask(Some(plane.token("shop", "reviews"))).await.unwrap();
}
