//! Where the bytes of a file are, below or in the spool, for every request that touches them.
//!
//! A file is staged when it is opened for writing while it has no bytes below, or is truncated by this
//! very open, and its levels, the spool's room and the handles already open allow it. Whether it is
//! must not change between that decision and the open that follows it: the file's gate is held. All
//! other opens go to the file below, as on a volume without a spool.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, fstat, futimens};
use nix::sys::time::TimeSpec;

use super::data::HandleOf;
use super::durability::{Level, Levels};
use super::lookup::Found;
use super::names::{KEPT, Place};
use super::opens::Opened;
use super::spool::{Fresh, Running, Spool, Stage};
use super::{DirectoryFs, sys};

/// A call that promises something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// close(2).
    Close,
    /// fsync(2); `data_only`: fdatasync(2).
    Sync { data_only: bool },
}

/// An open of a file whose gate is held.
#[derive(Clone, Copy, Debug)]
struct Asked {
    unique: u64,
    node: u64,
    /// O_SYNC and the like.
    kept: OFlag,
    writes: bool,
    levels: Levels,
}

impl DirectoryFs {
    /// Opens a file on a volume with rules. `flags` are those of open(2).
    pub(super) fn open_ruled(&self, unique: u64, node: u64, flags: i32) -> Result<Opened, Errno> {
        if let Some(spool) = &self.spool {
            return self.open_by_levels(spool, unique, node, flags);
        }
        let wanted = OFlag::from_bits_truncate(flags);
        let _entered = self.enter(node)?;
        let file = self.open_as_asked(node, flags)?;
        let asked = Asked {
            unique,
            node,
            kept: wanted & KEPT,
            writes: wanted & OFlag::O_ACCMODE != OFlag::O_RDONLY,
            levels: self.levels_of(file.as_fd()),
        };
        self.open_below(&asked, file.into())
    }

    /// Opens a file where its bytes are.
    fn open_by_levels(
        &self,
        spool: &Running,
        unique: u64,
        node: u64,
        flags: i32,
    ) -> Result<Opened, Errno> {
        let wanted = OFlag::from_bits_truncate(flags);
        let access = wanted & OFlag::O_ACCMODE;
        let truncates = wanted.contains(OFlag::O_TRUNC);
        let id = self.nodes.id(node)?;
        let _entered = self.enter(node)?;
        let _gate = spool.gate(node);
        let joined = spool.join(node, &id);
        let kept = wanted & (KEPT | OFlag::O_TRUNC);
        let how = self.access(access | kept) | OFlag::O_NONBLOCK;
        let below = self.reopen(node, how);
        let asked = |levels| Asked {
            unique,
            node,
            kept: wanted & KEPT,
            writes: access != OFlag::O_RDONLY,
            levels,
        };
        if let Some(stage) = joined {
            // A directory that refuses changes nothing of what was promised.
            let levels = below.map_or(stage.levels(), |file| self.levels_of(file.as_fd()));
            if truncates {
                self.drop_set_ids(node)?;
                let emptied = || spool.set_length(&stage, 0);
                self.resizing_staged(node, stage.contents(), 0, emptied)?;
            }
            return self.open_staged(spool, &stage, &asked(levels));
        }
        let below = below?;
        self.ready(&below, flags)?;
        let (asked, stat) = (asked(self.levels_of(below.as_fd())), fstat(&below)?);
        let is_empty = truncates || stat.st_size == 0;
        if is_empty && self.may_stage(spool, &asked) {
            let path = self.path_of(below.as_fd());
            let fresh = Fresh {
                node,
                file: &id,
                stat: &stat,
                levels: asked.levels,
                name: path.as_deref().unwrap_or("?"),
            };
            if truncates {
                self.drop_set_ids(node)?;
            }
            if let Some(opened) = self.stage_and_open(spool, &fresh, &asked)? {
                return Ok(opened);
            }
        }
        if truncates {
            self.drop_set_ids(node)?;
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
            File::from(self.reopen(node, flags)?)
                .set_len(0)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        }
        self.open_below(&asked, below.into())
    }

    /// Opens a file that was just made.
    pub(super) fn open_made(
        &self,
        place: &Place<'_>,
        found: &Found,
        file: File,
        kept: OFlag,
    ) -> Result<Opened, Errno> {
        let asked = Asked {
            unique: place.unique,
            node: self.number(found.stat.st_ino),
            kept,
            writes: true,
            levels: self.levels_at(place),
        };
        let Some(spool) = &self.spool else {
            return self.open_below(&asked, file);
        };
        let _gate = spool.gate(asked.node);
        if let Some(stage) = spool.join(asked.node, &found.id) {
            return self.open_staged(spool, &stage, &asked);
        }
        if self.may_stage(spool, &asked) {
            let path = self.path_at(place);
            let fresh = Fresh {
                node: asked.node,
                file: &found.id,
                stat: &found.stat,
                levels: asked.levels,
                name: path.as_deref().unwrap_or("?"),
            };
            if let Some(opened) = self.stage_and_open(spool, &fresh, &asked)? {
                return Ok(opened);
            }
        }
        self.open_below(&asked, file)
    }

    fn may_stage(&self, spool: &Spool, asked: &Asked) -> bool {
        let wants = asked.writes && asked.levels.may_stage();
        // The kernel has one file behind all handles of a node.
        wants && !self.opens.is_open(asked.node) && spool.has_room()
    }

    /// `None`: the SSD cannot, so it is written through.
    fn stage_and_open(
        &self,
        spool: &Running,
        fresh: &Fresh<'_>,
        asked: &Asked,
    ) -> Result<Option<Opened>, Errno> {
        let stage = match spool.begin(fresh) {
            Ok(stage) => stage,
            Err(error) => {
                tracing::warn!(%error, "not staged: written through");
                return Ok(None);
            }
        };
        let opened = self.open_staged(spool, &stage, asked);
        match opened {
            Ok(_) => self.staged_anew(fresh.stat.st_size),
            Err(_) => spool.give_up(&stage),
        }
        opened.map(Some)
    }

    fn open_staged(
        &self,
        spool: &Running,
        stage: &Arc<Stage>,
        asked: &Asked,
    ) -> Result<Opened, Errno> {
        self.refuse_sync_writes(asked)?;
        if asked.writes && !asked.kept.is_empty() {
            // Each write is synced by the kernel; what leads to the bytes has to be durable before.
            spool.anchor(stage)?;
        }
        let file = spool.reopen(stage, asked.kept)?;
        let mut opened = self.opens.open(asked.unique, asked.node, file)?;
        spool.opened(stage, opened.fh, asked.writes, asked.levels);
        opened.flush = asked.writes;
        Ok(opened)
    }

    fn open_below(&self, asked: &Asked, file: File) -> Result<Opened, Errno> {
        self.refuse_sync_writes(asked)?;
        let mut opened = self.opens.open(asked.unique, asked.node, file)?;
        let mut levels = asked.levels;
        if !asked.writes {
            levels.close = Level::Accepted;
        }
        let syncs = levels.close > Level::Accepted;
        opened.flush = asked.writes && (self.is_shared || syncs);
        if syncs || levels.fsync == Level::Cold {
            self.opens.promise(opened.fh, levels);
        }
        Ok(opened)
    }

    /// Writes with O_SYNC are the kernel's, which knows nothing of the cold store.
    fn refuse_sync_writes(&self, asked: &Asked) -> Result<(), Errno> {
        let promised = asked.writes && asked.levels.fsync == Level::Cold;
        match promised && !asked.kept.is_empty() {
            true => Err(Errno::EOPNOTSUPP),
            false => Ok(()),
        }
    }

    /// As a truncation by somebody without privilege does: the contents are others now.
    pub(super) fn drop_set_ids(&self, node: u64) -> Result<(), Errno> {
        let at = self.at(node)?;
        let mode = fstat(at.fd())?.st_mode;
        let set = mode & (libc::S_ISUID | libc::S_ISGID);
        // Without S_IXGRP, S_ISGID is a mark for locking and not a privilege.
        let dropped = if mode & libc::S_IXGRP == 0 {
            set & !libc::S_ISGID
        } else {
            set
        };
        if dropped == 0 {
            return Ok(());
        }
        sys::change_mode(at.fd(), mode & !dropped)
    }

    /// What is promised for the file of a descriptor, by its path of now.
    pub(super) fn levels_of(&self, file: BorrowedFd<'_>) -> Levels {
        if !self.durability.needs_paths() {
            return self.durability.levels(None);
        }
        self.durability.levels(self.path_of(file).as_deref())
    }

    fn levels_at(&self, place: &Place<'_>) -> Levels {
        if !self.durability.needs_paths() {
            return self.durability.levels(None);
        }
        self.durability.levels(self.path_at(place).as_deref())
    }

    fn path_at(&self, place: &Place<'_>) -> Option<String> {
        let parent = self.path_of(self.at(place.parent).ok()?.fd())?;
        let name = String::from_utf8_lossy(place.name);
        Some(if parent.is_empty() {
            name.into_owned()
        } else {
            format!("{parent}/{name}")
        })
    }

    /// Path of a file below the root, as the kernel knows it; `None` for one that it only knows by its
    /// number.
    pub(super) fn path_of(&self, file: BorrowedFd<'_>) -> Option<String> {
        let link = |fd: BorrowedFd<'_>| -> Option<PathBuf> {
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
        };
        let (root, path) = (link(self.root.as_fd())?, link(file)?);
        let below = path.strip_prefix(root).ok()?;
        Some(below.to_string_lossy().into_owned())
    }

    /// The staged file behind an open handle.
    pub(super) fn staged(&self, node: u64) -> Option<(&Running, Arc<Stage>)> {
        let spool = self.spool.as_ref()?;
        Some((spool, spool.staged(node)?))
    }

    /// Makes what a handle has written as durable as its close or fsync promises; `None`: the file is
    /// not staged.
    pub(super) fn settle(&self, of: HandleOf, call: Call) -> Option<Result<(), Errno>> {
        let (spool, stage) = self.staged(of.node)?;
        let (levels, writes) = Spool::promised(&stage, of.fh)?;
        Some(match call {
            // A reader that goes has nothing to wait for.
            Call::Close if !writes => Ok(()),
            Call::Close => spool.reach(&stage, of.fh, levels.close, false),
            Call::Sync { data_only } => spool.reach(&stage, of.fh, levels.fsync, data_only),
        })
    }

    /// Sets the length of a staged file; `false`: it is not staged.
    pub(super) fn set_staged_length(&self, node: u64, length: i64) -> Result<bool, Errno> {
        let Some(spool) = self.spool.as_ref().filter(|spool| !spool.is_empty()) else {
            return Ok(false);
        };
        let id = self.nodes.id(node)?;
        let _gate = spool.gate(node);
        match spool.join(node, &id) {
            Some(stage) => {
                let set = || spool.set_length(&stage, length);
                let resized = self.resizing_staged(node, stage.contents(), length, set);
                resized.map(|()| true)
            }
            None => Ok(false),
        }
    }

    /// Sets times of a staged file, as utimensat(2) takes them; `false`: it is not staged.
    pub(super) fn set_staged_times(
        &self,
        node: u64,
        times: [libc::timespec; 2],
    ) -> Result<bool, Errno> {
        let Some(spool) = self.spool.as_ref().filter(|spool| !spool.is_empty()) else {
            return Ok(false);
        };
        let id = self.nodes.id(node)?;
        let _gate = spool.gate(node);
        let Some(stage) = spool.join(node, &id) else {
            return Ok(false);
        };
        let [accessed, modified] = times.map(TimeSpec::from_timespec);
        futimens(stage.contents(), &accessed, &modified)?;
        spool.touched(&stage);
        Ok(true)
    }

    /// The last name of a file is about to go.
    pub(super) fn losing(&self, found: &Found) {
        if let Some(spool) = &self.spool
            && found.stat.st_nlink <= 1
        {
            let number = self.number(found.stat.st_ino);
            spool.removing(number, &found.id, &found.stat);
        }
    }

    /// Attributes with what the spool knows better.
    pub(super) fn staged_over(&self, stat: FileStat) -> FileStat {
        let Some(spool) = self.spool.as_ref().filter(|spool| !spool.is_empty()) else {
            return stat;
        };
        let node = stat.st_ino;
        match self
            .nodes
            .id(node)
            .ok()
            .and_then(|id| spool.stage(node, &id))
        {
            Some(stage) => stage.over(stat),
            None => stat,
        }
    }
}
