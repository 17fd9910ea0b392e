//! Which files move without being asked. Values and arithmetic; no I/O.
//!
//! A file is *chosen* when it is old enough, large enough, of a path that is included and not
//! excluded, and not pinned. With marks of how full the file system may be, nothing moves below the
//! high one, and above it the coldest of the chosen move until the low one is reached: a first walk
//! counts bytes by age in [`Ages`], which is as large for ten million files as for ten, and says how
//! old a file has to be; a second one moves those.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use terrace_cache::units::{ByteSize, Span};

use super::pattern::matches;

/// What moves without being asked. One document of YAML or JSON; see `docs/OPERATIONS.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TierPolicy {
    /// Neither read nor written for so long. Default: 30d.
    pub older_than: Span,
    /// At least so large. Default: 1MiB.
    pub larger_than: ByteSize,
    /// Patterns of paths; a file has to be of one of them. Default: all.
    pub include: Vec<String>,
    /// Patterns of paths that stay. Default: none.
    pub exclude: Vec<String>,
    /// Nothing moves while less of the file system is used, percent. Default: moves at any time.
    pub high: Option<u8>,
    /// Above `high`, files move until no more than this is used, percent. Default: 10 below `high`.
    pub low: Option<u8>,
    /// Time between two scans; `0s`: only when asked. Default: 1h.
    pub every: Span,
}

impl Default for TierPolicy {
    fn default() -> Self {
        Self {
            older_than: Span(Duration::from_secs(30 * 24 * 3600)),
            larger_than: ByteSize(1 << 20),
            include: Vec::new(),
            exclude: Vec::new(),
            high: None,
            low: None,
            every: Span(Duration::from_secs(3600)),
        }
    }
}

/// A policy that cannot be meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A mark that is no percentage, or marks in the wrong order.
    #[error("high is {high} and low {low}; allowed are 0 <= low < high <= 100")]
    Marks {
        /// As given.
        high: u8,
        /// As given, or by default.
        low: u8,
    },
    /// A low mark alone.
    #[error("low is given without high")]
    LowAlone,
    /// A scan would begin before the last one has ended.
    #[error("every is {0}; at least 10s, or 0s for never")]
    TooOften(Span),
}

impl TierPolicy {
    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), PolicyError> {
        match (self.high, self.low) {
            (None, Some(_)) => return Err(PolicyError::LowAlone),
            (Some(high), _) if high > 100 || self.low_mark(high) >= high => {
                let low = self.low_mark(high);
                return Err(PolicyError::Marks { high, low });
            }
            _ => {}
        }
        if !self.every.0.is_zero() && self.every.0 < Duration::from_secs(10) {
            return Err(PolicyError::TooOften(self.every));
        }
        Ok(())
    }

    fn low_mark(&self, high: u8) -> u8 {
        self.low.unwrap_or_else(|| high.saturating_sub(10))
    }

    /// Whether a file of this path, length and age may go.
    pub(super) fn chooses(&self, path: &[u8], size: u64, age: Duration) -> bool {
        let one_of = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
        size > 0
            && size >= self.larger_than.0
            && age >= self.older_than.0
            && (self.include.is_empty() || one_of(&self.include))
            && !one_of(&self.exclude)
    }

    /// How many bytes have to go from a file system of which `used` of `total` bytes are used; none:
    /// all that is chosen.
    pub(super) fn need(&self, used: u64, total: u64) -> Option<u64> {
        let high = self.high?;
        let mark = |percent: u8| (u128::from(total) * u128::from(percent) / 100) as u64;
        if used <= mark(high) {
            return Some(0);
        }
        Some(used.saturating_sub(mark(self.low_mark(high))))
    }
}

/// Steps of [`Ages`] for each doubling: an age is known to 5 %.
const STEPS: f64 = 16.0;

/// Bytes of files by age, in [`STEPS`] steps for each doubling of seconds.
#[derive(Debug)]
pub(super) struct Ages([u64; 640]);

impl Default for Ages {
    fn default() -> Self {
        Self([0; 640])
    }
}

impl Ages {
    fn step(age: Duration) -> usize {
        let step = ((age.as_secs() + 1) as f64).log2() * STEPS;
        (step as usize).min(639)
    }

    /// Counts a file.
    pub(super) fn add(&mut self, age: Duration, bytes: u64) {
        let sum = &mut self.0[Self::step(age)];
        *sum = sum.saturating_add(bytes);
    }

    /// The age from which on files have `need` bytes together, or all that there are.
    pub(super) fn cut(&self, need: u64) -> Duration {
        let mut sum = 0_u64;
        for step in (0..self.0.len()).rev() {
            sum = sum.saturating_add(self.0[step]);
            if sum >= need {
                let seconds = (step as f64 / STEPS).exp2() - 1.0;
                return Duration::from_secs(seconds.floor().max(0.0) as u64);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * 24 * 3600)
    }

    // Without it files would move that are in use, small, or excluded.
    #[test]
    fn all_conditions_have_to_hold() {
        let policy: TierPolicy = serde_json::from_str(
            r#"{"older_than": "7d", "larger_than": "1KiB", "include": ["runs/**"],
                "exclude": ["*.json"]}"#,
        )
        .unwrap();
        policy.check().unwrap();
        assert!(policy.chooses(b"runs/a/model.bin", 1024, days(7)));
        assert!(!policy.chooses(b"runs/a/model.bin", 1023, days(7)));
        assert!(!policy.chooses(b"runs/a/model.bin", 1024, days(6)));
        assert!(!policy.chooses(b"other/model.bin", 1024, days(7)));
        assert!(!policy.chooses(b"runs/a/log.json", 1024, days(7)));
    }

    // Without it a mistake in a policy would empty a file system, or do nothing for ever.
    #[test]
    fn marks_are_checked_and_kept() {
        let with = |high, low| TierPolicy {
            high,
            low,
            ..TierPolicy::default()
        };
        assert!(with(None, Some(5)).check().is_err());
        assert!(with(Some(101), None).check().is_err());
        assert!(with(Some(50), Some(50)).check().is_err());
        assert!(with(Some(0), None).check().is_err());
        with(Some(100), Some(0)).check().unwrap();
        let policy = with(Some(80), Some(60));
        assert_eq!(policy.need(80, 100), Some(0));
        assert_eq!(policy.need(81, 100), Some(21));
        assert_eq!(with(None, None).need(99, 100), None);
        assert!(serde_json::from_str::<TierPolicy>(r#"{"hihg": 3}"#).is_err());
    }

    // Without it a full file system would not get its space, or warm files would go before cold ones.
    #[test]
    fn the_coldest_go_first() {
        let mut ages = Ages::default();
        for (age, bytes) in [(1, 100), (10, 100), (100, 100), (1000, 100)] {
            ages.add(days(age), bytes);
        }
        let chosen = |need| {
            let cut = ages.cut(need);
            [1, 10, 100, 1000].map(|age| days(age) >= cut)
        };
        assert_eq!(chosen(1), [false, false, false, true]);
        assert_eq!(chosen(101), [false, false, true, true]);
        assert_eq!(chosen(300), [false, true, true, true]);
        assert_eq!(chosen(1000), [true; 4]);
    }
}
