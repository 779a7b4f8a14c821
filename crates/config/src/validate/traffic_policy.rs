//! The traffic policy of a DestinationRule, at each of its four places.

use std::collections::HashSet;

use mizzen_api::networking::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, HttpSettings, LoadBalancerSettings,
    LocalityLoadBalancerSetting, OutlierDetection, PortTrafficPolicy, TcpSettings, TrafficPolicy,
};

use super::{duration, duration_or_zero, names};
use crate::check::Check;
use crate::code;
use crate::yaml::shortened;

pub(super) fn traffic_policy(check: &mut Check, policy: &TrafficPolicy) {
    if *policy == TrafficPolicy::default() {
        check.error(
            code::MISSING,
            "the traffic policy says nothing",
            "write for instance `loadBalancer: {simple: RANDOM}`",
        );
    }
    check.optional("loadBalancer", policy.load_balancer.as_ref(), load_balancer);
    check.optional("connectionPool", policy.connection_pool.as_ref(), connection_pool);
    check.optional("outlierDetection", policy.outlier_detection.as_ref(), outlier_detection);
    check.optional("tls", policy.tls.as_ref(), client_tls);
    let mut seen = HashSet::new();
    check.each("portLevelSettings", &policy.port_level_settings, |check, settings| {
        port_policy(check, settings, &mut seen);
    });
    check.optional("tunnel", policy.tunnel.as_ref(), |check, tunnel| {
        if policy.proxy_protocol.is_some() {
            check.conflict("`tunnel` and `proxyProtocol` exclude each other", "remove one of the two");
        }
        if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
            check.field("protocol", |check| {
                check.not_allowed(
                    format!("`{}` is no way to tunnel", shortened(&tunnel.protocol)),
                    "write `CONNECT` or `POST`",
                );
            });
        }
        check.field("targetHost", |check| names::destination_host(check, &tunnel.target_host));
        if tunnel.target_port == 0 {
            check.missing("targetPort", "targetPort: 443");
        }
    });
}

fn port_policy(check: &mut Check, settings: &PortTrafficPolicy, seen: &mut HashSet<u16>) {
    match settings.port.as_ref().map_or(0, |port| port.number) {
        0 => check.missing("port", "port: {number: 9080}"),
        number => {
            if !seen.insert(number) {
                check.field("port", |check| {
                    check.conflict(format!("the port {number} has settings twice"), "put them into one entry");
                });
            }
        }
    }
    check.optional("loadBalancer", settings.load_balancer.as_ref(), load_balancer);
    check.optional("connectionPool", settings.connection_pool.as_ref(), connection_pool);
    check.optional("outlierDetection", settings.outlier_detection.as_ref(), outlier_detection);
    check.optional("tls", settings.tls.as_ref(), client_tls);
}

fn load_balancer(check: &mut Check, value: &LoadBalancerSettings) {
    if value.simple.is_some() && value.consistent_hash.is_some() {
        check.conflict("`simple` and `consistentHash` exclude each other", "remove one of the two");
    }
    check.optional("consistentHash", value.consistent_hash.as_ref(), consistent_hash);
    check.optional("localityLbSetting", value.locality_lb_setting.as_ref(), locality);
    if value.locality_lb_setting.is_some() && value.zone_aware_lb_setting.is_some() {
        check.conflict("`localityLbSetting` and `zoneAwareLbSetting` exclude each other", "remove one of the two");
    }
}

fn consistent_hash(check: &mut Check, value: &ConsistentHashLb) {
    let given: Vec<&str> = [
        ("httpHeaderName", value.http_header_name.is_some()),
        ("httpCookie", value.http_cookie.is_some()),
        ("useSourceIp", value.use_source_ip.is_some()),
        ("httpQueryParameterName", value.http_query_parameter_name.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    match given.as_slice() {
        [] => check.error(
            code::MISSING,
            "nothing is said to hash by",
            "write `httpHeaderName:`, `httpCookie:`, `httpQueryParameterName:` or `useSourceIp: true`",
        ),
        [_] => {}
        [first, second, ..] => {
            check.conflict(format!("`{first}` and `{second}` exclude each other"), "remove one of the two")
        }
    }
    check.optional("httpHeaderName", value.http_header_name.as_ref(), |check, name| names::header_name(check, name));
    check.optional("httpCookie", value.http_cookie.as_ref(), |check, cookie| {
        if cookie.name.is_empty() {
            check.missing("name", "name: user");
        } else {
            check.field("name", |check| names::header_name(check, &cookie.name));
        }
    });
    if value.ring_hash.is_some() && value.maglev.is_some() {
        check.conflict("`ringHash` and `maglev` exclude each other", "remove one of the two");
    }
    check.optional("maglev", value.maglev.as_ref(), |check, maglev| {
        let size = maglev.table_size;
        if size != 0 && (size > ConsistentHashLb::MAX_TABLE_SIZE || !is_prime(size)) {
            check.field("tableSize", |check| {
                check.not_allowed(
                    format!("{size} is no prime number of at most {}", ConsistentHashLb::MAX_TABLE_SIZE),
                    format!("write {}", ConsistentHashLb::DEFAULT_TABLE_SIZE),
                );
            });
        }
    });
    check.optional("ringHash", value.ring_hash.as_ref(), |check, ring| {
        // Envoy's upper bound.
        if ring.minimum_ring_size > 8 * 1024 * 1024 {
            check.field("minimumRingSize", |check| {
                check
                    .not_allowed(format!("a ring of {} is too large", ring.minimum_ring_size), "write at most 8388608");
            });
        }
    });
}

/// By trial; numbers here are at most a few millions.
fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn locality(check: &mut Check, value: &LocalityLoadBalancerSetting) {
    if !value.distribute.is_empty() && !value.failover.is_empty() {
        check.conflict("`distribute` and `failover` exclude each other", "remove one of the two");
    }
    check.each("distribute", &value.distribute, |check, split| {
        let sum: u64 = split.to.values().map(|weight| u64::from(*weight)).sum();
        if sum != 100 {
            check.field("to", |check| {
                check.not_allowed(format!("the shares sum up to {sum}"), "let them sum up to 100");
            });
        }
    });
    check.each("failover", &value.failover, |check, failover| {
        if failover.from == failover.to {
            check.conflict("a region cannot fail over to itself", "name another region in `to`");
        }
    });
}

fn connection_pool(check: &mut Check, value: &ConnectionPoolSettings) {
    if value.tcp.is_none() && value.http.is_none() {
        check.error(code::MISSING, "the connection pool says nothing", "write `tcp:` or `http:`");
    }
    check.optional("tcp", value.tcp.as_ref(), tcp_settings);
    check.optional("http", value.http.as_ref(), http_settings);
}

fn tcp_settings(check: &mut Check, value: &TcpSettings) {
    not_negative(check, "maxConnections", value.max_connections);
    check.optional("connectTimeout", value.connect_timeout.as_ref(), |check, value| duration(check, *value));
    check.optional("maxConnectionDuration", value.max_connection_duration.as_ref(), |check, value| {
        duration(check, *value)
    });
    check.optional("idleTimeout", value.idle_timeout.as_ref(), |check, value| duration_or_zero(check, *value));
}

fn http_settings(check: &mut Check, value: &HttpSettings) {
    not_negative(check, "http1MaxPendingRequests", value.http1_max_pending_requests);
    not_negative(check, "http2MaxRequests", value.http2_max_requests);
    not_negative(check, "maxRequestsPerConnection", value.max_requests_per_connection);
    not_negative(check, "maxRetries", value.max_retries);
    not_negative(check, "maxConcurrentStreams", value.max_concurrent_streams);
    check.optional("idleTimeout", value.idle_timeout.as_ref(), |check, value| duration_or_zero(check, *value));
    if value.use_client_protocol && value.h2_upgrade_policy == mizzen_api::networking::H2UpgradePolicy::Upgrade {
        check
            .conflict("`useClientProtocol` and `h2UpgradePolicy: UPGRADE` exclude each other", "remove one of the two");
    }
}

fn not_negative(check: &mut Check, name: &str, value: i32) {
    if value < 0 {
        check.field(name, |check| check.not_allowed(format!("{value} is negative"), "write zero (no limit) or more"));
    }
}

fn outlier_detection(check: &mut Check, value: &OutlierDetection) {
    check.optional("interval", value.interval.as_ref(), |check, value| duration(check, *value));
    check.optional("baseEjectionTime", value.base_ejection_time.as_ref(), |check, value| duration(check, *value));
    for (name, percent) in
        [("maxEjectionPercent", value.max_ejection_percent), ("minHealthPercent", value.min_health_percent)]
    {
        if !(0..=100).contains(&percent) {
            check.field(name, |check| check.not_allowed(format!("{percent} is no percentage"), "write 0 to 100"));
        }
    }
    if value.consecutive_errors != 0 {
        check.field("consecutiveErrors", |check| {
            check.warn(
                code::DUBIOUS,
                "`consecutiveErrors` is deprecated and counts gateway errors (502, 503, 504) only",
                "write `consecutive5xxErrors` or `consecutiveGatewayErrors`",
            );
        });
    }
    if value.consecutive_local_origin_failures.is_some() && !value.split_external_local_origin_errors {
        check.field("consecutiveLocalOriginFailures", |check| {
            check.conflict(
                "`consecutiveLocalOriginFailures` needs `splitExternalLocalOriginErrors: true`",
                "write `splitExternalLocalOriginErrors: true`",
            );
        });
    }
    check.each("outlierDetectionHttpErrorCodes", &value.outlier_detection_http_error_codes, |check, text| {
        if !text.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status)) {
            check.not_allowed(format!("`{}` is no status", shortened(text)), "write a status such as \"503\"");
        }
    });
}

fn client_tls(check: &mut Check, value: &ClientTlsSettings) {
    let files = [
        ("clientCertificate", &value.client_certificate),
        ("privateKey", &value.private_key),
        ("caCertificates", &value.ca_certificates),
    ];
    if !value.credential_name.is_empty() {
        for (name, _) in files.iter().filter(|(_, path)| !path.is_empty()) {
            check.field(name, |check| {
                check.conflict(format!("`{name}` and `credentialName` exclude each other"), "remove one of the two");
            });
        }
    }
    match value.mode {
        ClientTlsMode::Mutual if value.credential_name.is_empty() => {
            for (name, path) in &files[..2] {
                if path.is_empty() {
                    check.missing(name, "credentialName: my-secret");
                }
            }
        }
        ClientTlsMode::IstioMutual => {
            for (name, _) in files.iter().filter(|(_, path)| !path.is_empty()) {
                check.field(name, |check| {
                    check.conflict(
                        format!("with `ISTIO_MUTUAL` the mesh provides the certificates, so `{name}` has no effect"),
                        "remove it, or write `mode: MUTUAL`",
                    );
                });
            }
        }
        _ => {}
    }
    if value.mode == ClientTlsMode::Simple && value.insecure_skip_verify == Some(true) {
        check.field("insecureSkipVerify", |check| {
            check.warn(
                code::DUBIOUS,
                "the server's certificate is not verified, so anybody can be the server",
                "give `caCertificates` or `credentialName` instead",
            );
        });
    }
}
