//! Hard links to complete objects, for trees that are read without the daemon.
//!
//! link(2), chmod(2), utimensat(2) and unlink(2) of any name of a file move its ctime, which is
//! part of the fingerprint. So they are done here, between a comparison with the recorded
//! fingerprint and the recording of the new one. A crash in between costs one verification of the
//! object. An object with an owner (a tree that links it) is not evicted.
//!
//! The number of owners is not counted but read: it is the link count of the hot file less the name
//! in the hot directory, taken after every change. So it cannot drift from what is on disk while
//! the tier is open, and what a killed process did not write down is read again by the sweep of the
//! next start ([`mend`]).
//!
//! Changes are collected in memory and written in batches; the tier writes the rest when it closes.
//! What a link moves is noted beside the owners, so that the record is written again only when the
//! last link is gone.
//! Everything here blocks on the disk and belongs on threads that may. Lock order: the lock of an
//! object's link shard, then the round of the group sync, then the catalogue. All work on the links
//! of one object is done under the first, by whichever [`Linker`].

mod files;
mod find;
mod mend;
mod note;

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use nix::unistd::UnlinkatFlags;

use self::files::HotFiles;
pub use self::find::Found;
use self::find::Sight;
use super::error::HotError;
use super::index::Change;
use super::shared::Shared;
use super::tier::HotTier;
use crate::identity::{Digest, DigestMap};

/// Many, because a shard is locked while its changes are written. Each has a part of the index: what is
/// written and read together lies together there.
const SHARDS: usize = 256;

/// Changes a shard collects before it writes them.
const BATCH: usize = 512;

/// Attributes that the linked file shall have. All links of one object share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAttributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// One link to be made.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The object.
    pub digest: Digest,
    /// Name in the directory.
    pub name: &'a OsStr,
    /// What the file shall show.
    pub attributes: LinkAttributes,
}

/// What became of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// It exists, and the object is held for it.
    Yes,
    /// The object is not complete: fill it and sync the tier first.
    Incomplete,
    /// Its file is not known to be unchanged: `HotObject::verify` it and sync the tier first.
    Unverified,
    /// Another link of the object exists and shows other attributes; nothing was changed.
    Differs,
}

/// Makes and removes links. [`Linker::finish`] makes what it did durable.
#[derive(Debug)]
pub struct Linker {
    shared: Arc<Shared>,
    files: HotFiles,
}

/// Objects whose links changed, and with them their owners, which the index does not have yet.
type Changed = DigestMap<Sight>;

/// Changes of links, by object: what all [`Linker`]s of a tier share. Pins are written under these
/// locks, too, so that the last write of them is the last change.
#[derive(Debug)]
pub(super) struct Links([Mutex<Changed>; SHARDS]);

impl Default for Links {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Links {
    fn shard(&self, digest: &Digest) -> MutexGuard<'_, Changed> {
        let shard = &self.0[usize::from(digest.0[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps all links and pins as they are, for a change of many.
    pub(super) fn lock(&self) -> Vec<MutexGuard<'_, Changed>> {
        let shards = self.0.iter();
        shards
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }
}

impl HotTier {
    /// Begins making or removing links to complete objects.
    pub fn linker(&self) -> Linker {
        Linker {
            shared: Arc::clone(&self.shared),
            files: HotFiles::new(&self.shared.directory),
        }
    }
}

impl Linker {
    /// Links objects into `directory` (on the same file system) and says of each what became of it.
    /// `found` is what [`Linker::find`] said of the same objects a while ago.
    ///
    /// Errors: `Io` (also for a name that exists, and for too many links), `Closed`. The first one
    /// ends it: earlier links exist, and what they hold stays held.
    pub fn link_all<'a>(
        &self,
        directory: BorrowedFd<'_>,
        links: impl IntoIterator<Item = (Link<'a>, Found)>,
    ) -> Result<Vec<Linked>, HotError> {
        self.shared.admit("link objects")?;
        let links = links.into_iter();
        links
            .map(|(link, found)| self.link_one(directory, &link, found))
            .collect()
    }

    /// Removes `name` from `directory`, which [`Linker::link_all`] made, and with it the hold on the
    /// object, of which [`Linker::find`] said `found` a while ago. A name that is gone already is fine.
    pub fn unlink(
        &self,
        digest: &Digest,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        found: Found,
    ) -> Result<(), HotError> {
        self.shared.admit("unlink object")?;
        let mut changed = self.shared.links.shard(digest);
        let seen = changed.get(digest).copied().or(found.0);
        let seen = seen.map(|seen| self.check(&changed, digest, seen));
        let seen = seen.transpose()?;
        match nix::unistd::unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failure("unlink link", Path::new(name), errno)),
        }
        match seen {
            Some((seen, stat)) => self.settle(&mut changed, digest, seen, stat.is_some()),
            None => self.shared.set_owners(digest, 0, &changed),
        }
    }

    /// Gives up the hold of a link that is gone by other means.
    pub fn release(&self, digest: &Digest) -> Result<(), HotError> {
        self.shared.admit("release object")?;
        let mut changed = self.shared.links.shard(digest);
        match self.shared.see(&changed, digest)? {
            Some(seen) => {
                let trusted = self.trusted(digest, &seen)?.is_some();
                self.settle(&mut changed, digest, seen, trusted)
            }
            None => self.shared.set_owners(digest, 0, &changed),
        }
    }

    /// Writes down what is not yet, durably.
    pub fn finish(self) -> Result<(), HotError> {
        self.shared.write_links()?;
        self.shared
            .index
            .apply(&[Change::Trust(self.shared.trust)], true)
    }

    fn link_one(
        &self,
        directory: BorrowedFd<'_>,
        link: &Link<'_>,
        found: Found,
    ) -> Result<Linked, HotError> {
        let digest = &link.digest;
        let mut changed = self.shared.links.shard(digest);
        let Some(seen) = changed.get(digest).copied().or(found.0) else {
            return Ok(Linked::Incomplete);
        };
        // From here on it is not evicted; what it is held for is set right below in any case.
        let Some(before) = self.shared.hold(digest) else {
            return Ok(Linked::Incomplete);
        };
        let (seen, trusted) = self.check(&changed, digest, seen)?;
        let refused = match &trusted {
            None => Some(Linked::Unverified),
            // The name in the hot directory is one link.
            Some(stat) if stat.st_nlink > 1 && !files::has(stat, &link.attributes) => {
                Some(Linked::Differs)
            }
            Some(_) => None,
        };
        if let Some(refused) = refused {
            self.shared.unhold(digest, before);
            return Ok(refused);
        }
        let (incarnation, stat) = (seen.incarnation, trusted);
        let made = stat.map_or(Ok(()), |stat| {
            let file = self.files.file(digest, incarnation)?;
            file.set(&stat, &link.attributes)?;
            file.link(directory, link.name)
        });
        // Also after a failure: the attributes may have changed.
        self.settle(&mut changed, digest, seen, true)?;
        made.map_err(|errno| failure("link object", Path::new(link.name), errno))?;
        Ok(Linked::Yes)
    }

    /// The file's attributes, if it is what was seen, or what is seen when looking again: another
    /// thread may have linked it meanwhile and written that down.
    fn check(
        &self,
        changed: &Changed,
        digest: &Digest,
        seen: Sight,
    ) -> Result<(Sight, Option<FileStat>), HotError> {
        let trusted = self.trusted(digest, &seen)?;
        if trusted.is_none()
            && let Some(newer) = self.shared.see(changed, digest)?
            && newer != seen
        {
            return Ok((newer, self.trusted(digest, &newer)?));
        }
        Ok((seen, trusted))
    }

    /// The file's attributes, if it is what was seen.
    fn trusted(&self, digest: &Digest, seen: &Sight) -> Result<Option<FileStat>, HotError> {
        let stat = match self.files.stat(digest, seen.incarnation) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(self.stat_failure(digest, seen, errno)),
        };
        let same = files::fingerprint(&stat) == seen.fingerprint;
        Ok((same && self.shared.trust.believes(seen.epoch)).then_some(stat))
    }

    /// After a change of links: takes the number of owners and, if `trusted`, the fingerprint that
    /// our own change has moved.
    fn settle(
        &self,
        changed: &mut Changed,
        digest: &Digest,
        mut seen: Sight,
        trusted: bool,
    ) -> Result<(), HotError> {
        let stat = match self.files.stat(digest, seen.incarnation) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return self.shared.set_owners(digest, 0, changed),
            Err(errno) => return Err(self.stat_failure(digest, &seen, errno)),
        };
        let owners = files::owners(stat.st_nlink);
        let (now, before) = (files::fingerprint(&stat), seen.fingerprint);
        let same = (now.inode, now.device, now.size) == (before.inode, before.device, before.size);
        if !trusted || !same {
            return self.shared.set_owners(digest, owners, changed);
        }
        seen.fingerprint = now;
        let open = self.shared.own(digest, owners).1;
        if let Some(file) = open.filter(|file| file.incarnation == seen.incarnation) {
            file.set_fingerprint(now);
        }
        changed.insert(*digest, seen);
        if changed.len() >= BATCH {
            self.shared.write_changed(changed)?;
        }
        Ok(())
    }

    fn stat_failure(&self, digest: &Digest, seen: &Sight, errno: Errno) -> HotError {
        let path = self.shared.directory.data(digest, seen.incarnation);
        failure("stat object", &path, errno)
    }
}

fn failure(operation: &'static str, path: &Path, errno: Errno) -> HotError {
    HotError::io(operation, path, &errno.into())
}
