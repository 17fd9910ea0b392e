//! Settings of the fill engine. Values only; components are passed to [`Cache::new`].
//!
//! [`Cache::new`]: super::Cache::new

use serde::{Deserialize, Serialize};

use crate::hot::BLOCK;
use crate::units::ByteSize;

/// Limits of memory and parallelism of all objects of one [`Cache`](super::Cache).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Recently fetched blocks kept in memory, so that a reader does not wait for the disk; the
    /// only home of objects that are not admitted to the hot tier. Default: 64MiB.
    pub window: ByteSize,
    /// Bytes that arrived and are not yet in the hot tier. A quarter is reserved for what readers
    /// wait for. Default: 64MiB.
    pub in_flight: ByteSize,
    /// Length of one ranged read of a fill or of full readahead. Default: 8MiB.
    pub part: ByteSize,
    /// Ranged reads at once for the fill of one object. Default: 6.
    pub parts_per_object: usize,
    /// Most bytes fetched ahead of one sequential reader; less when several read at once, so that
    /// all of them together use half of `window`. Default: 32MiB.
    pub readahead: ByteSize,
    /// Bytes read in sequence after which the reader is taken to want the whole object.
    /// Default: 16MiB.
    pub whole_after: ByteSize,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            window: ByteSize(64 << 20),
            in_flight: ByteSize(64 << 20),
            part: ByteSize(8 << 20),
            parts_per_object: 6,
            readahead: ByteSize(32 << 20),
            whole_after: ByteSize(16 << 20),
        }
    }
}

impl CacheConfig {
    /// Checks ranges; the message names the field and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let least = |name: &str, value: ByteSize, blocks: u64| {
            let floor = ByteSize(blocks * BLOCK);
            if value < floor {
                return Err(format!("{name} is {value}; it must be at least {floor}"));
            }
            Ok(())
        };
        least("window", self.window, 4)?;
        least("in_flight", self.in_flight, 8)?;
        least("part", self.part, 1)?;
        if !(1..=64).contains(&self.parts_per_object) {
            let given = self.parts_per_object;
            return Err(format!(
                "parts_per_object is {given}; it must be between 1 and 64"
            ));
        }
        Ok(())
    }

    /// Blocks of one full part, at least 1.
    pub(super) fn part_blocks(&self) -> u32 {
        blocks(self.part).max(1)
    }

    /// Most blocks ahead of one reader when `streams` of them read ahead.
    pub(super) fn ahead_blocks(&self, streams: usize) -> u32 {
        let share = blocks(self.window) / 2 / u32::try_from(streams.max(1)).unwrap_or(u32::MAX);
        blocks(self.readahead).min(share)
    }

    /// Length of a sequential run that asks for the whole object.
    pub(super) fn whole_after_blocks(&self) -> u32 {
        blocks(self.whole_after).max(1)
    }
}

fn blocks(size: ByteSize) -> u32 {
    u32::try_from(size.0 / BLOCK).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it many readers at once would push each other's blocks out of the window before
    // they are read, and every byte would be fetched several times.
    #[test]
    fn readers_share_half_of_the_window() {
        let config = CacheConfig::default();
        for (streams, expected) in [(0, 32), (1, 32), (2, 16), (5, 6), (32, 1), (1000, 0)] {
            assert_eq!(config.ahead_blocks(streams), expected, "{streams} streams");
        }
    }

    // Without it a typo in the configuration would leave an engine that cannot hold one block.
    #[test]
    fn limits_below_the_unit_of_fill_are_refused_by_name() {
        assert_eq!(CacheConfig::default().check(), Ok(()));
        let small = CacheConfig {
            window: ByteSize(1),
            ..CacheConfig::default()
        };
        assert!(small.check().is_err_and(|e| e.contains("window")));
        let none = CacheConfig {
            parts_per_object: 0,
            ..CacheConfig::default()
        };
        assert!(none.check().is_err_and(|e| e.contains("parts_per_object")));
    }
}
