//! The admin port: what this proxy is, has and does, under Envoy's paths and in Envoy's shapes.
//!
//! It is for somebody on this machine ([`serve::Guard::Local`]); what changes anything wants POST; keys are never shown.

mod certs;
mod clusters;
mod config_dump;
mod listeners;
mod process;
pub mod serve;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::{Method, StatusCode};
use mizzen_telemetry::stats as envoy_stats;
use regex::Regex;

pub use config_dump::{Held, Origin};

use crate::health::Health;
use crate::record::Record;
use crate::shared::Shared;
use crate::stats;
use serve::{Answer, Ask, Guard};

/// What the admin port tells about, and the few things that it can ask for.
pub struct Admin {
    pub shared: Arc<Shared>,
    pub record: Arc<Record>,
    pub health: Arc<Health>,
    /// The resources in force as they came.
    pub held: Arc<Held>,
    pub log_level: Option<LogLevel>,
    pub orders: Box<dyn Fn(Order) + Send + Sync>,
    /// Facts for `/server_info`.
    pub about: About,
}

type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Reads and changes the log filter of the process.
pub struct LogLevel {
    pub get: Box<dyn Fn() -> String + Send + Sync>,
    /// The error says what is wrong with the filter.
    pub set: SetLevel,
}

/// What an operator wants to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// End the process, after draining.
    Quit,
    /// Tell clients to leave, and go on serving: the process will be told to end.
    Linger,
    /// Listeners close; connections finish. With `inbound_only`, those of inbound direction.
    DrainListeners { inbound_only: bool },
}

#[derive(Debug, Clone, Default)]
pub struct About {
    pub version: String,
    pub concurrency: usize,
    pub drain_time: std::time::Duration,
    /// The bootstrap's `node`.
    pub node: serde_json::Value,
}

const HELP: &str = "\
admin commands are:
  /: this page
  /certs: certificates in use (JSON; no keys)
  /clusters: endpoints of the clusters that were called, with health and counters
      format: json
      filter: regular expression for names of clusters
  /config_dump: configuration in force, as it came (JSON; secrets redacted)
      resource: only this list, for instance dynamic_listeners
      name_regex: only resources with such names
      include_eds: endpoints too
  /drain_listeners (POST): close listeners, let connections finish
      inboundonly: only listeners for inbound traffic
  /healthcheck/fail (POST): be not ready
  /healthcheck/ok (POST): be ready again
  /help: this page
  /listeners: addresses that are listened on
      format: json
  /logging (POST): show the log level, or change it
      level: error, warn, info, debug, trace, off, or a filter such as info,mizzen_proxy=debug
  /memory: memory of this process (JSON)
  /quitquitquit (POST): drain and exit
  /ready: 200 when ready for traffic, else 503
  /server_info: version, state, uptime (JSON)
  /stats: counters and gauges
      filter: regular expression for names
      usedonly: only those that are not 0
      format: json, prometheus
  /stats/prometheus: the same and Istio's metrics, for Prometheus
";

/// Starts the admin port; gives the address it listens on. An address that others could reach is replaced by loopback.
pub async fn listen(wanted: SocketAddr, admin: Arc<Admin>) -> io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let address = match wanted.ip() {
        ip if ip.is_loopback() => wanted,
        other => {
            let loopback = match other {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            tracing::warn!(%wanted, %loopback, "the admin port is not for others: it listens on loopback instead");
            SocketAddr::new(loopback, wanted.port())
        }
    };
    serve::listen(address, Guard::Local, move |ask: Ask| {
        let admin = Arc::clone(&admin);
        async move { admin.answer(&ask).await }
    })
    .await
}

/// Starts the Prometheus port (Istio: 15090, `/stats/prometheus`).
pub async fn listen_metrics(
    address: SocketAddr,
    shared: Arc<Shared>,
    record: Arc<Record>,
    health: Arc<Health>,
) -> io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    serve::listen(address, Guard::None, move |ask: Ask| {
        let (shared, record, health) = (Arc::clone(&shared), Arc::clone(&record), Arc::clone(&health));
        async move {
            match (&ask.method, ask.path.as_str()) {
                (&Method::GET | &Method::HEAD, "/stats/prometheus" | "/metrics") => {
                    Answer::metrics(stats::prometheus(&shared, &record, &health))
                }
                _ => Answer::text(StatusCode::NOT_FOUND, "this port serves /stats/prometheus\n"),
            }
        }
    })
    .await
}

/// Paths that change something.
const ORDERS: [&str; 5] = ["/drain_listeners", "/healthcheck/fail", "/healthcheck/ok", "/logging", "/quitquitquit"];

impl Admin {
    async fn answer(self: &Arc<Self>, ask: &Ask) -> Answer {
        let path = ask.path.as_str();
        match (&ask.method, ORDERS.contains(&path)) {
            (&Method::GET | &Method::HEAD, false) => self.show(ask).await,
            (&Method::POST, true) => self.obey(ask),
            // Reading by POST is allowed, as in Envoy.
            (&Method::POST, false) => self.show(ask).await,
            (_, true) => refused(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} changes something: use POST")),
            (method, false) => refused(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not used here")),
        }
    }

    async fn show(self: &Arc<Self>, ask: &Ask) -> Answer {
        let json = ask.parameter("format").as_deref() == Some("json");
        let filter = match ask.parameter("filter").map(|filter| name_filter(&filter)).transpose() {
            Ok(filter) => filter,
            Err(error) => return refused(StatusCode::BAD_REQUEST, &error),
        };
        match ask.path.as_str() {
            "/" | "/help" => Answer::ok(HELP),
            "/ready" => {
                let status = if self.health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Answer::text(status, format!("{}\n", self.health.state().as_str()))
            }
            "/server_info" => Answer::json(&process::server_info(self)),
            "/memory" => Answer::json(&process::memory()),
            "/certs" => Answer::json(&certs::json(&self.shared.secrets)),
            "/clusters" if json => Answer::json(&clusters::json(&self.shared, filter.as_ref())),
            "/clusters" => Answer::ok(clusters::text(&self.shared, filter.as_ref())),
            "/listeners" if json => Answer::json(&listeners::json(&self.shared)),
            "/listeners" => Answer::ok(listeners::text(&self.shared)),
            "/stats/prometheus" => Answer::metrics(stats::prometheus(&self.shared, &self.record, &self.health)),
            "/stats" if ask.parameter("format").as_deref() == Some("prometheus") => {
                Answer::metrics(stats::prometheus(&self.shared, &self.record, &self.health))
            }
            "/stats" => self.stats(ask, filter.as_ref(), json),
            "/config_dump" => {
                let (admin, query) = (Arc::clone(self), config_dump::Query::of(ask));
                // Linking the descriptions of all messages takes milliseconds, which are not the event loop's.
                let dump = move || admin.held.dump(&admin.shared.secrets, &query);
                match tokio::task::spawn_blocking(dump).await {
                    Ok(Ok(dump)) => {
                        self.shared.swollen.store(true, Relaxed);
                        Answer::json(&dump)
                    }
                    Ok(Err(error)) => refused(StatusCode::BAD_REQUEST, &error),
                    Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the dump could not be made"),
                }
            }
            _ => Answer::text(StatusCode::NOT_FOUND, format!("invalid path. {HELP}")),
        }
    }

    fn stats(&self, ask: &Ask, filter: Option<&Regex>, json: bool) -> Answer {
        let used = ask.parameter("usedonly").is_some();
        let mut readings = stats::readings(&self.shared, &self.record, &self.health);
        readings.retain(|reading| {
            filter.is_none_or(|filter| filter.is_match(&reading.name)) && (!used || reading.value > 0)
        });
        if json {
            let stats: Vec<_> = readings
                .iter()
                .map(|reading| serde_json::json!({"name": reading.name, "value": reading.value}))
                .collect();
            return Answer::json(&serde_json::json!({ "stats": stats }));
        }
        Answer::ok(envoy_stats::text(&readings))
    }

    fn obey(&self, ask: &Ask) -> Answer {
        tracing::info!(path = %ask.path, "order at the admin port");
        match ask.path.as_str() {
            "/quitquitquit" => (self.orders)(Order::Quit),
            "/drain_listeners" => {
                (self.orders)(Order::DrainListeners { inbound_only: ask.parameter("inboundonly").is_some() });
            }
            "/healthcheck/fail" => self.health.set_failed(true),
            "/healthcheck/ok" => self.health.set_failed(false),
            "/logging" => return self.logging(ask),
            other => return refused(StatusCode::NOT_FOUND, &format!("{other} is no command")),
        }
        Answer::ok("OK\n")
    }

    fn logging(&self, ask: &Ask) -> Answer {
        let Some(level) = &self.log_level else {
            return refused(StatusCode::NOT_IMPLEMENTED, "the log level of this process cannot be changed");
        };
        let wanted = match process::log_filter(ask, &(level.get)()) {
            Ok(wanted) => wanted,
            Err(error) => return refused(StatusCode::BAD_REQUEST, &error),
        };
        if let Some(wanted) = wanted
            && let Err(error) = (level.set)(&wanted)
        {
            return refused(StatusCode::BAD_REQUEST, &error);
        }
        let active: String =
            (level.get)().split(',').map(|one| format!("  {}\n", one.replacen('=', ": ", 1))).collect();
        Answer::ok(format!("active loggers:\n{active}\n"))
    }
}

fn refused(status: StatusCode, reason: &str) -> Answer {
    Answer::text(status, format!("{reason}\n"))
}

/// A regular expression for names, of bounded size.
fn name_filter(filter: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(filter)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| format!("the filter is no regular expression: {error}"))
}

#[cfg(test)]
mod tests;
