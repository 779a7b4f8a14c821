//! Whose token is it? Asked of the API server with a TokenReview.
//!
//! The answer is remembered for a short time under the token's hash: a proxy shows the same token for its certificate and
//! for its stream, and comes back with it when it was refused. An API server that does not answer says nothing about the
//! token: the caller is told to come again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use mizzen_identity::caller::{Review, ReviewError, Reviewer};
use mizzen_identity::token::{AUDIENCE, ServiceAccount};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long a token that was accepted is not asked about again. For so long one that was revoked is still accepted.
const REMEMBER_ACCEPTED: Duration = Duration::from_secs(30);
/// The same for one that was refused, so that a caller who tries again and again costs little.
const REMEMBER_REFUSED: Duration = Duration::from_secs(5);
/// Answers remembered at most.
const REMEMBERED: usize = 4096;
/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Questions at once; more of them wait, within the time above.
const AT_ONCE: usize = 32;

type Answer = Result<ServiceAccount, ReviewError>;
type Hash = [u8; 32];

/// Asks the API server.
pub(crate) struct TokenReviewer {
    api: Api<TokenReview>,
    remembered: Mutex<Remembered>,
    places: Semaphore,
}

impl TokenReviewer {
    pub(crate) fn new(client: Client) -> Self {
        Self { api: Api::all(client), remembered: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }

    async fn answer(&self, token: &str) -> Answer {
        // Other things than a JWT need no asking.
        if token.split('.').count() != 3 {
            return Err(ReviewError::Refused("it is not a JWT".to_owned()));
        }
        let hash = hash(token);
        if let Some(answer) = self.remembered().get(&hash, Instant::now()) {
            return answer;
        }
        let answer = match tokio::time::timeout(TIMEOUT, self.ask(token)).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(ReviewError::Unavailable(format!("the API server did not answer within {} s", TIMEOUT.as_secs())))
            }
        };
        self.remembered().put(hash, &answer, Instant::now());
        answer
    }

    async fn ask(&self, token: &str) -> Answer {
        let unavailable = |reason: String| ReviewError::Unavailable(reason);
        let _place = self.places.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        match self.api.create(&PostParams::default(), &review).await {
            Ok(review) => read(&review.status.unwrap_or_default()),
            Err(Error::Api(status)) => Err(unavailable(format!("the API server says: {}", status.message))),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        // No code that can panic runs under this lock.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reviewer for TokenReviewer {
    fn review<'a>(&'a self, token: &'a str) -> Review<'a> {
        Box::pin(self.answer(token))
    }
}

impl std::fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReviewer").finish_non_exhaustive()
    }
}

/// What the API server's answer proves.
fn read(status: &TokenReviewStatus) -> Answer {
    let refused = |reason: &str| Err(ReviewError::Refused(reason.to_owned()));
    if status.authenticated != Some(true) {
        return refused(
            status.error.as_deref().filter(|it| !it.is_empty()).unwrap_or("the API server does not know it"),
        );
    }
    // An API server that knows nothing of audiences leaves them out; then the token may have been meant for anybody.
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return refused(&format!("it is not meant for the audience {AUDIENCE}"));
    }
    let user = status.user.as_ref().and_then(|user| user.username.as_deref()).unwrap_or_default();
    ServiceAccount::of_user(user).map_or_else(|| refused(&format!("{user:?} is not a service account")), Ok)
}

fn hash(token: &str) -> Hash {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let mut hash = Hash::default();
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// Answers with their ends.
#[derive(Debug, Default)]
struct Remembered(HashMap<Hash, (Instant, Answer)>);

impl Remembered {
    fn get(&self, hash: &Hash, now: Instant) -> Option<Answer> {
        self.0.get(hash).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
    }

    fn put(&mut self, hash: Hash, answer: &Answer, now: Instant) {
        let keep = match answer {
            Ok(_) => REMEMBER_ACCEPTED,
            Err(ReviewError::Refused(_)) => REMEMBER_REFUSED,
            Err(ReviewError::Unavailable(_)) => return,
        };
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (until, _)| now < *until);
        }
        // Still full: everything is asked again, rather than all of it searched at every call.
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(hash, (now + keep, answer.clone()));
    }
}

#[cfg(test)]
mod tests;
