//! Histograms with Envoy's default buckets, which Istio's metrics use for milliseconds and bytes alike.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds, doubled so that the first, 0.5, is whole.
const DOUBLED_BOUNDS: [u64; 19] = [
    1, 2, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000, 600_000, 1_200_000,
    3_600_000, 7_200_000,
];

#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// The last one is for what is above all bounds. Not cumulative.
    buckets: [AtomicU64; 20],
    sum: AtomicU64,
}

impl Histogram {
    /// Adds a value that is given in parts of the unit: `scale` of them make one unit of the bounds.
    pub(super) fn add(&self, value: u64, scale: u64) {
        let doubled = value.saturating_mul(2);
        let bucket = DOUBLED_BOUNDS.partition_point(|bound| bound * scale < doubled);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Writes all samples; `unit` is what the sum is divided by.
    pub(super) fn write(&self, out: &mut String, name: &str, labels: &str, unit: f64) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(DOUBLED_BOUNDS) {
            count += bucket.load(Relaxed);
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {count}", bound as f64 / 2.0);
        }
        count += self.buckets[DOUBLED_BOUNDS.len()].load(Relaxed);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum.load(Relaxed) as f64 / unit);
        let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        for (micros, le) in
            [(0, "0.5"), (500, "0.5"), (501, "1"), (1_000, "1"), (1_001, "5"), (3_600_000_000, "3600000")]
        {
            let histogram = Histogram::default();
            histogram.add(micros, 1000);
            let mut out = String::new();
            histogram.write(&mut out, "x", "", 1000.0);
            let first = out.lines().find(|line| line.ends_with(" 1")).unwrap();
            assert_eq!(first, format!("x_bucket{{le=\"{le}\"}} 1"), "{micros}");
            assert!(out.contains(&format!("x_sum{{}} {}\n", micros as f64 / 1000.0)), "{out}");
        }
        let above = Histogram::default();
        above.add(u64::MAX, 1000);
        let mut out = String::new();
        above.write(&mut out, "x", "", 1.0);
        assert!(out.contains("x_bucket{le=\"3600000\"} 0\n") && out.contains("x_bucket{le=\"+Inf\"} 1\n"));
    }
}
