//! Monotonic time as a number that fits an atomic.

use std::time::{Duration, Instant};

/// Nanoseconds since an origin that the caller chooses once (process start, say). All calls to one balancer must use
/// the same origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    pub const ZERO: Self = Self(0);

    /// The time `now` as seen from `origin`.
    pub fn between(origin: Instant, now: Instant) -> Self {
        Self::after(now.saturating_duration_since(origin))
    }

    pub fn after(since_origin: Duration) -> Self {
        Self(u64::try_from(since_origin.as_nanos()).unwrap_or(u64::MAX))
    }

    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}
