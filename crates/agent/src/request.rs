//! One request to the proxy of this pod, as Kubernetes' hooks and people inside the container make it.

use std::time::Duration;

use tokio::time::timeout;

use crate::http::{self, Answer, HttpError, Limit, Url};

/// Whoever runs on this machine answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// A dump of a large configuration.
const LIMIT: Limit = Limit { bytes: 256 << 20 };

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{0:?} is no method of HTTP; write GET or POST")]
    Method(String),
    #[error("{0:?} is no path")]
    Path(String),
    #[error("no answer from port {port} within {} s", .after.as_secs())]
    Silence { port: u16, after: Duration },
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{status}: {}", .body.trim_end())]
    Refused { status: u16, body: String },
}

/// Sends one request to a port of this machine; an answer other than 200 is an error with what it says.
pub async fn request(port: u16, method: &str, path: &str, body: String) -> Result<Answer, RequestError> {
    let method: ::http::Method =
        method.to_ascii_uppercase().parse().map_err(|_| RequestError::Method(method.to_owned()))?;
    let url = format!("http://localhost:{port}/{}", path.trim_start_matches('/'));
    let url = Url::parse(&url).ok_or_else(|| RequestError::Path(path.to_owned()))?;
    let answer = timeout(PATIENCE, http::request(&method, &url, body, LIMIT)).await;
    let answer = answer.map_err(|_| RequestError::Silence { port, after: PATIENCE })??;
    if answer.status == 200 {
        Ok(answer)
    } else {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        Err(RequestError::Refused { status: answer.status, body })
    }
}
