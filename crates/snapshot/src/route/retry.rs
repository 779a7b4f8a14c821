//! Whether a failed try is repeated, and after how long.
//!
//! Source: Envoy `x-envoy-retry-on`, `x-envoy-retry-grpc-on`; budgets and limits are in `mizzen-balance`.

use std::time::Duration;

use super::{RetryOn, RetryPolicy};

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Response headers came.
    Response {
        status: u16,
        /// `grpc-status` in the headers (a response without messages).
        grpc_status: Option<i32>,
        /// The response has `x-envoy-ratelimited`.
        ratelimited: bool,
    },
    /// No response headers came.
    Reset {
        reset: Reset,
        /// Some of the request was written to the upstream.
        request_started: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The connection could not be made, its TLS handshake included.
    ConnectFailure,
    /// The upstream refused the stream and says that it did nothing (HTTP/2 `REFUSED_STREAM`).
    RefusedStream,
    PerTryTimeout,
    /// The connection or stream broke.
    Broken,
    /// One of our own limits was reached; repeating would only add to the load.
    Overflow,
}

impl RetryPolicy {
    /// Whether a try that ended so is worth repeating. How many were made already is for the caller to count.
    pub fn should_retry(&self, outcome: Outcome) -> bool {
        let on = &self.on;
        match outcome {
            Outcome::Response { ratelimited: true, .. } => on.envoy_ratelimited,
            Outcome::Response { status, grpc_status, ratelimited: false } => {
                on.server_error && (500..600).contains(&status)
                    || on.gateway_error && matches!(status, 502..=504)
                    || on.retriable_4xx && status == 409
                    || on.retriable_status_codes && self.statuses.contains(&status)
                    || grpc_status.is_some_and(|status| on.grpc(status))
            }
            Outcome::Reset { reset: Reset::Overflow, .. } => false,
            Outcome::Reset { reset, request_started } => {
                // No answer counts as a 5xx, since the client would get one.
                on.server_error
                    || on.gateway_error
                    || on.reset
                    || on.reset_before_request && !request_started
                    || on.connect_failure && reset == Reset::ConnectFailure
                    || on.refused_stream && reset == Reset::RefusedStream
            }
        }
    }

    /// How long to wait before retry number `retry` (from 1): random up to `base * (2^retry - 1)`, at most the maximum.
    pub fn backoff(&self, retry: u32, draw: u32) -> Duration {
        let base = self.backoff_base.as_millis().max(1);
        let window = base.saturating_mul((1_u128 << retry.min(32)) - 1).min(self.backoff_max.as_millis().max(base));
        Duration::from_millis(u64::try_from(u128::from(draw) % window).unwrap_or(u64::MAX))
    }
}

impl RetryOn {
    fn grpc(&self, status: i32) -> bool {
        match status {
            1 => self.grpc_cancelled,
            4 => self.grpc_deadline_exceeded,
            8 => self.grpc_resource_exhausted,
            13 => self.grpc_internal,
            14 => self.grpc_unavailable,
            _ => false,
        }
    }

    /// Names as in a `retry-on` list, for people.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            (self.server_error, "5xx"),
            (self.gateway_error, "gateway-error"),
            (self.reset, "reset"),
            (self.reset_before_request, "reset-before-request"),
            (self.connect_failure, "connect-failure"),
            (self.refused_stream, "refused-stream"),
            (self.retriable_4xx, "retriable-4xx"),
            (self.retriable_status_codes, "retriable-status-codes"),
            (self.envoy_ratelimited, "envoy-ratelimited"),
            (self.http3_post_connect_failure, "http3-post-connect-failure"),
            (self.grpc_cancelled, "cancelled"),
            (self.grpc_deadline_exceeded, "deadline-exceeded"),
            (self.grpc_internal, "internal"),
            (self.grpc_resource_exhausted, "resource-exhausted"),
            (self.grpc_unavailable, "unavailable"),
        ];
        all.into_iter().filter_map(|(on, name)| on.then_some(name)).collect()
    }

    /// Switches one condition on by its name; false when there is no such condition.
    pub fn enable(&mut self, name: &str) -> bool {
        let flag = match name {
            "5xx" => &mut self.server_error,
            "gateway-error" => &mut self.gateway_error,
            "reset" => &mut self.reset,
            "reset-before-request" => &mut self.reset_before_request,
            "connect-failure" => &mut self.connect_failure,
            "refused-stream" => &mut self.refused_stream,
            "retriable-4xx" => &mut self.retriable_4xx,
            "retriable-status-codes" => &mut self.retriable_status_codes,
            "envoy-ratelimited" => &mut self.envoy_ratelimited,
            "http3-post-connect-failure" => &mut self.http3_post_connect_failure,
            "cancelled" => &mut self.grpc_cancelled,
            "deadline-exceeded" => &mut self.grpc_deadline_exceeded,
            "internal" => &mut self.grpc_internal,
            "resource-exhausted" => &mut self.grpc_resource_exhausted,
            "unavailable" => &mut self.grpc_unavailable,
            _ => return false,
        };
        *flag = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &[&str], statuses: &[u16]) -> RetryPolicy {
        let mut retry_on = RetryOn::default();
        for name in on {
            assert!(retry_on.enable(name), "{name}");
        }
        RetryPolicy {
            on: retry_on,
            retries: 2,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            statuses: statuses.to_vec(),
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            avoid_previous_hosts: false,
            host_selection_attempts: 1,
            leave_priorities_after: 0,
        }
    }

    fn response(status: u16) -> Outcome {
        Outcome::Response { status, grpc_status: None, ratelimited: false }
    }

    fn reset(reset: Reset, request_started: bool) -> Outcome {
        Outcome::Reset { reset, request_started }
    }

    #[track_caller]
    fn check(on: &[&str], statuses: &[u16], yes: &[Outcome], no: &[Outcome]) {
        let policy = policy(on, statuses);
        for outcome in yes {
            assert!(policy.should_retry(*outcome), "{on:?} should retry {outcome:?}");
        }
        for outcome in no {
            assert!(!policy.should_retry(*outcome), "{on:?} should not retry {outcome:?}");
        }
    }

    #[test]
    fn conditions_mean_what_envoy_means() {
        let broken = reset(Reset::Broken, true);
        let overflow = reset(Reset::Overflow, false);
        check(&["5xx"], &[], &[response(500), response(599), broken], &[response(404), overflow]);
        check(&["gateway-error"], &[], &[response(502), response(504), broken], &[response(500)]);
        check(&["connect-failure"], &[], &[reset(Reset::ConnectFailure, false)], &[broken, response(503)]);
        check(&["refused-stream"], &[], &[reset(Reset::RefusedStream, true)], &[broken]);
        check(&["reset"], &[], &[broken, reset(Reset::PerTryTimeout, true)], &[response(503)]);
        check(&["reset-before-request"], &[], &[reset(Reset::Broken, false)], &[broken]);
        check(&["retriable-4xx"], &[], &[response(409)], &[response(404)]);
        check(&["retriable-status-codes"], &[503], &[response(503)], &[response(502)]);
        check(&[], &[503], &[], &[response(503), broken]);
        let unavailable = Outcome::Response { status: 200, grpc_status: Some(14), ratelimited: false };
        check(&["unavailable"], &[], &[unavailable], &[response(503)]);
        let limited = Outcome::Response { status: 503, grpc_status: None, ratelimited: true };
        check(&["5xx"], &[], &[], &[limited]);
        check(&["envoy-ratelimited"], &[], &[limited], &[]);
    }

    #[test]
    fn waiting_grows_and_stays_below_the_maximum() {
        let policy = policy(&[], &[]);
        assert_eq!(policy.backoff(1, 24), Duration::from_millis(24));
        assert_eq!(policy.backoff(1, 25), Duration::ZERO);
        assert_eq!(policy.backoff(2, 74), Duration::from_millis(74));
        for draw in 0..10_000 {
            assert!(policy.backoff(u32::MAX, draw) < Duration::from_millis(250));
        }
    }

    #[test]
    fn names_and_flags_are_the_same_list() {
        let all = ["5xx", "gateway-error", "reset", "connect-failure", "cancelled", "unavailable"];
        assert_eq!(policy(&all, &[]).on.names(), all);
        assert!(!RetryOn::default().enable("sometimes"));
    }
}
