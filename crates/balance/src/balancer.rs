//! [`Balancer`]: the choice of an endpoint for one cluster.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use mizzen_snapshot::cluster::{ClusterPolicy, EndpointSet};

use crate::breaker::Breakers;
use crate::compiled::Compiled;
use crate::draw::Draws;
use crate::endpoint::{Availability, Host};
use crate::outlier::Outliers;
use crate::time::Time;

/// The load balancer of one cluster, with its circuit breakers and outlier detection. Shared by all workers; lives as
/// long as the cluster's policy, and hands its state on to its [`successor`](Self::successor) when that changes.
#[derive(Debug)]
pub struct Balancer {
    pub(crate) policy: Arc<ClusterPolicy>,
    pub(crate) compiled: ArcSwap<Compiled>,
    pub(crate) outliers: Outliers,
    breakers: Breakers,
}

/// What one pick depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickContext<'a> {
    pub now: Time,
    /// A random number; everything that is left to chance in this pick comes from it.
    pub draw: u64,
    /// Key for consistent hashing. Without one, hash balancers choose at random, as Envoy does.
    pub hash: Option<u64>,
    /// Endpoints that were tried before and should not be chosen again.
    pub avoid: &'a [Arc<Host>],
    /// How many times to choose again when an endpoint to avoid came out (Envoy: `host_selection_retry_max_attempts`).
    /// The last choice stands even if it is to be avoided.
    pub attempts: u32,
    /// The endpoints of all tries before this one, in order.
    pub tried: &'a [Arc<Host>],
    /// After so many tries their priorities get nothing, as long as others can take it; 0: never.
    pub leave_priorities_after: usize,
}

/// Nobody can take the request: Envoy answers 503 with flag `UH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    #[error("the cluster has no endpoints")]
    Empty,
    #[error("the cluster has no healthy endpoint")]
    Unhealthy,
}

/// How many endpoints a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Membership {
    pub total: usize,
    pub healthy: usize,
    pub degraded: usize,
}

impl Balancer {
    /// `seed` is random: where rotations begin.
    pub fn new(policy: Arc<ClusterPolicy>, endpoints: &Arc<EndpointSet>, seed: u64, now: Time) -> Self {
        Self {
            compiled: ArcSwap::from_pointee(Compiled::new(&policy, endpoints, &[], seed, now)),
            outliers: Outliers::default(),
            breakers: Breakers::new(policy.limits),
            policy,
        }
    }

    /// A balancer under a new policy that knows what this one knows: ejections, active requests, what breakers count.
    /// Where the new policy ejects nobody, whoever was ejected returns.
    pub fn successor(&self, policy: Arc<ClusterPolicy>, endpoints: &Arc<EndpointSet>, seed: u64, now: Time) -> Self {
        let hosts = self.hosts();
        if policy.outliers.is_none() {
            hosts.iter().for_each(|host| host.state.forgive());
        }
        let compiled = Compiled::new(&policy, endpoints, &hosts, seed, now);
        Self {
            outliers: self.outliers.successor(&compiled.hosts),
            compiled: ArcSwap::from_pointee(compiled),
            breakers: self.breakers.with_limits(policy.limits),
            policy,
        }
    }

    pub fn policy(&self) -> &Arc<ClusterPolicy> {
        &self.policy
    }

    pub fn breakers(&self) -> &Breakers {
        &self.breakers
    }

    /// Replaces the endpoints; those that stay keep their state. Does nothing when it has these already. Returns the
    /// hosts whose addresses are gone.
    pub fn update(&self, endpoints: &Arc<EndpointSet>, seed: u64, now: Time) -> Vec<Arc<Host>> {
        if Arc::ptr_eq(&self.compiled.load().source, endpoints) {
            return Vec::new();
        }
        let before = self.compiled.rcu(|current| Compiled::new(&self.policy, endpoints, &current.hosts, seed, now));
        let after = self.hosts();
        self.outliers.recount(&after);
        let stays: std::collections::HashSet<_> = after.iter().map(|host| Arc::as_ptr(&host.state)).collect();
        before.hosts.iter().filter(|host| !stays.contains(&Arc::as_ptr(&host.state))).cloned().collect()
    }

    /// The endpoint set that picks are made from now.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        Arc::clone(&self.compiled.load().source)
    }

    /// All endpoints with their state, in the order of configuration.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.compiled.load().hosts.clone()
    }

    pub fn membership(&self) -> Membership {
        let compiled = self.compiled.load();
        let count = |wanted| compiled.hosts.iter().filter(|host| host.availability() == wanted).count();
        Membership {
            total: compiled.hosts.len(),
            healthy: count(Availability::Healthy),
            degraded: count(Availability::Degraded),
        }
    }

    /// The endpoint for one try of a request. No lock, no allocation.
    pub fn pick(&self, ask: &PickContext<'_>) -> Result<Arc<Host>, NoEndpoint> {
        let compiled = self.compiled.load();
        let mut draws = Draws::new(ask.draw);
        let mut attempt = 0;
        loop {
            let Some(host) = compiled.choose(ask, &mut draws, attempt) else {
                return Err(if compiled.hosts.is_empty() { NoEndpoint::Empty } else { NoEndpoint::Unhealthy });
            };
            if attempt >= ask.attempts || !ask.avoid.iter().any(|tried| Arc::ptr_eq(&tried.state, &host.state)) {
                return Ok(Arc::clone(host));
            }
            attempt += 1;
        }
    }

    /// Active requests of all endpoints together.
    pub fn active_requests(&self) -> u64 {
        self.compiled.load().hosts.iter().map(|host| u64::from(host.state.active_requests.load(Relaxed))).sum()
    }

    /// Active connections of all endpoints together.
    pub fn active_connections(&self) -> u64 {
        self.compiled.load().hosts.iter().map(|host| u64::from(host.state.active_connections.load(Relaxed))).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests;
