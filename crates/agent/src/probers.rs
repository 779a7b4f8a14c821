//! The probes of the application, which injection redirected to the agent, and where its metrics are. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::settings::SettingsError;

/// The variable with the probes, by the path that the kubelet asks for.
const PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";
/// The variable with the Prometheus annotations that the pod had before injection.
const ANNOTATIONS: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// What the kubelet waits when a probe says nothing.
const TIMEOUT: Duration = Duration::from_secs(1);

/// One probe or lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prober {
    pub action: Action,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Http { port: u16, path: String, tls: bool, headers: Vec<(String, String)>, host: Option<String> },
    Tcp { port: u16 },
    Grpc { port: u16, service: String },
}

/// Where the application tells Prometheus its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrape {
    pub port: u16,
    pub path: String,
}

/// Reads [`PROBERS`].
pub fn probers(text: Option<&str>) -> Result<BTreeMap<String, Prober>, SettingsError> {
    let Some(text) = text else { return Ok(BTreeMap::new()) };
    let wrong = |reason: String| SettingsError::Variable { name: PROBERS, reason };
    let all: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let entry = |(path, value): (String, Value)| {
        let known = path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/");
        if !known {
            return Err(wrong(format!("{path:?} is no path of a probe")));
        }
        prober(&value).map(|prober| (path.clone(), prober)).map_err(|reason| wrong(format!("{path}: {reason}")))
    };
    all.into_iter().map(entry).collect()
}

fn prober(value: &Value) -> Result<Prober, String> {
    let timeout = match value.get("timeoutSeconds") {
        None | Some(Value::Null) => TIMEOUT,
        Some(seconds) => match seconds.as_u64() {
            Some(0) => TIMEOUT,
            Some(seconds) => Duration::from_secs(seconds),
            None => return Err(format!("timeoutSeconds {seconds} is no number of seconds")),
        },
    };
    let text = |action: &Value, field: &str| action.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let action = if let Some(http) = value.get("httpGet") {
        let path = text(http, "path");
        let tls = match text(http, "scheme").to_ascii_uppercase().as_str() {
            "" | "HTTP" => false,
            "HTTPS" => true,
            other => return Err(format!("scheme {other:?} is neither HTTP nor HTTPS")),
        };
        let headers = http.get("httpHeaders").and_then(Value::as_array).into_iter().flatten();
        Action::Http {
            port: port(http)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            tls,
            headers: headers.map(|header| (text(header, "name"), text(header, "value"))).collect(),
            host: Some(text(http, "host")).filter(|host| !host.is_empty()),
        }
    } else if let Some(tcp) = value.get("tcpSocket") {
        Action::Tcp { port: port(tcp)? }
    } else if let Some(grpc) = value.get("grpc") {
        Action::Grpc { port: port(grpc)?, service: text(grpc, "service") }
    } else {
        return Err("it has none of httpGet, tcpSocket and grpc".to_owned());
    };
    Ok(Prober { action, timeout })
}

fn port(action: &Value) -> Result<u16, String> {
    let given = action.get("port").unwrap_or(&Value::Null);
    let number = given.as_u64().or_else(|| given.as_str().and_then(|text| text.parse().ok()));
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
    number.ok_or_else(|| format!("port {given} is no port number"))
}

/// Reads `ISTIO_PROMETHEUS_ANNOTATIONS`. `own` is the agent's port: an application is not asked there.
pub fn scrape(text: Option<&str>, own: u16) -> Result<Option<Scrape>, SettingsError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |reason: String| SettingsError::Variable { name: ANNOTATIONS, reason };
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if field("scrape") != Some("true") {
        return Ok(None);
    }
    let port = field("port").unwrap_or("80");
    let port: u16 = port.parse().map_err(|_| wrong(format!("{port:?} is no port number")))?;
    if port == own || port == 0 {
        return Err(wrong(format!("the application's metrics cannot be at the agent's own port {port}")));
    }
    let path = field("path").unwrap_or("/metrics");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Some(Scrape { port, path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_as_injection_writes_them() {
        let text = r#"{
            "/app-health/a/readyz": {"httpGet": {"path": "/ready?x=1", "port": 8080, "scheme": "HTTPS",
                "httpHeaders": [{"name": "X-A", "value": "b"}], "host": "h"}, "timeoutSeconds": 3},
            "/app-health/a/livez": {"tcpSocket": {"port": 9000}},
            "/app-health/a/startupz": {"grpc": {"port": 9001, "service": "s"}, "timeoutSeconds": 0},
            "/app-lifecycle/a/prestopz": {"httpGet": {"path": "bye", "port": "8081"}}
        }"#;
        let read = probers(Some(text)).unwrap();
        let action = |path: &str| read[path].action.clone();
        assert_eq!(
            read["/app-health/a/readyz"],
            Prober {
                action: Action::Http {
                    port: 8080,
                    path: "/ready?x=1".to_owned(),
                    tls: true,
                    headers: vec![("X-A".to_owned(), "b".to_owned())],
                    host: Some("h".to_owned()),
                },
                timeout: Duration::from_secs(3),
            }
        );
        assert_eq!(read["/app-health/a/livez"], Prober { action: Action::Tcp { port: 9000 }, timeout: TIMEOUT });
        assert_eq!(action("/app-health/a/startupz"), Action::Grpc { port: 9001, service: "s".to_owned() });
        assert!(
            matches!(action("/app-lifecycle/a/prestopz"), Action::Http { port: 8081, path, tls: false, .. } if path == "/bye")
        );
        assert!(probers(None).unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("[]", "invalid type"),
            (r#"{"/etc": {"tcpSocket": {"port": 1}}}"#, "/etc"),
            (r#"{"/app-health/a/livez": {}}"#, "httpGet"),
            (r#"{"/app-health/a/livez": {"tcpSocket": {"port": 70000}}}"#, "70000"),
            (r#"{"/app-health/a/livez": {"tcpSocket": {"port": "http"}}}"#, "http"),
            (r#"{"/app-health/a/livez": {"httpGet": {"port": 1, "scheme": "FTP"}}}"#, "FTP"),
            (r#"{"/app-health/a/livez": {"tcpSocket": {"port": 1}, "timeoutSeconds": -1}}"#, "timeoutSeconds"),
        ] {
            let error = probers(Some(text)).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(PROBERS), "{text}: {error}");
        }
    }

    #[test]
    fn the_application_s_metrics_are_where_its_annotations_say() {
        let at = |port, path: &str| Some(Scrape { port, path: path.to_owned() });
        for (text, expected) in [
            (r#"{"scrape":"true","path":"","port":"9090"}"#, at(9090, "/metrics")),
            (r#"{"scrape":"true","path":"stats","port":""}"#, at(80, "/stats")),
            (r#"{"scrape":"false","path":"","port":"9090"}"#, None),
            (r#"{"scrape":"","path":"","port":""}"#, None),
        ] {
            assert_eq!(scrape(Some(text), 15020).unwrap(), expected, "{text}");
        }
        assert_eq!(scrape(None, 15020).unwrap(), None);
        for text in [r#"{"scrape":"true","port":"15020"}"#, r#"{"scrape":"true","port":"x"}"#, "{"] {
            assert!(scrape(Some(text), 15020).is_err(), "{text}");
        }
    }
}
