//! Whether this proxy is fit for traffic, and the port that says so (Istio: 15021, `/healthz/ready`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use http::{Method, StatusCode};

use crate::admin::serve::{self, Answer, Ask, Guard};

/// Set by whoever starts, configures and ends the process; read by everybody else.
#[derive(Debug, Default)]
pub struct Health {
    state: AtomicU8,
    /// `/healthcheck/fail` was called.
    failed: AtomicBool,
}

/// Envoy's server states, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Live = 0,
    Draining = 1,
    PreInitializing = 2,
    Initializing = 3,
}

const STARTING: u8 = 0;
const LIVE: u8 = 1;
const DRAINING: u8 = 2;

impl Health {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The first full configuration is in force.
    pub fn configured(&self) {
        // A proxy that ends before it is configured stays ended.
        let _ = self.state.compare_exchange(STARTING, LIVE, Relaxed, Relaxed);
    }

    /// The process is ending.
    pub fn draining(&self) {
        self.state.store(DRAINING, Relaxed);
    }

    /// What the operator says: fail readiness though everything works, or take that back.
    pub fn set_failed(&self, failed: bool) {
        self.failed.store(failed, Relaxed);
    }

    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            STARTING => State::Initializing,
            LIVE if self.failed.load(Relaxed) => State::Draining,
            LIVE => State::Live,
            _ => State::Draining,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.state() == State::Live
    }
}

impl State {
    /// The word in `/server_info` and `/ready`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// Serves `/healthz/ready`; gives the address it listens on. Ends with `health`'s process, or when the task is dropped.
pub async fn listen(address: SocketAddr, health: Arc<Health>) -> io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    serve::listen(address, Guard::None, move |ask: Ask| {
        let health = Arc::clone(&health);
        async move { answer(&ask, &health) }
    })
    .await
}

fn answer(ask: &Ask, health: &Health) -> Answer {
    match (&ask.method, ask.path.as_str()) {
        (&Method::GET | &Method::HEAD, "/healthz/ready") => {
            let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Answer::text(status, format!("{}\n", health.state().as_str()))
        }
        _ => Answer::text(StatusCode::NOT_FOUND, "this port serves /healthz/ready\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_configured_and_not_ending() {
        let health = Health::default();
        assert_eq!((health.state(), health.is_ready()), (State::Initializing, false));
        health.configured();
        assert_eq!((health.state(), health.is_ready()), (State::Live, true));
        health.set_failed(true);
        assert!(!health.is_ready());
        health.set_failed(false);
        assert!(health.is_ready());
        health.draining();
        health.configured();
        assert_eq!((health.state(), health.is_ready()), (State::Draining, false));
    }
}
