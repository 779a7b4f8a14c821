//! Watches a Kubernetes API server.
//!
//! Every kind has a watch of its own, which lists and then follows; `state` beside it puts together what they tell. While
//! the API server is away, slow or has forgotten where a watch stood, what is known stays in force, and is compared with
//! what is there when it is back. A kind whose definition is not installed is looked for now and then. An object
//! that says something wrong rejects itself alone: its last good version stays in force.
//!
//! Not here: writing to the API server (`mizzen-control`).

mod kinds;
mod state;
mod statuses;
mod watch;
mod watched;

use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::state::Batch;
use kinds::KINDS;
use state::{State, Told};
pub use statuses::{ShownStatus, StatusFollower, Statuses};

/// What of an API server is watched, and how patiently.
#[derive(Debug, Clone)]
pub struct Options {
    /// The mesh's own namespace, where its configuration is.
    pub namespace: String,
    /// The ConfigMap with the mesh configuration.
    pub mesh_config: String,
    /// The wait after a first failure; it doubles with each further one …
    pub retry_after: Duration,
    /// … up to this.
    pub retry_at_most: Duration,
    /// How often a kind that is not there, or may not be read, is looked for.
    pub look_again: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: "istio-system".to_owned(),
            mesh_config: "istio".to_owned(),
            retry_after: Duration::from_millis(250),
            retry_at_most: Duration::from_secs(10),
            look_again: Duration::from_secs(10),
        }
    }
}

/// Events that may wait to be put together. More would be memory for nothing: the API server waits meanwhile.
const WAITING: usize = 256;
/// Events that are put together at once.
const AT_ONCE: usize = 256;

/// An API server that is watched for as long as it lives.
#[derive(Debug)]
pub struct KubernetesSource {
    state: State,
    told: mpsc::Receiver<(usize, Told)>,
    statuses: Statuses,
    /// Dropping it ends the watches.
    _watches: JoinSet<()>,
}

impl KubernetesSource {
    /// Starts to watch. Needs a runtime.
    pub fn watch(client: &Client, options: &Options) -> Self {
        let (out, told) = mpsc::channel(WAITING);
        let mut watches = JoinSet::new();
        let outage = watch::Outage::default();
        let statuses = Statuses::default();
        for (index, kind) in KINDS.iter().enumerate() {
            let told = watch::Out { index, told: out.clone(), statuses: statuses.clone() };
            watches.spawn(watch::watch(client.clone(), kind, options.clone(), told, outage.clone()));
        }
        Self { state: State::new(KINDS.iter().map(|kind| kind.kind)), told, statuses, _watches: watches }
    }

    /// The statuses of Istio's objects, as the same watches show them.
    pub fn statuses(&self) -> Statuses {
        self.statuses.clone()
    }

    /// Waits until every kind that the API server has was listed, and says what is there. What was waited for is
    /// kept when it is dropped.
    pub async fn first(&mut self) -> Batch {
        loop {
            if let Some(batch) = self.state.first() {
                return batch;
            }
            self.gather().await;
        }
    }

    /// The kinds that have not been listed yet.
    pub fn missing(&self) -> Vec<&'static str> {
        self.state.missing()
    }

    /// Waits until something is different and says what. Ends never, but may be dropped at any time.
    pub async fn next(&mut self) -> Batch {
        loop {
            if let Some(batch) = self.state.batch() {
                return batch;
            }
            self.gather().await;
        }
    }

    /// Takes what waits, or waits for it.
    async fn gather(&mut self) {
        let mut waiting = Vec::new();
        if self.told.recv_many(&mut waiting, AT_ONCE).await == 0 {
            // The watches end only with the source.
            std::future::pending::<()>().await;
        }
        for (kind, told) in waiting {
            self.state.take(kind, told);
        }
    }
}
