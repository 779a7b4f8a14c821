//! Istio's standard metrics.
//!
//! Source: Istio "Standard Metrics". A series exists from its first increment, is one of a limited number, and goes
//! when it has not been used for a while; beyond the limit everything is counted under labels `overflow`.

mod histogram;
mod labels;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use self::histogram::Histogram;
pub use self::labels::{Labels, Party, Reporter};
use crate::prometheus;

/// Content type of what [`IstioMetrics::prometheus`] writes.
pub const CONTENT_TYPE: &str = prometheus::CONTENT_TYPE;

/// Label sets of one process by default. One costs about 2 KiB.
pub const DEFAULT_LIMIT: usize = 4096;

/// Sweeps without use after which a series goes.
const IDLE_SWEEPS: u32 = 60;

/// All series of a process.
#[derive(Debug)]
pub struct IstioMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    series: Mutex<HashMap<Box<str>, Arc<Series>>>,
    overflow: [Arc<Series>; 2],
    /// Rises when room was made: who was sent to the overflow series asks again.
    room: AtomicU64,
    overflowed: AtomicU64,
}

#[derive(Debug)]
struct Series {
    /// Ready to be written between braces.
    labels: Box<str>,
    values: Values,
    gone: std::sync::atomic::AtomicBool,
    /// What had been counted at the last sweep, and for how many sweeps nothing was added.
    idle: Mutex<(u64, u32)>,
}

#[derive(Debug)]
enum Values {
    Http(Box<HttpValues>),
    Tcp(TcpValues),
}

/// The number of requests is the count of the durations.
#[derive(Debug, Default)]
struct HttpValues {
    /// In microseconds.
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

#[derive(Debug, Default)]
struct TcpValues {
    opened: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// One HTTP exchange.
#[derive(Debug, Clone, Copy)]
pub struct HttpSample<'a> {
    pub grpc: bool,
    pub grpc_status: Option<u16>,
    pub status: u16,
    /// Envoy's short flags, separated by commas.
    pub flags: &'a str,
    pub duration: Duration,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// Some of what happened on opaque connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpSample<'a> {
    pub flags: &'a str,
    pub opened: u64,
    pub closed: u64,
    /// To the client.
    pub sent: u64,
    /// From the client.
    pub received: u64,
}

/// The traffic between one source and one destination: a handle to be kept and used for many exchanges.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    labels: Labels,
    /// Series by what differs from exchange to exchange; few, so they are searched one by one.
    known: ArcSwap<Vec<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    key: Key,
    flags: Box<str>,
    series: Arc<Series>,
    /// For the overflow series: when it was found that there was no room.
    room: Option<u64>,
}

/// Protocol, HTTP status and gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    protocol: Protocol,
    status: u16,
    grpc_status: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Grpc,
    Tcp,
}

impl Default for IstioMetrics {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl IstioMetrics {
    /// At most `limit` label sets.
    pub fn new(limit: usize) -> Self {
        let overflow = |values, key| Arc::new(Series::new(Labels::overflow().render(key, "-").into(), values));
        let http = Key { protocol: Protocol::Http, status: 0, grpc_status: None };
        let tcp = Key { protocol: Protocol::Tcp, ..http };
        Self {
            shared: Arc::new(Shared {
                limit,
                series: Mutex::default(),
                overflow: [overflow(Values::http(), http), overflow(Values::tcp(), tcp)],
                room: AtomicU64::new(0),
                overflowed: AtomicU64::new(0),
            }),
        }
    }

    pub fn traffic(&self, labels: Labels) -> Arc<Traffic> {
        Arc::new(Traffic { shared: Arc::clone(&self.shared), labels, known: ArcSwap::default() })
    }

    /// Lets go of series that have not been used for [`IDLE_SWEEPS`] sweeps. To be called once a minute.
    pub fn sweep(&self) {
        let mut series = self.shared.series();
        let before = series.len();
        series.retain(|_, series| {
            let idle = series.sweep();
            if idle {
                series.gone.store(true, Relaxed);
            }
            !idle
        });
        if series.len() < before {
            series.shrink_to_fit();
            self.shared.room.fetch_add(1, Relaxed);
        }
    }

    pub fn series(&self) -> usize {
        self.shared.series().len()
    }

    /// Everything in the Prometheus text format.
    pub fn prometheus(&self) -> String {
        let mut series: Vec<Arc<Series>> = self.shared.series().values().cloned().collect();
        series.sort_by(|left, right| left.labels.cmp(&right.labels));
        series.extend(self.shared.overflow.iter().filter(|series| series.total() > 0).cloned());
        let mut out = String::new();
        let http: Vec<(&str, &HttpValues)> = series
            .iter()
            .filter_map(|series| match &series.values {
                Values::Http(values) => Some((&*series.labels, &**values)),
                Values::Tcp(_) => None,
            })
            .collect();
        let tcp: Vec<(&str, &TcpValues)> = series
            .iter()
            .filter_map(|series| match &series.values {
                Values::Tcp(values) => Some((&*series.labels, values)),
                Values::Http(_) => None,
            })
            .collect();
        if !http.is_empty() {
            prometheus::head(&mut out, "istio_requests_total", "counter");
            for (labels, values) in &http {
                prometheus::sample(&mut out, "istio_requests_total", labels, values.duration.count());
            }
            type Of = fn(&HttpValues) -> &Histogram;
            let histograms: [(&str, Of, f64); 3] = [
                ("istio_request_duration_milliseconds", |values| &values.duration, 1000.0),
                ("istio_request_bytes", |values| &values.request_bytes, 1.0),
                ("istio_response_bytes", |values| &values.response_bytes, 1.0),
            ];
            for (name, histogram, unit) in histograms {
                prometheus::head(&mut out, name, "histogram");
                for (labels, values) in &http {
                    histogram(values).write(&mut out, name, labels, unit);
                }
            }
        }
        if !tcp.is_empty() {
            type Of = fn(&TcpValues) -> &AtomicU64;
            let counters: [(&str, Of); 4] = [
                ("istio_tcp_connections_opened_total", |values| &values.opened),
                ("istio_tcp_connections_closed_total", |values| &values.closed),
                ("istio_tcp_sent_bytes_total", |values| &values.sent),
                ("istio_tcp_received_bytes_total", |values| &values.received),
            ];
            for (name, counter) in counters {
                prometheus::head(&mut out, name, "counter");
                for (labels, values) in &tcp {
                    prometheus::sample(&mut out, name, labels, counter(values).load(Relaxed));
                }
            }
        }
        let overflowed = self.shared.overflowed.load(Relaxed);
        if overflowed > 0 {
            prometheus::head(&mut out, "mizzen_metric_series_overflow_total", "counter");
            prometheus::sample(&mut out, "mizzen_metric_series_overflow_total", "", overflowed);
        }
        out
    }
}

impl Traffic {
    pub fn http(&self, sample: &HttpSample<'_>) {
        let protocol = if sample.grpc { Protocol::Grpc } else { Protocol::Http };
        let key = Key { protocol, status: sample.status, grpc_status: sample.grpc_status };
        self.with(key, sample.flags, |values| {
            if let Values::Http(values) = values {
                values.duration.add(u64::try_from(sample.duration.as_micros()).unwrap_or(u64::MAX), 1000);
                values.request_bytes.add(sample.request_bytes, 1);
                values.response_bytes.add(sample.response_bytes, 1);
            }
        });
    }

    pub fn tcp(&self, sample: &TcpSample<'_>) {
        let key = Key { protocol: Protocol::Tcp, status: 0, grpc_status: None };
        self.with(key, sample.flags, |values| {
            if let Values::Tcp(values) = values {
                values.opened.fetch_add(sample.opened, Relaxed);
                values.closed.fetch_add(sample.closed, Relaxed);
                values.sent.fetch_add(sample.sent, Relaxed);
                values.received.fetch_add(sample.received, Relaxed);
            }
        });
    }

    fn with(&self, key: Key, flags: &str, add: impl FnOnce(&Values)) {
        let known = self.known.load();
        let found = known.iter().find(|known| known.key == key && *known.flags == *flags);
        match found {
            Some(known) if self.is_current(known) => add(&known.series.values),
            _ => add(&self.learn(key, flags).values),
        }
    }

    fn is_current(&self, known: &Known) -> bool {
        !known.series.gone.load(Relaxed) && known.room.is_none_or(|room| room == self.shared.room.load(Relaxed))
    }

    /// The slow way: once for each series.
    #[cold]
    fn learn(&self, key: Key, flags: &str) -> Arc<Series> {
        let shown = if flags.is_empty() { "-" } else { flags };
        let (series, room) = self.shared.series_for(key, &self.labels.render(key, shown));
        let new = Known { key, flags: flags.into(), series: Arc::clone(&series), room };
        self.known.rcu(|known| {
            let others = known.iter().filter(|known| !(known.key == key && *known.flags == *flags));
            others.cloned().chain([new.clone()]).collect::<Vec<_>>()
        });
        series
    }
}

impl Shared {
    fn series(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Series>>> {
        // A panic elsewhere cannot leave the map half changed.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn series_for(&self, key: Key, labels: &str) -> (Arc<Series>, Option<u64>) {
        let mut series = self.series();
        // Opaque connections and HTTP never have the same labels: `request_protocol` differs.
        if let Some(series) = series.get(labels) {
            return (Arc::clone(series), None);
        }
        if series.len() >= self.limit {
            self.overflowed.fetch_add(1, Relaxed);
            let overflow = &self.overflow[usize::from(key.protocol == Protocol::Tcp)];
            return (Arc::clone(overflow), Some(self.room.load(Relaxed)));
        }
        let values = if key.protocol == Protocol::Tcp { Values::tcp() } else { Values::http() };
        let new = Arc::new(Series::new(labels.into(), values));
        series.insert(labels.into(), Arc::clone(&new));
        (new, None)
    }
}

impl Series {
    fn new(labels: Box<str>, values: Values) -> Self {
        Self { labels, values, gone: false.into(), idle: Mutex::default() }
    }

    /// Grows with every use.
    fn total(&self) -> u64 {
        match &self.values {
            Values::Http(values) => values.duration.count(),
            Values::Tcp(values) => [&values.opened, &values.closed, &values.sent, &values.received]
                .iter()
                .fold(0, |sum: u64, value| sum.wrapping_add(value.load(Relaxed))),
        }
    }

    /// True when it has been idle for long enough.
    fn sweep(&self) -> bool {
        let total = self.total();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let sweeps = if idle.0 == total { idle.1 + 1 } else { 0 };
        *idle = (total, sweeps);
        sweeps >= IDLE_SWEEPS
    }
}

impl Values {
    fn http() -> Self {
        Self::Http(Box::default())
    }

    fn tcp() -> Self {
        Self::Tcp(TcpValues::default())
    }
}

#[cfg(test)]
mod tests;
