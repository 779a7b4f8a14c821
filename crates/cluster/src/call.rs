//! HTTP calls by curl: from a pod, and from outside of the cluster.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::kube::{kubectl_with, run};
use crate::place::Place;

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// 0: no HTTP answer (refused, reset, timed out).
    pub status: u16,
    pub took: Duration,
    pub body: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Answer {
    /// # Errors
    ///
    /// When the status is another one.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        ensure!(self.status == status, "status {} instead of {status}: {:.300}", self.status, self.body);
        Ok(self)
    }
}

/// From a container of a pod: `deploy/client -n NAMESPACE`.
///
/// # Errors
///
/// When curl could not be run. A failed call is status 0.
pub fn from_pod(namespace: &str, arguments: &[&str]) -> anyhow::Result<Answer> {
    from_pod_of("deploy/client", namespace, arguments)
}

/// From the container `client` of a pod of that workload.
///
/// # Errors
///
/// As [`from_pod`].
pub fn from_pod_of(workload: &str, namespace: &str, arguments: &[&str]) -> anyhow::Result<Answer> {
    let mut command = Command::new("kubectl");
    command.args(["exec", "-n", namespace, workload, "-c", "client", "--", "curl"]);
    curl(&mut command, arguments)
}

/// As [`from_pod`], with `input` on curl's standard input (`--data-binary @-`).
///
/// # Errors
///
/// As [`from_pod`].
pub fn from_pod_with(namespace: &str, arguments: &[&str], input: &str) -> anyhow::Result<Answer> {
    let format = format!("{MARK}%{{http_code}} %{{time_total}}\n");
    let mut all = vec!["exec", "-i", "-n", namespace, "deploy/client", "-c", "client", "--", "curl"];
    all.extend(["--silent", "--show-error", "--include", "--max-time", "30", "--write-out", &format]);
    all.extend(arguments);
    let text = kubectl_with(&all, input).unwrap_or_else(|error| error.to_string());
    read(&text).with_context(|| format!("cannot read what curl printed: {text:.300}"))
}

/// From outside of the cluster.
///
/// # Errors
///
/// As [`from_pod`].
pub fn from_outside(place: &Place, arguments: &[&str]) -> anyhow::Result<Answer> {
    curl(&mut place.beside("curl"), arguments)
}

const MARK: &str = "\n--mizzen-test--";

fn curl(command: &mut Command, arguments: &[&str]) -> anyhow::Result<Answer> {
    let format = format!("{MARK}%{{http_code}} %{{time_total}}\n");
    // `|| true` cannot be said without a shell: `--fail` is not given, so only transport failures end with a code.
    command.args(["--silent", "--show-error", "--include", "--max-time", "30", "--write-out", &format]).args(arguments);
    let text = match run(command) {
        Ok(text) => text,
        Err(error) => {
            let text = error.to_string();
            if !text.contains(MARK) {
                return Err(error);
            }
            text
        }
    };
    read(&text).with_context(|| format!("cannot read what curl printed: {text:.300}"))
}

fn read(text: &str) -> Option<Answer> {
    let (response, figures) = text.rsplit_once(MARK)?;
    let mut figures = figures.split_whitespace();
    let status = figures.next()?.parse().ok()?;
    let took = Duration::from_secs_f64(figures.next()?.parse().ok()?);
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or(("", response));
    let headers = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_end().to_owned()))
        .collect();
    Some(Answer { status, took, body: body.to_owned(), headers })
}

#[cfg(test)]
mod tests {
    use super::{MARK, read};

    #[test]
    fn an_answer_has_status_headers_body_and_time() {
        let text = format!("HTTP/1.1 200 OK\r\nServer: istio-envoy\r\n\r\nbody\n{MARK}200 0.25");
        let answer = read(&text).expect("readable");
        assert_eq!((answer.status, answer.body.as_str()), (200, "body\n"));
        assert_eq!(answer.headers["server"], "istio-envoy");
        assert_eq!(answer.took.as_millis(), 250);
        assert!(read("curl: not found").is_none());
    }
}
