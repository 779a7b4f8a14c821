//! From one snapshot to the next: swap it, and open, replace and close listeners.
//!
//! A listener whose address stays keeps its socket: connections that are waiting to be accepted meet the new version,
//! those of the old one drain.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mizzen_net::listen;
use mizzen_snapshot::listener::{Direction, ListenAddress};
use mizzen_snapshot::{Listener, Snapshot};
use mizzen_types::ListenerName;
use tokio::sync::mpsc::UnboundedSender;

use crate::listener::ListenerState;
use crate::shared::Shared;
use crate::worker::{Command, SlotId};

pub struct Publisher {
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<Command>>,
    open: HashMap<Place, Open>,
    /// Closed by order: not opened again as long as the listener is the same.
    closed: HashMap<Place, u64>,
    next_slot: u64,
}

/// Where a listener listens. With port 0, which is a new port each time, its name tells listeners apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    At(SocketAddr),
    Anywhere(ListenerName),
}

struct Open {
    slot: SlotId,
    listener: Arc<Listener>,
    address: SocketAddr,
}

/// A listener that could not be opened. It is tried again with the next [`Publisher::publish`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listener {listener} cannot listen on {address}: {reason}")]
pub struct BindFailure {
    pub listener: ListenerName,
    pub address: String,
    pub reason: String,
}

impl Publisher {
    pub fn new(shared: Arc<Shared>, workers: Vec<UnboundedSender<Command>>) -> Self {
        Self { shared, workers, open: HashMap::new(), closed: HashMap::new(), next_slot: 0 }
    }

    /// Puts a snapshot in force. Listeners that cannot be opened are named; all else is done.
    pub fn publish(&mut self, snapshot: &Arc<Snapshot>) -> Vec<BindFailure> {
        self.shared.balancers.follow(snapshot, self.shared.time(Instant::now()));
        self.shared.snapshot.store(Arc::clone(snapshot));
        let mut failures = Vec::new();
        let mut wanted: HashMap<Place, &Arc<Listener>> = HashMap::new();
        for listener in snapshot.listeners.values().filter(|listener| listener.bind) {
            match place(listener) {
                Some(place) => {
                    wanted.insert(place, listener);
                }
                None => failures.push(failure(listener, "only TCP addresses are supported")),
            }
        }
        let gone: Vec<Place> = self.open.keys().filter(|place| !wanted.contains_key(place)).cloned().collect();
        for place in gone {
            if let Some(open) = self.open.remove(&place) {
                tracing::info!(listener = %open.listener.name, address = %open.address, "listener closed");
                self.tell(|| Command::Close { slot: open.slot });
            }
        }
        for (place, listener) in wanted {
            if let Err(failure) = self.serve(place, listener) {
                tracing::error!("{failure}");
                failures.push(failure);
            }
        }
        self.tell(|| Command::Refresh);
        failures
    }

    /// Closes listeners for good, or until their configuration changes; connections drain.
    pub fn close_listeners(&mut self, inbound_only: bool) {
        let closing = |open: &Open| !inbound_only || open.listener.direction == Direction::Inbound;
        let gone: Vec<Place> =
            self.open.iter().filter(|(_, open)| closing(open)).map(|(place, _)| place.clone()).collect();
        for place in gone {
            if let Some(open) = self.open.remove(&place) {
                self.tell(|| Command::Close { slot: open.slot });
                self.closed.insert(place, open.listener.fingerprint);
            }
        }
    }

    /// Addresses that are listened on, by listener.
    pub fn addresses(&self) -> Vec<(ListenerName, SocketAddr)> {
        self.open.values().map(|open| (open.listener.name.clone(), open.address)).collect()
    }

    /// Why a listener that is not in force yet could not be opened now; `None` when it could, or is open already.
    pub fn probe(&self, listener: &Listener) -> Option<BindFailure> {
        let Some(Place::At(address)) = place(listener).filter(|_| listener.bind) else { return None };
        if self.open.contains_key(&Place::At(address)) {
            return None;
        }
        listen::probe(address).err().map(|error| failure(listener, &error.to_string()))
    }

    fn serve(&mut self, place: Place, listener: &Arc<Listener>) -> Result<(), BindFailure> {
        if let Some(open) = self.open.get_mut(&place) {
            if !Arc::ptr_eq(&open.listener, listener) && open.listener.fingerprint != listener.fingerprint {
                open.listener = Arc::clone(listener);
                let slot = open.slot;
                let state = Arc::new(ListenerState::new(Arc::clone(listener), &self.shared.secrets));
                tracing::info!(listener = %listener.name, "listener changed");
                self.tell(|| Command::Replace { slot, state: Arc::clone(&state) });
            }
            return Ok(());
        }
        if self.closed.get(&place) == Some(&listener.fingerprint) {
            return Ok(());
        }
        let wanted = match (&place, &listener.address) {
            (Place::At(address), _) | (_, ListenAddress::Tcp(address)) => *address,
            (Place::Anywhere(_), ListenAddress::Unix(_)) => return Err(failure(listener, "not a TCP address")),
        };
        let failed = |error: &dyn std::fmt::Display| failure(listener, &error.to_string());
        let bind = if listener.transparent { listen::bind_transparent } else { listen::bind };
        let socket = bind(wanted).map_err(|error| failed(&error))?;
        let address = socket.local_addr().map_err(|error| failed(&error))?;
        let mut sockets = Vec::new();
        for _ in &self.workers {
            sockets.push(socket.try_clone().map_err(|error| failed(&error))?);
        }
        self.next_slot += 1;
        let slot = SlotId(self.next_slot);
        let state = Arc::new(ListenerState::new(Arc::clone(listener), &self.shared.secrets));
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker is gone only when the process ends.
            let _ = worker.send(Command::Listen { slot, socket, state: Arc::clone(&state) });
        }
        tracing::info!(listener = %listener.name, %address, "listener opened");
        self.open.insert(place, Open { slot, listener: Arc::clone(listener), address });
        Ok(())
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            let _ = worker.send(command());
        }
    }
}

fn place(listener: &Listener) -> Option<Place> {
    match &listener.address {
        ListenAddress::Tcp(address) if address.port() == 0 => Some(Place::Anywhere(listener.name.clone())),
        ListenAddress::Tcp(address) => Some(Place::At(*address)),
        ListenAddress::Unix(_) => None,
    }
}

fn failure(listener: &Listener, reason: &str) -> BindFailure {
    let address = match &listener.address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    };
    BindFailure { listener: listener.name.clone(), address, reason: reason.to_owned() }
}
