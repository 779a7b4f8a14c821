//! A share of requests.

use std::fmt;

/// A percentage with a resolution of one in a million (Envoy's finest `FractionalPercent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Percent {
    per_million: u32,
}

impl Percent {
    pub const NEVER: Self = Self { per_million: 0 };
    pub const ALWAYS: Self = Self { per_million: 1_000_000 };

    /// Parts of a million; more than a million means always.
    pub fn per_million(parts: u32) -> Self {
        Self { per_million: parts.min(1_000_000) }
    }

    /// A percentage from 0 to 100. `None` when it is outside of that, or not a number.
    pub fn from_percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then(|| Self::per_million((percent * 10_000.0).round() as u32))
    }

    /// Whether a draw from `0..1_000_000` falls into the share.
    pub fn hit(self, draw: u32) -> bool {
        draw % 1_000_000 < self.per_million
    }

    pub fn parts_per_million(self) -> u32 {
        self.per_million
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.per_million) / 10_000.0)
    }
}
