//! The way of a staged file into the directory: claimed, sealed, copied, verified, noted.
//!
//! ```text
//! claim      nobody else copies it; its version
//! seal       synced, and a checksum of its contents      journal: sealed
//! admit      the file below is what it was               (else: set aside, ESTALE)
//! announce                                               journal: copying, synced
//! copy       in place, synced, read back
//! note       what the file below is now                  journal: copied
//! finish     nobody has it open: no longer staged        journal: end; then the file is deleted
//! ```
//! A crash at any step leaves the file staged, and the next attempt begins at the first step; only
//! after `announce` are parts of it below no change by others. A failure is tried again for ever;
//! after [`TRIED`] failures the file is a dead letter, which somebody should look at.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::super::sys;
use super::copy::{self, CopyError, Source};
use super::queue::{Next, pause};
use super::record::{Stamp, Step};
use super::report::count;
use super::stage::{Fate, Stage, stamp};
use super::{Spool, TRIED, io_errno};

/// How often a spool looks at files that are being written.
const TICK: Duration = Duration::from_secs(1);

/// What a copy begins with.
struct Claim {
    version: u64,
    written: bool,
    base: Stamp,
    copying: bool,
    sealed: Option<(Stamp, u32)>,
}

impl CopyError {
    fn errno(&self) -> Errno {
        match self {
            Self::Conflict | Self::Gone => Errno::ESTALE,
            Self::Rotten | Self::Unverified => Errno::EIO,
            Self::Changed => Errno::EAGAIN,
            Self::Stopped => Errno::EINTR,
            Self::Spool(errno) | Self::Below(_, errno) => *errno,
        }
    }
}

impl Spool {
    /// Copies what is due until the spool is closed. `minds`: also keeps the books.
    pub(super) fn work(&self, minds: bool) {
        let mut minded = Instant::now();
        loop {
            match self.queue.next(TICK) {
                Next::Stop => return,
                Next::Nothing => {}
                Next::File(node) => self.take_up(node),
            }
            if minds && minded.elapsed() >= TICK {
                self.mind();
                minded = Instant::now();
            }
        }
    }

    /// What is written without asking is counted now and then.
    fn mind(&self) {
        for stage in self.stages() {
            if !stage.lock().handles.is_empty() {
                self.room.look_at(&stage);
            }
        }
        self.room.set_aside(self.aside.total().bytes);
        if let Err(error) = self.journal.compact() {
            tracing::warn!(%error, "the journal of the spool stays as long as it is");
        }
    }

    fn take_up(&self, node: u64) {
        let Some(stage) = self.by_number(node) else {
            return;
        };
        {
            let state = stage.lock();
            // It comes again when its last writer closes, or when its pause has ended.
            if state.is_written() || state.due > Instant::now() {
                return;
            }
        }
        if stage.lock().unlinked {
            if stage.lock().handles.is_empty() {
                self.bury(&stage);
            }
            return;
        }
        // The failure is in its status, and it was put into the queue again.
        self.copy_up(&stage, None).ok();
    }

    /// Brings the contents of a file into the directory, unless they are there. `teller`: the handle
    /// whose call tells a failure.
    ///
    /// Errors: `ESTALE` after a change by another node; those of the directory and the SSD; `EAGAIN` when
    /// the file has been changed [`TRIED`] times while it was copied.
    pub(super) fn copy_up(&self, stage: &Arc<Stage>, teller: Option<u64>) -> Result<(), Errno> {
        for _ in 1..TRIED {
            match self.copy_once(stage, teller) {
                // It is in the queue again; a call cannot wait for that.
                Err(Errno::EAGAIN) if teller.is_some() => {}
                other => return other,
            }
        }
        self.copy_once(stage, teller)
    }

    fn copy_once(&self, stage: &Arc<Stage>, teller: Option<u64>) -> Result<(), Errno> {
        let claim = match self.claim(stage)? {
            Some(claim) => claim,
            None => {
                self.finish(stage);
                return Ok(());
            }
        };
        let done = self.attempt(stage, &claim);
        let result = match done {
            Ok(base) => {
                self.note(stage, &claim, base);
                Ok(())
            }
            Err(error) => self.failed(stage, &claim, &error, teller),
        };
        stage.lock().busy = false;
        stage.settled.notify_all();
        self.finish(stage);
        result
    }

    /// Waits until nobody else copies the file. `None`: there is nothing to copy.
    fn claim(&self, stage: &Stage) -> Result<Option<Claim>, Errno> {
        let mut state = stage.lock();
        while state.busy {
            let waited = stage.settled.wait(state);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if let Fate::Aside(errno) = state.fate {
            return Err(errno);
        }
        if state.unlinked || state.is_copied() {
            return Ok(None);
        }
        state.busy = true;
        Ok(Some(Claim {
            version: state.version,
            written: state.is_written(),
            base: state.base,
            copying: state.copying,
            sealed: state.sealed,
        }))
    }

    fn attempt(&self, stage: &Stage, claim: &Claim) -> Result<Stamp, CopyError> {
        let stop = || self.queue.is_stopped();
        let now = stage.stat().map(|stat| stamp(&stat));
        let now = now.map_err(CopyError::Spool)?;
        let sealed = match claim.sealed {
            _ if claim.written => (now, None),
            Some((sealed, crc)) if sealed == now => (sealed, Some(crc)),
            _ => {
                let sealed = copy::seal(&stage.file, &stop)?;
                self.seal(stage, claim, sealed);
                (sealed.0, Some(sealed.1))
            }
        };
        let source = Source {
            file: &stage.file,
            mount: self.mount.as_fd(),
            below: &stage.file_id,
            base: claim.base,
            copying: claim.copying,
        };
        let target = copy::admit(&source)?;
        if !claim.copying {
            let announced = self.journal.append(stage.id, Step::Copying);
            announced
                .and_then(|()| self.journal.sync())
                .map_err(|error| CopyError::Spool(io_errno(error)))?;
            stage.lock().copying = true;
        }
        let copied = copy::copy(&source, &target, sealed, &stop);
        if copied.is_err() {
            self.own_up(stage, &target);
        }
        let base = copied?;
        let noted = self.journal.append(stage.id, Step::Copied(base));
        noted.map_err(|error| CopyError::Spool(io_errno(error)))?;
        count(&self.counters.copied, 1);
        count(&self.counters.copied_bytes, sealed.0.size);
        Ok(base)
    }

    /// What a copy that failed has left below is no change by others, whatever the contents become.
    pub(super) fn own_up(&self, stage: &Stage, target: &File) {
        let Ok(stat) = fstat(target) else { return };
        let base = stamp(&stat);
        if self.journal.append(stage.id, Step::Copied(base)).is_ok() {
            let mut state = stage.lock();
            state.base = base;
            state.copying = false;
        }
    }

    /// Notes a checksum, unless somebody has begun to write.
    fn seal(&self, stage: &Stage, claim: &Claim, sealed: (Stamp, u32)) {
        let mut state = stage.lock();
        if state.version == claim.version && !claim.written {
            // Without it in the journal only the next worker knows less.
            self.journal
                .append(stage.id, Step::Sealed(sealed.0, sealed.1))
                .ok();
            state.sealed = Some(sealed);
        }
    }

    fn note(&self, stage: &Stage, claim: &Claim, base: Stamp) {
        let mut state = stage.lock();
        state.base = base;
        state.copying = false;
        state.attempts = 0;
        if state.version == claim.version && !claim.written {
            state.copied = Some(claim.version);
        } else if !state.is_written() {
            self.queue.add(stage.node, Instant::now());
        }
    }

    fn failed(
        &self,
        stage: &Arc<Stage>,
        claim: &Claim,
        error: &CopyError,
        teller: Option<u64>,
    ) -> Result<(), Errno> {
        // Somebody has written meanwhile, so what was read is of two versions.
        let changed = match error {
            CopyError::Changed => true,
            CopyError::Rotten => claim.written || stage.lock().version != claim.version,
            _ => false,
        };
        if changed {
            stage.lock().sealed = None;
            self.queue.add(stage.node, Instant::now());
            return Err(Errno::EAGAIN);
        }
        let name = &stage.name;
        match error {
            CopyError::Stopped => return Err(Errno::EINTR),
            CopyError::Gone if stage.lock().removing.is_some() => {
                // Its last name went through this mount.
                stage.lock().unlinked = true;
                return Ok(());
            }
            CopyError::Conflict | CopyError::Gone | CopyError::Rotten => {
                count(&self.counters.conflicts, 1);
                self.set_aside(stage, error.errno(), &error.to_string(), teller);
                return Err(error.errno());
            }
            CopyError::Changed
            | CopyError::Unverified
            | CopyError::Spool(_)
            | CopyError::Below(..) => {}
        }
        count(&self.counters.failed, 1);
        let mut state = stage.lock();
        state.attempts = state.attempts.saturating_add(1);
        if state.attempts == 1 || state.attempts == TRIED {
            tracing::warn!(%error, name, attempts = state.attempts, "a staged file stays on the SSD");
        }
        state.due = Instant::now() + pause(state.attempts);
        self.queue.add(stage.node, state.due);
        state.problem = Some(super::stage::Problem {
            errno: error.errno(),
            why: error.to_string(),
            at: std::time::SystemTime::now(),
        });
        Err(error.errno())
    }

    /// Makes durable that a file has no name any more; then its bytes may go.
    pub(super) fn bury(&self, stage: &Arc<Stage>) {
        let grave = {
            let state = stage.lock();
            let copy = state.grave.as_ref().map(|directory| directory.try_clone());
            copy.transpose()
        };
        let buried = match grave {
            Ok(Some(directory)) => directory.sync_all().map_err(io_errno),
            _ => sys::sync_file_system(self.mount.as_fd()),
        };
        if let Err(errno) = buried {
            let mut state = stage.lock();
            state.attempts = state.attempts.saturating_add(1);
            state.due = Instant::now() + pause(state.attempts);
            self.queue.add(stage.node, state.due);
            tracing::debug!(%errno, name = stage.name, "a deleted file stays in the spool");
            return;
        }
        stage.lock().buried = true;
        self.finish(stage);
    }

    /// No longer staged, when that is over and nobody has the file open; whether it is.
    pub(super) fn finish(&self, stage: &Arc<Stage>) -> bool {
        let _gate = self.gate(stage.node);
        let (over, aside) = {
            let state = stage.lock();
            let aside = matches!(state.fate, Fate::Aside(_));
            let over = state.is_gone() || (state.is_copied() && !state.unlinked) || aside;
            (over && state.handles.is_empty() && !state.busy, aside)
        };
        if aside && over {
            self.forget(stage);
        } else if over {
            self.retire(stage);
        }
        over
    }
}
