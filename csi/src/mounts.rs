//! Mounts that the drivers make below the kubelet's directory, and the table of what is mounted.
//!
//! A path of a request is text from outside the node. It is taken apart before anything cleans it,
//! must lie below the kubelet's directory, and is walked by `openat2(2)` beneath that directory
//! without following a symbolic link. From then on only descriptors are used: the kernel mounts on
//! and unmounts below `/proc/self/fd/N`, so that a directory which somebody swaps for a link
//! meanwhile moves nothing.
//!
//! ```text
//! <kubelet>/pods/<uid>/volumes/kubernetes.io~csi/<pv>/mount    target
//! '-------- parent: a descriptor ----------------------' '---' its last name
//! ```
//!
//! Invariants: nothing outside the kubelet's directory is mounted on, unmounted or removed; only
//! mounts that the caller calls its own are unmounted; every bind has `nosuid` and `nodev`.
//! A mounted target itself is never opened: behind it may be a file system that does not answer.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

mod table;

pub use table::{MountEntry, mount_of, mount_table};

/// Longest path of a request in bytes: the kernel's own limit.
const PATH_MAX: usize = 4096;

/// Mounts stacked on one path that are taken down in one go. More than a few come of a defect, and a
/// loop without an end would hide it.
const STACK_MAX: usize = 64;

/// Why a mount was not made, or not taken down.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The path is not one that a kubelet asks for.
    #[error(
        "{path:?} is refused: a clean absolute path below {root:?} without links is expected; \
         check --kubelet-dir"
    )]
    Outside {
        /// The path of the request.
        path: PathBuf,
        /// The kubelet's directory.
        root: PathBuf,
    },
    /// Something that the caller did not mount is mounted there.
    #[error("{path:?} is occupied: {what} is mounted there; unmount it, or use another path")]
    Occupied {
        /// The path of the request.
        path: PathBuf,
        /// What mountinfo says of it.
        what: String,
    },
    /// The kernel refused.
    #[error("{what} {path:?}: {source}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What a bind mount allows. `nosuid` and `nodev` are not a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// No write through this mount.
    pub read_only: bool,
    /// No program is started from this mount.
    pub no_exec: bool,
}

/// The kubelet's directory; targets are found below it and nowhere else.
#[derive(Debug)]
pub struct Kubelet {
    root: PathBuf,
    named: PathBuf,
    descriptor: OwnedFd,
}

/// A path below the kubelet's directory whose parent directory is held by its descriptor.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    parent: OwnedFd,
    name: OsString,
}

impl Kubelet {
    /// Opens the kubelet's directory, which must exist.
    pub fn open(root: &Path) -> Result<Self, MountError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptor = open(root, flags, Mode::empty()).map_err(|e| io_error("open", root, e))?;
        // mountinfo names real paths; requests may name the directory by a link to it.
        let real = root.canonicalize().map_err(|source| MountError::Io {
            what: "resolve",
            path: root.to_owned(),
            source,
        })?;
        Ok(Self {
            root: real,
            named: root.to_owned(),
            descriptor,
        })
    }

    /// The directory's path, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The target of that path, which need not exist; its parent directory must. `None` when the
    /// parent is gone.
    pub fn find(&self, path: &Path) -> Result<Option<Target>, MountError> {
        let below = self.below(path)?;
        let name = below.file_name().unwrap_or_default().to_owned();
        let parent = below.parent().unwrap_or(Path::new(""));
        match self.walk(parent) {
            Ok(parent) => Ok(Some(Target {
                path: self.root.join(&below),
                parent,
                name,
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.refused(path, errno)),
        }
    }

    /// The target of that path as a directory, made with mode 0750 where it is absent, with the
    /// parents that are absent. A kubelet makes the parents of a target, not the target.
    pub fn make(&self, path: &Path) -> Result<Target, MountError> {
        let below = self.below(path)?;
        let mut so_far = PathBuf::new();
        for name in below.parent().into_iter().flat_map(Path::components) {
            let parent = self.walk(&so_far).map_err(|e| self.refused(path, e))?;
            make_directory(&parent, name.as_os_str()).map_err(|e| io_error("make", path, e))?;
            so_far.push(name);
        }
        let Some(target) = self.find(path)? else {
            return Err(io_error("make", path, Errno::ENOENT));
        };
        if !is_mounted(&target.path)? {
            make_directory(&target.parent, &target.name).map_err(|e| io_error("make", path, e))?;
            // Refuses a link or a file in the target's place.
            self.walk(&below).map_err(|e| self.refused(path, e))?;
        }
        Ok(target)
    }

    /// The path below the kubelet's directory, judged before any clean-up.
    fn below(&self, path: &Path) -> Result<PathBuf, MountError> {
        let refused = || MountError::Outside {
            path: path.to_owned(),
            root: self.root.clone(),
        };
        let bytes = path.as_os_str().as_bytes();
        let trimmed = bytes.strip_suffix(b"/").unwrap_or(bytes);
        let mut segments = trimmed.split(|b| *b == b'/').skip(1);
        let odd = segments.any(|segment| matches!(segment, b"." | b".." | b""));
        if odd || bytes.len() > PATH_MAX || bytes.contains(&0) || !path.is_absolute() {
            return Err(refused());
        }
        let below = path.strip_prefix(&self.root);
        let below = below.or_else(|_| path.strip_prefix(&self.named));
        let below = below.map_err(|_| refused())?;
        let plain = below
            .components()
            .all(|c| matches!(c, Component::Normal(_)));
        if !plain || below.as_os_str().is_empty() {
            return Err(refused());
        }
        Ok(below.to_owned())
    }

    /// Opens a directory below, without following any link.
    fn walk(&self, below: &Path) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            );
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        openat2(self.descriptor.as_fd(), below, how)
    }

    fn refused(&self, path: &Path, errno: Errno) -> MountError {
        match errno {
            Errno::ELOOP | Errno::EXDEV | Errno::ENOTDIR => MountError::Outside {
                path: path.to_owned(),
                root: self.root.clone(),
            },
            errno => io_error("open", path, errno),
        }
    }
}

impl Target {
    /// The path, as mountinfo shows it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is mounted here, the topmost mount, if anything is.
    pub fn mounted(&self) -> Result<Option<MountEntry>, MountError> {
        let mut entries = mount_table()?;
        let at = entries.iter().rposition(|entry| entry.target == self.path);
        Ok(at.map(|at| entries.swap_remove(at)))
    }

    /// Shows the directory `source` here. Doing it again changes the options only; a mount of
    /// anything else that is here already is an error. Not undone when the caller goes away.
    pub fn bind(&self, source: &Path, options: BindOptions) -> Result<(), MountError> {
        let place = place_of(source)?;
        match self.mounted()? {
            Some(entry) if shows(&entry, &place) => {}
            Some(entry) => return Err(self.occupied(&entry)),
            None => {
                let flags = MsFlags::MS_BIND;
                mount(Some(source), &self.by_descriptor(), NONE, flags, NONE)
                    .map_err(|e| io_error("mount on", &self.path, e))?;
            }
        }
        let done = self.restrict(options);
        if done.is_err() {
            // A mount without its restrictions must not stay.
            let _ = self.unmount(|entry| shows(entry, &place));
        }
        done
    }

    /// Mounts the file system of a block device here. `data` are options of the file system.
    pub fn mount_device(&self, device: &Path, fs_type: &str, data: &str) -> Result<(), MountError> {
        if let Some(entry) = self.mounted()? {
            let same = Path::new(&entry.source) == device && entry.fs_type == fs_type;
            return if same {
                Ok(())
            } else {
                Err(self.occupied(&entry))
            };
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let target = self.by_descriptor();
        mount(Some(device), &target, Some(fs_type), flags, Some(data))
            .map_err(|e| io_error("mount on", &self.path, e))
    }

    /// Takes down every mount that is stacked here, as long as `ours` says yes to it. Whether one
    /// was there. A busy mount is detached: it goes when its last user does.
    pub fn unmount(&self, ours: impl Fn(&MountEntry) -> bool) -> Result<bool, MountError> {
        for done in 0..STACK_MAX {
            let Some(entry) = self.mounted()? else {
                return Ok(done > 0);
            };
            if !ours(&entry) {
                return Err(self.occupied(&entry));
            }
            let target = self.by_descriptor();
            match umount2(&target, MntFlags::UMOUNT_NOFOLLOW) {
                // EINVAL: somebody else unmounted it meanwhile; the table is read again.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(Errno::EBUSY) => {
                    umount2(&target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
                        .map_err(|e| io_error("detach", &self.path, e))?;
                }
                Err(errno) => return Err(io_error("unmount", &self.path, errno)),
            }
        }
        Err(io_error("unmount", &self.path, Errno::EBUSY))
    }

    /// Removes the empty directory. One that is gone already is no error.
    pub fn remove(&self) -> Result<(), MountError> {
        match unlinkat(
            &self.parent,
            self.name.as_os_str(),
            UnlinkatFlags::RemoveDir,
        ) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(io_error("remove", &self.path, errno)),
        }
    }

    fn restrict(&self, options: BindOptions) -> Result<(), MountError> {
        let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        flags |= MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        flags.set(MsFlags::MS_RDONLY, options.read_only);
        flags.set(MsFlags::MS_NOEXEC, options.no_exec);
        mount(NONE, &self.by_descriptor(), NONE, flags, NONE)
            .map_err(|e| io_error("restrict the mount on", &self.path, e))
    }

    fn by_descriptor(&self) -> PathBuf {
        let parent = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        parent.join(&self.name)
    }

    fn occupied(&self, entry: &MountEntry) -> MountError {
        let source = entry.source.to_string_lossy();
        MountError::Occupied {
            path: self.path.clone(),
            what: format!("{} {source}{}", entry.fs_type, entry.root.display()),
        }
    }
}

const NONE: Option<&str> = None;

/// The mounts that show exactly the directory `path` somewhere else.
pub fn mounts_showing(path: &Path) -> Result<Vec<MountEntry>, MountError> {
    let place = place_of(path)?;
    let entries = mount_table()?.into_iter();
    Ok(entries
        .filter(|entry| shows(entry, &place) && entry.target != path)
        .collect())
}

/// Device and directory of the file system that a path shows.
fn place_of(path: &Path) -> Result<((u32, u32), PathBuf), MountError> {
    let real = path.canonicalize().map_err(|source| MountError::Io {
        what: "find",
        path: path.to_owned(),
        source,
    })?;
    let entries = mount_table()?;
    let entry = mount_of(&entries, &real);
    let entry = entry.ok_or_else(|| io_error("find the mount of", path, Errno::ENOENT))?;
    let rest = real.strip_prefix(&entry.target).unwrap_or(Path::new(""));
    Ok((entry.device, join(&entry.root, rest)))
}

/// Whether a mount shows that place.
fn shows(entry: &MountEntry, place: &((u32, u32), PathBuf)) -> bool {
    entry.device == place.0 && entry.root == place.1
}

/// `join` that leaves no `/` at the end, as mountinfo writes paths.
fn join(root: &Path, rest: &Path) -> PathBuf {
    root.components().chain(rest.components()).collect()
}

fn is_mounted(path: &Path) -> Result<bool, MountError> {
    Ok(mount_table()?.iter().any(|entry| entry.target == path))
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o750)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn io_error(what: &'static str, path: &Path, errno: Errno) -> MountError {
    MountError::Io {
        what,
        path: path.to_owned(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests;
