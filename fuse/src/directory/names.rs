//! Making, removing and renaming names: each done once, also when its worker dies in the middle.
//!
//! Before such an operation its evidence is recorded ([`super::intents`]); a request that is sent
//! again is carried out only when its evidence says that it was not. The record must outlive the
//! answer, so callers get it with the result.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::identity::{Caller, as_caller};
use super::intents::{Evidence, Intent, Intents};
use super::lookup::{Found, NAMED, component};
use super::opens::Opened;
use super::owner;
use super::quota::Charge;
use super::{DirectoryFs, Entry, sys};

/// Flags of open(2) that matter to a descriptor of ours. Not `O_APPEND`: the kernel says where each
/// write goes, and a write that is sent again must go to the same place. Not `O_DIRECT`: our buffers
/// are not aligned.
pub(super) const KEPT: OFlag = OFlag::O_SYNC.union(OFlag::O_DSYNC);

/// Where a name is to be made, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The request.
    pub(crate) unique: u64,
    /// Who asks.
    pub(crate) caller: Caller,
    /// The directory.
    pub(crate) parent: u64,
    /// The name in it.
    pub(crate) name: &'a [u8],
}

fn file_type(stat: &FileStat) -> u32 {
    stat.st_mode & libc::S_IFMT
}

impl DirectoryFs {
    /// Makes and opens a regular file. `flags` are those of open(2).
    ///
    /// Errors: `EEXIST`; `ESTALE` when another node has just made it and `O_EXCL` was not asked for,
    /// upon which the kernel looks again and judges who may open it.
    pub(crate) fn create(
        &self,
        place: Place<'_>,
        mode: u32,
        flags: i32,
    ) -> Result<(Entry, Opened, Intent), Errno> {
        let wanted = OFlag::from_bits_truncate(flags);
        let how = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | (wanted & KEPT);
        let made = self.make(place, libc::S_IFREG, |dir, name| {
            sys::open_child(dir, name, how, mode & 0o7777).map(Some)
        });
        let (mut found, intent) = match made {
            Err(Errno::EEXIST) if !wanted.contains(OFlag::O_EXCL) => return Err(Errno::ESTALE),
            other => other?,
        };
        let opened = match self.opens.resent(place.unique) {
            Some(opened) => opened,
            None => {
                let file = if sys::is_named_only(found.fd.as_fd()) {
                    // Made by a dead worker.
                    let access = OFlag::O_RDWR | (wanted & KEPT);
                    self.open_found(&found, access)?
                } else {
                    // Not a second descriptor of the open file: closing it is a request to the server.
                    let named = sys::open_named(found.fd.as_fd(), NAMED)?;
                    self.note_plain(self.number(found.stat.st_ino));
                    std::mem::replace(&mut found.fd, named)
                };
                self.keep_here(&file);
                self.open_made(&place, &found, file.into(), wanted & KEPT)?
            }
        };
        let entry = match self.entry(found, place.parent, &component(place.name)?) {
            Ok(entry) => entry,
            Err(error) => {
                self.release(opened.fh);
                return Err(error);
            }
        };
        Ok((entry, opened, intent))
    }

    /// Makes a directory.
    pub(crate) fn make_directory(
        &self,
        place: Place<'_>,
        mode: u32,
    ) -> Result<(Entry, Intent), Errno> {
        let bits = Mode::from_bits_truncate(mode & 0o7777);
        let began = Instant::now();
        let made = self.make(place, libc::S_IFDIR, |dir, name| {
            mkdirat(dir, name, bits).map(|()| None)
        });
        let (entry, intent) = self.told(place, made)?;
        if !Intents::is_resent(place.unique) {
            self.young.made(entry.node, began);
        }
        Ok((entry, intent))
    }

    /// Makes a regular or special file.
    pub(crate) fn make_node(
        &self,
        place: Place<'_>,
        mode: u32,
        device: u64,
    ) -> Result<(Entry, Intent), Errno> {
        let kind = SFlag::from_bits(mode & libc::S_IFMT).ok_or(Errno::EINVAL)?;
        let bits = Mode::from_bits_truncate(mode & 0o7777);
        let made = self.make(place, kind.bits(), |dir, name| {
            mknodat(dir, name, kind, bits, device).map(|()| None)
        });
        self.told(place, made)
    }

    /// Makes a symbolic link; nobody here ever follows it.
    pub(crate) fn make_symlink(
        &self,
        place: Place<'_>,
        target: &[u8],
    ) -> Result<(Entry, Intent), Errno> {
        let target = CString::new(target).map_err(|_| Errno::EINVAL)?;
        let made = self.make(place, libc::S_IFLNK, |dir, name| {
            symlinkat(target.as_c_str(), dir, name).map(|()| None)
        });
        self.told(place, made)
    }

    /// Gives a file another name.
    pub(crate) fn link(
        &self,
        unique: u64,
        node: u64,
        parent: u64,
        name: &[u8],
    ) -> Result<(Entry, Intent), Errno> {
        let name = component(name)?;
        let (file, dir) = (self.at(node)?, self.at(parent)?);
        let id = self.identify(file.fd(), &fstat(file.fd())?)?;
        let evidence = Evidence::File(id.clone());
        let done = self.evidence(unique).is_some()
            && self.find(dir.fd(), &name).is_ok_and(|found| found.id == id);
        let intent = self.intents.record(unique, &evidence);
        if done {
            self.recognise();
        } else {
            if !self.absent.take(parent, name.to_bytes()) {
                is_free(dir.fd(), &name)?;
            }
            linkat(
                file.fd(),
                c"",
                dir.fd(),
                name.as_c_str(),
                AtFlags::AT_EMPTY_PATH,
            )?;
        }
        let entry = self.entry(self.find(dir.fd(), &name)?, parent, &name)?;
        Ok((entry, intent))
    }

    /// Takes a name away: of a directory, or of anything else.
    pub(crate) fn remove(
        &self,
        unique: u64,
        parent: u64,
        name: &[u8],
        directory: bool,
    ) -> Result<Intent, Errno> {
        let name = component(name)?;
        let dir = self.at(parent)?;
        let victim = self.find(dir.fd(), &name);
        if let Some(evidence @ Evidence::File(id)) = &self.evidence(unique) {
            let gone = match &victim {
                Err(Errno::ENOENT) => true,
                Err(_) => false,
                Ok(found) => found.id != *id,
            };
            if gone {
                self.recognise();
                return Ok(self.intents.record(unique, evidence));
            }
        }
        let victim = victim?;
        self.unlinks(self.number(victim.stat.st_ino))?;
        let intent = self
            .intents
            .record(unique, &Evidence::File(victim.id.clone()));
        let how = if directory {
            UnlinkatFlags::RemoveDir
        } else {
            UnlinkatFlags::NoRemoveDir
        };
        self.losing(&victim);
        self.young.forget(self.number(victim.stat.st_ino));
        unlinkat(dir.fd(), name.as_c_str(), how)?;
        self.hold(victim, parent);
        Ok(intent)
    }

    /// Moves a name. `flags` are those of renameat2(2).
    ///
    /// Errors: `EINVAL` for `RENAME_WHITEOUT` and what is not known.
    pub(crate) fn rename(
        &self,
        unique: u64,
        (parent, name): (u64, &[u8]),
        (new_parent, new_name): (u64, &[u8]),
        flags: u32,
    ) -> Result<Intent, Errno> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        if flags.contains(RenameFlags::RENAME_WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let (name, new_name) = (component(name)?, component(new_name)?);
        let (from, to) = (self.at(parent)?, self.at(new_parent)?);
        let source = self.find_number(from.fd(), &name);
        let free = self.absent.take(new_parent, new_name.to_bytes()) && !Intents::is_resent(unique);
        let target = match free {
            true => None,
            false => match self.find(to.fd(), &new_name) {
                Err(Errno::ENOENT) => None,
                other => Some(other?),
            },
        };
        if let Some(evidence @ Evidence::Rename(moved, replaced)) = &self.evidence(unique) {
            let there = target.as_ref().is_some_and(|found| found.id == *moved);
            let left = match &source {
                Err(_) => !flags.contains(RenameFlags::RENAME_EXCHANGE),
                Ok((id, _)) if flags.contains(RenameFlags::RENAME_EXCHANGE) => {
                    Some(id) == replaced.as_ref()
                }
                Ok((id, _)) => id != moved,
            };
            if there && left && replaced.as_ref() != Some(moved) {
                self.recognise();
                if let Some(found) = &target {
                    self.moved(found.stat.st_ino, new_parent, &new_name);
                }
                return Ok(self.intents.record(unique, evidence));
            }
        }
        let (source, number) = source?;
        let replaced = target.as_ref().map(|found| found.id.clone());
        let same = replaced.as_ref() == Some(&source);
        if let Some(target) = &target {
            self.unlinks(self.number(target.stat.st_ino))?;
        }
        let evidence = Evidence::Rename(source, replaced);
        let intent = self.intents.record(unique, &evidence);
        let replaces = !same && !flags.contains(RenameFlags::RENAME_EXCHANGE);
        if let Some(target) = target.as_ref().filter(|_| replaces) {
            self.losing(target);
        }
        renameat2(
            from.fd(),
            name.as_c_str(),
            to.fd(),
            new_name.as_c_str(),
            flags,
        )?;
        self.young.has(new_parent, new_name.to_bytes());
        self.moved(number, new_parent, &new_name);
        if let Some(target) = target
            && !same
        {
            if replaces {
                self.hold(target, new_parent);
            } else {
                self.moved(target.stat.st_ino, parent, &name);
            }
        }
        Ok(intent)
    }

    /// Makes a name that is free, as the caller. `make` may return a descriptor of what it made.
    fn make(
        &self,
        place: Place<'_>,
        kind: u32,
        make: impl Fn(BorrowedFd<'_>, &CStr) -> Result<Option<OwnedFd>, Errno>,
    ) -> Result<(Found, Intent), Errno> {
        let name = component(place.name)?;
        let dir = self.at(place.parent)?;
        let evidence = Evidence::NameFree;
        if self.evidence(place.unique).is_some()
            && let Ok(found) = self.find(dir.fd(), &name)
            && file_type(&found.stat) == kind
            && owner::may_be(&found.stat, place.caller)
        {
            let found = self.given(dir.fd(), &name, found, place.caller)?;
            self.recognise();
            return Ok((found, self.intents.record(place.unique, &evidence)));
        }
        let taken = |_: &Errno| self.young.forget(place.parent);
        if !self.absent.take(place.parent, name.to_bytes()) {
            is_free(dir.fd(), &name).inspect_err(taken)?;
        }
        let charge = Charge::file(self.quota.as_ref())?;
        let intent = self.intents.record(place.unique, &evidence);
        let made = match as_caller(place.caller, || make(dir.fd(), &name))? {
            // Judged again below, without the caller's other groups.
            Err(Errno::EACCES | Errno::EPERM) => {
                self.make_and_give(dir.fd(), &name, place.caller, &make)?
            }
            made => made.inspect_err(taken)?,
        };
        charge.keep();
        let found = match made {
            None => self.find(dir.fd(), &name)?,
            Some(fd) => {
                let stat = fstat(&fd)?;
                let id = self.identify(fd.as_fd(), &stat)?;
                Found { fd, stat, id }
            }
        };
        Ok((found, intent))
    }

    fn told(
        &self,
        place: Place<'_>,
        made: Result<(Found, Intent), Errno>,
    ) -> Result<(Entry, Intent), Errno> {
        let (found, intent) = made?;
        let name = component(place.name)?;
        Ok((self.entry(found, place.parent, &name)?, intent))
    }

    /// What a dead worker has left about a request that is sent again.
    pub(super) fn evidence(&self, unique: u64) -> Option<Evidence> {
        if Intents::is_resent(unique) {
            self.resent.fetch_add(1, Ordering::Relaxed);
        }
        self.intents.inherited(unique)
    }

    /// Counts a request that is answered and not repeated.
    pub(super) fn recognise(&self) {
        self.recognised.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps what has lost its last name while the kernel knows its number.
    fn hold(&self, found: Found, parent: u64) {
        let directory = file_type(&found.stat) == libc::S_IFDIR;
        if directory || found.stat.st_nlink <= 1 {
            let number = self.number(found.stat.st_ino);
            let id = found.id.clone();
            let kept = self.kept(number, found);
            self.nodes.hold(number, kept);
            if let Some(spool) = &self.spool {
                spool.removed(number, &id, || {
                    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                    self.reopen(parent, flags).ok().map(Into::into)
                });
            }
        }
    }
}

/// `EEXIST` when the name is taken, by whatever.
fn is_free(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match sys::open_child(dir, name, NAMED, 0) {
        Err(Errno::ENOENT) => Ok(()),
        Ok(_) | Err(Errno::EXDEV) => Err(Errno::EEXIST),
        Err(error) => Err(error),
    }
}
