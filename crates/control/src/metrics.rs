//! The control plane's own metrics, under the genuine one's names where it has them, in Prometheus' text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mizzen_xds::ResourceType;
use mizzen_xds::server::Observed;

const TYPES: usize = ResourceType::ALL.len();

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pushes: [AtomicU64; TYPES],
    rejects: [AtomicU64; TYPES],
    bytes: [AtomicU64; TYPES],
    unanswered: AtomicU64,
    config_updates: AtomicU64,
    rejected_streams: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    convergence: Histogram,
    apply: Histogram,
    pub(crate) webhooks: crate::webhook::Counters,
}

/// What is counted elsewhere and only shown here.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) streams: usize,
    pub(crate) services: usize,
    pub(crate) virtual_services: usize,
    pub(crate) findings: usize,
    pub(crate) revision: u64,
    pub(crate) resident_bytes: u64,
}

/// Resident memory of this process in bytes; zero where the kernel does not say.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

impl Metrics {
    pub(crate) fn observe(&self, event: &Observed) {
        match event {
            Observed::Sent { kind, bytes, .. } => {
                add(&self.pushes[*kind as usize], 1);
                add(&self.bytes[*kind as usize], *bytes as u64);
            }
            Observed::Refused { kind, .. } => add(&self.rejects[*kind as usize], 1),
            Observed::Unanswered { .. } => add(&self.unanswered, 1),
            Observed::Subscribed { .. }
            | Observed::Acked { .. }
            | Observed::Stale { .. }
            | Observed::UnknownType { .. }
            | Observed::Settled { .. } => {}
        }
    }

    pub(crate) fn config_update(&self, changes: usize, took: Duration) {
        add(&self.config_updates, changes as u64);
        self.apply.record(took);
    }

    pub(crate) fn converged(&self, took: Duration) {
        self.convergence.record(took);
    }

    pub(crate) fn stream_rejected(&self) {
        add(&self.rejected_streams, 1);
    }

    pub(crate) fn cache(&self, hit: bool) {
        add(if hit { &self.cache_hits } else { &self.cache_misses }, 1);
    }

    /// How many resources had to be made so far.
    #[cfg(test)]
    pub(crate) fn misses(&self) -> u64 {
        self.cache_misses.load(Relaxed)
    }

    /// Prometheus text format, version 0.0.4.
    pub(crate) fn text(&self, gauges: &Gauges) -> String {
        let mut text = String::new();
        let version = env!("CARGO_PKG_VERSION");
        family(&mut text, "pilot_info", "gauge", "Version of the control plane.");
        line(&mut text, "pilot_info", &format!("version=\"{version}\",component=\"mizzen\""), 1);
        family(&mut text, "pilot_xds", "gauge", "Connected proxies.");
        line(&mut text, "pilot_xds", &format!("version=\"{version}\""), gauges.streams as u64);
        for (name, help, values) in [
            ("pilot_xds_pushes", "Responses sent, by type.", &self.pushes),
            ("pilot_total_xds_rejects", "Responses refused by proxies, by type.", &self.rejects),
            ("pilot_xds_sent_bytes", "Bytes of resources sent, by type.", &self.bytes),
        ] {
            family(&mut text, name, "counter", help);
            for (kind, value) in ResourceType::ALL.into_iter().zip(values) {
                line(&mut text, name, &format!("type=\"{kind}\""), value.load(Relaxed));
            }
        }
        for (name, kind, help, value) in [
            ("pilot_xds_unanswered", "counter", "Responses without an answer in time.", self.unanswered.load(Relaxed)),
            (
                "pilot_xds_rejected_streams",
                "counter",
                "Streams that were not admitted.",
                self.rejected_streams.load(Relaxed),
            ),
            (
                "pilot_inbound_updates",
                "counter",
                "Changes of configuration received.",
                self.config_updates.load(Relaxed),
            ),
            ("xds_cache_hits", "counter", "Resources that were made before.", self.cache_hits.load(Relaxed)),
            ("xds_cache_misses", "counter", "Resources that had to be made.", self.cache_misses.load(Relaxed)),
            ("pilot_services", "gauge", "Services known.", gauges.services as u64),
            ("pilot_virt_services", "gauge", "VirtualServices known.", gauges.virtual_services as u64),
            ("mizzen_findings", "gauge", "Findings about the configuration.", gauges.findings as u64),
            ("process_resident_memory_bytes", "gauge", "Resident memory of the process.", gauges.resident_bytes),
            ("mizzen_config_revision", "gauge", "States of the configuration since start.", gauges.revision),
        ] {
            family(&mut text, name, kind, help);
            line(&mut text, name, "", value);
        }
        self.convergence.text(
            &mut text,
            "pilot_proxy_convergence_time",
            "Seconds from a change of configuration to its response being handed to a proxy's connection.",
        );
        self.apply.text(&mut text, "pilot_pushcontext_init_seconds", "Seconds to apply changes to the mesh.");
        text.push_str(&self.webhooks.text());
        text
    }
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Relaxed);
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ =
        if labels.is_empty() { writeln!(text, "{name} {value}") } else { writeln!(text, "{name}{{{labels}}} {value}") };
}

const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    sum_micros: AtomicU64,
}

impl Histogram {
    fn record(&self, took: Duration) {
        if let Some(index) = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            add(&self.buckets[index], 1);
        }
        add(&self.count, 1);
        add(&self.sum_micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn text(&self, text: &mut String, name: &str, help: &str) {
        family(text, name, "histogram", help);
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.load(Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {below}");
        }
        let count = self.count.load(Relaxed).max(below);
        let seconds = Duration::from_micros(self.sum_micros.load(Relaxed)).as_secs_f64();
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}");
    }
}
