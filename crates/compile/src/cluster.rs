//! Clusters.

mod http;
mod proxy_protocol;

use std::sync::Arc;
use std::time::Duration;

use mizzen_proto::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster as Wire, OutlierDetection as WireOutliers,
    circuit_breakers::Thresholds,
    cluster as wire,
    cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy},
};
use mizzen_proto::envoy::config::core::v3::{RoutingPriority, SocketAddress, TransportSocket, transport_socket};
use mizzen_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use mizzen_proto::google::protobuf;
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_snapshot::cluster::{
    Balance, ClusterPolicy, Discovery, EndpointSet, Limits, OutlierDetection, RetryBudget, ServiceMeta, SlowStart,
    TcpKeepalive, TransportMatch,
};
use mizzen_snapshot::tls::ClientTls;
use mizzen_types::ClusterName;

use crate::endpoint;
use crate::filters::{self, Known, Place as FilterPlace};
use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::origin;
use crate::peer;
use crate::value::{self, Place};

/// A cluster and the endpoints that it brings; the others come by EDS.
pub(crate) struct Compiled {
    pub(crate) policy: ClusterPolicy,
    pub(crate) endpoints: Option<EndpointSet>,
    /// How long to wait for EDS; `None` is for ever.
    pub(crate) fetch_timeout: Option<Duration>,
}

pub(crate) fn compile(wire: &Wire, fingerprint: u64) -> Result<Compiled> {
    if wire.name.is_empty() {
        return Err(Invalid::new("a name is missing").within("name"));
    }
    not_obeyed!(
        wire,
        transport_socket_matcher,
        health_checks,
        lb_subset_config,
        upstream_config,
        load_balancing_policy,
        connection_pool_per_downstream_connection,
    );
    let mut peer_exchange = None;
    for (index, filter) in wire.filters.iter().enumerate() {
        let config = filter.typed_config.as_ref();
        let known = filters::known(&filter.name, config, FilterPlace::Upstream).at_index("filters", index)?;
        if let (Known::MetadataExchange, Some(any)) = (known, config) {
            peer_exchange = Some(peer::protocol(any).at_index("filters", index)?);
        }
    }
    let http = http::compile(wire)?;
    let finish = |tls: Option<ClientTls>| {
        tls.map(|mut tls| {
            tls.auto_sni |= http.auto_sni;
            tls.auto_san_validation |= http.auto_san_validation;
            Arc::new(tls)
        })
    };
    let (plain, proxy_protocol) = proxy_protocol::unwrap(wire)?;
    let wire = &*plain;
    let mut transports = Vec::new();
    for (index, transport) in wire.transport_socket_matches.iter().enumerate() {
        let tls = transport_socket(transport.transport_socket.as_ref()).at("transport_socket");
        transports.push(TransportMatch {
            name: transport.name.clone(),
            labels: transport.r#match.as_ref().map(origin::pairs).unwrap_or_default(),
            tls: finish(tls.at_index("transport_socket_matches", index)?),
        });
    }
    let default_transport = finish(transport_socket(wire.transport_socket.as_ref()).at("transport_socket")?);
    let name = ClusterName::from(wire.name.as_str());
    let discovery = discovery(wire, &name)?;
    let endpoints = match (&discovery, &wire.load_assignment) {
        (Discovery::Eds { .. }, Some(_)) => {
            return Err(Invalid::new("endpoints come by EDS and cannot be given here").within("load_assignment"));
        }
        (Discovery::Eds { .. }, None) => None,
        (_, Some(assignment)) => Some(endpoint::compile(assignment).at("load_assignment")?),
        (_, None) => Some(EndpointSet { localities: Vec::new(), overprovisioning: endpoint::OVERPROVISIONING }),
    };
    let eds = wire.eds_cluster_config.as_ref().and_then(|config| config.eds_config.as_ref());
    let fetch_timeout =
        value::limit(eds.and_then(|config| config.initial_fetch_timeout.as_ref()), Some(Duration::from_secs(15)))
            .at("eds_cluster_config.eds_config.initial_fetch_timeout")?;
    let common = wire.common_lb_config.clone().unwrap_or_default();
    not_obeyed!(common, consistent_hashing_lb_config, override_host_status, ignore_new_hosts_until_first_hc);
    let panic = common.healthy_panic_threshold.as_ref().map(value::percent).transpose();
    let locality_weighted = matches!(
        common.locality_config_specifier,
        Some(wire::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(_))
    );
    let keepalive = wire.upstream_connection_options.as_ref().and_then(|options| options.tcp_keepalive.as_ref());
    let seconds = |value: Option<&protobuf::UInt32Value>| value::number(value).map(|s| Duration::from_secs(s.into()));
    let policy = ClusterPolicy {
        name,
        discovery,
        connect_timeout: value::positive(wire.connect_timeout.as_ref(), Duration::from_secs(5))
            .at("connect_timeout")?,
        balance: balance(wire)?,
        locality_weighted,
        limits: wire.circuit_breakers.as_ref().map_or(Ok(default_limits()), limits).at("circuit_breakers")?,
        outliers: wire.outlier_detection.as_ref().map(outliers).transpose().at("outlier_detection")?,
        http: http.http,
        transports,
        default_transport,
        proxy_protocol,
        max_requests_per_connection: http.max_requests_per_connection,
        tcp_keepalive: keepalive.map(|keepalive| TcpKeepalive {
            probes: value::number(keepalive.keepalive_probes.as_ref()),
            time: seconds(keepalive.keepalive_time.as_ref()),
            interval: seconds(keepalive.keepalive_interval.as_ref()),
        }),
        bind_source: bind_source(wire)?,
        panic_threshold: panic.at("common_lb_config.healthy_panic_threshold")?.unwrap_or(50),
        close_on_host_failure: wire.close_connections_on_host_health_failure,
        origin: origin::origin(wire.metadata.as_ref()),
        services: services(wire),
        stranger: stranger(wire),
        peer_exchange,
        fingerprint,
    };
    Ok(Compiled { policy, endpoints, fetch_timeout })
}

fn discovery(wire: &Wire, name: &ClusterName) -> Result<Discovery> {
    let kind = match &wire.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(number)) => {
            DiscoveryType::try_from(*number).map_err(|_| Invalid::new("this type is not known").within("type"))?
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(Invalid::not_obeyed(format!("the cluster type {:?}", custom.name)).within("cluster_type"));
        }
    };
    let refresh = || value::positive(wire.dns_refresh_rate.as_ref(), Duration::from_secs(5)).at("dns_refresh_rate");
    Ok(match kind {
        DiscoveryType::Static => Discovery::Static,
        DiscoveryType::StrictDns => Discovery::StrictDns { refresh: refresh()? },
        DiscoveryType::LogicalDns => Discovery::LogicalDns { refresh: refresh()? },
        DiscoveryType::Eds => {
            let config = wire.eds_cluster_config.as_ref();
            let service = config.map(|config| config.service_name.as_str());
            let other = service.filter(|service| !service.is_empty() && *service != name.as_str());
            Discovery::Eds { service_name: other.map_or_else(|| name.shared(), Arc::from) }
        }
        DiscoveryType::OriginalDst => {
            let config = match &wire.lb_config {
                Some(LbConfig::OriginalDstLbConfig(config)) => config.clone(),
                _ => wire::OriginalDstLbConfig::default(),
            };
            not_obeyed!(config, use_http_header, metadata_key);
            let port = value::number(config.upstream_port_override.as_ref());
            let port = port.map(|port| u16::try_from(port).map_err(|_| Invalid::new("a port is at most 65535")));
            Discovery::OriginalDst {
                port_override: port.transpose().at("original_dst_lb_config.upstream_port_override")?,
            }
        }
    })
}

fn balance(wire: &Wire) -> Result<Balance> {
    let policy = LbPolicy::try_from(wire.lb_policy);
    let config = wire.lb_config.as_ref();
    let size = |value: Option<&protobuf::UInt64Value>| value.map(|value| value.value);
    Ok(match policy.map_err(|_| Invalid::new("this policy is not known").within("lb_policy"))? {
        LbPolicy::RoundRobin => Balance::RoundRobin {
            slow_start: match config {
                Some(LbConfig::RoundRobinLbConfig(config)) => slow_start(config.slow_start_config.as_ref())?,
                _ => None,
            },
        },
        LbPolicy::LeastRequest => {
            let config = match config {
                Some(LbConfig::LeastRequestLbConfig(config)) => config.clone(),
                _ => wire::LeastRequestLbConfig::default(),
            };
            Balance::LeastRequest {
                choices: value::number(config.choice_count.as_ref()).unwrap_or(2).max(1),
                slow_start: slow_start(config.slow_start_config.as_ref())?,
            }
        }
        LbPolicy::Random => Balance::Random,
        LbPolicy::RingHash => {
            let config = match config {
                Some(LbConfig::RingHashLbConfig(config)) => *config,
                _ => wire::RingHashLbConfig::default(),
            };
            if config.hash_function != 0 {
                return Err(
                    Invalid::not_obeyed("a hash other than XX_HASH").within("ring_hash_lb_config.hash_function")
                );
            }
            let minimum = size(config.minimum_ring_size.as_ref()).unwrap_or(1024);
            let maximum = size(config.maximum_ring_size.as_ref()).unwrap_or(8 << 20);
            if minimum > maximum || maximum > 8 << 20 {
                let message = "the smallest ring is larger than the largest, or that larger than 8M";
                return Err(Invalid::new(message).within("ring_hash_lb_config"));
            }
            Balance::RingHash { minimum, maximum }
        }
        LbPolicy::Maglev => {
            let table_size = match config {
                Some(LbConfig::MaglevLbConfig(config)) => size(config.table_size.as_ref()).unwrap_or(65_537),
                _ => 65_537,
            };
            if table_size == 0 || table_size > 5_000_011 {
                return Err(Invalid::new("has to be from 1 to 5000011").within("maglev_lb_config.table_size"));
            }
            Balance::Maglev { table_size }
        }
        LbPolicy::ClusterProvided => Balance::ClusterProvided,
        LbPolicy::LoadBalancingPolicyConfig => {
            return Err(Invalid::not_obeyed("load_balancing_policy").within("lb_policy"));
        }
    })
}

fn slow_start(wire: Option<&wire::SlowStartConfig>) -> Result<Option<SlowStart>> {
    let Some(wire) = wire else { return Ok(None) };
    let window = value::limit(wire.slow_start_window.as_ref(), None).at("slow_start_config.slow_start_window")?;
    Ok(window.map(|window| SlowStart {
        window,
        aggression: wire.aggression.as_ref().map_or(1.0, |aggression| aggression.default_value),
        minimum_percent: wire.min_weight_percent.as_ref().map_or(10.0, |percent| percent.value),
    }))
}

/// Envoy's limits when a cluster names none.
fn default_limits() -> Limits {
    Limits {
        max_connections: Some(1024),
        max_pending_requests: Some(1024),
        max_requests: Some(1024),
        max_retries: Some(3),
        retry_budget: None,
    }
}

fn limits(wire: &CircuitBreakers) -> Result<Limits> {
    not_obeyed!(wire, per_host_thresholds);
    let default = |threshold: &&Thresholds| threshold.priority == RoutingPriority::Default as i32;
    let Some(threshold) = wire.thresholds.iter().find(default) else { return Ok(default_limits()) };
    // The largest number is how Istio writes "no limit".
    let limit = |value: Option<&protobuf::UInt32Value>, default: u32| {
        Some(value::number(value).unwrap_or(default)).filter(|limit| *limit != u32::MAX)
    };
    let budget = threshold.retry_budget.as_ref().map(|budget| {
        let percent = budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value);
        if !(0.0..=100.0).contains(&percent) {
            return Err(Invalid::new("a percentage has to be from 0 to 100").within("thresholds.retry_budget"));
        }
        Ok(RetryBudget {
            basis_points: (percent * 100.0).round() as u32,
            minimum: value::number(budget.min_retry_concurrency.as_ref()).unwrap_or(3),
        })
    });
    Ok(Limits {
        max_connections: limit(threshold.max_connections.as_ref(), 1024),
        max_pending_requests: limit(threshold.max_pending_requests.as_ref(), 1024),
        max_requests: limit(threshold.max_requests.as_ref(), 1024),
        max_retries: limit(threshold.max_retries.as_ref(), 3),
        retry_budget: budget.transpose()?,
    })
}

/// Ejection by success rate or failure percentage is not done: asked for, it is refused; Envoy's default of the former
/// is left out.
fn outliers(wire: &WireOutliers) -> Result<OutlierDetection> {
    let asked = |value: Option<&protobuf::UInt32Value>| value::number(value).is_some_and(|percent| percent > 0);
    for (field, value) in [
        ("enforcing_success_rate", &wire.enforcing_success_rate),
        ("enforcing_local_origin_success_rate", &wire.enforcing_local_origin_success_rate),
        ("enforcing_failure_percentage", &wire.enforcing_failure_percentage),
        ("enforcing_failure_percentage_local_origin", &wire.enforcing_failure_percentage_local_origin),
    ] {
        if asked(value.as_ref()) {
            return Err(Invalid::not_obeyed("this way of ejecting").within(field));
        }
    }
    not_obeyed!(wire, monitors);
    let number = |value: Option<&protobuf::UInt32Value>, default| value::number(value).unwrap_or(default);
    let base = value::positive(wire.base_ejection_time.as_ref(), Duration::from_secs(30)).at("base_ejection_time")?;
    let longest = value::positive(wire.max_ejection_time.as_ref(), Duration::from_secs(300)).at("max_ejection_time")?;
    Ok(OutlierDetection {
        consecutive_5xx: number(wire.consecutive_5xx.as_ref(), 5),
        consecutive_gateway_failure: number(wire.consecutive_gateway_failure.as_ref(), 5),
        split_local_origin: wire.split_external_local_origin_errors,
        consecutive_local_origin_failure: number(wire.consecutive_local_origin_failure.as_ref(), 5),
        interval: value::positive(wire.interval.as_ref(), Duration::from_secs(10)).at("interval")?,
        base_ejection_time: base,
        max_ejection_time: longest.max(base),
        max_ejection_percent: number(wire.max_ejection_percent.as_ref(), 10).min(100),
        enforcing_consecutive_5xx: number(wire.enforcing_consecutive_5xx.as_ref(), 100),
        enforcing_consecutive_gateway_failure: number(wire.enforcing_consecutive_gateway_failure.as_ref(), 0),
        enforcing_consecutive_local_origin_failure: number(
            wire.enforcing_consecutive_local_origin_failure.as_ref(),
            100,
        ),
        always_eject_one_host: value::flag(wire.always_eject_one_host.as_ref(), false),
    })
}

fn transport_socket(wire: Option<&TransportSocket>) -> Result<Option<ClientTls>> {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = wire.and_then(|wire| wire.config_type.as_ref()) else {
        return match wire {
            Some(wire) if wire.name != "envoy.transport_sockets.raw_buffer" => {
                Err(Invalid::new("a configuration is missing").within("typed_config"))
            }
            _ => Ok(None),
        };
    };
    if value::is::<RawBuffer>(any) {
        Ok(None)
    } else if value::is::<UpstreamTlsContext>(any) {
        let context: UpstreamTlsContext = value::unpack(any).at("typed_config")?;
        crate::tls::client(&context).at("typed_config").map(Some)
    } else {
        Err(Invalid::not_obeyed(format!("the transport {}", value::message_name(any))).within("typed_config"))
    }
}

fn bind_source(wire: &Wire) -> Result<Vec<std::net::IpAddr>> {
    let Some(config) = &wire.upstream_bind_config else { return Ok(Vec::new()) };
    let address = |source: &SocketAddress| match value::socket(source)? {
        Place::Socket(address) => Ok(address.ip()),
        Place::Name { .. } | Place::Pipe(_) => Err(Invalid::new("has to be an IP address")),
    };
    let first = config.source_address.iter().map(|source| address(source).at("upstream_bind_config.source_address"));
    let more = config.extra_source_addresses.iter().enumerate().map(|(index, extra)| {
        let source = extra.address.as_ref().ok_or_else(|| Invalid::new("an address is missing"));
        source.and_then(address).at("address").at_index("upstream_bind_config.extra_source_addresses", index)
    });
    first.chain(more).collect()
}

/// Istio marks what is outside of the mesh, and what does not want to be told.
fn stranger(wire: &Wire) -> bool {
    let istio = wire.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get("istio"));
    let is = |key: &str| {
        let value = istio.and_then(|istio| istio.fields.get(key)).and_then(|value| value.kind.as_ref());
        matches!(value, Some(Kind::BoolValue(true)))
    };
    is("external") || is("disable_mx")
}

fn services(wire: &Wire) -> Vec<ServiceMeta> {
    let Some(istio) = wire.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get("istio")) else {
        return Vec::new();
    };
    let service = |value: &protobuf::Value| match &value.kind {
        Some(Kind::StructValue(of)) => {
            let text = |key| origin::text(of, key).unwrap_or_default().to_owned();
            Some(ServiceMeta { host: text("host"), name: text("name"), namespace: text("namespace") })
        }
        _ => None,
    };
    origin::list(istio, "services").iter().filter_map(service).collect()
}
