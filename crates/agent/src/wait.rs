//! Waiting until a proxy says that it is ready.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::http::{self, Url};

/// How long to ask for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one answer.
    pub request: Duration,
    /// Between questions.
    pub period: Duration,
    pub whole: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    #[error("{0:?} is no URL that can be asked; write http://HOST:PORT/PATH")]
    Url(String),
    #[error("the proxy is not ready after {} s: {reason}", .after.as_secs())]
    NotReady { after: Duration, reason: String },
}

/// Asks `url` until it answers 200.
pub async fn until_ready(url: &str, patience: Patience) -> Result<(), WaitError> {
    let target = Url::parse(url).ok_or_else(|| WaitError::Url(url.to_owned()))?;
    let end = Instant::now() + patience.whole;
    let mut reason = "it was not asked".to_owned();
    loop {
        let answer = timeout(patience.request, http::get(&target, &[], http::Limit { bytes: 1024 }));
        match timeout_at(end, answer).await {
            Ok(Ok(Ok(answer))) if answer.status == 200 => return Ok(()),
            Ok(Ok(Ok(answer))) => reason = format!("it answers {}", answer.status),
            Ok(Ok(Err(error))) => reason = error.to_string(),
            Ok(Err(_)) => reason = format!("no answer within {} ms", patience.request.as_millis()),
            Err(_) => {}
        }
        if Instant::now() + patience.period >= end {
            return Err(WaitError::NotReady { after: patience.whole, reason });
        }
        sleep(patience.period).await;
    }
}
