//! How long to wait before a process that ended by itself is started again. Pure: time and chance are arguments.

use std::time::Duration;

/// Exponential back-off with jitter; a process that ran well for a while starts afresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// A run at least this long counts as a success.
    settled: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(30),
            settled: Duration::from_secs(30),
            failures: 0,
        }
    }
}

impl Backoff {
    /// The pause after a run that lasted `ran`. `draw` is a random number from 0 to 1: the pause is between 75 % and
    /// 125 % of the doubling sequence, so that children that died together do not come back together.
    pub fn next(&mut self, ran: Duration, draw: f64) -> Duration {
        if ran >= self.settled {
            self.failures = 0;
        }
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.longest).mul_f64(0.75 + 0.5 * draw.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10).map(|_| backoff.next(Duration::ZERO, MIDDLE).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for draw in [0.0, 0.1, 0.9, 1.0, 7.0, -1.0] {
            let pause = Backoff::default().next(Duration::ZERO, draw).as_millis();
            assert!((150..=250).contains(&pause), "{pause} ms for {draw}");
        }
    }

    #[test]
    fn a_long_run_starts_afresh() {
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.next(Duration::from_secs(1), MIDDLE);
        }
        assert_eq!(backoff.next(Duration::from_secs(60), MIDDLE), Duration::from_millis(200));
    }

    #[test]
    fn thousands_of_failures_do_not_overflow() {
        let mut backoff = Backoff::default();
        for _ in 0..5000 {
            assert!(backoff.next(Duration::ZERO, MIDDLE) <= Duration::from_secs(38));
        }
    }
}
