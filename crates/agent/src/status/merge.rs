//! One page of metrics from the proxy's and the application's.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::timeout;

use crate::http::{HttpError, Limit, Url, get_over};
use crate::probers::Scrape;
use crate::status::probe;

/// Largest page of an application that is taken.
const LIMIT: Limit = Limit { bytes: 8 << 20 };
/// How long an application may take, when Prometheus does not say how long it waits.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(super) enum ScrapeError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the application answers {0}")]
    Status(u16),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer is no text")]
    Text,
}

/// The application's page.
pub(super) async fn application(
    scrape: &Scrape,
    pod: Option<IpAddr>,
    asked: &HeaderMap,
) -> Result<String, ScrapeError> {
    let patience = asked
        .get("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map_or(PATIENCE, |asked| asked.min(PATIENCE * 6));
    let url = Url { host: "localhost".to_owned(), port: scrape.port, path: scrape.path.clone() };
    // The text format alone can be put together with ours.
    let headers = [
        ("accept".to_owned(), "text/plain;version=0.0.4;q=1,*/*;q=0.1".to_owned()),
        ("user-agent".to_owned(), "mizzen-agent".to_owned()),
    ];
    let asking = async {
        let stream = probe::dial_anywhere(pod, scrape.port).await?;
        get_over(stream, &url, &headers, LIMIT).await
    };
    let answer = timeout(patience, asking).await.map_err(|_| ScrapeError::Timeout(patience))??;
    if answer.status != 200 {
        return Err(ScrapeError::Status(answer.status));
    }
    String::from_utf8(answer.body.into()).map_err(|_| ScrapeError::Text)
}

/// Ours, then theirs. What ends a page in OpenMetrics' format would end ours too.
pub(super) fn merged(mut own: String, theirs: &str) -> String {
    if !own.is_empty() && !own.ends_with('\n') {
        own.push('\n');
    }
    for line in theirs.lines().filter(|line| line.trim_end() != "# EOF") {
        own.push_str(line);
        own.push('\n');
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_put_together() {
        assert_eq!(merged("a 1\n".to_owned(), "# TYPE b counter\nb 2\n# EOF\n"), "a 1\n# TYPE b counter\nb 2\n");
        assert_eq!(merged("a 1".to_owned(), "b 2"), "a 1\nb 2\n");
        assert_eq!(merged(String::new(), ""), "");
    }
}
