//! Attributes at open: what another node has changed is seen by who opens afterwards.
//!
//! The kernel believes attributes for a while (`ttl`), and so does the client of a shared file system
//! below. Close-to-open consistency is stricter: an open asks the server, and where its answer is not
//! what the kernel was told last, the kernel is told to forget that before the open is answered. The
//! next stat(2) asks again. Contents need nothing: what is read below is not older than the version that the
//! open was told (`copies/stamp.rs`, [`super::naming`]).
//!
//! Names are believed for a while, too, so an open may come for a file whose name another node has given
//! to another one. Where somebody here still has the old one open, its server answers for it as before,
//! but says that it has no name. Such an open is `ESTALE`: the kernel looks the name up again and opens
//! what has it now. A file whose last name was removed here ([`super::nodes::Nodes::hold`]) is opened
//! all the same: the kernel knows that it has no name, so who opens it means it (`/proc/PID/fd`).
//!
//! A volume may be told to believe such an answer for a while (`DirectoryParts::revalidate`): then an open
//! within that time asks nobody. What is changed through this mount is seen at once all the same, because the
//! answer counts only up to the moment before it was asked for (`copies`).
//!
//! That a file has no capabilities is believed as long as any other attribute: the kernel asks for them
//! before every write, and where a question is a round trip that would be as much as the write.
//!
//! Lock: one mutex over each map, never held over a call.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use super::DirectoryFs;
use super::copies::{Moment, Stamp};
use crate::live::Bounded;

/// Files whose attributes are compared; of others the kernel always forgets them.
const SHOWN: usize = 64 << 10;

/// Files that are known to have no capabilities, about 50 bytes each: more than are written at a time.
const PLAIN: usize = 4 << 10;

/// The attributes that the kernel was told last. See the module text.
#[derive(Debug)]
pub(super) struct Fresh {
    shown: Mutex<Bounded<u64, Stamp>>,
    /// What the server said last, for opens that may believe it.
    answers: Mutex<Bounded<u64, Answer>>,
    /// How long they may; zero: each asks.
    believed: Duration,
    /// Files that had no capabilities when they were made or asked for them, and when that was.
    plain: Mutex<Bounded<u64, Instant>>,
}

/// A version, and when the server was asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) stamp: Stamp,
    /// Changes made here after it are not in it.
    pub(super) since: Moment,
    at: Instant,
}

impl Fresh {
    /// `believed`: how long an open may believe an earlier answer of the server instead of asking.
    pub(super) fn new(believed: Duration) -> Self {
        Self {
            shown: Mutex::new(Bounded::new(SHOWN)),
            answers: Mutex::new(Bounded::new(SHOWN)),
            believed,
            plain: Mutex::new(Bounded::new(PLAIN)),
        }
    }

    fn note(&self, node: u64, stamp: Stamp) {
        lock(&self.shown).insert(node, stamp);
    }

    /// Whether the kernel was told this last; it is not known to have been told anything afterwards.
    fn is(&self, node: u64, stamp: Stamp) -> bool {
        let mut shown = lock(&self.shown);
        let same = shown.get(&node).is_some_and(|known| *known == stamp);
        if !same {
            shown.remove(&node);
        }
        same
    }
}

/// The maps are whole after each of their calls.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fresh {
    fn answer(&self, node: u64) -> Option<Answer> {
        if self.believed.is_zero() {
            return None;
        }
        let known = *lock(&self.answers).get(&node)?;
        (known.at.elapsed() < self.believed).then_some(known)
    }

    fn note_answer(&self, node: u64, answer: Answer) {
        if !self.believed.is_zero() {
            lock(&self.answers).insert(node, answer);
        }
    }

    /// A file has capabilities, or may have.
    pub(super) fn note_capable(&self, node: u64) {
        lock(&self.plain).remove(&node);
    }
}

impl DirectoryFs {
    /// Notes that a file has no capabilities now.
    pub(super) fn note_plain(&self, node: u64) {
        if self.is_shared {
            lock(&self.fresh.plain).insert(node, Instant::now());
        }
    }

    /// Whether a file is believed to have no capabilities.
    pub(super) fn is_plain(&self, node: u64) -> bool {
        let mut plain = lock(&self.fresh.plain);
        let seen = plain.get(&node);
        seen.is_some_and(|seen| seen.elapsed() < self.ttl)
    }

    /// Whether others than this kernel may change files, or a version is needed at each open.
    fn watches(&self) -> bool {
        self.is_shared || self.copies.is_on()
    }

    /// Notes what the kernel is about to be told about a node.
    pub(super) fn note_shown(&self, node: u64, below: &FileStat) {
        if self.watches() {
            self.fresh.note(node, Stamp::of(below, below.st_ino));
        }
    }

    /// The moment before a question to the server.
    pub(super) fn asking(&self) -> (Moment, Instant) {
        (self.copies.moment(), Instant::now())
    }

    /// Notes what a look-up was answered, asked for at this moment.
    pub(super) fn note_found(&self, node: u64, below: &FileStat, (since, at): (Moment, Instant)) {
        let stamp = Stamp::of(below, below.st_ino);
        self.fresh.note_answer(node, Answer { stamp, since, at });
    }

    /// The version of a node that the server has now, or had a moment ago that counts as now
    /// (`DirectoryParts::revalidate`); the kernel forgets what it was told of another.
    /// `None` where nobody but this kernel changes files, and no version is needed.
    ///
    /// Errors: `ESTALE` when another node has taken its last name; those of asking.
    pub(super) fn revalidate(&self, node: u64) -> Result<Option<Answer>, Errno> {
        if !self.watches() {
            return Ok(None);
        }
        if let Some(known) = self.fresh.answer(node)
            && !self.copies.has_changed(node, known.since)
        {
            return Ok(Some(known));
        }
        let (since, at) = self.asking();
        let (stamp, names) = Stamp::with_names(self.at(node)?.fd())?;
        if names == 0 && !self.nodes.is_held(node) && !self.is_where_it_was(node) {
            return Err(Errno::ESTALE);
        }
        if !self.fresh.is(node, stamp) {
            self.opens.forget_attributes(node);
        }
        let answer = Answer { stamp, since, at };
        self.fresh.note_answer(node, answer);
        Ok(Some(answer))
    }
}
