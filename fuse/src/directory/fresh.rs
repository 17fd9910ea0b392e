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
//! Lock: one mutex over the map, never held over a call.

use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use super::DirectoryFs;
use super::copies::Stamp;
use crate::live::Bounded;

/// Files whose attributes are compared; of others the kernel always forgets them.
const SHOWN: usize = 64 << 10;

/// The attributes that the kernel was told last. See the module text.
#[derive(Debug)]
pub(super) struct Fresh {
    shown: Mutex<Bounded<u64, Stamp>>,
}

impl Default for Fresh {
    fn default() -> Self {
        Self {
            shown: Mutex::new(Bounded::new(SHOWN)),
        }
    }
}

impl Fresh {
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

/// The map is whole after each of its calls.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirectoryFs {
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

    /// The version of a node that the server has now; the kernel forgets what it was told of another.
    /// `None` where nobody but this kernel changes files, and no version is needed.
    ///
    /// Errors: `ESTALE` when another node has taken its last name; those of asking.
    pub(super) fn revalidate(&self, node: u64) -> Result<Option<Stamp>, Errno> {
        if !self.watches() {
            return Ok(None);
        }
        let (stamp, names) = Stamp::with_names(self.at(node)?.fd())?;
        if names == 0 && !self.nodes.is_held(node) && !self.is_where_it_was(node) {
            return Err(Errno::ESTALE);
        }
        if !self.fresh.is(node, stamp) {
            self.opens.forget_attributes(node);
        }
        Ok(Some(stamp))
    }
}
