//! The webhooks that the API server asks: `/inject` gives pods their sidecar, `/validate` refuses wrong configuration.
//!
//! The port speaks HTTPS with the control plane's certificate. Callers are not known (Kubernetes does not say who they
//! are), so everything that they send is limited: size, depth, time, and how much is worked on at once. Not here: what a
//! sidecar is (`mizzen-inject`), what is wrong with an object (`mizzen-config`), and the webhooks' registration.

mod counters;
mod follow;
mod inject;
mod review;
mod serve;
mod validate;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;
use mizzen_inject::Settings;
use serde::de::DeserializeOwned;

use crate::engine::Shared;
pub(crate) use counters::Counters;
pub(crate) use follow::{defaults, follow};
use review::{Review, Verdict};
pub(crate) use serve::serve;

/// Where the webhooks listen, and what the process was told about them.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    pub address: SocketAddr,
    /// `true` or `false`; anything else lets the values and the cluster's version decide (`ENABLE_NATIVE_SIDECARS`).
    pub native_sidecars: String,
}

/// What the webhooks answer from.
#[derive(Debug)]
pub(crate) struct Hooks {
    pub(crate) shared: Arc<Shared>,
    /// ProxyConfigs of this namespace hold for the whole mesh.
    pub(crate) root_namespace: String,
    injection: ArcSwap<Injection>,
}

/// Whether pods can be injected.
#[derive(Debug)]
pub(crate) enum Injection {
    Ready(Box<Settings>),
    /// Not yet, and why.
    NotReady(String),
}

impl Hooks {
    pub(crate) fn new(shared: Arc<Shared>, root_namespace: &str) -> Self {
        let waiting = "the injection configuration has not been read yet".to_owned();
        Self {
            shared,
            root_namespace: root_namespace.to_owned(),
            injection: ArcSwap::from_pointee(Injection::NotReady(waiting)),
        }
    }

    fn counters(&self) -> &Counters {
        &self.shared.metrics.webhooks
    }

    /// Takes over new settings. Broken ones do not replace good ones.
    pub(crate) fn take(&self, injection: Injection) {
        match (&injection, &**self.injection.load()) {
            (Injection::NotReady(why), Injection::Ready(_)) => {
                tracing::error!(%why, "the injection configuration stays as it was");
                return;
            }
            (Injection::NotReady(why), Injection::NotReady(_)) => tracing::error!(%why, "pods cannot be injected"),
            (Injection::Ready(_), _) => tracing::info!("the injection configuration is read"),
        }
        self.injection.store(Arc::new(injection));
    }

    /// The answer to the body of a POST.
    pub(crate) fn answer(&self, path: &str, body: &[u8]) -> Answer {
        if path == "/validate" || path == "/validate/" {
            return self.judge(body, |review| validate::validate(self, review));
        }
        if path == "/inject" || path.starts_with("/inject/") {
            return match &**self.injection.load() {
                Injection::Ready(settings) => self.judge(body, |review| inject::inject(self, settings, &review, path)),
                Injection::NotReady(why) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, why.clone()),
            };
        }
        Answer::text(StatusCode::NOT_FOUND, "there are /inject and /validate".to_owned())
    }

    fn judge<T: DeserializeOwned>(&self, body: &[u8], judge: impl FnOnce(Review<T>) -> Verdict) -> Answer {
        match Review::read(body) {
            Ok((head, review)) => Answer { status: StatusCode::OK, json: true, body: head.respond(judge(review)) },
            Err(reason) => {
                self.counters().unreadable();
                Answer::text(StatusCode::BAD_REQUEST, reason)
            }
        }
    }
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) json: bool,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn text(status: StatusCode, reason: String) -> Self {
        Self { status, json: false, body: reason + "\n" }
    }
}

#[cfg(test)]
mod tests;
