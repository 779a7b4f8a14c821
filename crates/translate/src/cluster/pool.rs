//! Connections to a cluster: how many, how long, in which protocol, to which endpoint, and when one is left out.

use std::time::Duration;

use mizzen_api::networking::{
    ConsistentHashLb, H2UpgradePolicy, HttpSettings, LoadBalancerSettings, SimpleLb, TcpKeepalive,
};
use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use mizzen_proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use mizzen_proto::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, DiscoveryType, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig,
};
use mizzen_proto::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection, UpstreamConnectionOptions};
use mizzen_proto::envoy::config::core::v3 as core;
use mizzen_proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use mizzen_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};
use prost::Message;

use super::{LbConfig, Target, is_sidecar, is_sniffed};
use crate::pb;
use crate::traffic_policy::Effective;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Istio's defaults: no limit worth the name (reference: semantics 114).
pub(crate) fn unlimited() -> CircuitBreakers {
    let thresholds = Thresholds {
        max_connections: pb::u32(u32::MAX),
        max_pending_requests: pb::u32(u32::MAX),
        max_requests: pb::u32(u32::MAX),
        max_retries: pb::u32(u32::MAX),
        ..Default::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

fn http_options(cluster: &Cluster) -> HttpProtocolOptions {
    let any = cluster.typed_extension_protocol_options.get(HTTP_OPTIONS);
    any.and_then(|any| HttpProtocolOptions::decode(&*any.value).ok()).unwrap_or_default()
}

/// Changes the cluster's HTTP options; without a choice of protocol it is HTTP/1.1.
pub(super) fn change_http_options(cluster: &mut Cluster, change: impl FnOnce(&mut HttpProtocolOptions)) {
    let mut options = http_options(cluster);
    change(&mut options);
    if options.upstream_protocol_options.is_none() {
        options.upstream_protocol_options = Some(explicit(ProtocolConfig::HttpProtocolOptions(Default::default())));
    }
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pb::any(&options));
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

fn downstream() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(Default::default()),
        http2_protocol_options: Some(Default::default()),
        ..Default::default()
    })
}

/// Goes on in the HTTP version in which a request came.
pub(super) fn use_downstream_protocol(cluster: &mut Cluster, idle: Option<Duration>) {
    change_http_options(cluster, |options| {
        options.upstream_protocol_options = Some(downstream());
        if let Some(idle) = idle {
            options.common_http_protocol_options =
                Some(core::HttpProtocolOptions { idle_timeout: pb::duration(idle), ..Default::default() });
        }
    });
}

pub(super) fn use_http2(cluster: &mut Cluster) {
    change_http_options(cluster, |options| {
        options.upstream_protocol_options = Some(explicit(ProtocolConfig::Http2ProtocolOptions(Default::default())));
    });
}

/// Whether requests are sent as HTTP/2, whatever they came as.
pub(super) fn speaks_http2(target: &Target<'_>, policy: &Effective<'_>) -> bool {
    let http = policy.connection_pool.and_then(|pool| pool.http.as_ref());
    if target.port.protocol.is_http2() {
        return true;
    }
    if http.is_some_and(|http| http.use_client_protocol) || !target.port.protocol.is_http() {
        return false;
    }
    match http.map(|http| http.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Default => target.mesh.config().h2_upgrade_policy == H2UpgradePolicy::Upgrade,
    }
}

/// The HTTP version (reference: semantics 128).
pub(super) fn apply_protocol(cluster: &mut Cluster, target: &Target<'_>, policy: &Effective<'_>) {
    let http = policy.connection_pool.and_then(|pool| pool.http.as_ref());
    if speaks_http2(target, policy) {
        use_http2(cluster);
    } else if http.is_some_and(|http| http.use_client_protocol)
        || (is_sniffed(target.port.protocol) && is_sidecar(target.client))
    {
        use_downstream_protocol(cluster, None);
    }
}

/// Limits and ages of connections; zero leaves Istio's default (reference: semantics 114 to 116).
pub(super) fn apply_connection_pool(cluster: &mut Cluster, mesh: &Mesh, policy: &Effective<'_>) {
    let pool = policy.connection_pool;
    let (tcp, http) = (pool.and_then(|pool| pool.tcp.as_ref()), pool.and_then(|pool| pool.http.as_ref()));
    let limit = |value: i32| u32::try_from(value).ok().filter(|value| *value > 0).and_then(pb::u32);
    if let Some(thresholds) = cluster.circuit_breakers.as_mut().and_then(|breakers| breakers.thresholds.first_mut()) {
        if let Some(tcp) = tcp {
            thresholds.max_connections = limit(tcp.max_connections).or(thresholds.max_connections);
        }
        if let Some(http) = http {
            thresholds.max_pending_requests =
                limit(http.http1_max_pending_requests).or(thresholds.max_pending_requests);
            thresholds.max_requests = limit(http.http2_max_requests).or(thresholds.max_requests);
            thresholds.max_retries = limit(http.max_retries).or(thresholds.max_retries);
        }
        if let Some(budget) = policy.retry_budget {
            let percent = budget.percent.map_or(20.0, |percent| f64::from(percent.parts_per_million()) / 10_000.0);
            let least = if budget.min_retry_concurrency == 0 { 3 } else { budget.min_retry_concurrency };
            thresholds.max_retries = None;
            thresholds.retry_budget = Some(thresholds::RetryBudget {
                budget_percent: pb::percent(percent),
                min_retry_concurrency: pb::u32(least),
                budget_interval: budget.budget_interval.and_then(pb::duration),
            });
        }
    }
    if let Some(timeout) = tcp.and_then(|tcp| tcp.connect_timeout) {
        cluster.connect_timeout = pb::duration(timeout);
    }
    let keepalive = tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()).or(mesh.config().tcp_keepalive.as_ref());
    if let Some(keepalive) = keepalive {
        cluster.upstream_connection_options =
            Some(UpstreamConnectionOptions { tcp_keepalive: Some(tcp_keepalive(keepalive)), ..Default::default() });
    }
    apply_ages(cluster, tcp.and_then(|tcp| tcp.max_connection_duration), tcp.and_then(|tcp| tcp.idle_timeout), http);
}

fn apply_ages(cluster: &mut Cluster, age: Option<Duration>, tcp_idle: Option<Duration>, http: Option<&HttpSettings>) {
    let some = |duration: Option<Duration>| duration.filter(|duration| !duration.is_zero());
    let idle = some(http.and_then(|http| http.idle_timeout)).or_else(|| some(tcp_idle));
    let requests = http.map(|http| http.max_requests_per_connection).filter(|requests| *requests > 0);
    if idle.is_some() || requests.is_some() || some(age).is_some() {
        change_http_options(cluster, |options| {
            let common = options.common_http_protocol_options.get_or_insert_default();
            common.idle_timeout = idle.and_then(pb::duration);
            common.max_connection_duration = some(age).and_then(pb::duration);
            common.max_requests_per_connection = requests.and_then(|requests| pb::u32(requests.unsigned_abs()));
        });
    }
    let Some(http) = http else { return };
    let streams = u32::try_from(http.max_concurrent_streams).ok().filter(|streams| *streams > 0);
    if streams.is_none() && http.http2_keep_alive.is_none() {
        return;
    }
    let mut options = http_options(cluster);
    let http2 = match &mut options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)),
        })) => http2,
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            config.http2_protocol_options.get_or_insert_default()
        }
        _ => return,
    };
    http2.max_concurrent_streams = streams.and_then(pb::u32);
    http2.connection_keepalive = http.http2_keep_alive.as_ref().map(|keepalive| core::KeepaliveSettings {
        interval: keepalive.interval.and_then(pb::duration),
        timeout: keepalive.timeout.and_then(pb::duration),
        ..Default::default()
    });
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pb::any(&options));
}

fn tcp_keepalive(keepalive: &TcpKeepalive) -> core::TcpKeepalive {
    let seconds = |duration: Option<Duration>| {
        duration.and_then(|duration| u32::try_from(duration.as_secs()).ok()).filter(|s| *s > 0).and_then(pb::u32)
    };
    core::TcpKeepalive {
        keepalive_probes: Some(keepalive.probes).filter(|probes| *probes > 0).and_then(pb::u32),
        keepalive_time: seconds(keepalive.time),
        keepalive_interval: seconds(keepalive.interval),
    }
}

/// Which endpoints are left out for a while (reference: semantics 117).
pub(super) fn apply_outlier_detection(cluster: &mut Cluster, policy: &Effective<'_>) {
    let Some(settings) = policy.outlier_detection else { return };
    let gateway =
        settings.consecutive_gateway_errors.or(u32::try_from(settings.consecutive_errors).ok().filter(|n| *n > 0));
    let enforcing = |errors: Option<u32>| errors.and_then(|errors| pb::u32(if errors > 0 { 100 } else { 0 }));
    let local = settings.consecutive_local_origin_failures.filter(|_| settings.split_external_local_origin_errors);
    cluster.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: settings.consecutive_5xx_errors.and_then(pb::u32),
        enforcing_consecutive_5xx: enforcing(settings.consecutive_5xx_errors),
        consecutive_gateway_failure: gateway.and_then(pb::u32),
        enforcing_consecutive_gateway_failure: enforcing(gateway),
        interval: settings.interval.and_then(pb::duration),
        base_ejection_time: settings.base_ejection_time.and_then(pb::duration),
        max_ejection_percent: u32::try_from(settings.max_ejection_percent).ok().filter(|n| *n > 0).and_then(pb::u32),
        enforcing_success_rate: pb::u32(0),
        split_external_local_origin_errors: settings.split_external_local_origin_errors,
        consecutive_local_origin_failure: local.and_then(pb::u32),
        enforcing_consecutive_local_origin_failure: enforcing(local),
        enforcing_local_origin_success_rate: if settings.split_external_local_origin_errors {
            pb::u32(0)
        } else {
            None
        },
        ..Default::default()
    });
    if settings.min_health_percent > 0 {
        let common = cluster.common_lb_config.get_or_insert_default();
        common.healthy_panic_threshold = pb::percent(settings.min_health_percent.into());
    }
}

/// Which endpoint a request goes to.
pub(super) fn apply_load_balancer(cluster: &mut Cluster, target: &Target<'_>, policy: &Effective<'_>) {
    let mut common = CommonLbConfig { healthy_panic_threshold: pb::percent(0.0), ..Default::default() };
    let settings = policy.load_balancer;
    let locality = settings.and_then(|settings| settings.locality_lb_setting.as_ref());
    let balances = !matches!(target.discovery(), DiscoveryType::OriginalDst);
    if balances && locality.is_some_and(|locality| locality.enabled != Some(false)) {
        common.locality_config_specifier =
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}));
    }
    cluster.common_lb_config = Some(common);
    if !balances {
        cluster.lb_policy = LbPolicy::ClusterProvided as i32;
        return;
    }
    if let Some(hash) = settings.and_then(|settings| settings.consistent_hash.as_ref()) {
        apply_hash(cluster, hash);
        return;
    }
    let slow_start = settings.and_then(slow_start);
    let lb_policy = match settings.and_then(|settings| settings.simple).unwrap_or_default() {
        SimpleLb::RoundRobin => LbPolicy::RoundRobin,
        SimpleLb::Random => LbPolicy::Random,
        // Where no original destination is known, passthrough is no choice.
        SimpleLb::Unspecified | SimpleLb::LeastRequest | SimpleLb::Passthrough => LbPolicy::LeastRequest,
    };
    cluster.lb_policy = lb_policy as i32;
    cluster.lb_config = match (lb_policy, slow_start) {
        (LbPolicy::LeastRequest, Some(start)) => Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
            slow_start_config: Some(start),
            ..Default::default()
        })),
        (LbPolicy::RoundRobin, Some(start)) => {
            Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(start) }))
        }
        _ => None,
    };
}

fn apply_hash(cluster: &mut Cluster, hash: &ConsistentHashLb) {
    if let Some(maglev) = &hash.maglev {
        let size = if maglev.table_size == 0 { ConsistentHashLb::DEFAULT_TABLE_SIZE } else { maglev.table_size };
        cluster.lb_policy = LbPolicy::Maglev as i32;
        let table_size = Some(size).filter(|size| *size <= ConsistentHashLb::MAX_TABLE_SIZE).and_then(pb::u64);
        cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size }));
        return;
    }
    let size = hash.ring_hash.as_ref().map(|ring| ring.minimum_ring_size).or(hash.minimum_ring_size);
    let size = size.filter(|size| *size > 0).unwrap_or(ConsistentHashLb::DEFAULT_MINIMUM_RING_SIZE);
    cluster.lb_policy = LbPolicy::RingHash as i32;
    cluster.lb_config =
        Some(LbConfig::RingHashLbConfig(RingHashLbConfig { minimum_ring_size: pb::u64(size), ..Default::default() }));
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    let warmup = settings.warmup.as_ref();
    let window = warmup.and_then(|warmup| warmup.duration).or(settings.warmup_duration_secs)?;
    let aggression = warmup.and_then(|warmup| warmup.aggression);
    Some(SlowStartConfig {
        slow_start_window: pb::duration(window),
        aggression: aggression.map(|value| core::RuntimeDouble {
            default_value: value,
            // Envoy wants a key. It looks like a slip in Istio, but is what Istio sends.
            runtime_key: "(".to_owned(),
        }),
        min_weight_percent: pb::percent(warmup.and_then(|warmup| warmup.minimum_percent).unwrap_or(10.0)),
    })
}
