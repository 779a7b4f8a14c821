//! Which streams are given Secrets: only gateways, only who has proved who it is, and in a cluster only whose service account
//! may read the Secrets of its namespace. A role that is given or taken away while the stream is open counts within minutes.

use std::sync::Arc;
use std::time::Duration;

use mizzen_types::SpiffeId;
use tokio::time::Instant;

use crate::kubernetes::permissions::{Permissions, REMEMBER};

/// When an API server that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// What one stream may see.
#[derive(Debug)]
pub(crate) enum Access {
    /// Decided for as long as the stream is open.
    Fixed(bool),
    Asked(Asking),
}

/// The API server decides, again and again.
#[derive(Debug)]
pub(crate) struct Asking {
    permissions: Arc<Permissions>,
    caller: SpiffeId,
    /// What it said last; nothing is allowed before it has said so.
    allowed: Option<bool>,
    next: Instant,
    /// `allowed` changed what the stream may see, and nobody has looked yet.
    fresh: bool,
}

impl Access {
    /// For a stream of `caller`, who proved to be it; `gateway` when its node is one. Without `permissions` proof is enough.
    pub(crate) fn new(gateway: bool, caller: Option<&SpiffeId>, permissions: Option<&Arc<Permissions>>) -> Self {
        match (caller, permissions) {
            (None, _) => Self::Fixed(false),
            (Some(_), None) => Self::Fixed(true),
            (Some(_), Some(_)) if !gateway => Self::Fixed(false),
            (Some(caller), Some(permissions)) => Self::Asked(Asking {
                permissions: permissions.clone(),
                caller: caller.clone(),
                allowed: None,
                next: Instant::now(),
                fresh: false,
            }),
        }
    }

    pub(crate) fn allowed(&self) -> bool {
        match self {
            Self::Fixed(allowed) => *allowed,
            Self::Asked(asking) => asking.allowed == Some(true),
        }
    }

    /// Waits until the stream may see something else than before; safe to cancel.
    pub(crate) async fn changed(&mut self) {
        match self {
            Self::Fixed(_) => std::future::pending().await,
            Self::Asked(asking) => asking.changed().await,
        }
    }

    /// Whether there was a change since this was asked last.
    pub(crate) fn take_change(&mut self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Asked(asking) => std::mem::take(&mut asking.fresh),
        }
    }
}

impl Asking {
    async fn changed(&mut self) {
        while !self.fresh {
            tokio::time::sleep_until(self.next).await;
            let answer = self.permissions.may_read_secrets(&self.caller).await;
            self.next = Instant::now() + if answer.is_some() { REMEMBER } else { RETRY };
            if answer.is_none() || answer == self.allowed {
                continue;
            }
            self.fresh = self.allowed.unwrap_or(false) != (answer == Some(true));
            self.allowed = answer;
            if answer == Some(false) {
                tracing::warn!(
                    target: "mizzen::audit",
                    caller = %self.caller,
                    "a gateway is given no certificates of Secrets: its service account may not list secrets in namespace {}; \
                     a Role with get, watch and list of secrets, bound to it, allows it (charts/gateway: rbac.enabled)",
                    self.caller.namespace
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
