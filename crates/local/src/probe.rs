//! Readiness probes as Kubernetes defines them: what is asked, how often, and after how many answers the state changes.
//!
//! The state machine is pure; [`check`](check::check) does the asking.

pub mod check;

use std::time::Duration;

use serde_json::Value;

use crate::manifest::PortRef;

/// A `readinessProbe`.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub action: Action,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Http {
        path: String,
        port: PortRef,
        https: bool,
        headers: Vec<(String, String)>,
    },
    Tcp {
        port: PortRef,
    },
    /// `grpc.health.v1.Health/Check` must answer SERVING.
    Grpc {
        port: PortRef,
        service: String,
    },
    Exec {
        command: Vec<String>,
    },
}

impl Probe {
    /// What is asked where the manifest asks nothing: whether a connection to the port is taken.
    pub fn connect(port: u16) -> Self {
        Self::with_defaults(Action::Tcp { port: PortRef::Number(port) })
    }

    fn with_defaults(action: Action) -> Self {
        Self {
            action,
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        }
    }

    /// Reads a probe. The error names the field below `readinessProbe`, beginning with a dot.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let mut probe = Self::with_defaults(action(value)?);
        let number = |field: &str, least: u64| match value.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(number) => match number.as_u64() {
                Some(found) if found >= least => Ok(Some(found)),
                _ => Err(format!(".{field}: {number} is not allowed, the least is {least}")),
            },
        };
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        if let Some(seconds) = number("initialDelaySeconds", 0)? {
            probe.initial_delay = Duration::from_secs(seconds);
        }
        if let Some(seconds) = number("periodSeconds", 1)? {
            probe.period = Duration::from_secs(seconds);
        }
        if let Some(seconds) = number("timeoutSeconds", 1)? {
            probe.timeout = Duration::from_secs(seconds);
        }
        if let Some(times) = number("successThreshold", 1)? {
            probe.success_threshold = count(times);
        }
        if let Some(times) = number("failureThreshold", 1)? {
            probe.failure_threshold = count(times);
        }
        Ok(probe)
    }
}

fn action(value: &Value) -> Result<Action, String> {
    let port = |value: &Value, field: &str| {
        let port = value.get("port").and_then(crate::manifest::port_ref);
        port.ok_or_else(|| format!(".{field}.port: a port number or name is needed"))
    };
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(http) = value.get("httpGet") {
        let path = text(http, "path");
        let headers = http.get("httpHeaders").and_then(Value::as_array).cloned().unwrap_or_default();
        return Ok(Action::Http {
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            port: port(http, "httpGet")?,
            https: text(http, "scheme").eq_ignore_ascii_case("https"),
            headers: headers.iter().map(|header| (text(header, "name"), text(header, "value"))).collect(),
        });
    }
    if let Some(tcp) = value.get("tcpSocket") {
        return Ok(Action::Tcp { port: port(tcp, "tcpSocket")? });
    }
    if let Some(grpc) = value.get("grpc") {
        return Ok(Action::Grpc { port: port(grpc, "grpc")?, service: text(grpc, "service") });
    }
    if let Some(exec) = value.get("exec") {
        let command: Vec<String> = exec
            .get("command")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if command.is_empty() {
            return Err(".exec.command: a command is needed".to_owned());
        }
        return Ok(Action::Exec { command });
    }
    Err(": one of httpGet, tcpSocket, grpc or exec is needed".to_owned())
}

/// Between two tries while the container has never been ready. Kubernetes would wait a whole period; on one machine, in
/// front of a person, asking more often costs nothing.
const EAGER_PERIOD: Duration = Duration::from_millis(50);

/// The state of one container's readiness.
#[derive(Debug, Clone)]
pub struct Readiness {
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    ready: bool,
    was_ready: bool,
    /// Answers in a row that speak against the present state.
    against: u32,
}

impl Readiness {
    pub fn new(probe: &Probe) -> Self {
        Self {
            period: probe.period,
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
            ready: false,
            was_ready: false,
            against: 0,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Takes one answer. Returns the new state when it changes.
    pub fn observe(&mut self, success: bool) -> Option<bool> {
        if success == self.ready {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.against < threshold {
            return None;
        }
        self.against = 0;
        self.ready = success;
        self.was_ready |= success;
        Some(success)
    }

    /// The pause before the next try.
    pub fn pause(&self) -> Duration {
        if self.was_ready { self.period } else { self.period.min(EAGER_PERIOD) }
    }
}

#[cfg(test)]
mod tests;
