//! Directory volumes: directories of a shared file system, for reading and writing.
//!
//! ```text
//! <base>                          one of those that the driver may serve; exists
//!   checkpoints/                  `directory` of a StorageClass; exists
//!     terrace-volumes/            0700, see [`ClassDirectory`]
//!       volumes/<hash>            a volume of the class
//!   home/alice                    `directory` of a PersistentVolume that a person wrote; exists, used as it is
//! ```
//!
//! A path comes from whoever may write a StorageClass or a PersistentVolume, and directories above a volume
//! may be writable for people. So a path is walked by `openat2(2)` beneath its base without following any
//! link, each time it is used, and what the walk found is what is used: a directory that was exchanged for a
//! link meanwhile leads nowhere. No base and no directory of a class is ever made: where a shared file
//! system is not mounted there is nothing, instead of a directory on the node's own disk that fills.

mod class;
mod error;
mod sharing;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, fchown};

pub use class::{ClassDirectory, CopyOf, SpaceOf, Wanted, now, volume_of_class};
pub use error::{DirectoryError, SpaceRefusal};
pub use sharing::Sharing;

use crate::{
    AttributeError, ColdStore, DirectoryPath, Durability, TenantName, VolumeId, VolumeRequest,
};

/// Bits that a volume of a group has besides its own: the group may do everything, and what is made in it
/// belongs to the group, too.
const GROUP_BITS: u32 = 0o2070;

/// The directories below which volumes may lie.
#[derive(Clone, Debug, Default)]
pub struct Bases(Vec<PathBuf>);

/// What a directory volume shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryVolume {
    /// Which directory.
    pub path: DirectoryPath,
    /// What has happened to written data before the write is acknowledged.
    pub durability: Durability,
    /// Where contents go that nobody uses.
    pub cold: Option<ColdStore>,
    /// Whose budgets its mounts use.
    pub tenant: Option<TenantName>,
}

/// A directory that was found below its base.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl Bases {
    /// These directories and no others. They need not exist yet.
    ///
    /// Errors: `Base` for a path that is not absolute, or is the root, or goes up.
    pub fn new(bases: &[PathBuf]) -> Result<Self, DirectoryError> {
        let clean = |base: &Path| {
            let mut parts = base.components();
            let plain = parts.next() == Some(Component::RootDir);
            plain
                && base.components().count() > 1
                && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        match bases.iter().find(|base| !clean(base)) {
            Some(base) => Err(DirectoryError::Base(base.clone())),
            None => Ok(Self(
                bases
                    .iter()
                    .map(|base| base.components().collect())
                    .collect(),
            )),
        }
    }

    /// Whether there are none: the driver serves no directories.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The absolute path that a volume's path means. Asks no file system.
    ///
    /// Errors: `Off`, `Outside`, `Ambiguous`.
    pub fn resolve(&self, path: &DirectoryPath) -> Result<PathBuf, DirectoryError> {
        let (base, below) = self.split(path)?;
        Ok(base.join(below).components().collect())
    }

    /// Finds the directory of a volume's path. Blocks for as long as the file system does.
    ///
    /// Errors: those of [`Bases::resolve`]; `Absent`, `Link`, `Io`.
    pub fn find(&self, path: &DirectoryPath) -> Result<Place, DirectoryError> {
        let (base, below) = self.split(path)?;
        let at = base.join(&below);
        let failed = |errno| DirectoryError::of("open", &at, errno);
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // Links above are of who named the base.
        let base = open(base, flags | OFlag::O_PATH, Mode::empty()).map_err(failed)?;
        let below = match below.as_os_str().is_empty() {
            true => Path::new("."),
            false => &below,
        };
        let how = OpenHow::new().flags(flags | OFlag::O_RDONLY).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        let descriptor = openat2(base.as_fd(), below, how).map_err(failed)?;
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let path = nix::fcntl::readlink(link.as_str()).map_err(failed)?;
        Ok(Place {
            path: path.into(),
            descriptor,
        })
    }

    /// Finds the directory that a volume shows: one below a base, and not what the driver keeps there for
    /// itself.
    ///
    /// Errors: those of [`Bases::find`]; `Outside`.
    pub fn find_volume(&self, path: &DirectoryPath) -> Result<Place, DirectoryError> {
        let (_, below) = self.split(path)?;
        if below.as_os_str().is_empty() || !class::may_be_shown(&below) {
            return Err(DirectoryError::Outside(path.clone()));
        }
        self.find(path)
    }

    /// Raises the limit of a volume that the driver made, by its path; see [`ClassDirectory::grow`]. `false`: a
    /// person made the directory, and nobody here limits it. Blocks.
    ///
    /// Errors: those of [`Bases::find`] and [`ClassDirectory::grow`].
    pub fn grow(
        &self,
        path: &DirectoryPath,
        id: &VolumeId,
        bytes: u64,
    ) -> Result<bool, DirectoryError> {
        let volume = self.resolve(path)?;
        let Some(class) = class::class_of_volume(&volume) else {
            return Ok(false);
        };
        let class = format!("file://{}", class.display()).parse();
        let class = class.map_err(|_| DirectoryError::Outside(path.clone()))?;
        ClassDirectory::open(&self.find(&class)?)?.grow(id, bytes)?;
        Ok(true)
    }

    /// The base of a path, and the path below it.
    fn split(&self, path: &DirectoryPath) -> Result<(&Path, PathBuf), DirectoryError> {
        if self.0.is_empty() {
            return Err(DirectoryError::Off(path.clone()));
        }
        let Some(absolute) = path.absolute() else {
            return match self.0.as_slice() {
                [base] => Ok((base, PathBuf::from(path.as_str()))),
                _ => Err(DirectoryError::Ambiguous(path.clone())),
            };
        };
        // The nearest one, where one base lies below another.
        let found = self.0.iter().filter_map(|base| {
            let below = Path::new(absolute).strip_prefix(base).ok()?;
            Some((base.as_path(), below.to_owned()))
        });
        let nearest = found.min_by_key(|(_, below)| below.components().count());
        let is_hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
        nearest
            .filter(|(_, below)| !below.iter().any(is_hidden))
            .ok_or_else(|| DirectoryError::Outside(path.clone()))
    }
}

impl Place {
    /// Where it is, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which space it is; `None`: it has no limit of ours. Blocks.
    ///
    /// Errors: `Space`.
    pub fn space(&self) -> Result<Option<SpaceOf>, DirectoryError> {
        class::space_of(self)
    }

    /// Gives the directory itself, and what will be made in it, to a group. What is in it stays as it is.
    ///
    /// Errors: `Io`, `Denied`.
    pub fn give_to(&self, group: u32) -> Result<(), DirectoryError> {
        let failed = |errno| DirectoryError::of("give to its group", &self.path, errno);
        let found = fstat(&self.descriptor).map_err(failed)?;
        if found.st_gid != group {
            fchown(&self.descriptor, None, Some(Gid::from_raw(group))).map_err(failed)?;
        }
        // After the change of owner, which takes bits away.
        let mode = Mode::from_bits_truncate((found.st_mode & 0o7777) | GROUP_BITS);
        fchmod(&self.descriptor, mode).map_err(failed)
    }
}

impl DirectoryVolume {
    /// What a request comes to for this directory.
    pub fn of(request: &VolumeRequest, path: DirectoryPath) -> Self {
        Self {
            path,
            durability: request.durability.clone(),
            cold: request.cold.clone(),
            tenant: request.tenant.clone(),
        }
    }

    /// The context that says it.
    pub fn context(&self) -> BTreeMap<String, String> {
        let always = [
            ("directory", self.path.as_str()),
            ("durability", self.durability.as_str()),
        ];
        let tenant = self.tenant.as_ref().map(|name| ("tenant", name.as_str()));
        let cold = self.cold.as_ref().map(|cold| ("cold", cold.url()));
        let policy = self.cold.as_ref().and_then(ColdStore::policy);
        let policy = policy.map(|policy| ("tierPolicy", policy));
        let all = always.into_iter().chain(tenant).chain(cold).chain(policy);
        all.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// What a request comes to for the volume that lies at an absolute path.
    ///
    /// Errors: the path has other characters than a volume's may have.
    pub fn at(path: &Path, request: &VolumeRequest) -> Result<Self, AttributeError> {
        let path = format!("file://{}", path.display()).parse()?;
        Ok(Self::of(request, path))
    }

    /// Whether the driver made the directory: it may change its group.
    pub fn is_own(&self) -> bool {
        class::is_volume(Path::new(self.path.as_str()))
    }
}

#[cfg(test)]
mod tests;
