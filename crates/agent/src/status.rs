//! The agent's port (Istio: 15020): merged metrics, probes of the application, readiness, orders from inside the pod.
//!
//! Metrics and probes are for everybody who can reach the pod, as in Istio: they tell what the application's own ports
//! would. Orders are taken from this pod alone.

mod merge;
mod probe;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, StatusCode};
use mizzen_proxy::Handle;
use mizzen_proxy::admin::serve::{self, Answer, Ask, Guard};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::probers::{Prober, Scrape};

/// Questions to the application at once; further ones are refused, so that nobody can have it flooded through us.
const QUESTIONS: usize = 32;

/// What the port serves.
#[derive(Debug)]
pub struct Status {
    pub proxy: Handle,
    pub probers: BTreeMap<String, Prober>,
    pub scrape: Option<Scrape>,
    /// Address of the pod, where its application listens.
    pub pod: Option<IpAddr>,
    places: Semaphore,
}

impl Status {
    pub fn new(
        proxy: Handle,
        probers: BTreeMap<String, Prober>,
        scrape: Option<Scrape>,
        pod: Option<IpAddr>,
    ) -> Arc<Self> {
        Arc::new(Self { proxy, probers, scrape, pod, places: Semaphore::new(QUESTIONS) })
    }

    async fn answer(&self, ask: &Ask) -> Answer {
        let path = ask.path.as_str();
        match (&ask.method, path) {
            (&Method::GET | &Method::HEAD, "/healthz/ready") => {
                let status = if self.proxy.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Answer::text(status, format!("{}\n", self.proxy.state().as_str()))
            }
            (&Method::GET | &Method::HEAD, "/stats/prometheus" | "/metrics") => self.metrics(ask).await,
            (_, "/quitquitquit" | "/drain") => self.obey(ask),
            (&Method::GET | &Method::HEAD, _) => match self.probers.get(path) {
                Some(prober) => self.probe(prober, ask).await,
                None => Answer::text(StatusCode::NOT_FOUND, HELP),
            },
            _ => Answer::text(StatusCode::METHOD_NOT_ALLOWED, HELP),
        }
    }

    fn obey(&self, ask: &Ask) -> Answer {
        if !ask.peer.is_loopback() {
            tracing::warn!(target: "mizzen::audit", peer = %ask.peer, path = %ask.path, "order from outside refused");
            return Answer::text(StatusCode::FORBIDDEN, "orders are taken from this pod alone\n");
        }
        if let Err(reason) = serve::from_a_program(&ask.headers) {
            return Answer::text(StatusCode::FORBIDDEN, format!("{reason}\n"));
        }
        if ask.method != Method::POST {
            return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "this changes something: use POST\n");
        }
        tracing::info!(path = %ask.path, "order at the agent's port");
        if ask.path == "/drain" {
            self.proxy.linger();
        } else {
            self.proxy.quit();
        }
        Answer::ok("OK\n")
    }

    async fn probe(&self, prober: &Prober, ask: &Ask) -> Answer {
        let Ok(_place) = self.places.try_acquire() else {
            return Answer::text(StatusCode::SERVICE_UNAVAILABLE, "too many questions at once\n");
        };
        match probe::probe(prober, self.pod, &ask.headers).await {
            Ok(status) => Answer::empty(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)),
            Err(failure) => {
                tracing::info!(path = %ask.path, %failure, "the application's probe failed");
                Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{failure}\n"))
            }
        }
    }

    async fn metrics(&self, ask: &Ask) -> Answer {
        let own = self.proxy.prometheus();
        let Some(scrape) = &self.scrape else { return Answer::metrics(own) };
        let Ok(_place) = self.places.try_acquire() else { return Answer::metrics(own) };
        match merge::application(scrape, self.pod, &ask.headers).await {
            Ok(theirs) => Answer::metrics(merge::merged(own, &theirs)),
            Err(error) => {
                // The proxy's part is worth having alone.
                tracing::debug!(%error, "the application's metrics are missing");
                Answer::metrics(own)
            }
        }
    }
}

const HELP: &str = "this port serves /stats/prometheus, /healthz/ready, the probes of the application, and orders of this \
                    pod (POST /quitquitquit, POST /drain)\n";

/// Listens; gives the address and the task that serves.
pub async fn listen(address: SocketAddr, status: Arc<Status>) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    serve::listen(address, Guard::None, move |ask: Ask| {
        let status = Arc::clone(&status);
        async move { status.answer(&ask).await }
    })
    .await
}
