//! Circuit breakers of a cluster (Envoy: `CircuitBreakers.Thresholds` and `RetryBudget`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use mizzen_snapshot::cluster::Limits;

/// Limits of one cluster with what is in use now. A count without a limit is not kept.
#[derive(Debug)]
pub struct Breakers {
    limits: Limits,
    usage: Arc<Usage>,
}

/// Outlives a change of the limits: permits point here.
#[derive(Debug, Default)]
struct Usage {
    in_use: [AtomicU32; 4],
    overflows: [AtomicU64; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Connections,
    Pending,
    Requests,
    Retries,
}

/// A limit is reached; Envoy answers 503 with flag `UO` (and gives up the retry with `URX`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker open: the limit of {limit} {resource:?} is reached")]
pub struct Exceeded {
    pub resource: Resource,
    pub limit: u32,
}

/// The right to one unit of a resource; given back when dropped, also when a request is cancelled.
#[derive(Debug)]
#[must_use]
pub struct Permit(Option<(Arc<Usage>, Resource)>);

impl Breakers {
    pub fn new(limits: Limits) -> Self {
        Self { limits, usage: Arc::default() }
    }

    /// New limits for what is in use already.
    pub fn with_limits(&self, limits: Limits) -> Self {
        Self { limits, usage: Arc::clone(&self.usage) }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// For a new connection. `only` says that the endpoint has no connection yet: it is then allowed one in any case,
    /// or its requests would wait for ever (as Envoy does).
    pub fn connection(&self, only: bool) -> Result<Permit, Exceeded> {
        match self.limits.max_connections {
            Some(_) if only => Ok(self.take_unchecked(Resource::Connections)),
            limit => self.take(Resource::Connections, limit),
        }
    }

    /// For a request that waits for a connection.
    pub fn pending(&self) -> Result<Permit, Exceeded> {
        self.take(Resource::Pending, self.limits.max_pending_requests)
    }

    /// For an active request.
    pub fn request(&self) -> Result<Permit, Exceeded> {
        // A retry budget is a share of active requests, so these are then counted without a limit too.
        match (self.limits.max_requests, self.limits.retry_budget) {
            (None, Some(_)) => Ok(self.take_unchecked(Resource::Requests)),
            (limit, _) => self.take(Resource::Requests, limit),
        }
    }

    /// For a retry, from the decision to retry to the end of that try.
    pub fn retry(&self) -> Result<Permit, Exceeded> {
        let limit = match self.limits.retry_budget {
            Some(budget) => {
                let active = u64::from(self.in_use(Resource::Requests)) + u64::from(self.in_use(Resource::Pending));
                let share = active * u64::from(budget.basis_points) / 10_000;
                Some(u32::try_from(share).unwrap_or(u32::MAX).max(budget.minimum))
            }
            None => self.limits.max_retries,
        };
        self.take(Resource::Retries, limit)
    }

    /// In use now; 0 when nothing limits this resource.
    pub fn in_use(&self, resource: Resource) -> u32 {
        self.usage.in_use[resource as usize].load(Relaxed)
    }

    /// How often a limit has refused one.
    pub fn overflows(&self, resource: Resource) -> u64 {
        self.usage.overflows[resource as usize].load(Relaxed)
    }

    fn take(&self, resource: Resource, limit: Option<u32>) -> Result<Permit, Exceeded> {
        let Some(limit) = limit else { return Ok(Permit(None)) };
        let counter = &self.usage.in_use[resource as usize];
        // Add first: two threads can then never both take the last one.
        if counter.fetch_add(1, Relaxed) >= limit {
            counter.fetch_sub(1, Relaxed);
            self.usage.overflows[resource as usize].fetch_add(1, Relaxed);
            return Err(Exceeded { resource, limit });
        }
        Ok(Permit(Some((Arc::clone(&self.usage), resource))))
    }

    fn take_unchecked(&self, resource: Resource) -> Permit {
        self.usage.in_use[resource as usize].fetch_add(1, Relaxed);
        Permit(Some((Arc::clone(&self.usage), resource)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((usage, resource)) = &self.0 {
            usage.in_use[*resource as usize].fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use mizzen_snapshot::cluster::RetryBudget;

    use super::*;

    #[test]
    fn permits_are_given_back_when_dropped() {
        let breakers = Breakers::new(Limits { max_requests: Some(2), ..Limits::default() });
        let first = breakers.request().unwrap();
        let _second = breakers.request().unwrap();
        assert_eq!(breakers.request().unwrap_err(), Exceeded { resource: Resource::Requests, limit: 2 });
        assert_eq!(breakers.overflows(Resource::Requests), 1);
        drop(first);
        let _third = breakers.request().unwrap();
        assert_eq!(breakers.in_use(Resource::Requests), 2);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let breakers = Breakers::new(Limits::default());
        let _permits: Vec<_> = (0..10).map(|_| breakers.request().unwrap()).collect();
        assert_eq!(breakers.in_use(Resource::Requests), 0);
    }

    #[test]
    fn an_endpoint_without_connections_may_have_one_above_the_limit() {
        let breakers = Breakers::new(Limits { max_connections: Some(1), ..Limits::default() });
        let _first = breakers.connection(true).unwrap();
        assert!(breakers.connection(false).is_err());
        let _other_endpoint = breakers.connection(true).unwrap();
        assert_eq!(breakers.in_use(Resource::Connections), 2);
    }

    #[test]
    fn a_limit_of_zero_refuses_everything() {
        let breakers = Breakers::new(Limits { max_retries: Some(0), ..Limits::default() });
        assert!(breakers.retry().is_err());
    }

    #[test]
    fn a_retry_budget_is_a_share_of_active_requests_with_a_minimum() {
        let budget = RetryBudget { basis_points: 2_000, minimum: 3 };
        let breakers = Breakers::new(Limits { retry_budget: Some(budget), max_retries: Some(1), ..Limits::default() });
        let retries: Vec<_> = (0..3).map(|_| breakers.retry().unwrap()).collect();
        assert!(breakers.retry().is_err(), "the minimum is 3");
        let requests: Vec<_> = (0..20).map(|_| breakers.request().unwrap()).collect();
        let fourth = breakers.retry().unwrap();
        assert!(breakers.retry().is_err(), "20 % of 20 is 4");
        drop((retries, fourth, requests));
        assert_eq!(breakers.in_use(Resource::Retries), 0);
        assert_eq!(breakers.in_use(Resource::Requests), 0);
    }

    #[test]
    fn threads_never_exceed_a_limit() {
        let breakers = Breakers::new(Limits { max_pending_requests: Some(3), ..Limits::default() });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let held = breakers.pending();
                        // Refused ones add before they subtract, so the counter itself may briefly be higher.
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(breakers.in_use(Resource::Pending), 0);
    }
}
