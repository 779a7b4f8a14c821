//! Outlier detection: endpoints that keep failing are taken out of the choice for a while.
//!
//! Source: Envoy `OutlierDetection`. Success-rate and failure-percentage detection are not here: Istio switches them
//! off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mizzen_snapshot::cluster::OutlierDetection;

use crate::balancer::Balancer;
use crate::draw::Draws;
use crate::endpoint::{EndpointState, Host};
use crate::time::Time;

/// How a try ended, as far as the endpoint is to be judged by it. A cancellation by the client is no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this HTTP status (of a gRPC answer: the HTTP status that its gRPC status stands for).
    Response(u16),
    /// A TCP connection was established, for protocols that have no answers.
    Connected,
    /// No connection, TLS handshake failed, or the stream was reset before an answer.
    ConnectFailed,
    /// No connection or no answer in time.
    Timeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionCause {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
}

/// An endpoint that was found to be an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejection {
    /// It is out, for the first time if this is 1.
    Ejected { cause: EjectionCause, times: u32 },
    /// It stays in: too many are out already.
    Overflow { cause: EjectionCause },
    /// It stays in: enforcement of this cause is below 100 percent, and the draw said so.
    NotEnforced { cause: EjectionCause },
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Endpoints that may be chosen again.
    pub returned: Vec<Arc<Host>>,
}

/// Counts of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Outliers {
    active: AtomicU32,
    enforced: AtomicU64,
    overflows: AtomicU64,
}

impl Outliers {
    pub(crate) fn successor(&self, hosts: &[Arc<Host>]) -> Self {
        let new = Self {
            active: AtomicU32::new(0),
            enforced: AtomicU64::new(self.enforced.load(Relaxed)),
            overflows: AtomicU64::new(self.overflows.load(Relaxed)),
        };
        new.recount(hosts);
        new
    }

    /// Members have come or gone: the number of ejected ones is counted afresh.
    pub(crate) fn recount(&self, hosts: &[Arc<Host>]) {
        let ejected = hosts.iter().filter(|host| host.state.is_ejected()).count();
        self.active.store(u32::try_from(ejected).unwrap_or(u32::MAX), Relaxed);
    }
}

impl Balancer {
    /// Takes note of how a try to `host` ended. An ejection is in force for the next pick.
    ///
    /// ```text
    /// answer < 500            both error runs end
    /// answer 502, 503, 504    5xx run + 1, gateway run + 1
    /// other answer >= 500     5xx run + 1, gateway run ends
    /// local failure           as 503 / 504; or the local-origin run + 1 when those are split
    /// ```
    pub fn record(&self, host: &Host, outcome: Outcome, now: Time) -> Option<Ejection> {
        let state = &*host.state;
        match outcome {
            Outcome::Response(status) if status >= 500 => state.count_error(),
            Outcome::Response(_) | Outcome::Connected => state.count_success(),
            Outcome::ConnectFailed => {
                state.count_error();
                state.count_connect_failure();
            }
            Outcome::Timeout => {
                state.count_error();
                state.count_timeout();
            }
        }
        let rules = self.policy.outliers.as_ref()?;
        let cause = note(rules, state, outcome)?;
        if state.is_ejected() {
            return None;
        }
        Some(self.eject(rules, state, cause, now))
    }

    /// Lets endpoints return whose ejection time is over, and forgives one past ejection of each that behaved since
    /// the last sweep. To be called every [`sweep_interval`](Self::sweep_interval).
    pub fn sweep(&self, now: Time) -> Swept {
        let Some(rules) = self.policy.outliers.as_ref() else { return Swept::default() };
        let mut swept = Swept::default();
        let longest = rules.max_ejection_time.max(rules.base_ejection_time);
        let hosts = self.hosts();
        for host in &hosts {
            let state = &*host.state;
            let backoff = state.ejection_backoff.load(Relaxed);
            if !state.is_ejected() {
                if backoff > 0 {
                    state.ejection_backoff.store(backoff - 1, Relaxed);
                }
                continue;
            }
            let out_for = now.since(Time::from_nanos(state.ejected_at.load(Relaxed)));
            if out_for >= rules.base_ejection_time.saturating_mul(backoff).min(longest) {
                state.clear_runs();
                state.ejected.store(false, Relaxed);
                swept.returned.push(Arc::clone(host));
            }
        }
        self.outliers.recount(&hosts);
        if !swept.returned.is_empty() {
            self.rearrange();
        }
        swept
    }

    /// How often to sweep; `None`: there is nothing to sweep.
    pub fn sweep_interval(&self) -> Option<Duration> {
        self.policy.outliers.as_ref().map(|rules| rules.interval)
    }

    /// Endpoints that are ejected now.
    pub fn ejections_active(&self) -> u32 {
        self.outliers.active.load(Relaxed)
    }

    /// Ejections so far.
    pub fn ejections_enforced(&self) -> u64 {
        self.outliers.enforced.load(Relaxed)
    }

    /// Ejections that `max_ejection_percent` has prevented so far.
    pub fn ejections_overflow(&self) -> u64 {
        self.outliers.overflows.load(Relaxed)
    }

    fn eject(&self, rules: &OutlierDetection, state: &EndpointState, cause: EjectionCause, now: Time) -> Ejection {
        let enforcing = match cause {
            EjectionCause::Consecutive5xx => rules.enforcing_consecutive_5xx,
            EjectionCause::ConsecutiveGatewayFailure => rules.enforcing_consecutive_gateway_failure,
            EjectionCause::ConsecutiveLocalOriginFailure => rules.enforcing_consecutive_local_origin_failure,
        };
        // The nanoseconds of an error are chance enough for a share of ejections.
        if Draws::new(now.as_nanos()).below(100) >= u64::from(enforcing) {
            return Ejection::NotEnforced { cause };
        }
        let members = self.compiled.load().hosts.len() as u64;
        let allowed = |active: u32| {
            (active == 0 && rules.always_eject_one_host)
                || (u64::from(active) + 1) * 100 <= u64::from(rules.max_ejection_percent.min(100)) * members
        };
        // Reserving a place first keeps two threads from both taking the last one.
        let reserved =
            self.outliers.active.fetch_update(Relaxed, Relaxed, |active| allowed(active).then_some(active + 1));
        if reserved.is_err() {
            self.outliers.overflows.fetch_add(1, Relaxed);
            return Ejection::Overflow { cause };
        }
        state.ejected_at.store(now.as_nanos(), Relaxed);
        let backoff = state.ejection_backoff.load(Relaxed);
        if rules.base_ejection_time.saturating_mul(backoff)
            < rules.max_ejection_time.saturating_add(rules.base_ejection_time)
        {
            state.ejection_backoff.store(backoff + 1, Relaxed);
        }
        let times = state.ejections.fetch_add(1, Relaxed) + 1;
        if state.ejected.swap(true, Relaxed) {
            // Another thread was faster.
            self.outliers.active.fetch_sub(1, Relaxed);
        } else {
            self.outliers.enforced.fetch_add(1, Relaxed);
            self.rearrange();
        }
        Ejection::Ejected { cause, times }
    }

    /// Health has changed. `rcu` tries again when somebody else has swapped meanwhile, and flags are set before it
    /// looks, so the last arrangement has seen all flags.
    fn rearrange(&self) {
        self.compiled.rcu(|current| current.rearranged(&self.policy));
    }
}

/// Counts an outcome; the cause of an ejection when it completes a run of errors.
fn note(rules: &OutlierDetection, state: &EndpointState, outcome: Outcome) -> Option<EjectionCause> {
    let status = match outcome {
        Outcome::Response(status) => {
            end_run(&state.consecutive_local_failures);
            status
        }
        Outcome::Connected => {
            end_run(&state.consecutive_local_failures);
            if rules.split_local_origin {
                return None;
            }
            200
        }
        Outcome::ConnectFailed | Outcome::Timeout if rules.split_local_origin => {
            return completes(&state.consecutive_local_failures, rules.consecutive_local_origin_failure)
                .then_some(EjectionCause::ConsecutiveLocalOriginFailure);
        }
        Outcome::ConnectFailed => 503,
        Outcome::Timeout => 504,
    };
    if status < 500 {
        end_run(&state.consecutive_5xx);
        end_run(&state.consecutive_gateway_failures);
        return None;
    }
    let gateway = if (502..=504).contains(&status) {
        completes(&state.consecutive_gateway_failures, rules.consecutive_gateway_failure)
    } else {
        end_run(&state.consecutive_gateway_failures);
        false
    };
    let any = completes(&state.consecutive_5xx, rules.consecutive_5xx);
    // Where both complete at once, a cause that is enforced goes before one that is only counted.
    match (gateway, any) {
        (true, true) if rules.enforcing_consecutive_gateway_failure == 0 => Some(EjectionCause::Consecutive5xx),
        (true, _) => Some(EjectionCause::ConsecutiveGatewayFailure),
        (false, true) => Some(EjectionCause::Consecutive5xx),
        (false, false) => None,
    }
}

/// Adds one to a run of errors; true, and the run starts again, when it has reached `threshold` (0: never).
fn completes(run: &AtomicU32, threshold: u32) -> bool {
    if threshold == 0 {
        return false;
    }
    let complete = run.fetch_add(1, Relaxed) + 1 >= threshold;
    if complete {
        run.store(0, Relaxed);
    }
    complete
}

/// Reads first, so that success after success writes nothing.
fn end_run(run: &AtomicU32) {
    if run.load(Relaxed) != 0 {
        run.store(0, Relaxed);
    }
}

impl EndpointState {
    pub(crate) fn clear_runs(&self) {
        for run in [&self.consecutive_5xx, &self.consecutive_gateway_failures, &self.consecutive_local_failures] {
            run.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
