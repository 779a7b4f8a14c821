//! The numbers of `/stats` that are not counted on the way of a request but known to somebody: endpoints, breakers,
//! outlier detection, the process.

use std::sync::atomic::Ordering::Relaxed;

use mizzen_balance::{Balancer, Resource};
use mizzen_telemetry::stats::{self, Reading};

use crate::health::{Health, State};
use crate::record::Record;
use crate::shared::Shared;

/// All numbers, in the order of their names.
pub fn readings(shared: &Shared, record: &Record, health: &Health) -> Vec<Reading> {
    let mut readings = record.stats.read();
    for (name, balancer) in shared.balancers.all() {
        cluster(&mut readings, name.as_str(), &balancer);
    }
    let snapshot = shared.snapshot.load();
    let (lines, lost) = record.writers.counts();
    let server = |name: &str, value: u64| Reading::gauge(name, value);
    readings.extend([
        server("cluster_manager.active_clusters", snapshot.clusters.size() as u64),
        server("listener_manager.total_listeners_active", snapshot.listeners.size() as u64),
        server("server.live", u64::from(health.state() == State::Live)),
        server("server.state", health.state() as u64),
        server("server.uptime", shared.origin.elapsed().as_secs()),
        server("server.total_connections", shared.open.load(Relaxed) as u64),
        server("server.memory_allocated", memory().anonymous),
        server("server.memory_physical_size", memory().resident),
        server("access_log.written", lines),
        server("access_log.dropped", lost),
    ]);
    readings.sort_by(|left, right| left.name.cmp(&right.name));
    readings
}

/// Istio's metrics and Envoy's counters in the Prometheus text format.
pub fn prometheus(shared: &Shared, record: &Record, health: &Health) -> String {
    let mut text = record.istio.prometheus();
    text.push_str(&stats::prometheus(&readings(shared, record, health)));
    text
}

fn cluster(readings: &mut Vec<Reading>, name: &str, balancer: &Balancer) {
    let members = balancer.membership();
    let hosts = balancer.hosts();
    let sum = |of: fn(&mizzen_balance::EndpointState) -> u64| hosts.iter().map(|host| of(&host.state)).sum::<u64>();
    let breakers = balancer.breakers();
    let gauges = [
        ("membership_total", members.total as u64),
        ("membership_healthy", members.healthy as u64),
        ("membership_degraded", members.degraded as u64),
        ("upstream_cx_active", balancer.active_connections()),
        ("upstream_rq_active", balancer.active_requests()),
        ("upstream_rq_pending_active", u64::from(breakers.in_use(Resource::Pending))),
        ("outlier_detection.ejections_active", u64::from(balancer.ejections_active())),
    ];
    let counters = [
        ("upstream_cx_total", sum(|state| state.connections())),
        ("upstream_cx_connect_fail", sum(|state| state.connect_failures())),
        ("upstream_rq_total", sum(|state| state.requests())),
        ("upstream_cx_overflow", breakers.overflows(Resource::Connections)),
        ("upstream_rq_retry_overflow", breakers.overflows(Resource::Retries)),
        ("outlier_detection.ejections_enforced_total", balancer.ejections_enforced()),
        ("outlier_detection.ejections_overflow", balancer.ejections_overflow()),
    ];
    readings.extend(gauges.map(|(stat, value)| Reading::of_cluster(name, stat, value, true)));
    readings.extend(counters.map(|(stat, value)| Reading::of_cluster(name, stat, value, false)));
}

/// Memory of this process in bytes; zeros where the kernel does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    /// What the process has allocated and touched.
    pub anonymous: u64,
    /// Reserved for heap and stacks, touched or not.
    pub data: u64,
}

pub fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:"), data: field("VmData:") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_says_how_much_memory_we_have() {
        let memory = super::memory();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0, "{memory:?}");
    }
}
