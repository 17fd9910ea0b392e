//! Hard links to complete objects, for trees that are read without the daemon.
//!
//! link(2), chmod(2), utimensat(2) and unlink(2) of any name of a file move its ctime, which is
//! part of the fingerprint. So they are done here, between a comparison with the recorded
//! fingerprint and the recording of the new one. A crash in between costs one verification of the
//! object. An object with an owner (a tree that links it) is not evicted.
//!
//! Everything here blocks on the disk and belongs on threads that may. A [`Linker`] may be used
//! from many threads; links of one object are serialized by its shard.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags, fstatat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use super::data::{Fingerprint, nanoseconds};
use super::error::HotError;
use super::index::Change;
use super::record::{Pins, Record, Stage};
use super::shared::Shared;
use super::tier::HotTier;
use crate::identity::Digest;

const SHARDS: usize = 16;

/// Changes a shard collects before it writes them.
const BATCH: usize = 1024;

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

/// Makes and removes links. [`Linker::finish`] makes the counts durable; without it (a crash) some
/// objects may be verified again, and some may lose their owner.
#[derive(Debug)]
pub struct Linker {
    shared: Arc<Shared>,
    shards: [Mutex<HashMap<Digest, (Record, Pins)>>; SHARDS],
}

impl HotTier {
    /// Begins making or removing links to complete objects.
    pub fn linker(&self) -> Linker {
        Linker {
            shared: Arc::clone(&self.shared),
            shards: Default::default(),
        }
    }
}

impl Linker {
    /// Links the file of `digest` as `name` in `directory` (same file system), with `attributes`.
    ///
    /// Errors: `Io` (also for a name that exists, and for too many links), `Closed`.
    pub fn link(
        &self,
        digest: &Digest,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        attributes: &LinkAttributes,
    ) -> Result<Linked, HotError> {
        self.shared.admit("link object")?;
        if !self.hold(digest) {
            return Ok(Linked::Incomplete);
        }
        let mut shard = self.shard(digest);
        let result = self.link_held(&mut shard, digest, directory, name, attributes);
        if !matches!(result, Ok(Linked::Yes)) {
            let pins = self.count(digest, -1);
            match shard.get_mut(digest) {
                Some((_, recorded)) => *recorded = pins,
                None => self
                    .shared
                    .index
                    .apply(&[Change::Pin(*digest, pins)], false)?,
            }
        }
        result
    }

    /// Removes `name` from `directory`, which [`Linker::link`] made, and the hold on the object. A
    /// name that is gone already is fine.
    pub fn unlink(
        &self,
        digest: &Digest,
        directory: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), HotError> {
        self.shared.admit("unlink object")?;
        let mut shard = self.shard(digest);
        let record = self.record(&shard, digest)?;
        let path = |record: &Record| self.shared.directory.data(digest, record.incarnation);
        let trusted = match &record {
            Some(record) => self.is_trusted(record, &path(record))?.is_some(),
            None => false,
        };
        match nix::unistd::unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failure("unlink link", Path::new(name), errno)),
        }
        let pins = self.count(digest, -1);
        match record {
            Some(record) if trusted => {
                let path = path(&record);
                self.refresh(&mut shard, digest, record, &path, pins)
            }
            _ => self
                .shared
                .index
                .apply(&[Change::Pin(*digest, pins)], false),
        }
    }

    /// Gives up the hold of a link that is gone by other means.
    pub fn release(&self, digest: &Digest) -> Result<(), HotError> {
        self.shared.admit("release object")?;
        let mut shard = self.shard(digest);
        let pins = self.count(digest, -1);
        if let Some((_, recorded)) = shard.get_mut(digest) {
            *recorded = pins;
            return Ok(());
        }
        self.shared
            .index
            .apply(&[Change::Pin(*digest, pins)], false)
    }

    /// Writes down what is not yet, durably.
    pub fn finish(self) -> Result<(), HotError> {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            self.flush(&mut shard)?;
        }
        self.shared
            .index
            .apply(&[Change::Trust(self.shared.trust)], true)
    }

    fn shard(&self, digest: &Digest) -> MutexGuard<'_, HashMap<Digest, (Record, Pins)>> {
        let shard = &self.shards[usize::from(digest.0[31]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an owner of a complete object, which keeps it from being evicted from now on.
    fn hold(&self, digest: &Digest) -> bool {
        let mut catalogue = self.shared.catalogue();
        if !catalogue
            .table
            .get(digest)
            .is_some_and(|entry| entry.complete)
        {
            return false;
        }
        catalogue.pins.entry(*digest).or_default().owners += 1;
        true
    }

    /// Changes the number of owners and returns what is to be recorded.
    fn count(&self, digest: &Digest, by: i32) -> Pins {
        let mut catalogue = self.shared.catalogue();
        let pins = catalogue.pins.entry(*digest).or_default();
        pins.owners = pins.owners.saturating_add_signed(by);
        let now = *pins;
        if !now.is_held() {
            catalogue.pins.remove(digest);
        }
        now
    }

    fn record(
        &self,
        shard: &HashMap<Digest, (Record, Pins)>,
        digest: &Digest,
    ) -> Result<Option<Record>, HotError> {
        match shard.get(digest) {
            Some((record, _)) => Ok(Some(record.clone())),
            None => Ok(self
                .shared
                .index
                .get(digest)?
                .filter(|record| record.stage == Stage::Complete)),
        }
    }

    /// The file's attributes, if it is what the record says.
    fn is_trusted(&self, record: &Record, path: &Path) -> Result<Option<FileStat>, HotError> {
        let stat = match stat(path) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(failure("stat object", path, errno)),
        };
        let same = fingerprint(&stat) == record.fingerprint;
        Ok((same && self.shared.trust.believes(record.epoch)).then_some(stat))
    }

    fn link_held(
        &self,
        shard: &mut HashMap<Digest, (Record, Pins)>,
        digest: &Digest,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        attributes: &LinkAttributes,
    ) -> Result<Linked, HotError> {
        let Some(record) = self.record(shard, digest)? else {
            return Ok(Linked::Incomplete);
        };
        let path = self.shared.directory.data(digest, record.incarnation);
        let Some(before) = self.is_trusted(&record, &path)? else {
            return Ok(Linked::Unverified);
        };
        // The name in the hot directory is one link.
        if before.st_nlink > 1 && !has_attributes(&before, attributes) {
            return Ok(Linked::Differs);
        }
        let changed = set_attributes(&path, &before, attributes).and_then(|()| {
            let here = nix::fcntl::AT_FDCWD;
            nix::unistd::linkat(here, &path, directory, name, AtFlags::empty())
        });
        let pins = self
            .shared
            .catalogue()
            .pins
            .get(digest)
            .copied()
            .unwrap_or_default();
        // Also after a failure: the attributes may have changed.
        self.refresh(shard, digest, record, &path, pins)?;
        changed.map_err(|errno| failure("link object", &path, errno))?;
        Ok(Linked::Yes)
    }

    /// Takes the fingerprint that our own change has moved.
    fn refresh(
        &self,
        shard: &mut HashMap<Digest, (Record, Pins)>,
        digest: &Digest,
        mut record: Record,
        path: &Path,
        pins: Pins,
    ) -> Result<(), HotError> {
        let now = fingerprint(&stat(path).map_err(|errno| failure("stat object", path, errno))?);
        let before = record.fingerprint;
        if (now.inode, now.device, now.size) != (before.inode, before.device, before.size) {
            return Ok(());
        }
        record.fingerprint = now;
        let open = self.shared.catalogue().file(digest);
        if let Some(file) = open.filter(|file| file.incarnation == record.incarnation) {
            file.set_fingerprint(now);
        }
        shard.insert(*digest, (record, pins));
        if shard.len() >= BATCH {
            self.flush(shard)?;
        }
        Ok(())
    }

    fn flush(&self, shard: &mut HashMap<Digest, (Record, Pins)>) -> Result<(), HotError> {
        // Not while a group sync writes records of its own.
        let _round = self
            .shared
            .round
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::with_capacity(shard.len() * 2);
        for (digest, (record, pins)) in shard.drain() {
            let resident = self.shared.catalogue().table.get(&digest).is_some();
            if resident {
                changes.push(Change::Put(digest, record));
            }
            changes.push(Change::Pin(digest, pins));
        }
        self.shared.index.apply(&changes, false)
    }
}

fn stat(path: &Path) -> nix::Result<FileStat> {
    fstatat(nix::fcntl::AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn fingerprint(stat: &FileStat) -> Fingerprint {
    Fingerprint {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size as u64,
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    }
}

fn has_attributes(stat: &FileStat, wanted: &LinkAttributes) -> bool {
    (stat.st_uid, stat.st_gid) == wanted.owner
        && stat.st_mode & 0o7777 == wanted.mode & 0o7777
        && nanoseconds(stat.st_mtime, stat.st_mtime_nsec) == wanted.mtime_ns
}

/// Changes only what differs; each change costs a journal entry.
fn set_attributes(path: &Path, before: &FileStat, wanted: &LinkAttributes) -> nix::Result<()> {
    let here = nix::fcntl::AT_FDCWD;
    if (before.st_uid, before.st_gid) != wanted.owner {
        let (uid, gid) = (Uid::from_raw(wanted.owner.0), Gid::from_raw(wanted.owner.1));
        nix::unistd::fchownat(
            here,
            path,
            Some(uid),
            Some(gid),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
    }
    if before.st_mode & 0o7777 != wanted.mode & 0o7777 {
        let mode = Mode::from_bits_truncate(wanted.mode & 0o7777);
        nix::sys::stat::fchmodat(here, path, mode, FchmodatFlags::FollowSymlink)?;
    }
    if nanoseconds(before.st_mtime, before.st_mtime_nsec) != wanted.mtime_ns {
        let mtime = TimeSpec::new(
            wanted.mtime_ns.div_euclid(1_000_000_000),
            wanted.mtime_ns.rem_euclid(1_000_000_000),
        );
        let flag = UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(here, path, &TimeSpec::UTIME_OMIT, &mtime, flag)?;
    }
    Ok(())
}

fn failure(operation: &'static str, path: &Path, errno: Errno) -> HotError {
    HotError::io(operation, path, &errno.into())
}
