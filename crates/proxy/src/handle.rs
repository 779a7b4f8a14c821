//! A running proxy, for who stands beside it in the same process: the agent of a pod.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mizzen_proto::istio_nds::NameTable;
use tokio::sync::watch;

use crate::admin::{Admin, Order};
use crate::health::State;
use crate::stats;

/// Asks and orders a running proxy. Clones are the same proxy.
#[derive(Clone)]
pub struct Handle {
    admin: Arc<Admin>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("state", &self.state()).finish()
    }
}

impl Handle {
    pub(crate) fn new(admin: Arc<Admin>) -> Self {
        Self { admin }
    }

    pub fn is_ready(&self) -> bool {
        self.admin.health.is_ready()
    }

    pub fn state(&self) -> State {
        self.admin.health.state()
    }

    /// All metrics in the Prometheus text format.
    pub fn prometheus(&self) -> String {
        stats::prometheus(&self.admin.shared, &self.admin.record, &self.admin.health)
    }

    /// The names that the control plane tells; nothing unless the node asks for them.
    pub fn names(&self) -> watch::Receiver<Arc<NameTable>> {
        self.admin.shared.names.subscribe()
    }

    /// Client connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.admin.shared.open.load(Relaxed)
    }

    /// Ends the process after what is open has been drained, without waiting for more.
    pub fn quit(&self) {
        (self.admin.orders)(Order::Quit);
    }

    /// Asks clients to leave, and fails readiness; the process then ends at the first word.
    pub fn linger(&self) {
        (self.admin.orders)(Order::Linger);
    }
}
