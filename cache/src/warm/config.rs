//! Settings of the warm tier. Values only; components are passed to constructors.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hot::BLOCK;
use crate::identity::DatasetKey;
use crate::units::{ByteSize, Span};

/// A shared directory and how hard it may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmConfig {
    /// The directory, the same for all nodes. Default: empty, which is refused.
    pub dir: PathBuf,
    /// Datasets whose objects are copied, by name; empty means all. Default: empty.
    pub datasets: Vec<String>,
    /// Most bytes per second that this daemon writes to the directory; 0B means no limit.
    /// Default: 0B.
    pub bandwidth: ByteSize,
    /// Most bytes that copies may take, for all nodes together; 0B means no limit. Default: 0B.
    pub budget: ByteSize,
    /// Silence after which another daemon takes over a fill. Default: 10s.
    pub lease_ttl: Span,
    /// Longest wait of a reader for one block of a running fill before it reads from the store by
    /// itself. Default: 5s.
    pub wait: Span,
    /// Longest time of one file operation. Default: 5s.
    pub deadline: Span,
    /// Threads for file operations. Default: 16.
    pub io_threads: usize,
    /// Bytes of fills on their way in. Default: 64MiB.
    pub in_flight: ByteSize,
    /// Length of one ranged read of a fill. Default: 8MiB.
    pub part: ByteSize,
    /// Ranged reads at once for the fill of one object. Default: 6.
    pub parts_per_object: usize,
    /// Time between two looks for space to free and for left-over files. Default: 10m.
    pub sweep: Span,
}

impl Default for WarmConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            datasets: Vec::new(),
            bandwidth: ByteSize(0),
            budget: ByteSize(0),
            lease_ttl: Span(Duration::from_secs(10)),
            wait: Span(Duration::from_secs(5)),
            deadline: Span(Duration::from_secs(5)),
            io_threads: 16,
            in_flight: ByteSize(64 << 20),
            part: ByteSize(8 << 20),
            parts_per_object: 6,
            sweep: Span(Duration::from_secs(600)),
        }
    }
}

impl WarmConfig {
    /// Checks ranges; the message names the field and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        if !self.dir.is_absolute() {
            let dir = self.dir.display();
            return Err(format!("dir is `{dir}`; it must be an absolute path"));
        }
        if self.part.0 < BLOCK || self.in_flight.0 < self.part.0 || self.in_flight.0 > 1 << 40 {
            let (part, in_flight) = (self.part, self.in_flight);
            return Err(format!(
                "part is {part} and in_flight {in_flight}; 1MiB <= part <= in_flight <= 1TiB"
            ));
        }
        for (name, value, range) in [
            ("io_threads", self.io_threads, 1..=256),
            ("parts_per_object", self.parts_per_object, 1..=64),
        ] {
            if !range.contains(&value) {
                let (low, high) = range.into_inner();
                return Err(format!(
                    "{name} is {value}; it must be between {low} and {high}"
                ));
            }
        }
        for (name, span) in [
            ("lease_ttl", self.lease_ttl),
            ("wait", self.wait),
            ("deadline", self.deadline),
            ("sweep", self.sweep),
        ] {
            if span.0 < Duration::from_millis(100) {
                return Err(format!("{name} is {span}; it must be at least 100ms"));
            }
        }
        Ok(())
    }

    /// Whether objects of `dataset` are copied to this tier.
    pub fn covers(&self, dataset: &DatasetKey) -> bool {
        self.datasets.is_empty() || self.datasets.iter().any(|name| **name == *dataset.name())
    }
}
