//! What waits for one proxy: at most one entry, into which everything merges until the proxy's stream takes it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tonic::Status;

use crate::audience::Extent;
use crate::world::World;

/// The place of one stream. The engine puts in, the stream's task takes out.
#[derive(Debug)]
pub(crate) struct Slot {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug)]
struct Waiting {
    world: Arc<World>,
    extent: Extent,
    /// When the oldest change in `extent` came in.
    since: Option<Instant>,
    end: Option<Status>,
}

/// What a stream takes.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) world: Arc<World>,
    pub(crate) extent: Extent,
    pub(crate) since: Option<Instant>,
}

impl Slot {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let waiting = Waiting { world, extent: Extent::default(), since: None, end: None };
        Self { waiting: Mutex::new(waiting), filled: Notify::new() }
    }

    /// A newer state, and what of it concerns this proxy. The proxy is woken only when something does.
    pub(crate) fn put(&self, world: &Arc<World>, extent: Extent) {
        let mut waiting = self.lock();
        waiting.world = world.clone();
        if !extent.is_empty() {
            waiting.extent.merge(extent);
            waiting.since.get_or_insert(world.at);
            self.filled.notify_one();
        }
    }

    /// Ends the stream.
    pub(crate) fn end(&self, status: Status) {
        self.lock().end = Some(status);
        self.filled.notify_one();
    }

    /// The revision that the proxy has or will have.
    pub(crate) fn revision(&self) -> u64 {
        self.lock().world.revision
    }

    /// Waits until there is something to take; safe to cancel.
    pub(crate) async fn filled(&self) -> Result<(), Status> {
        loop {
            {
                let waiting = self.lock();
                if let Some(status) = &waiting.end {
                    return Err(status.clone());
                }
                if !waiting.extent.is_empty() {
                    return Ok(());
                }
            }
            self.filled.notified().await;
        }
    }

    pub(crate) fn take(&self) -> Taken {
        let mut waiting = self.lock();
        Taken { world: waiting.world.clone(), extent: std::mem::take(&mut waiting.extent), since: waiting.since.take() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // No code that can panic runs under this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
