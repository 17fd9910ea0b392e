//! Settings of a store: deadlines, retries and limits. Values only; nothing here does anything.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{StoreError, StoreErrorKind};
use crate::units::{ByteSize, Span};

/// Settings of one store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Time to establish a connection. Default: `"5s"`.
    pub connect_timeout: Span,
    /// Time from sending one request to the first byte of its answer (for listings: to its last
    /// byte). Default: `"20s"`.
    pub attempt_timeout: Span,
    /// A body that brings less than 64 KiB (or its rest) in this time is cut off and resumed.
    /// Default: `"10s"`.
    pub stall_timeout: Span,
    /// Time one operation may wait for the store, all attempts together. Reads get one second
    /// more per 128 KiB. Default: `"60s"`.
    pub deadline: Span,
    /// Attempts per operation without progress, the first one included. Default: `10`.
    pub attempts: u32,
    /// First pause between two attempts; doubles, with jitter, up to 5 s. Default: `"100ms"`.
    pub backoff: Span,
    /// Retries all operations together may do at once. Default: `64`.
    pub retry_burst: u32,
    /// Retries per second the budget regains. Default: `8`.
    pub retries_per_second: u32,
    /// Data requests in flight at once. Default: `64`.
    pub concurrency: u32,
    /// Metadata requests (head, list) in flight at once. Default: `32`.
    pub metadata_concurrency: u32,
    /// Bytes read per second; `"0B"` is no limit. Default: `"0B"`.
    pub bandwidth: ByteSize,
    /// Seed of the jitter; tests set it to repeat a run. Not part of the file.
    #[serde(skip)]
    pub jitter_seed: Option<u64>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Span(Duration::from_secs(5)),
            attempt_timeout: Span(Duration::from_secs(20)),
            stall_timeout: Span(Duration::from_secs(10)),
            deadline: Span(Duration::from_secs(60)),
            attempts: 10,
            backoff: Span(Duration::from_millis(100)),
            retry_burst: 64,
            retries_per_second: 8,
            concurrency: 64,
            metadata_concurrency: 32,
            bandwidth: ByteSize(0),
            jitter_seed: None,
        }
    }
}

impl StoreConfig {
    /// Checks that the values can work; names the first field that cannot.
    pub fn check(&self) -> Result<(), StoreError> {
        let counts = [
            ("attempts", self.attempts),
            ("retry_burst", self.retry_burst),
            ("retries_per_second", self.retries_per_second),
            ("concurrency", self.concurrency),
            ("metadata_concurrency", self.metadata_concurrency),
        ];
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("attempt_timeout", self.attempt_timeout),
            ("stall_timeout", self.stall_timeout),
            ("deadline", self.deadline),
        ];
        let bad_count = counts
            .iter()
            .find(|(_, value)| !(1..=65_536).contains(value));
        let bad_time = times
            .iter()
            .find(|(_, value)| value.0 < Duration::from_millis(1));
        let reason = match (bad_count, bad_time) {
            (Some((name, _)), _) => format!("must be 1 to 65536 field={name}"),
            (None, Some((name, _))) => format!("must be at least 1ms field={name}"),
            (None, None) => return Ok(()),
        };
        Err(StoreError {
            kind: StoreErrorKind::Invalid,
            operation: "check configuration",
            target: "store".to_string(),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    // Without it a misspelt or impossible setting would be taken silently.
    #[test]
    fn settings_are_checked() {
        StoreConfig::default().check().unwrap();
        let none = StoreConfig {
            concurrency: 0,
            ..StoreConfig::default()
        };
        assert!(none.check().unwrap_err().reason.contains("concurrency"));
        let none = StoreConfig {
            deadline: Span(Duration::ZERO),
            ..StoreConfig::default()
        };
        assert!(none.check().unwrap_err().reason.contains("deadline"));
        let parsed: StoreConfig = serde_json::from_str(r#"{"deadline": "2s"}"#).unwrap();
        assert_eq!(parsed.deadline.0, Duration::from_secs(2));
        assert!(serde_json::from_str::<StoreConfig>(r#"{"deadlin": "2s"}"#).is_err());
    }
}
