//! What is tried again (reference: semantics 32 to 36).

use std::time::Duration;

use mizzen_api::mesh::MeshConfig;
use mizzen_api::networking::HttpRetry;
use mizzen_proto::envoy::config::route::v3::RetryPolicy;
use mizzen_proto::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use mizzen_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use mizzen_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::pb;

/// Without a word of the rule: what the mesh says, else Istio's defaults.
pub(super) fn default_policy(config: &MeshConfig) -> Option<RetryPolicy> {
    match &config.default_http_retry_policy {
        Some(retry) => policy(retry, false),
        None => Some(istio_default()),
    }
}

fn istio_default() -> RetryPolicy {
    let mut policy = RetryPolicy {
        retry_on: HttpRetry::DEFAULT_RETRY_ON.to_owned(),
        num_retries: pb::u32(HttpRetry::DEFAULT_ATTEMPTS),
        ..Default::default()
    };
    avoid_previous_hosts(&mut policy);
    policy
}

fn avoid_previous_hosts(policy: &mut RetryPolicy) {
    policy.retry_host_predicate = vec![RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pb::any(&PreviousHostsPredicate {}))),
    }];
    policy.host_selection_retry_max_attempts = 5;
}

/// What a rule says. With a consistent hash the same endpoint is asked again, unless the rule says otherwise.
pub(super) fn policy(retry: &HttpRetry, hashed: bool) -> Option<RetryPolicy> {
    let attempts = u32::try_from(retry.attempts).ok().filter(|attempts| *attempts > 0)?;
    let mut policy = RetryPolicy { num_retries: pb::u32(attempts), ..Default::default() };
    if retry.retry_ignore_previous_hosts.unwrap_or(!hashed) {
        avoid_previous_hosts(&mut policy);
    }
    if retry.retry_on.is_empty() {
        policy.retry_on = HttpRetry::DEFAULT_RETRY_ON.to_owned();
    } else {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&retry.retry_on);
    }
    policy.per_try_timeout = retry.per_try_timeout.filter(|timeout| !timeout.is_zero()).and_then(pb::duration);
    if retry.retry_remote_localities == Some(true) {
        let config = PreviousPrioritiesConfig { update_frequency: 2 };
        policy.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(pb::any(&config))),
        });
    }
    if let Some(base) = retry.backoff.filter(|base| *base >= Duration::from_millis(1)) {
        policy.retry_back_off = Some(RetryBackOff {
            base_interval: pb::duration(base),
            max_interval: base.checked_mul(10).and_then(pb::duration),
        });
    }
    Some(policy)
}

/// Numbers in the list are statuses; Envoy has them in a field of their own.
fn conditions(text: &str) -> (String, Vec<u32>) {
    let mut conditions: Vec<&str> = Vec::new();
    let mut codes = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) if (100..600).contains(&code) => codes.push(code),
            _ => conditions.push(part),
        }
    }
    if !codes.is_empty() && !conditions.contains(&"retriable-status-codes") {
        conditions.push("retriable-status-codes");
    }
    (conditions.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::conditions;

    #[track_caller]
    fn check(text: &str, expected: &str, codes: &[u32]) {
        assert_eq!(conditions(text), (expected.to_owned(), codes.to_vec()), "{text}");
    }

    #[test]
    fn numbers_in_retry_on_are_statuses() {
        check("5xx,reset", "5xx,reset", &[]);
        check("gateway-error, 503,429", "gateway-error,retriable-status-codes", &[503, 429]);
        check("retriable-status-codes,503", "retriable-status-codes", &[503]);
        check("503", "retriable-status-codes", &[503]);
    }
}
