//! The volumes of one StorageClass: made, found and removed below its directory.
//!
//! ```text
//! <directory of the class>/
//!   terrace-volumes/        0700: who may enter a volume is decided by who gets it mounted
//!     volumes/<hash>        a volume; hash of its id; mode 0777
//!     making/<hash>         being made: nobody has it
//!     trash/<hash>          deleted: its files are being removed
//! ```
//!
//! A volume appears under `volumes` by a rename, whole, and goes by a rename, at once; only the removal of
//! its files takes time. Each step may be made again after a crash in its middle. Nothing is reached by
//! following a link, and only names that are a hash are ever made, moved or removed.
//!
//! No locks: the caller has one operation at a time for each volume.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{Mode, fchmod, fstatat, mkdirat};
use nix::unistd::fsync;

use super::{DirectoryError, Place};
use crate::VolumeId;
use crate::scratch::{open_below, remove_below};

/// Directory of the driver below that of a class.
const OWN: &str = "terrace-volumes";

/// Directory of volumes in it.
const VOLUMES: &str = "volumes";

/// Directory of what is being made in it.
const MAKING: &str = "making";

/// Directory of what is being removed in it.
const TRASH: &str = "trash";

/// Mode of a volume's directory: every user of a pod may write, as in an `emptyDir`.
const VOLUME_MODE: u32 = 0o777;

/// The directory of a class, with the driver's own part in it.
#[derive(Debug)]
pub struct ClassDirectory {
    path: PathBuf,
    own: OwnedFd,
    volumes: OwnedFd,
    making: OwnedFd,
    trash: OwnedFd,
}

impl ClassDirectory {
    /// Opens the driver's part of a class's directory, made when absent. Blocks, as everything here, for as
    /// long as the file system does.
    ///
    /// Errors: `Link`, `Denied`, `Full`, `Io`.
    pub fn open(place: &Place) -> Result<Self, DirectoryError> {
        let path = place.path.join(OWN);
        let part = |parent: &OwnedFd, name: &str| {
            let made = match mkdirat(parent, name, Mode::S_IRWXU) {
                Ok(()) => fsync(parent.as_fd()),
                Err(Errno::EEXIST) => Ok(()),
                Err(errno) => Err(errno),
            };
            let at = || path.join(name);
            made.map_err(|errno| DirectoryError::of("make", &at(), errno))?;
            open_below(parent, OsStr::new(name))
                .map_err(|errno| DirectoryError::of("open", &at(), errno))
        };
        let own = part(&place.descriptor, OWN)?;
        Ok(Self {
            volumes: part(&own, VOLUMES)?,
            making: part(&own, MAKING)?,
            trash: part(&own, TRASH)?,
            own,
            path,
        })
    }

    fn volume_path(&self, id: &VolumeId) -> PathBuf {
        self.path.join(VOLUMES).join(id.hash())
    }

    /// Makes the directory of a volume; again is no error. Durable when it returns.
    ///
    /// Errors: `Denied`, `Full`, `Io`.
    pub fn make(&self, id: &VolumeId) -> Result<(), DirectoryError> {
        let name = id.hash();
        let failed = |errno| DirectoryError::of("make", &self.volume_path(id), errno);
        if exists(&self.volumes, &name).map_err(failed)? {
            return Ok(());
        }
        match mkdirat(&self.making, name.as_str(), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let made = open_below(&self.making, OsStr::new(&name)).map_err(failed)?;
        // Whatever the process's mask says.
        fchmod(&made, Mode::from_bits_truncate(VOLUME_MODE)).map_err(failed)?;
        renameat(&self.making, name.as_str(), &self.volumes, name.as_str()).map_err(failed)?;
        self.sync().map_err(failed)
    }

    /// Takes a volume away from everybody, if it is there, and what was being made of it; its files go with
    /// [`ClassDirectory::empty`].
    ///
    /// Errors: `Denied`, `Io`.
    pub fn discard(&self, id: &VolumeId) -> Result<(), DirectoryError> {
        let name = id.hash();
        let failed = |errno| DirectoryError::of("remove", &self.volume_path(id), errno);
        match remove_below(&self.making, OsStr::new(&name)) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match renameat(&self.volumes, name.as_str(), &self.trash, name.as_str()) {
            Ok(()) => self.sync().map_err(failed),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Removes the files of a volume that was discarded. Takes as long as there are files.
    ///
    /// Errors: `Denied`, `Link` where something is mounted inside, `Io`; what can be removed is.
    pub fn empty(&self, id: &VolumeId) -> Result<(), DirectoryError> {
        match remove_below(&self.trash, OsStr::new(&id.hash())) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => {
                let at = self.path.join(TRASH).join(id.hash());
                Err(DirectoryError::of("remove", &at, errno))
            }
        }
    }

    fn sync(&self) -> Result<(), Errno> {
        for directory in [&self.volumes, &self.making, &self.trash, &self.own] {
            fsync(directory.as_fd())?;
        }
        Ok(())
    }
}

/// Where a volume of a class is, by the directory of the class. Asks no file system.
pub fn volume_of_class(class: &Path, id: &VolumeId) -> PathBuf {
    class.join(OWN).join(VOLUMES).join(id.hash())
}

/// Whether a path is that of a volume which the driver made.
pub(super) fn is_volume(path: &Path) -> bool {
    let mut last = path.iter().rev();
    let is_hash = |name: &OsStr| {
        let bytes = name.as_encoded_bytes();
        bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit)
    };
    last.next().is_some_and(is_hash)
        && last.next() == Some(OsStr::new(VOLUMES))
        && last.next() == Some(OsStr::new(OWN))
}

/// Whether a path below a base may be a volume: what the driver keeps for itself may not.
pub(super) fn may_be_shown(below: &Path) -> bool {
    let inside = below.iter().any(|name| name == OWN);
    !inside || is_volume(below)
}

fn exists(parent: &OwnedFd, name: &str) -> Result<bool, Errno> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
