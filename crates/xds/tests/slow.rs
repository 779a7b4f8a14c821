//! The served shell over real sockets: a slow reader holds up nobody, and each stream ends with its client.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_xds::client::{Authority, Config, Event, Subscription, start};
use mizzen_xds::server::{Content, Discovery, Mark, Observed, Session, Sessions, Touched, Wanted};
use mizzen_xds::{Mode, Resource, ResourceType};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

const SIZE: usize = 8 << 20;

/// One listener of many bytes, with a new content at each count.
struct Plane {
    counts: watch::Receiver<u8>,
    open: Arc<AtomicUsize>,
    acked: Arc<Mutex<Vec<String>>>,
}

struct One {
    counts: watch::Receiver<u8>,
    node: String,
    open: Arc<AtomicUsize>,
    acked: Arc<Mutex<Vec<String>>>,
}

impl Sessions for Plane {
    type Caller = ();
    type Session = One;

    async fn admit(&self, _: &Extensions, _: &MetadataMap) -> Result<(), Status> {
        Ok(())
    }

    fn open(&self, (): (), node: Node, _: Mode) -> Result<One, Status> {
        if node.id == "stranger" {
            return Err(Status::permission_denied("not you"));
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        let (counts, open, acked) = (self.counts.clone(), self.open.clone(), self.acked.clone());
        Ok(One { counts, node: node.id, open, acked })
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Content for One {
    fn resources(&mut self, _: ResourceType, _: Wanted<'_>) -> Vec<Arc<Resource>> {
        let mut body = vec![*self.counts.borrow(); SIZE];
        // The name, as the first field; the rest is never decoded here.
        body[..3].copy_from_slice(&[10, 1, b'l']);
        vec![Arc::new(Resource::new("l", body))]
    }
}

impl Session for One {
    async fn changed(&mut self) -> Result<(), Status> {
        let changed = self.counts.has_changed();
        if matches!(changed, Ok(true)) {
            return Ok(());
        }
        // Not consumed here, but by `take`.
        let mut counts = self.counts.clone();
        counts.changed().await.map_err(|_| Status::unavailable("stopping"))
    }

    fn take(&mut self) -> Vec<Mark> {
        if matches!(self.counts.has_changed(), Ok(true)) {
            self.counts.borrow_and_update();
            return vec![Mark { kind: ResourceType::Listener, touched: Touched::All }];
        }
        Vec::new()
    }

    fn observe(&mut self, event: Observed) {
        if let Observed::Acked { .. } = event {
            self.acked.lock().unwrap().push(self.node.clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_up_nobody() {
    let (count, counts) = watch::channel(1);
    let (open, acked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let plane = Arc::new(Plane { counts, open: open.clone(), acked: acked.clone() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder()
        .add_service(Discovery::new(plane))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let client = |id: &str| {
        let node = Node { id: id.to_owned(), ..Default::default() };
        let (handle, events) = start(Config::new(Authority::Plaintext(address.clone()), node));
        handle.subscribe(ResourceType::Listener, Subscription::Wildcard);
        (handle, events)
    };

    // It is sent 8 MiB and never answers.
    let (slow, slow_events) = client("slow");
    let (quick, mut events) = client("quick");
    for round in 2..7 {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap();
            if let Event::Update(update) = event {
                assert_eq!(update.resources[0].body.len(), SIZE);
                quick.accept(update.id);
                break;
            }
        }
        count.send(round).unwrap();
    }
    assert!(acked.lock().unwrap().iter().all(|node| node == "quick"));
    assert_eq!(open.load(Ordering::SeqCst), 2);

    // Streams end with their clients.
    drop((slow, slow_events, quick, events));
    for _ in 0..3000 {
        if open.load(Ordering::SeqCst) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(open.load(Ordering::SeqCst), 0);

    let (_stranger, mut events) = client("stranger");
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap();
        if let Event::Disconnected { reason, .. } = event {
            assert!(reason.contains("PermissionDenied: not you"), "{reason}");
            break;
        }
    }
    server.abort();
}
