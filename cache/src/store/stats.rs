//! Counters of one store; bounded by construction (operations x outcomes).

use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreErrorKind;

/// What was asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Head,
    List,
    Read,
    Write,
    Remove,
}

const OPERATIONS: [&str; 5] = ["head", "list", "read", "write", "remove"];

const OUTCOMES: [&str; 8] = [
    "ok",
    "not_found",
    "permission",
    "throttled",
    "unreachable",
    "changed",
    "corrupt",
    "invalid",
];

impl Operation {
    /// Verb phrase of error messages.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::List => "list",
            Self::Read => "read range",
            Self::Write => "write",
            Self::Remove => "remove",
        }
    }
}

/// Live counters. Relaxed: they are statistics, nothing is decided by them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: [[AtomicU64; 8]; 5],
    pub(super) bytes: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) hidden_keys: AtomicU64,
}

/// Number of requests of one kind that ended in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// `head`, `list`, `read`, `write` or `remove`.
    pub operation: &'static str,
    /// `ok`, or the kind of the error in snake case.
    pub outcome: &'static str,
    /// Requests since the store was opened.
    pub count: u64,
}

/// Counters of a store since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Requests by operation and outcome; every attempt counts. Only non-zero ones.
    pub requests: Vec<RequestCount>,
    /// Bytes handed to callers.
    pub bytes: u64,
    /// Attempts after the first one.
    pub retries: u64,
    /// Answers that asked to slow down.
    pub throttled: u64,
    /// Requests the store is working on now.
    pub in_flight: u64,
    /// Keys left out of listings because no path can name them (empty or non-UTF-8 component).
    pub hidden_keys: u64,
}

impl Counters {
    pub(super) fn record(&self, operation: Operation, outcome: Result<(), StoreErrorKind>) {
        let column = match outcome {
            Ok(()) => 0,
            Err(StoreErrorKind::NotFound) => 1,
            Err(StoreErrorKind::Permission) => 2,
            Err(StoreErrorKind::Throttled) => 3,
            Err(StoreErrorKind::Unreachable) => 4,
            Err(StoreErrorKind::Changed) => 5,
            Err(StoreErrorKind::Corrupt) => 6,
            Err(StoreErrorKind::Invalid) => 7,
        };
        self.requests[operation as usize][column].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> StoreStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut requests = Vec::new();
        for (row, operation) in self.requests.iter().zip(OPERATIONS) {
            for (counter, outcome) in row.iter().zip(OUTCOMES) {
                let count = load(counter);
                if count > 0 {
                    requests.push(RequestCount {
                        operation,
                        outcome,
                        count,
                    });
                }
            }
        }
        StoreStats {
            throttled: requests
                .iter()
                .filter(|request| request.outcome == "throttled")
                .map(|request| request.count)
                .sum(),
            requests,
            bytes: load(&self.bytes),
            retries: load(&self.retries),
            in_flight: load(&self.in_flight),
            hidden_keys: load(&self.hidden_keys),
        }
    }
}

impl StoreStats {
    /// All requests of `operation` (as [`RequestCount::operation`]), whatever came of them.
    pub fn requests_of(&self, operation: &str) -> u64 {
        self.requests
            .iter()
            .filter(|request| request.operation == operation)
            .map(|request| request.count)
            .sum()
    }
}
