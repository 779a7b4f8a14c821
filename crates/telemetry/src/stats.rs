//! Counters under Envoy's names, for `/stats`. A group or counter exists from its first use.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::prometheus;

macro_rules! stat_names {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal $kind:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant,)* }

        impl $name {
            const SHAPE: &'static [(&'static str, Shape)] = &[$(($text, Shape::$kind),)*];
        }

        impl From<$name> for usize {
            fn from(stat: $name) -> Self {
                stat as Self
            }
        }
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Counter,
    Gauge,
}

stat_names! {
    /// `http.PREFIX.…`
    HttpStat {
        CxTotal = "downstream_cx_total" Counter,
        CxActive = "downstream_cx_active" Gauge,
        CxHttp1Total = "downstream_cx_http1_total" Counter,
        CxHttp2Total = "downstream_cx_http2_total" Counter,
        CxSslTotal = "downstream_cx_ssl_total" Counter,
        CxUpgradesTotal = "downstream_cx_upgrades_total" Counter,
        CxUpgradesActive = "downstream_cx_upgrades_active" Gauge,
        CxProtocolError = "downstream_cx_protocol_error" Counter,
        RqTotal = "downstream_rq_total" Counter,
        RqActive = "downstream_rq_active" Gauge,
        RqHttp1Total = "downstream_rq_http1_total" Counter,
        RqHttp2Total = "downstream_rq_http2_total" Counter,
        RqCompleted = "downstream_rq_completed" Counter,
        Rq1xx = "downstream_rq_1xx" Counter,
        Rq2xx = "downstream_rq_2xx" Counter,
        Rq3xx = "downstream_rq_3xx" Counter,
        Rq4xx = "downstream_rq_4xx" Counter,
        Rq5xx = "downstream_rq_5xx" Counter,
        RqRxReset = "downstream_rq_rx_reset" Counter,
        RqIdleTimeout = "downstream_rq_idle_timeout" Counter,
        RqDirectResponse = "rq_direct_response" Counter,
        RqRedirect = "rq_redirect" Counter,
        NoRoute = "no_route" Counter,
        NoCluster = "no_cluster" Counter,
        DelaysInjected = "fault.delays_injected" Counter,
        AbortsInjected = "fault.aborts_injected" Counter,
    }
}

stat_names! {
    /// `tcp.PREFIX.…`
    TcpStat {
        CxTotal = "downstream_cx_total" Counter,
        CxRxBytesTotal = "downstream_cx_rx_bytes_total" Counter,
        CxTxBytesTotal = "downstream_cx_tx_bytes_total" Counter,
        CxNoRoute = "downstream_cx_no_route" Counter,
    }
}

stat_names! {
    /// `cluster.NAME.…`, as far as endpoints and breakers do not count it themselves.
    ClusterStat {
        CxNoneHealthy = "upstream_cx_none_healthy" Counter,
        CxHttp1Total = "upstream_cx_http1_total" Counter,
        CxHttp2Total = "upstream_cx_http2_total" Counter,
        CxConnectTimeout = "upstream_cx_connect_timeout" Counter,
        CxRxBytesTotal = "upstream_cx_rx_bytes_total" Counter,
        CxTxBytesTotal = "upstream_cx_tx_bytes_total" Counter,
        RqCompleted = "upstream_rq_completed" Counter,
        Rq1xx = "upstream_rq_1xx" Counter,
        Rq2xx = "upstream_rq_2xx" Counter,
        Rq3xx = "upstream_rq_3xx" Counter,
        Rq4xx = "upstream_rq_4xx" Counter,
        Rq5xx = "upstream_rq_5xx" Counter,
        RqTimeout = "upstream_rq_timeout" Counter,
        RqPerTryTimeout = "upstream_rq_per_try_timeout" Counter,
        RqCancelled = "upstream_rq_cancelled" Counter,
        RqRxReset = "upstream_rq_rx_reset" Counter,
        RqPendingOverflow = "upstream_rq_pending_overflow" Counter,
        RqRetry = "upstream_rq_retry" Counter,
        RqRetrySuccess = "upstream_rq_retry_success" Counter,
        RqRetryLimitExceeded = "upstream_rq_retry_limit_exceeded" Counter,
    }
}

stat_names! {
    /// `listener.ADDRESS.…`
    ListenerStat {
        CxTotal = "downstream_cx_total" Counter,
        CxActive = "downstream_cx_active" Gauge,
        CxOverflow = "downstream_cx_overflow" Counter,
        NoFilterChainMatch = "no_filter_chain_match" Counter,
        SslHandshake = "ssl.handshake" Counter,
        SslConnectionError = "ssl.connection_error" Counter,
    }
}

/// The statistics of one thing: all numbers in one allocation.
#[derive(Debug)]
pub struct Group {
    family: Family,
    name: Box<str>,
    values: Box<[AtomicU64]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Cluster,
    Http,
    Listener,
    Tcp,
}

impl Family {
    fn shape(self) -> &'static [(&'static str, Shape)] {
        match self {
            Self::Cluster => ClusterStat::SHAPE,
            Self::Http => HttpStat::SHAPE,
            Self::Listener => ListenerStat::SHAPE,
            Self::Tcp => TcpStat::SHAPE,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Http => "http",
            Self::Listener => "listener",
            Self::Tcp => "tcp",
        }
    }

    /// The label that Istio's bootstrap takes the name out of Prometheus names into.
    fn label(self) -> &'static str {
        match self {
            Self::Cluster => "cluster_name",
            Self::Http => "http_conn_manager_prefix",
            Self::Listener => "listener_address",
            Self::Tcp => "tcp_prefix",
        }
    }
}

impl Group {
    pub fn inc(&self, stat: impl Into<usize>) {
        self.add(stat, 1);
    }

    pub fn add(&self, stat: impl Into<usize>, count: u64) {
        if let Some(value) = self.values.get(stat.into()) {
            value.fetch_add(count, Relaxed);
        }
    }

    /// For gauges.
    pub fn dec(&self, stat: impl Into<usize>) {
        if let Some(value) = self.values.get(stat.into()) {
            value.fetch_sub(1, Relaxed);
        }
    }

    pub fn get(&self, stat: impl Into<usize>) -> u64 {
        self.values.get(stat.into()).map_or(0, |value| value.load(Relaxed))
    }
}

/// One number at the time it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Envoy's name: `cluster.NAME.upstream_rq_2xx`.
    pub name: String,
    pub value: u64,
    /// Prometheus name without `envoy_`, and the labels that were taken out of the name.
    pub metric: String,
    pub labels: Vec<(&'static str, String)>,
    pub gauge: bool,
}

type Groups = BTreeMap<(Family, Box<str>), Arc<Group>>;

/// All statistics of a process.
#[derive(Debug, Default)]
pub struct Stats {
    groups: Mutex<Groups>,
    loose: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

impl Stats {
    pub fn http(&self, prefix: &str) -> Arc<Group> {
        self.group(Family::Http, prefix)
    }

    pub fn tcp(&self, prefix: &str) -> Arc<Group> {
        self.group(Family::Tcp, prefix)
    }

    pub fn cluster(&self, name: &str) -> Arc<Group> {
        self.group(Family::Cluster, name)
    }

    /// `address` as `127.0.0.1_9080`.
    pub fn listener(&self, address: &str) -> Arc<Group> {
        self.group(Family::Listener, address)
    }

    /// A counter or gauge on its own, for instance `listener_manager.lds.update_success`.
    pub fn counter(&self, name: &str) -> Arc<AtomicU64> {
        let mut loose = lock(&self.loose);
        if let Some(counter) = loose.get(name) {
            return Arc::clone(counter);
        }
        Arc::clone(loose.entry(name.to_owned()).or_default())
    }

    /// Forgets clusters that are gone.
    pub fn retain_clusters(&self, exists: impl Fn(&str) -> bool) {
        lock(&self.groups).retain(|(family, name), _| *family != Family::Cluster || exists(name));
    }

    /// All numbers, in the order of their names.
    pub fn read(&self) -> Vec<Reading> {
        let mut readings = Vec::new();
        for group in lock(&self.groups).values() {
            for ((stat, shape), value) in group.family.shape().iter().zip(&group.values) {
                let value = value.load(Relaxed);
                readings.push(Reading::of_group(group.family, &group.name, stat, value, *shape == Shape::Gauge));
            }
        }
        for (name, value) in lock(&self.loose).iter() {
            readings.push(Reading {
                name: name.clone(),
                value: value.load(Relaxed),
                metric: name.clone(),
                labels: Vec::new(),
                gauge: false,
            });
        }
        readings.sort_by(|left, right| left.name.cmp(&right.name));
        readings
    }

    fn group(&self, family: Family, name: &str) -> Arc<Group> {
        let mut groups = lock(&self.groups);
        let group = groups.entry((family, name.into())).or_insert_with(|| {
            let values = family.shape().iter().map(|_| AtomicU64::new(0)).collect();
            Arc::new(Group { family, name: name.into(), values })
        });
        Arc::clone(group)
    }
}

impl Reading {
    /// One of a cluster that is counted elsewhere, by its endpoints say.
    pub fn of_cluster(cluster: &str, stat: &str, value: u64, gauge: bool) -> Self {
        Self::of_group(Family::Cluster, cluster, stat, value, gauge)
    }

    /// As Istio's bootstrap has it, the name and a class of status codes become labels.
    fn of_group(family: Family, name: &str, stat: &str, value: u64, gauge: bool) -> Self {
        let mut labels = vec![(family.label(), name.to_owned())];
        let stem =
            stat.strip_suffix("xx").and_then(|stem| stem.get(..stem.len() - 2)).filter(|stem| stem.ends_with("_rq"));
        if let Some(stem) = stem {
            labels.push(("response_code_class", stat[stem.len() + 1..].to_owned()));
        }
        Self {
            name: format!("{}.{name}.{stat}", family.word()),
            value,
            metric: format!("{}_{}", family.word(), stem.unwrap_or(stat)),
            labels,
            gauge,
        }
    }

    /// A gauge without a label.
    pub fn gauge(name: &str, value: u64) -> Self {
        Self { name: name.to_owned(), value, metric: name.to_owned(), labels: Vec::new(), gauge: true }
    }
}

/// Readings as `/stats` prints them: `NAME: VALUE`, one a line.
pub fn text<'a>(readings: impl IntoIterator<Item = &'a Reading>) -> String {
    let mut out = String::new();
    for reading in readings {
        crate::escape::text(&mut out, reading.name.as_bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(out, ": {}", reading.value);
    }
    out
}

/// Readings in the Prometheus text format, under `envoy_…`.
pub fn prometheus<'a>(readings: impl IntoIterator<Item = &'a Reading>) -> String {
    let mut families: BTreeMap<String, (bool, Vec<&Reading>)> = BTreeMap::new();
    for reading in readings {
        let name = format!("envoy_{}", prometheus::metric_name(&reading.metric));
        families.entry(name).or_insert_with(|| (reading.gauge, Vec::new())).1.push(reading);
    }
    let mut out = String::new();
    for (name, (gauge, readings)) in families {
        prometheus::head(&mut out, &name, if gauge { "gauge" } else { "counter" });
        for reading in readings {
            let mut labels = String::new();
            for (label, value) in &reading.labels {
                prometheus::label(&mut labels, label, value);
            }
            prometheus::sample(&mut out, &name, &labels, reading.value);
        }
    }
    out
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a map of counters half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_exists_from_its_first_use() {
        let stats = Stats::default();
        assert!(stats.read().is_empty());
        stats.http("inbound_0.0.0.0_9080").inc(HttpStat::Rq2xx);
        stats.http("inbound_0.0.0.0_9080").inc(HttpStat::Rq2xx);
        stats.counter("listener_manager.lds.update_success").fetch_add(3, Relaxed);
        let text = text(&stats.read());
        assert!(text.contains("http.inbound_0.0.0.0_9080.downstream_rq_2xx: 2\n"), "{text}");
        assert!(text.contains("listener_manager.lds.update_success: 3\n"), "{text}");
        let names: Vec<_> = stats.read().into_iter().map(|reading| reading.name).collect();
        assert!(names.is_sorted());
    }

    #[test]
    fn prometheus_has_one_head_for_a_family() {
        let stats = Stats::default();
        stats.cluster("outbound|9080||a.b").inc(ClusterStat::Rq2xx);
        stats.cluster("x\"y").inc(ClusterStat::Rq2xx);
        let text = prometheus(&stats.read());
        assert_eq!(text.matches("# TYPE envoy_cluster_upstream_rq counter\n").count(), 1);
        let name = "envoy_cluster_upstream_rq";
        let line = |cluster: &str| format!("{name}{{cluster_name=\"{cluster}\",response_code_class=\"2xx\"}} 1\n");
        assert!(text.contains(&line("outbound|9080||a.b")), "{text}");
        assert!(text.contains(&line("x\\\"y")), "{text}");
    }

    #[test]
    fn clusters_that_are_gone_are_forgotten() {
        let stats = Stats::default();
        stats.cluster("a").inc(ClusterStat::Rq2xx);
        stats.cluster("b").inc(ClusterStat::Rq2xx);
        stats.retain_clusters(|name| name == "b");
        assert!(stats.read().iter().all(|reading| reading.name.starts_with("cluster.b.")));
    }
}
