//! Accepting connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use mizzen_identity::Secrets;
use mizzen_identity::tls::{ServerConfigs, server_config};
use mizzen_net::listen::is_exhaustion;
use mizzen_snapshot::Listener;
use mizzen_snapshot::tls::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::connection;
use crate::drain::Drain;
use crate::worker::Worker;

/// Pause after the process ran out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// One version of a listener with what its connections share over all workers.
pub struct ListenerState {
    pub listener: Arc<Listener>,
    tls: Vec<(Arc<ServerTls>, ServerConfigs)>,
    open: AtomicUsize,
}

impl ListenerState {
    pub fn new(listener: Arc<Listener>, secrets: &Secrets) -> Self {
        let chains = listener.chains.iter().chain(&listener.default_chain);
        let tls = chains.filter_map(|chain| chain.tls.as_ref());
        let tls = tls.map(|tls| (Arc::clone(tls), server_config(tls, secrets))).collect();
        Self { listener, tls, open: AtomicUsize::new(0) }
    }

    /// Working TLS configurations of one of the listener's chains.
    pub fn server_configs(&self, tls: &Arc<ServerTls>) -> Option<&ServerConfigs> {
        self.tls.iter().find(|(of, _)| Arc::ptr_eq(of, tls)).map(|(_, configs)| configs)
    }
}

/// One worker's accept loop for one address: the version served now.
pub struct Slot {
    state: RefCell<Arc<ListenerState>>,
    drain: RefCell<Rc<Drain>>,
    open: Rc<Cell<usize>>,
    closed: Cell<bool>,
    closing: Notify,
}

impl Slot {
    pub fn new(state: Arc<ListenerState>) -> Self {
        Self {
            state: RefCell::new(state),
            drain: RefCell::default(),
            open: Rc::default(),
            closed: Cell::new(false),
            closing: Notify::new(),
        }
    }

    /// Serves a new version from now on; gives the drain signal of the old one.
    pub fn replace(&self, state: Arc<ListenerState>) -> Rc<Drain> {
        *self.state.borrow_mut() = state;
        self.drain.replace(Rc::default())
    }

    pub fn drain(&self) -> Rc<Drain> {
        Rc::clone(&self.drain.borrow())
    }

    pub fn close(&self) {
        self.closed.set(true);
        self.closing.notify_waiters();
    }

    /// Connections of this worker that came in here and are still open.
    pub fn open(&self) -> usize {
        self.open.get()
    }
}

/// Counts a connection while it is open: in the process, for its listener, and for the worker's drain.
pub struct Admission {
    worker: Rc<Worker>,
    state: Arc<ListenerState>,
    slot: Rc<Cell<usize>>,
}

impl Admission {
    /// `None`: a limit is reached, and the connection is closed at once (as Envoy does).
    fn enter(worker: &Rc<Worker>, slot: &Slot) -> Option<Self> {
        let state = Arc::clone(&slot.state.borrow());
        let most = state.listener.max_connections.map_or(usize::MAX, |most| most as usize);
        let admission = Self { worker: Rc::clone(worker), state, slot: Rc::clone(&slot.open) };
        admission.slot.set(admission.slot.get() + 1);
        let here = admission.state.open.fetch_add(1, Relaxed) < most;
        let all = worker.shared.open.fetch_add(1, Relaxed) < worker.shared.limits.connections;
        (here && all).then_some(admission)
    }

    pub fn state(&self) -> &Arc<ListenerState> {
        &self.state
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.slot.set(self.slot.get() - 1);
        self.state.open.fetch_sub(1, Relaxed);
        self.worker.shared.open.fetch_sub(1, Relaxed);
    }
}

/// Accepts until the slot is closed. No error ends the loop: one bad connection, or a shortage of descriptors, must
/// not make the proxy deaf.
pub async fn accept(worker: Rc<Worker>, socket: TcpListener, slot: Rc<Slot>) {
    loop {
        let closing = slot.closing.notified();
        if slot.closed.get() {
            return;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = closing => return,
        };
        match accepted {
            Ok((stream, peer)) => match Admission::enter(&worker, &slot) {
                Some(admission) => {
                    let drain = slot.drain();
                    tokio::task::spawn_local(connection::serve(Rc::clone(&worker), admission, drain, stream, peer));
                }
                None => tracing::debug!(%peer, "connection refused: the limit is reached"),
            },
            Err(error) if is_exhaustion(&error) => {
                tracing::warn!(%error, "cannot accept; waiting");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
        }
    }
}
