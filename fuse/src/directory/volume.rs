//! What people ask of a volume as a whole, or of a part of it: how safe its files are, to make them safer,
//! and to take note of failures. And the attributes that say the same of one file.
//!
//! `user.terrace.durability` is how safe a file's bytes are now (`accepted`, `local`, `shared` or
//! `cold`), and `user.terrace.spooled_bytes` how many of them are on this node's SSD only. Both exist on
//! volumes with a spool or a cold store, for regular files, and nobody can set them. They are listed only
//! where there is a spool.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::DirectoryFs;
use super::durability::Level;
use super::lookup::NAMED;
use super::spool::{Flushed, SpoolStatus};
use super::sys::{self, FileId};

/// How safe a file is now.
const DURABILITY: &[u8] = b"user.terrace.durability";

/// How much of it is only here.
const SPOOLED: &[u8] = b"user.terrace.spooled_bytes";

/// What the kernel asks for at each write: whether a program has privileges that end with it.
const CAPABILITY: &[u8] = b"security.capability";

impl DirectoryFs {
    /// The spool's state, of all files or of those at and below `path`, which is relative to the root;
    /// `None` on a volume without a spool.
    ///
    /// Errors: those of finding the path.
    pub fn spool_status(&self, path: &[u8]) -> Result<Option<SpoolStatus>, Errno> {
        let Some(spool) = &self.spool else {
            return Ok(None);
        };
        let only = self.below(path, || spool.files())?;
        Ok(Some(spool.status(only.as_deref())))
    }

    /// Brings files at and below `path` to `level`; `tell` hears how far it has come, and ends it with
    /// `false`. Blocks.
    ///
    /// Errors: those of finding the path. What cannot be brought there is told in the result.
    pub fn flush_below(
        &self,
        path: &[u8],
        level: Level,
        tell: &mut dyn FnMut(&Flushed) -> bool,
    ) -> Result<Flushed, Errno> {
        let Some(spool) = &self.spool else {
            if level >= Level::Local {
                self.sync_all()?;
            }
            return Ok(Flushed::default());
        };
        let only = self.below(path, || spool.files())?;
        Ok(spool.flush(level, only.as_deref(), tell))
    }

    /// Forgets the failures of files at and below `path`; returns how many there were.
    ///
    /// Errors: those of finding the path.
    pub fn acknowledge_below(&self, path: &[u8]) -> Result<u64, Errno> {
        let cold = self.acknowledge_cold(path)?;
        let Some(spool) = &self.spool else {
            return Ok(cold);
        };
        let only = self.below(path, || spool.files())?;
        Ok(cold + spool.acknowledge(only.as_deref()))
    }

    /// Numbers of those of these files that are at and below a path; `None`: all.
    pub(super) fn below(
        &self,
        path: &[u8],
        files: impl FnOnce() -> Vec<(u64, FileId)>,
    ) -> Result<Option<Vec<u64>>, Errno> {
        let names = path.split(|byte| *byte == b'/');
        let mut names = names
            .filter(|name| !name.is_empty() && *name != b".")
            .peekable();
        if names.peek().is_none() {
            return Ok(None);
        }
        let mut at: Option<OwnedFd> = None;
        for name in names {
            let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            at = Some(sys::open_child(from, &name, NAMED, 0)?);
        }
        let Some(at) = at else { return Ok(None) };
        let stat = fstat(&at)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return Ok(Some(vec![self.number(stat.st_ino)]));
        }
        let prefix = self.path_of(at.as_fd()).ok_or(Errno::ESTALE)? + "/";
        let mut found = Vec::new();
        for (node, id) in files() {
            let file = sys::open_id(self.mount.as_fd(), &id, OFlag::O_PATH);
            let path = file.ok().and_then(|file| self.path_of(file.as_fd()));
            // A file whose path nobody knows may be there.
            if path.is_none_or(|path| path.starts_with(&prefix)) {
                found.push(node);
            }
        }
        Ok(Some(found))
    }

    /// The value of an attribute that is made up here, or known without asking below.
    pub(super) fn own_xattr(&self, node: u64, name: &[u8]) -> Option<Result<Vec<u8>, Errno>> {
        if name == CAPABILITY && self.is_plain(node) {
            return Some(Err(Errno::ENODATA));
        }
        if self.spool.is_none() && self.tiering.is_none() {
            return None;
        }
        if name == CAPABILITY {
            let (_, stage) = self.staged(node)?;
            return stage.is_plain().then_some(Err(Errno::ENODATA));
        }
        if name != DURABILITY && name != SPOOLED {
            return None;
        }
        if !self.is_regular(node) {
            return Some(Err(Errno::ENODATA));
        }
        let (level, bytes) = self.safety(node);
        Some(Ok(if name == DURABILITY {
            level.name().into()
        } else {
            bytes.to_string().into()
        }))
    }

    /// How safe the bytes of a file are now, and how many are on this node only.
    fn safety(&self, node: u64) -> (Level, u64) {
        let id = self.nodes.id(node).ok();
        let stage = id.and_then(|id| self.spool.as_ref()?.stage(node, &id));
        let known = stage.map_or((Level::Shared, 0), |stage| stage.safety());
        let kept = || self.at(node).is_ok_and(|at| self.is_kept_cold(at.fd()));
        match known {
            (Level::Shared, _) if kept() => (Level::Cold, 0),
            known => known,
        }
    }

    /// Takes note that a file below has no capabilities, so that not every write has to ask.
    pub(super) fn note_capability(&self, node: u64, name: &[u8], absent: bool) {
        if name != CAPABILITY {
            return;
        }
        if let Some((_, stage)) = self.staged(node) {
            stage.set_plain(absent);
        } else if absent {
            self.note_plain(node);
        } else {
            self.fresh.note_capable(node);
        }
    }

    /// Refuses to change what is made up here.
    pub(super) fn refuse_own(&self, name: &[u8]) -> Result<(), Errno> {
        let made_up = self.spool.is_some() || self.tiering.is_some();
        if made_up && (name == DURABILITY || name == SPOOLED) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn is_regular(&self, node: u64) -> bool {
        let stat = self.at(node).and_then(|at| fstat(at.fd()));
        stat.is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
    }
}
