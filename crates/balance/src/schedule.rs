//! Weighted round robin that several threads share without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Stride weights are scaled so that the highest becomes this.
const STRIDE: u64 = u16::MAX as u64;
/// How many turns a stride schedule may need on average before it is replaced by intervals.
const MAX_TURNS: u64 = 8;
/// The golden ratio as a fraction of 2^64: its multiples are spread as evenly as multiples of anything can be.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hands out the indexes `0..n` in turn, each as often as its weight says, evenly spread. One shared counter is all
/// the state there is.
#[derive(Debug)]
pub(crate) struct Schedule {
    turn: AtomicU64,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Equal(u64),
    /// In generation `g`, index `i` has its turn when `weight * g` has passed another multiple of [`STRIDE`]: exact over
    /// each cycle, at the price of skipped turns for the light ones.
    Stride(Box<[u64]>),
    /// For very uneven weights: upper bounds of consecutive intervals, hit by an evenly spread sequence of points.
    Intervals(Box<[u64]>),
}

impl Schedule {
    /// A schedule over `weights`, which must not be empty. Weights of zero count as one, as in Envoy. `start` is where
    /// in the cycle to begin, so that many proxies do not all begin with the same endpoint.
    pub(crate) fn new(weights: &[u32], start: u64) -> Self {
        let weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight).max(1)).collect();
        let count = weights.len().max(1) as u64;
        let highest = weights.iter().copied().max().unwrap_or(1);
        let total: u64 = weights.iter().sum();
        let compiled = if weights.iter().all(|weight| *weight == highest) {
            Weights::Equal(count)
        } else if highest * count <= MAX_TURNS * total {
            Weights::Stride(weights.iter().map(|weight| (weight * STRIDE / highest).max(1)).collect())
        } else {
            let mut sum = 0;
            Weights::Intervals(
                weights
                    .iter()
                    .map(|weight| {
                        sum += weight;
                        sum
                    })
                    .collect(),
            )
        };
        // The start stays small: generations are multiplied with weights.
        Self { turn: AtomicU64::new(start & 0xFFFF_FFFF), weights: compiled }
    }

    pub(crate) fn is_equal(&self) -> bool {
        matches!(self.weights, Weights::Equal(_))
    }

    pub(crate) fn next(&self) -> usize {
        match &self.weights {
            Weights::Equal(count) => (self.turn.fetch_add(1, Relaxed) % count) as usize,
            Weights::Stride(weights) => {
                let count = weights.len() as u64;
                loop {
                    let turn = self.turn.fetch_add(1, Relaxed);
                    let index = (turn % count) as usize;
                    let generation = turn / count;
                    let weight = weights[index];
                    // Half a stride apart for neighbours, so that equally light ones do not all come in one generation.
                    let offset = STRIDE / 2 * index as u64;
                    if (weight.wrapping_mul(generation).wrapping_add(offset)) % STRIDE >= STRIDE - weight {
                        return index;
                    }
                }
            }
            Weights::Intervals(bounds) => {
                let point = self.turn.fetch_add(1, Relaxed).wrapping_mul(GOLDEN);
                let total = bounds.last().copied().unwrap_or(1);
                let at = ((u128::from(point) * u128::from(total)) >> 64) as u64;
                bounds.partition_point(|bound| *bound <= at).min(bounds.len() - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[track_caller]
    fn check(weights: &[u32], cycles: u32, tolerance: f64) {
        let schedule = Schedule::new(weights, 0);
        let total: u32 = weights.iter().map(|weight| (*weight).max(1)).sum();
        let mut hits = vec![0u32; weights.len()];
        for _ in 0..total * cycles {
            hits[schedule.next()] += 1;
        }
        for (index, hit) in hits.iter().enumerate() {
            let expected = f64::from(weights[index].max(1) * cycles);
            assert!(
                (f64::from(*hit) - expected).abs() <= tolerance,
                "{weights:?}: index {index} had {hit} of {expected}"
            );
        }
    }

    #[test]
    fn every_index_has_its_share() {
        check(&[1], 10, 0.0);
        check(&[1, 1, 1], 10, 0.0);
        check(&[7, 7], 3, 0.0);
        check(&[3, 1], 10, 1.0);
        check(&[90, 10], 10, 1.0);
        check(&[5, 3, 2], 20, 1.0);
        check(&[0, 1], 10, 0.0);
        let mut skewed = vec![1; 200];
        skewed[77] = 2_000;
        check(&skewed, 20, 8.0);
    }

    #[test]
    fn turns_are_spread_and_not_in_blocks() {
        let schedule = Schedule::new(&[3, 1], 0);
        let turns: Vec<usize> = (0..40).map(|_| schedule.next()).collect();
        let longest = turns.split(|index| *index == 1).map(<[usize]>::len).max();
        assert_eq!(longest, Some(3), "{turns:?}");
    }

    #[test]
    fn threads_share_one_cycle() {
        let schedule = Schedule::new(&[1, 1, 1, 1], 5);
        let hits: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..100).map(|_| schedule.next()).collect::<Vec<_>>())).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        for index in 0..4 {
            assert_eq!(hits.iter().filter(|hit| **hit == index).count(), 100);
        }
    }
}
