//! Signals that wait for a look: bounded, and the same table waits once.
//!
//! A signal only ever means "look soon", so two of them for one table are one. When the bound is
//! reached the queue keeps a single "look at everything" instead of dropping anything silently.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::name::DatasetName;

/// Most tables that wait by name.
const WAITING_MAX: usize = 10_000;

/// See the module text.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    tables: BTreeSet<DatasetName>,
    everything: bool,
}

/// What is to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Everything,
    Tables(BTreeSet<DatasetName>),
}

impl Queue {
    /// Asks for a look at a table.
    pub(crate) fn push(&self, table: DatasetName) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.tables.len() < WAITING_MAX {
            waiting.tables.insert(table);
        } else {
            waiting.everything = true;
            waiting.tables.clear();
        }
        self.wake.notify_one();
    }

    /// Asks for a look at everything.
    pub(crate) fn push_everything(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.everything = true;
        self.wake.notify_one();
    }

    /// Waits until something is due, and takes all of it. Dropped while it waits, it takes nothing.
    pub(crate) async fn due(&self) -> Due {
        loop {
            let woken = self.wake.notified();
            if let Some(due) = self.take() {
                return due;
            }
            woken.await;
        }
    }

    fn take(&self) -> Option<Due> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *waiting);
        match taken {
            Waiting {
                everything: true, ..
            } => Some(Due::Everything),
            Waiting { tables, .. } if !tables.is_empty() => Some(Due::Tables(tables)),
            Waiting { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A storm of store events must neither grow without end nor lose a table.
    #[tokio::test]
    async fn signals_coalesce_and_overflow_to_everything() {
        let queue = Queue::default();
        let name = |number: usize| format!("n.t{number}").parse::<DatasetName>().unwrap();
        for _ in 0..3 {
            queue.push(name(1));
        }
        assert_eq!(queue.due().await, Due::Tables([name(1)].into()));
        for number in 0..=WAITING_MAX {
            queue.push(name(number));
        }
        assert_eq!(queue.due().await, Due::Everything);
        assert!(queue.take().is_none());
    }
}
