//! Retry policies.

use std::time::Duration;

use mizzen_proto::envoy::config::route::v3::{RetryPolicy as Wire, retry_policy};
use mizzen_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use mizzen_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use mizzen_snapshot::route::{RetryOn, RetryPolicy};

use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::value;

pub(super) fn compile(wire: &Wire) -> Result<RetryPolicy> {
    not_obeyed!(
        wire,
        retry_options_predicates,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    );
    let mut on = RetryOn::default();
    for name in wire.retry_on.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !on.enable(name) {
            return Err(Invalid::not_obeyed(format!("the condition {name:?}")).within("retry_on"));
        }
    }
    let mut avoid_previous_hosts = false;
    for (index, predicate) in wire.retry_host_predicate.iter().enumerate() {
        match &predicate.config_type {
            Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(any))
                if value::is::<PreviousHostsPredicate>(any) =>
            {
                avoid_previous_hosts = true;
            }
            // Older configurations give the name alone.
            None if predicate.name == "envoy.retry_host_predicates.previous_hosts" => avoid_previous_hosts = true,
            _ => {
                return Err(Invalid::not_obeyed(format!("{:?}", predicate.name)))
                    .at_index("retry_host_predicate", index);
            }
        }
    }
    let statuses = wire.retriable_status_codes.iter().map(|status| {
        u16::try_from(*status).map_err(|_| Invalid::new("is no HTTP status").within("retriable_status_codes"))
    });
    let backoff = wire.retry_back_off.unwrap_or_default();
    let base = value::positive(backoff.base_interval.as_ref(), Duration::from_millis(25))
        .at("retry_back_off.base_interval")?;
    let longest = value::positive(backoff.max_interval.as_ref(), base * 10).at("retry_back_off.max_interval")?;
    if longest < base {
        return Err(Invalid::new("has to be at least base_interval").within("retry_back_off.max_interval"));
    }
    Ok(RetryPolicy {
        on,
        retries: value::number(wire.num_retries.as_ref()).unwrap_or(1),
        per_try_timeout: value::limit(wire.per_try_timeout.as_ref(), None).at("per_try_timeout")?,
        per_try_idle_timeout: value::limit(wire.per_try_idle_timeout.as_ref(), None).at("per_try_idle_timeout")?,
        statuses: statuses.collect::<Result<_>>()?,
        backoff_base: base,
        backoff_max: longest,
        avoid_previous_hosts,
        leave_priorities_after: leave_priorities_after(wire)?,
        host_selection_attempts: u32::try_from(wire.host_selection_retry_max_attempts).unwrap_or(0).clamp(1, 1000),
    })
}

fn leave_priorities_after(wire: &Wire) -> Result<u32> {
    let Some(priority) = &wire.retry_priority else { return Ok(0) };
    match &priority.config_type {
        Some(retry_policy::retry_priority::ConfigType::TypedConfig(any))
            if value::is::<PreviousPrioritiesConfig>(any) =>
        {
            let config: PreviousPrioritiesConfig = value::unpack(any).at("retry_priority.typed_config")?;
            u32::try_from(config.update_frequency)
                .ok()
                .filter(|after| *after > 0)
                .ok_or_else(|| Invalid::new("has to be above 0").within("retry_priority.typed_config.update_frequency"))
        }
        _ => Err(Invalid::not_obeyed(format!("{:?}", priority.name)).within("retry_priority")),
    }
}
