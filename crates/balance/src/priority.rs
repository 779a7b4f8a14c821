//! How much traffic each priority gets (Envoy: "priority levels", "panic threshold", "degraded endpoints").

/// What one priority has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Census {
    pub(crate) total: usize,
    pub(crate) healthy: usize,
    pub(crate) degraded: usize,
}

/// Loads in percent; the sum over both lists is 100 as soon as there is a priority.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Loads {
    pub(crate) healthy: Vec<u32>,
    pub(crate) degraded: Vec<u32>,
    /// Health is ignored in this priority.
    pub(crate) panic: Vec<bool>,
}

impl Loads {
    /// `overprovisioning` in percent (140 by default), `panic_threshold` in percent (50 by default, 0 for never).
    pub(crate) fn new(census: &[Census], overprovisioning: u32, panic_threshold: u32) -> Self {
        let count = census.len();
        let mut loads = Self { healthy: vec![0; count], degraded: vec![0; count], panic: vec![false; count] };
        if count == 0 {
            return loads;
        }
        let share = |part: usize, total: usize| {
            if total == 0 { 0 } else { (u64::from(overprovisioning) * part as u64 / total as u64).min(100) as u32 }
        };
        let healthy: Vec<u32> = census.iter().map(|level| share(level.healthy, level.total)).collect();
        let degraded: Vec<u32> = census.iter().map(|level| share(level.degraded, level.total)).collect();
        let available = (healthy.iter().sum::<u32>() + degraded.iter().sum::<u32>()).min(100);
        let threshold = panic_threshold.min(100);

        if available > 0 {
            let mut left = 100;
            loads.healthy = spread(&healthy, available, &mut left);
            loads.degraded = spread(&degraded, available, &mut left);
            // What rounding left over goes to the first level that takes any.
            let first = loads.healthy.iter_mut().find(|load| **load > 0);
            if let Some(load) = first.or_else(|| loads.degraded.iter_mut().find(|load| **load > 0)) {
                *load += left;
            }
        } else if threshold == 0 {
            // Nobody is there and health must not be ignored: the pick in the first priority finds none.
            loads.healthy[0] = 100;
            return loads;
        }

        if available < 100 {
            for (panic, level) in loads.panic.iter_mut().zip(census) {
                let fit = (100 * (level.healthy + level.degraded)).checked_div(level.total).unwrap_or(0);
                *panic = fit < threshold as usize;
            }
        }
        if loads.panic.iter().all(|panic| *panic) {
            loads.spread_by_size(census);
        }
        loads
    }

    /// Every priority is in panic: each gets traffic by its number of endpoints.
    fn spread_by_size(&mut self, census: &[Census]) {
        self.degraded.fill(0);
        self.healthy.fill(0);
        let total: usize = census.iter().map(|level| level.total).sum();
        if total == 0 {
            self.healthy[0] = 100;
            return;
        }
        for (load, level) in self.healthy.iter_mut().zip(census) {
            *load = (100 * level.total / total) as u32;
        }
        let left = 100 - self.healthy.iter().sum::<u32>();
        if let Some(load) = self.healthy.iter_mut().find(|load| **load > 0) {
            *load += left;
        }
    }

    /// The priority for a `draw`, and whether its degraded endpoints are meant.
    pub(crate) fn choose(&self, draw: u64) -> (usize, bool) {
        let at = (draw % 100) as u32;
        let mut sum = 0;
        for (loads, degraded) in [(&self.healthy, false), (&self.degraded, true)] {
            for (priority, load) in loads.iter().enumerate() {
                sum += load;
                if at < sum {
                    return (priority, degraded);
                }
            }
        }
        (0, false)
    }
}

fn spread(fitness: &[u32], available: u32, left: &mut u32) -> Vec<u32> {
    fitness
        .iter()
        .map(|fit| {
            let load = (fit * 100 / available).min(*left);
            *left -= load;
            load
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Census, Loads};

    /// Levels as (total, healthy, degraded).
    #[track_caller]
    fn check(levels: &[(usize, usize, usize)], threshold: u32, healthy: &[u32], degraded: &[u32], panic: &[bool]) {
        let census: Vec<Census> = levels
            .iter()
            .map(|(total, healthy, degraded)| Census { total: *total, healthy: *healthy, degraded: *degraded })
            .collect();
        let loads = Loads::new(&census, 140, threshold);
        let expected = Loads { healthy: healthy.into(), degraded: degraded.into(), panic: panic.into() };
        assert_eq!(loads, expected, "{levels:?} with threshold {threshold}");
    }

    /// The first table is the one in Envoy's documentation of priority levels.
    #[test]
    fn loads_are_those_of_envoys_documentation() {
        for (healthy, p0, p1) in [(100, 100, 0), (72, 100, 0), (71, 99, 1), (50, 70, 30), (25, 35, 65), (0, 0, 100)] {
            check(&[(100, healthy, 0), (100, 100, 0)], 0, &[p0, p1], &[0, 0], &[false, false]);
        }
        for (first, second, p0, p1) in [(25, 25, 50, 50), (25, 0, 100, 0), (5, 65, 8, 92)] {
            check(&[(100, first, 0), (100, second, 0)], 0, &[p0, p1], &[0, 0], &[false, false]);
        }
    }

    #[test]
    fn degraded_endpoints_take_what_healthy_ones_cannot() {
        check(&[(10, 10, 0)], 50, &[100], &[0], &[false]);
        check(&[(10, 5, 5)], 50, &[70], &[30], &[false]);
        check(&[(10, 0, 10)], 50, &[0], &[100], &[false]);
    }

    #[test]
    fn below_the_threshold_health_is_ignored() {
        check(&[(10, 4, 0)], 50, &[100], &[0], &[true]);
        check(&[(10, 5, 0)], 50, &[100], &[0], &[false]);
        check(&[(10, 0, 0)], 50, &[100], &[0], &[true]);
        // Istio's threshold of 0: never.
        check(&[(10, 0, 0)], 0, &[100], &[0], &[false]);
        check(&[(10, 1, 0)], 0, &[100], &[0], &[false]);
        // Enough endpoints elsewhere: no panic in the weak level.
        check(&[(10, 1, 0), (10, 10, 0)], 50, &[14, 86], &[0, 0], &[false, false]);
        // Everything in panic: by size.
        check(&[(30, 1, 0), (10, 1, 0)], 50, &[75, 25], &[0, 0], &[true, true]);
    }

    #[test]
    fn an_empty_set_has_a_load_and_finds_nobody() {
        check(&[], 50, &[], &[], &[]);
        check(&[(0, 0, 0)], 50, &[100], &[0], &[true]);
        check(&[(0, 0, 0), (2, 2, 0)], 50, &[0, 100], &[0, 0], &[false, false]);
    }
}
