//! The volumes of one StorageClass: made, found, limited and removed below its directory.
//!
//! ```text
//! <directory of the class>/
//!   terrace-volumes/        0700: who may enter a volume is decided by who gets it mounted
//!     volumes/<hash>        a volume; hash of its id; mode 0777
//!     snapshots/<hash>      a snapshot of one, or of one that is gone
//!     .terrace/             records, limits, what is being made and what is being removed (spaces.rs)
//! ```
//!
//! Each volume is a space ([`crate::spaces`]), so its size is a limit that the file system keeps where it has
//! project quotas, and the node's daemon elsewhere. A volume appears by a rename, whole, and goes by a rename,
//! at once; only the removal of its files takes time. Each step may be made again after a crash in its middle.
//! Nothing is reached by following a link: everything happens below the descriptor that the walk has found.
//! A volume without a record was made by a version without limits: it has none, and is removed like others.
//!
//! No locks: the caller has one operation at a time for each volume.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::fsync;

use super::{DirectoryError, Place};
use crate::scratch::open_below;
use crate::spaces::{NewSpace, Origin, SpaceError, SpaceLimits, SpaceName, Spaces};
use crate::{Contents, TenantName, VolumeId};

/// Directory of the driver below that of a class.
const OWN: &str = "terrace-volumes";

/// Directory of volumes in it.
const VOLUMES: &str = "volumes";

/// The directory of a class, with the driver's own part in it.
#[derive(Debug)]
pub struct ClassDirectory {
    path: PathBuf,
    spaces: Spaces,
}

/// Which space a volume is, for who mounts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceOf {
    /// The directory that has the spaces, without links.
    pub base: PathBuf,
    /// Its name there.
    pub name: SpaceName,
}

/// What a volume or a snapshot is a copy of.
#[derive(Clone, Copy, Debug)]
pub struct CopyOf<'a> {
    /// The class that has it.
    pub class: &'a ClassDirectory,
    /// Its name there.
    pub name: &'a SpaceName,
    /// Where the contents of its files are.
    pub contents: &'a dyn Contents,
}

/// What a volume of a class may take, and whom it is charged to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Most bytes; `None`: no limit.
    pub bytes: Option<u64>,
    /// Whose budgets its mounts use.
    pub tenant: Option<TenantName>,
}

impl ClassDirectory {
    /// Opens the driver's part of a class's directory, made when absent. Blocks, as everything here, for as
    /// long as the file system does.
    ///
    /// Errors: `Link`, `Denied`, `Full`, `Io`; `Space` where the file system cannot have volumes.
    pub fn open(place: &Place) -> Result<Self, DirectoryError> {
        let path = place.path.join(OWN);
        let made = match mkdirat(&place.descriptor, OWN, Mode::S_IRWXU) {
            Ok(()) => fsync(place.descriptor.as_fd()),
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        };
        made.map_err(|errno| DirectoryError::of("make", &path, errno))?;
        let own = open_below(&place.descriptor, OsStr::new(OWN))
            .map_err(|errno| DirectoryError::of("open", &path, errno))?;
        let held = PathBuf::from(format!("/proc/self/fd/{}", own.as_raw_fd()));
        let spaces = Spaces::beneath(own)
            .map_err(|error| DirectoryError::of_space("keep volumes", &path, &held, &error))?;
        Ok(Self { path, spaces })
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(SpaceError) -> DirectoryError {
        move |error| DirectoryError::of_space(what, &self.path, self.spaces.base(), &error)
    }

    /// Makes the directory of a volume or a snapshot, with its limit; again is no error. Durable when it
    /// returns. With an origin it is a copy of that.
    ///
    /// Errors: `Space`.
    pub fn make(
        &self,
        name: &SpaceName,
        wanted: &Wanted,
        origin: Option<CopyOf<'_>>,
    ) -> Result<(), DirectoryError> {
        let asked = NewSpace {
            name: name.clone(),
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            limits: SpaceLimits {
                bytes: wanted.bytes,
                files: None,
            },
            tenant: wanted.tenant.as_ref().map(ToString::to_string),
            now: now(),
        };
        let made = match &origin {
            None => self.spaces.create(&asked),
            Some(of) => self.spaces.create_copy(&asked, of.origin()),
        };
        made.map(drop).map_err(self.failed("make a volume"))
    }

    /// Whether the file system keeps the limit of a volume, and so has all that was written to it.
    ///
    /// Errors: `Space`.
    pub fn is_kept_below(&self, id: &VolumeId) -> Result<bool, DirectoryError> {
        let kept = self.spaces.is_kept_below(&SpaceName::of_volume(id));
        kept.map_err(self.failed("look at a volume"))
    }

    /// Raises the limit of a volume; one that is as large already, or has none, stays as it is. It holds at
    /// once where the file system keeps it, and within seconds where the daemons do.
    ///
    /// Errors: `Space`, also for a volume of a version without limits.
    pub fn grow(&self, id: &VolumeId, bytes: u64) -> Result<(), DirectoryError> {
        let name = SpaceName::of_volume(id);
        let grown = self.spaces.space(&name).and_then(|record| {
            let Some(before) = record.limits.bytes else {
                return Ok(());
            };
            let limits = SpaceLimits {
                bytes: Some(before.max(bytes)),
                ..record.limits
            };
            // Also when it has it: the call before may have ended between record and limit.
            self.spaces.set_limits(&name, limits).map(drop)
        });
        grown.map_err(self.failed("raise the limit of a volume"))
    }

    /// Takes a volume or snapshot away from everybody, if it is there, and what was being made of it; its files go with
    /// [`ClassDirectory::empty`].
    ///
    /// Errors: `Space`.
    pub fn discard(&self, name: &SpaceName) -> Result<(), DirectoryError> {
        let withdrawn = self.spaces.withdraw(name, now());
        withdrawn.map_err(self.failed("remove a volume"))
    }

    /// Removes the files of what was discarded. Takes as long as there are files.
    ///
    /// Errors: `Space`, also where something is mounted inside; what can be removed is.
    pub fn empty(&self, name: &SpaceName) -> Result<(), DirectoryError> {
        let emptied = self.spaces.empty(name);
        emptied.map_err(self.failed("remove the files of a volume"))
    }
}

impl CopyOf<'_> {
    fn origin(&self) -> Origin<'_> {
        Origin {
            spaces: &self.class.spaces,
            name: self.name,
            shown: &self.class.path,
            contents: self.contents,
        }
    }
}

/// Now, in seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Where a volume of a class is, by the directory of the class. Asks no file system.
pub fn volume_of_class(class: &Path, id: &VolumeId) -> PathBuf {
    class.join(OWN).join(VOLUMES).join(id.hash())
}

/// The directory of the class that a volume lies in; `None` for a directory that the driver did not make.
pub(super) fn class_of_volume(volume: &Path) -> Option<&Path> {
    is_volume(volume).then(|| volume.ancestors().nth(3))?
}

/// Which space a directory that was found is; `None` for one that a person made, and for a volume of a version
/// without limits. Blocks.
///
/// Errors: `Space`.
pub(super) fn space_of(place: &Place) -> Result<Option<SpaceOf>, DirectoryError> {
    let mut above = place.path.ancestors();
    let (Some(volume), Some(base)) = (above.next(), above.nth(1)) else {
        return Ok(None);
    };
    let hash = volume.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{VOLUMES}/{hash}").parse::<SpaceName>();
    let (true, Ok(name)) = (is_volume(volume), name) else {
        return Ok(None);
    };
    if !base.join(".terrace").exists() {
        return Ok(None);
    }
    let failed = |error| DirectoryError::of_space("find a volume", base, base, &error);
    match Spaces::open(base).and_then(|spaces| spaces.space(&name)) {
        Ok(_) => Ok(Some(SpaceOf {
            base: base.to_owned(),
            name,
        })),
        Err(SpaceError::NotFound(_)) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Whether a path is that of a volume which the driver made.
pub(super) fn is_volume(path: &Path) -> bool {
    let mut last = path.iter().rev();
    last.next()
        .is_some_and(|name| VolumeId::is_hash(name.as_encoded_bytes()))
        && last.next() == Some(OsStr::new(VOLUMES))
        && last.next() == Some(OsStr::new(OWN))
}

/// Whether a path below a base may be a volume: what the driver keeps for itself may not.
pub(super) fn may_be_shown(below: &Path) -> bool {
    let inside = below.iter().any(|name| name == OWN);
    !inside || is_volume(below)
}
