//! May a service account read the Secrets of its namespace? Asked of the API server with a SubjectAccessReview (reference:
//! semantics 88): who may not read them there gets no certificate of a gateway from us either.
//!
//! The answer is remembered for a minute. An API server that does not answer changes nothing: the last answer stays.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use mizzen_types::SpiffeId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::objects::{WriteError, in_time};

/// How long an answer is not asked for again. A permission that is taken away counts for so long.
pub(crate) const REMEMBER: Duration = Duration::from_secs(60);
/// Questions at once; more of them wait.
const AT_ONCE: usize = 16;
/// Answers remembered at most.
const REMEMBERED: usize = 4096;

/// Namespace and name of a service account.
type Account = (String, String);

/// Asks the API server.
pub(crate) struct Permissions {
    api: Api<SubjectAccessReview>,
    remembered: Mutex<HashMap<Account, (Instant, bool)>>,
    places: Semaphore,
}

impl Permissions {
    pub(crate) fn new(client: Client) -> Self {
        Self { api: Api::all(client), remembered: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }

    /// Whether `caller` may list the Secrets of its own namespace; `None` when the API server has never said.
    pub(crate) async fn may_read_secrets(&self, caller: &SpiffeId) -> Option<bool> {
        let account = (caller.namespace.to_string(), caller.service_account.to_string());
        let known = self.remembered().get(&account).copied();
        if let Some((at, allowed)) = known
            && at.elapsed() < REMEMBER
        {
            return Some(allowed);
        }
        match self.ask(&account).await {
            Ok(allowed) => {
                let mut remembered = self.remembered();
                if remembered.len() >= REMEMBERED {
                    remembered.retain(|_, (at, _)| at.elapsed() < REMEMBER);
                }
                // Still full: everything is asked again, rather than all of it searched at every call.
                if remembered.len() >= REMEMBERED {
                    remembered.clear();
                }
                remembered.insert(account, (Instant::now(), allowed));
                Some(allowed)
            }
            Err(error) => {
                let (namespace, name) = &account;
                tracing::warn!(%error, "cannot ask what service account {namespace}/{name} may read; the last answer stays");
                known.map(|(_, allowed)| allowed)
            }
        }
    }

    async fn ask(&self, (namespace, name): &Account) -> Result<bool, WriteError> {
        // Never closed; without a place it would be a question more.
        let _place = self.places.acquire().await;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{name}")),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ]),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.clone()),
                    verb: Some("list".to_owned()),
                    resource: Some("secrets".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = in_time(self.api.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<Account, (Instant, bool)>> {
        // No code that can panic runs under this lock.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Permissions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permissions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
