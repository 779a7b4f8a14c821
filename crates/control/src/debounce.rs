//! When to apply changes: a lone one at once, a burst together.
//!
//! The genuine control plane waits 100 ms (at most 10 s) for every change (reference: semantics 7). Here a change that
//! comes in quiet is not kept waiting; only what follows closely is gathered, for a time that grows as long as more
//! keeps coming and is never shorter than applying took.

use std::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(500);
/// No change waits longer than this.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(10);

/// The state of one gatherer of changes.
#[derive(Debug)]
pub(crate) struct Debounce {
    window: Duration,
    /// Until then the last application counts as recent.
    busy_until: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    waiting: u32,
}

impl Debounce {
    pub(crate) const fn new() -> Self {
        Self { window: SHORTEST, busy_until: None, first: None, last: None, waiting: 0 }
    }

    /// A change has come.
    pub(crate) fn arrived(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.waiting += 1;
    }

    /// When what has come is to be applied; `None` when nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        let Some(busy) = self.busy_until.filter(|until| first < *until) else { return Some(first) };
        Some(busy.max(last + self.window).min(first + MAX_WAIT))
    }

    /// Everything that waited has been applied, which took this long.
    pub(crate) fn applied(&mut self, now: Instant, took: Duration) {
        let burst = self.waiting > 1;
        self.window = if burst { (self.window * 2).min(LONGEST) } else { (self.window / 2).max(SHORTEST) };
        self.busy_until = Some(now + self.window.max(took));
        (self.first, self.last, self.waiting) = (None, None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lone_change_does_not_wait() {
        let mut debounce = Debounce::new();
        let mut now = Instant::now();
        for _ in 0..3 {
            debounce.arrived(now);
            assert_eq!(debounce.due(), Some(now));
            debounce.applied(now, MS);
            assert_eq!(debounce.due(), None);
            now += Duration::from_millis(20);
        }
    }

    #[test]
    fn a_burst_is_applied_in_few_steps_and_each_change_soon() {
        let mut debounce = Debounce::new();
        let start = Instant::now();
        let (mut now, mut steps, mut oldest, mut longest) = (start, 0, None, Duration::ZERO);
        // 1000 changes, one each millisecond, each application taking 3 ms.
        for tick in 0..3000 {
            now = start + tick * MS;
            if tick < 1000 {
                debounce.arrived(now);
                oldest.get_or_insert(now);
            }
            if debounce.due().is_some_and(|due| due <= now) {
                longest = longest.max(now - oldest.take().unwrap());
                debounce.applied(now, 3 * MS);
                steps += 1;
            }
        }
        assert_eq!(debounce.due(), None, "nothing is left at {now:?}");
        assert!(steps <= 5, "{steps} steps");
        assert!(longest <= 1100 * MS, "{longest:?}");
    }

    #[test]
    fn an_endless_burst_is_applied_in_time() {
        let mut debounce = Debounce::new();
        let start = Instant::now();
        debounce.arrived(start);
        debounce.applied(start, MS);
        let mut applied = 0;
        for tick in 1..25_000 {
            let now = start + tick * MS;
            debounce.arrived(now);
            if debounce.due().is_some_and(|due| due <= now) {
                debounce.applied(now, MS);
                applied += 1;
            }
        }
        assert!(applied >= 2, "{applied}: at the latest every 10 s");
    }

    #[test]
    fn a_slow_application_is_not_started_again_at_once() {
        let mut debounce = Debounce::new();
        let now = Instant::now();
        debounce.arrived(now);
        debounce.applied(now, 400 * MS);
        debounce.arrived(now + MS);
        assert!(debounce.due().unwrap() >= now + 400 * MS, "half of the time at least is for other work");
    }
}
