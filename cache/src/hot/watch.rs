//! The watch thread: probes a disk that is not healthy, repairs the index, keeps to the watermark of
//! free space, scrubs.
//!
//! It never touches the disk itself: everything runs in the pool with a deadline, so this thread
//! keeps its pace however the disk behaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::directory;
use super::error::{HotError, HotErrorKind};
use super::health::{DiskState, Outcome};
use super::index::Change;
use super::pool::Failure;
use super::scrub::Scrub;
use super::shared::Shared;

/// Longest pause between two looks at the state.
const TICK: Duration = Duration::from_millis(250);

/// Time between two looks at the free space of a disk that nothing is written to.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    /// The body of the watch thread.
    pub(super) fn watch_loop(self: &Arc<Self>) {
        let probing = Arc::new(AtomicBool::new(false));
        let mut scrub = Scrub::new();
        let mut probed = Instant::now();
        let mut looked = Instant::now();
        loop {
            if self.quiet.wait(TICK.min(self.config.probe_interval)) {
                return;
            }
            let needed = self.health.state() != DiskState::Healthy || self.index.is_sick();
            if needed && probed.elapsed() >= self.config.probe_interval {
                probed = Instant::now();
                self.probe(&probing);
            }
            if self.health.state() == DiskState::Healthy {
                if looked.elapsed() >= ROOM_PAUSE {
                    looked = Instant::now();
                    // Its error is counted by the health machine; the next look comes anyway.
                    self.run("keep the watermark", Self::keep_watermark).ok();
                }
                scrub.tick(self);
            }
        }
    }

    /// Asks the disk whether it works again. While an earlier question hangs, no new one is asked.
    fn probe(self: &Arc<Self>, probing: &Arc<AtomicBool>) {
        if probing.swap(true, Ordering::AcqRel) {
            self.health.report(Outcome::Overrun, true);
            return;
        }
        let shared = Arc::clone(self);
        let flag = Arc::clone(probing);
        let answer = self.pool.run(self.config.operation_timeout, move || {
            let result = shared.probe_here();
            flag.store(false, Ordering::Release);
            result
        });
        match answer {
            Ok(Ok(())) => self.health.report(Outcome::Good, true),
            Ok(Err(error)) => {
                tracing::warn!(%error, "hot tier probe failed");
                self.health.report(Outcome::Error, true);
            }
            Err(Failure::Overrun) => self.health.report(Outcome::Overrun, true),
            // Never began: its flag has to be taken back here.
            Err(_) => probing.store(false, Ordering::Release),
        }
    }

    /// Writes, syncs and removes a scratch file, and makes the index take a write.
    fn probe_here(&self) -> Result<(), HotError> {
        let path = self.directory.root.join("probe");
        let fail = |e: &std::io::Error| HotError::io("probe", &path, e);
        let written = directory::remove(&path).and_then(|()| {
            let file = directory::new_file().open(&path).map_err(|e| fail(&e))?;
            super::sys::write_all(&file, &[0x5a; 4096], 0).map_err(|e| fail(&e))?;
            file.sync_all().map_err(|e| fail(&e))?;
            directory::remove(&path)
        });
        match written {
            // A full disk answers, which is all that is asked here.
            Err(error) if error.kind != HotErrorKind::Full => return Err(error),
            _ => {}
        }
        let touch = || self.index.apply(&[Change::Trust(self.trust)], true);
        match touch() {
            Ok(()) => Ok(()),
            Err(_) => self.index.reopen().and_then(|()| touch()),
        }
    }
}
