//! Whether the disk under the tier can be relied on.
//!
//! ```text
//!             3 errors within 60 s, or one overrun            10 errors within 60 s, or 3 overruns
//!   healthy ---------------------------------------> unstable ------------------------------------> down
//!      ^                                              |    ^                                          |
//!      +--------- 20 good results in a row -----------+    +----------- 3 good probes in a row -------+
//! ```
//! Healthy: everything is admitted. Unstable: at most 10 operations at a time, the rest is refused
//! at once. Down: everything is refused, and only the probe touches the disk. A refused operation
//! is a miss. A full disk is not an error in this sense.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
const ERRORS_TO_UNSTABLE: usize = 3;
const ERRORS_TO_DOWN: usize = 10;
const OVERRUNS_TO_DOWN: u32 = 3;
const GOOD_TO_HEALTHY: u32 = 20;
const PROBES_TO_UNSTABLE: u32 = 3;
const UNSTABLE_CONCURRENCY: u32 = 10;

/// State of the disk, as far as the tier can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// Works.
    Healthy,
    /// Failed lately; used sparingly.
    Unstable,
    /// Not used; probed until it answers again.
    Down,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good,
    Error,
    Overrun,
}

#[derive(Debug)]
struct Machine {
    state: DiskState,
    errors: VecDeque<Instant>,
    overruns: u32,
    good: u32,
}

impl Machine {
    fn new() -> Self {
        Self {
            state: DiskState::Healthy,
            errors: VecDeque::new(),
            overruns: 0,
            good: 0,
        }
    }

    fn enter(&mut self, state: DiskState) {
        self.state = state;
        self.errors.clear();
        self.overruns = 0;
        self.good = 0;
    }

    fn report(&mut self, outcome: Outcome, probe: bool, now: Instant) {
        if self.state == DiskState::Down && !probe {
            // Work that was admitted before says nothing about the disk of now.
            return;
        }
        match outcome {
            Outcome::Good => self.good = self.good.saturating_add(1),
            Outcome::Error | Outcome::Overrun => {
                self.good = 0;
                self.errors.push_back(now);
                self.overruns += u32::from(outcome == Outcome::Overrun);
                while self
                    .errors
                    .front()
                    .is_some_and(|&at| now.duration_since(at) > WINDOW)
                {
                    self.errors.pop_front();
                }
                // Never needs to remember more than the largest limit.
                self.errors.truncate(ERRORS_TO_DOWN);
            }
        }
        let errors = self.errors.len();
        match self.state {
            DiskState::Healthy if errors >= ERRORS_TO_UNSTABLE || self.overruns > 0 => {
                self.enter(DiskState::Unstable);
            }
            DiskState::Unstable
                if errors >= ERRORS_TO_DOWN || self.overruns >= OVERRUNS_TO_DOWN =>
            {
                self.enter(DiskState::Down);
            }
            DiskState::Unstable if self.good >= GOOD_TO_HEALTHY => self.enter(DiskState::Healthy),
            DiskState::Down if self.good >= PROBES_TO_UNSTABLE => self.enter(DiskState::Unstable),
            _ => {}
        }
    }
}

/// The state machine, its fast path and its gate.
#[derive(Debug)]
pub(crate) struct Health {
    tier: &'static str,
    machine: Mutex<Machine>,
    state: AtomicU8,
    running: AtomicU32,
}

/// One admitted operation; dropped when it really ends, which may be after its deadline.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Health);

impl Health {
    pub(crate) fn new(tier: &'static str) -> Self {
        Self {
            tier,
            machine: Mutex::new(Machine::new()),
            state: AtomicU8::new(DiskState::Healthy as u8),
            running: AtomicU32::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> DiskState {
        match self.state.load(Ordering::Acquire) {
            0 => DiskState::Healthy,
            1 => DiskState::Unstable,
            _ => DiskState::Down,
        }
    }

    /// Whether an operation may touch the disk now.
    pub(crate) fn admits(&self) -> bool {
        match self.state() {
            DiskState::Healthy => true,
            DiskState::Unstable => self.running.load(Ordering::Acquire) < UNSTABLE_CONCURRENCY,
            DiskState::Down => false,
        }
    }

    /// Counts an operation while it runs.
    pub(crate) fn enter(&self) -> Permit<'_> {
        self.running.fetch_add(1, Ordering::AcqRel);
        Permit(self)
    }

    /// Takes the result of an operation or of a probe into account.
    pub(crate) fn report(&self, outcome: Outcome, probe: bool) {
        if outcome == Outcome::Good && self.state() == DiskState::Healthy {
            return;
        }
        let mut machine = self.lock();
        let before = machine.state;
        machine.report(outcome, probe, Instant::now());
        let after = machine.state;
        self.state.store(after as u8, Ordering::Release);
        drop(machine);
        if before != after {
            tracing::warn!(tier = self.tier, ?before, ?after, "disk changed state");
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this, a failing disk would be asked again and again, or a healed one never.
    #[test]
    fn a_disk_goes_down_and_comes_back() {
        let mut machine = Machine::new();
        let mut now = Instant::now();
        machine.report(Outcome::Error, false, now);
        machine.report(Outcome::Error, false, now);
        now += WINDOW + Duration::from_secs(1);
        machine.report(Outcome::Error, false, now);
        assert_eq!(
            machine.state,
            DiskState::Healthy,
            "old errors are forgotten"
        );
        machine.report(Outcome::Error, false, now);
        machine.report(Outcome::Error, false, now);
        assert_eq!(machine.state, DiskState::Unstable);
        for _ in 0..ERRORS_TO_DOWN {
            machine.report(Outcome::Error, false, now);
        }
        assert_eq!(machine.state, DiskState::Down);
        for _ in 0..100 {
            machine.report(Outcome::Good, false, now);
        }
        assert_eq!(machine.state, DiskState::Down, "only probes bring it back");
        for _ in 0..PROBES_TO_UNSTABLE {
            machine.report(Outcome::Good, true, now);
        }
        assert_eq!(machine.state, DiskState::Unstable);
        for _ in 0..GOOD_TO_HEALTHY {
            machine.report(Outcome::Good, true, now);
        }
        assert_eq!(machine.state, DiskState::Healthy);
        machine.report(Outcome::Overrun, false, now);
        assert_eq!(machine.state, DiskState::Unstable, "one overrun is enough");
    }
}
