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
    /// What each priority could take, in percent of everything: healthy, degraded.
    fitness: [Vec<u32>; 2],
}

impl Loads {
    /// `overprovisioning` in percent (140 by default), `panic_threshold` in percent (50 by default, 0 for never).
    pub(crate) fn new(census: &[Census], overprovisioning: u32, panic_threshold: u32) -> Self {
        let count = census.len();
        let none = vec![0; count];
        let mut loads =
            Self { healthy: none.clone(), degraded: none, panic: vec![false; count], fitness: Default::default() };
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
        loads.fitness = [healthy.clone(), degraded.clone()];

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

    /// What priorities other than those in `left` (a bit for each) can take, in percent of everything.
    pub(crate) fn available_without(&self, left: u128) -> u32 {
        let [healthy, degraded] = self.fitness.each_ref().map(|fitness| without(fitness, left).iter().sum::<u32>());
        (healthy + degraded).min(100)
    }

    /// The loads when those priorities take nothing, of which others there have to be.
    pub(crate) fn without(&self, left: u128) -> Self {
        let available = self.available_without(left).max(1);
        let mut rest = 100;
        let mut loads = Self { panic: self.panic.clone(), ..Self::default() };
        loads.healthy = spread(&without(&self.fitness[0], left), available, &mut rest);
        loads.degraded = spread(&without(&self.fitness[1], left), available, &mut rest);
        let first = loads.healthy.iter_mut().find(|load| **load > 0);
        if let Some(load) = first.or_else(|| loads.degraded.iter_mut().find(|load| **load > 0)) {
            *load += rest;
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

/// Fitness of the priorities that are not in `left`.
fn without(fitness: &[u32], left: u128) -> Vec<u32> {
    let taken = |priority: usize| u32::try_from(priority).is_ok_and(|bit| left.checked_shr(bit).unwrap_or(0) & 1 == 1);
    fitness.iter().enumerate().map(|(priority, fit)| if taken(priority) { 0 } else { *fit }).collect()
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
        let fitness = loads.fitness.clone();
        let expected = Loads { healthy: healthy.into(), degraded: degraded.into(), panic: panic.into(), fitness };
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
    fn priorities_that_were_left_take_nothing() {
        let levels = [(10, 10, 0), (10, 5, 0), (10, 10, 0)];
        let census = levels.map(|(total, healthy, degraded)| Census { total, healthy, degraded });
        let loads = Loads::new(&census, 140, 50);
        assert_eq!(loads.healthy, [100, 0, 0]);
        assert_eq!(loads.without(0b001).healthy, [0, 70, 30]);
        assert_eq!(loads.without(0b011).healthy, [0, 0, 100]);
        assert_eq!(loads.available_without(0b111), 0);
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
