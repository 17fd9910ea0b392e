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
//! Everything here blocks on the disk and belongs on threads that may. Lock order: the lock of an
//! object's link shard, then the round of the group sync, then the catalogue. All work on the links
//! of one object is done under the first, by whichever [`Linker`].

mod files;
mod mend;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::unistd::UnlinkatFlags;

use self::files::HotFiles;
use super::error::HotError;
use super::index::Change;
use super::record::{Pins, Record, Stage};
use super::shared::Shared;
use super::tier::HotTier;
use crate::identity::Digest;

const SHARDS: usize = 16;

/// Changes a shard collects before it writes them.
const BATCH: usize = 1024;

/// Records that are read from the index at a time.
const LOOKUP: usize = 1024;

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

/// Records of objects whose links changed, and with them their owners, which the index does not have
/// yet.
type Changed = HashMap<Digest, Record>;

/// Changes of links, by object: what all [`Linker`]s of a tier share. Pins are written under these
/// locks, too, so that the last write of them is the last change.
#[derive(Debug, Default)]
pub(super) struct Links([Mutex<Changed>; SHARDS]);

impl Links {
    fn shard(&self, digest: &Digest) -> MutexGuard<'_, Changed> {
        let shard = &self.0[usize::from(digest.0[31]) % SHARDS];
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
    ///
    /// Errors: `Io` (also for a name that exists, and for too many links), `Closed`. The first one
    /// ends it: earlier links exist, and what they hold stays held.
    pub fn link_all(
        &self,
        directory: BorrowedFd<'_>,
        links: &[Link<'_>],
    ) -> Result<Vec<Linked>, HotError> {
        let mut done = Vec::with_capacity(links.len());
        for links in links.chunks(LOOKUP) {
            self.shared.admit("link objects")?;
            let records = self
                .shared
                .index
                .get_many(links.iter().map(|link| link.digest))?;
            for (link, record) in links.iter().zip(records) {
                done.push(self.link_one(directory, link, record)?);
            }
        }
        Ok(done)
    }

    /// Removes `name` from `directory`, which [`Linker::link_all`] made, and with it the hold on the
    /// object. A name that is gone already is fine.
    pub fn unlink(
        &self,
        digest: &Digest,
        directory: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), HotError> {
        self.shared.admit("unlink object")?;
        let mut changed = self.shared.links.shard(digest);
        let record = self.shared.record(&changed, digest)?;
        let trusted = match &record {
            Some(record) => self.trusted(digest, record)?.is_some(),
            None => false,
        };
        match nix::unistd::unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failure("unlink link", Path::new(name), errno)),
        }
        match record {
            Some(record) => self.settle(&mut changed, digest, record, trusted),
            None => self.shared.set_owners(digest, 0, &changed),
        }
    }

    /// Gives up the hold of a link that is gone by other means.
    pub fn release(&self, digest: &Digest) -> Result<(), HotError> {
        self.shared.admit("release object")?;
        let mut changed = self.shared.links.shard(digest);
        match self.shared.record(&changed, digest)? {
            Some(record) => {
                let trusted = self.trusted(digest, &record)?.is_some();
                self.settle(&mut changed, digest, record, trusted)
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

    /// `found` is the record that the index had a moment ago.
    fn link_one(
        &self,
        directory: BorrowedFd<'_>,
        link: &Link<'_>,
        found: Option<Record>,
    ) -> Result<Linked, HotError> {
        let digest = &link.digest;
        let mut changed = self.shared.links.shard(digest);
        let known = changed.get(digest).cloned();
        let Some(mut record) = known
            .or(found)
            .filter(|record| record.stage == Stage::Complete)
        else {
            return Ok(Linked::Incomplete);
        };
        // From here on it is not evicted; what it is held for is set right below in any case.
        let Some(before) = self.shared.hold(digest) else {
            return Ok(Linked::Incomplete);
        };
        let mut trusted = self.trusted(digest, &record)?;
        if trusted.is_none()
            && let Some(newer) = self.shared.record(&changed, digest)?
            && newer != record
        {
            // Another thread linked it meanwhile and has written that down.
            trusted = self.trusted(digest, &newer)?;
            record = newer;
        }
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
        let (incarnation, stat) = (record.incarnation, trusted);
        let made = stat.map_or(Ok(()), |stat| {
            self.files
                .set(digest, incarnation, &stat, &link.attributes)?;
            self.files.link(digest, incarnation, directory, link.name)
        });
        // Also after a failure: the attributes may have changed.
        self.settle(&mut changed, digest, record, true)?;
        made.map_err(|errno| failure("link object", Path::new(link.name), errno))?;
        Ok(Linked::Yes)
    }

    /// The file's attributes, if it is what the record says.
    fn trusted(
        &self,
        digest: &Digest,
        record: &Record,
    ) -> Result<Option<nix::sys::stat::FileStat>, HotError> {
        let stat = match self.files.stat(digest, record.incarnation) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(self.stat_failure(digest, record, errno)),
        };
        let same = files::fingerprint(&stat) == record.fingerprint;
        Ok((same && self.shared.trust.believes(record.epoch)).then_some(stat))
    }

    /// After a change of links: takes the number of owners and, if `trusted`, the fingerprint that
    /// our own change has moved.
    fn settle(
        &self,
        changed: &mut Changed,
        digest: &Digest,
        mut record: Record,
        trusted: bool,
    ) -> Result<(), HotError> {
        let stat = match self.files.stat(digest, record.incarnation) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return self.shared.set_owners(digest, 0, changed),
            Err(errno) => return Err(self.stat_failure(digest, &record, errno)),
        };
        let owners = files::owners(stat.st_nlink);
        let (now, before) = (files::fingerprint(&stat), record.fingerprint);
        let same = (now.inode, now.device, now.size) == (before.inode, before.device, before.size);
        if !trusted || !same {
            return self.shared.set_owners(digest, owners, changed);
        }
        record.fingerprint = now;
        let open = self.shared.catalogue().file(digest);
        if let Some(file) = open.filter(|file| file.incarnation == record.incarnation) {
            file.set_fingerprint(now);
        }
        self.shared.own(digest, owners);
        changed.insert(*digest, record);
        if changed.len() >= BATCH {
            self.shared.write_changed(changed)?;
        }
        Ok(())
    }

    fn stat_failure(&self, digest: &Digest, record: &Record, errno: Errno) -> HotError {
        let path = self.shared.directory.data(digest, record.incarnation);
        failure("stat object", &path, errno)
    }
}

impl Shared {
    /// The record of a complete object, with changes that the index does not have yet.
    fn record(&self, changed: &Changed, digest: &Digest) -> Result<Option<Record>, HotError> {
        match changed.get(digest) {
            Some(record) => Ok(Some(record.clone())),
            None => Ok(self
                .index
                .get(digest)?
                .filter(|record| record.stage == Stage::Complete)),
        }
    }

    /// Keeps a complete object from being evicted from now on; its pins before. `None`: it is not
    /// complete.
    fn hold(&self, digest: &Digest) -> Option<Pins> {
        let mut catalogue = self.catalogue();
        let complete = catalogue
            .table
            .get(digest)
            .is_some_and(|entry| entry.complete);
        if !complete {
            return None;
        }
        let pins = catalogue.pins.entry(*digest).or_default();
        let before = *pins;
        pins.owners = pins.owners.saturating_add(1);
        Some(before)
    }

    /// Undoes [`Shared::hold`].
    fn unhold(&self, digest: &Digest, before: Pins) {
        self.own(digest, before.owners);
    }

    /// Sets the number of owners in memory; what is to be recorded.
    fn own(&self, digest: &Digest, owners: u32) -> Pins {
        let mut catalogue = self.catalogue();
        let pins = catalogue.pins.entry(*digest).or_default();
        pins.owners = owners;
        let now = *pins;
        if !now.is_held() {
            catalogue.pins.remove(digest);
        }
        now
    }

    /// Sets the number of owners in memory and in the index.
    fn set_owners(&self, digest: &Digest, owners: u32, changed: &Changed) -> Result<(), HotError> {
        let pins = self.own(digest, owners);
        if changed.contains_key(digest) {
            return Ok(());
        }
        self.index.apply(&[Change::Pin(*digest, pins)], false)
    }

    /// Writes down what linkers have changed, without a sync.
    pub(super) fn write_links(&self) -> Result<(), HotError> {
        for shard in &self.links.0 {
            let mut changed = shard.lock().unwrap_or_else(PoisonError::into_inner);
            self.write_changed(&mut changed)?;
        }
        Ok(())
    }

    fn write_changed(&self, changed: &mut Changed) -> Result<(), HotError> {
        if changed.is_empty() {
            return Ok(());
        }
        // Not while a group sync writes records of its own.
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::with_capacity(changed.len() * 2);
        {
            let catalogue = self.catalogue();
            for (digest, record) in changed.iter() {
                if catalogue.table.get(digest).is_some() {
                    changes.push(Change::Put(*digest, record.clone()));
                }
                let pins = catalogue.pins.get(digest).copied();
                changes.push(Change::Pin(*digest, pins.unwrap_or_default()));
            }
        }
        self.index.apply(&changes, false)?;
        changed.clear();
        Ok(())
    }
}

fn failure(operation: &'static str, path: &Path, errno: Errno) -> HotError {
    HotError::io(operation, path, &errno.into())
}
