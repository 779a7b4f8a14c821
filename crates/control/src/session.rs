//! What one stream is served: the control plane's side of `mizzen-xds`' [`Session`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mizzen_types::SpiffeId;
use mizzen_xds::server::{Content, Mark, Observed, Session, Wanted};
use mizzen_xds::{Mode, Resource, ResourceType};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use crate::access::Access;
use crate::cache::Cache;
use crate::content::Contents;
use crate::engine::{Connection, Event};
use crate::kubernetes::permissions::Permissions;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::queue::Slot;
use crate::status::{ProxyStatus, StreamId};
use crate::world::World;

/// Streams end after this time (and up to a tenth more), so that proxies spread over the control planes there are
/// (reference: semantics 268). Coming back costs little: a proxy tells what it has.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// One stream.
#[derive(Debug)]
pub(crate) struct ProxySession {
    id: StreamId,
    slot: Arc<Slot>,
    contents: Contents,
    /// Whether it is given Secrets.
    access: Access,
    events: mpsc::UnboundedSender<Event>,
    metrics: Arc<Metrics>,
    /// When the oldest change came in that is being sent.
    since: Option<Instant>,
    expires: tokio::time::Instant,
    /// Its place among the streams that may be open.
    _permit: OwnedSemaphorePermit,
}

/// What all sessions share.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) cache: Arc<Cache>,
    /// In a cluster: who may read Secrets.
    pub(crate) permissions: Option<Arc<Permissions>>,
}

impl ProxySession {
    /// Begins to serve a node, and tells the engine.
    pub(crate) fn open(
        common: &Common,
        id: StreamId,
        node: Node,
        identity: Option<SpiffeId>,
        mode: Mode,
        world: Arc<World>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let node = Arc::new(node);
        let access = Access::new(node.role == "router", identity.as_ref(), common.permissions.as_ref());
        let contents = Contents::new(&node, access.allowed(), world.clone(), common.cache.clone())?;
        let slot = Arc::new(Slot::new(world));
        let mut status = ProxyStatus::new(node, identity, mode, SystemTime::now());
        status.secrets = access.allowed();
        let connection = Connection { id, slot: slot.clone(), status };
        common.events.send(Event::Connected(Box::new(connection))).map_err(|_| stopping())?;
        let age = MAX_AGE + MAX_AGE.mul_f64(jitter(id) / 10.0);
        Ok(Self {
            id,
            slot,
            contents,
            access,
            events: common.events.clone(),
            metrics: common.metrics.clone(),
            since: None,
            expires: tokio::time::Instant::now() + age,
            _permit: permit,
        })
    }
}

/// Spreads the ages of streams that were opened together; need not be unpredictable.
fn jitter(id: StreamId) -> f64 {
    (id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / (1u64 << 24) as f64
}

pub(crate) fn stopping() -> Status {
    Status::unavailable("the control plane is stopping; reconnect")
}

impl Content for ProxySession {
    fn resources(&mut self, kind: ResourceType, wanted: Wanted<'_>) -> Vec<Arc<Resource>> {
        self.contents.resources(kind, wanted)
    }
}

impl Session for ProxySession {
    async fn changed(&mut self) -> Result<(), Status> {
        tokio::select! {
            filled = self.slot.filled() => filled,
            () = self.access.changed() => Ok(()),
            () = tokio::time::sleep_until(self.expires) => {
                Err(Status::unavailable("the stream has reached its greatest age; reconnect"))
            }
        }
    }

    fn take(&mut self) -> Vec<Mark> {
        let taken = self.slot.take();
        self.since = self.since.or(taken.since);
        self.contents.advance(taken.world);
        let mut extent = taken.extent;
        if self.access.take_change() {
            let allowed = self.access.allowed();
            self.contents.allow_secrets(allowed);
            // The engine is gone only when everything ends.
            let _ = self.events.send(Event::Secrets(self.id, allowed));
            extent.add(&[ResourceType::Secret]);
        }
        extent.into_marks()
    }

    fn observe(&mut self, event: Observed) {
        if let (Observed::Sent { .. }, Some(since)) = (&event, self.since.take()) {
            self.metrics.converged(since.elapsed());
        }
        self.metrics.observe(&event);
        let event = match event {
            Observed::Settled { complete } => {
                Event::Settled { id: self.id, revision: self.contents.revision(), complete }
            }
            event => Event::Observed(self.id, event),
        };
        // The engine is gone only when everything ends.
        let _ = self.events.send(event);
    }
}

impl Drop for ProxySession {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Gone(self.id));
    }
}
