//! New files below the opened directory, and taking them away.
//!
//! ```text
//! DIR/.terrace-new-<random>   beside the place it will have; synced, then renamed; then DIR is synced
//! ```
//!
//! There is never half a file at a final name, after `kill -9` or power loss: bytes are synced before
//! the rename, and every directory on the way that was made here is synced after it. Directories are
//! opened one below the other from the root's descriptor, so a link cannot lead a new file elsewhere.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::{Directory, blocking, failure, io_failure, same, version};
use crate::store::failure::{Failure, Retry};
use crate::store::write::{Labels, PART, Upload};
use crate::store::{ObjectMeta, StoreErrorKind};

/// How the names of unfinished files begin.
const UNFINISHED: &str = ".terrace-new-";

/// A directory and a name in it.
struct Place {
    parent: OwnedFd,
    name: String,
}

/// A file that is being written.
struct NewFile {
    directory: Directory,
    place: Arc<Place>,
    temporary: String,
    file: Arc<File>,
    done: AtomicBool,
}

/// Begins a file; makes the directories above it.
pub(super) async fn create(
    directory: &Directory,
    key: &str,
    labels: &Labels,
) -> Result<Box<dyn Upload>, Failure> {
    let (this, key, labels) = (directory.clone(), key.to_owned(), labels.clone());
    let made = blocking(&directory.threads, move || {
        let place = place(&this, &key, true)?;
        let temporary = format!("{UNFINISHED}{:032x}", rand::random::<u128>());
        let how = OpenHow::new()
            .flags(OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(0o644))
            .resolve(ResolveFlag::RESOLVE_BENEATH);
        let file = openat2(&place.parent, temporary.as_str(), how).map_err(lost)?;
        let new = NewFile {
            directory: this,
            place: Arc::new(place),
            temporary,
            file: Arc::new(File::from(file)),
            done: AtomicBool::new(false),
        };
        for (name, value) in labels {
            label(&new.file, name, &value)?;
        }
        Ok(new)
    });
    Ok(Box::new(made.await?))
}

/// Notes a label on a file, where its file system has a place for it.
fn label(file: &File, name: &str, value: &str) -> Result<(), Failure> {
    let invalid = || Failure::last(StoreErrorKind::Invalid, "a label with a NUL");
    let name = CString::new(format!("user.terrace.{name}")).map_err(|_| invalid())?;
    // SAFETY: the name is terminated, the value is as long as said, and the descriptor is open.
    let done = unsafe {
        libc::fsetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    match Errno::result(done) {
        Ok(_) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(failure(errno)),
    }
}

/// Unlinks a file if it is still the one that was seen; then directories that are empty now.
pub(super) async fn remove(directory: &Directory, object: &ObjectMeta) -> Result<(), Failure> {
    let (this, object) = (directory.clone(), object.clone());
    blocking(&directory.threads, move || {
        let place = match place(&this, &object.key, false) {
            Err(gone) if gone.kind == StoreErrorKind::NotFound => return Ok(()),
            place => place?,
        };
        let found = match this.open_beneath(&object.key, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Err(gone) if gone.kind == StoreErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        same(&found, &object.version)?;
        match unlinkat(
            &place.parent,
            place.name.as_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failure(errno)),
        }
        remove_empty(&this, &object.key);
        Ok(())
    })
    .await
}

/// Makes a second name for a file of this directory.
pub(super) async fn link(
    directory: &Directory,
    from: &ObjectMeta,
    to: &str,
) -> Result<bool, Failure> {
    let (this, from, to) = (directory.clone(), from.clone(), to.to_owned());
    blocking(&directory.threads, move || {
        let (old, new) = (place(&this, &from.key, false)?, place(&this, &to, true)?);
        let (old_name, new_name) = (old.name.as_str(), new.name.as_str());
        let linked = linkat(
            &old.parent,
            old_name,
            &new.parent,
            new_name,
            AtFlags::empty(),
        );
        match linked {
            // A retry whose first answer got lost finds its own work.
            Ok(()) | Err(Errno::EEXIST) => {}
            // Another file system below, or one without hard links: the caller sends the bytes.
            Err(Errno::EXDEV | Errno::EMLINK | Errno::EPERM | Errno::EOPNOTSUPP) => {
                return Ok(false);
            }
            Err(errno) => return Err(lost(errno)),
        }
        let made = this.open_beneath(&to, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        same(&made, &from.version)?;
        sync(&new.parent)?;
        Ok(true)
    })
    .await
}

/// The directory of a key, opened from the root down. `make`: what is missing is made, durably.
fn place(directory: &Directory, key: &str, make: bool) -> Result<Place, Failure> {
    let relative = directory.relative(key)?;
    let invalid = || Failure::last(StoreErrorKind::Invalid, "not the path of a file");
    let mut segments: Vec<&str> = relative.split('/').collect();
    let name = segments.pop().filter(|name| !name.is_empty());
    let name = name.ok_or_else(invalid)?.to_owned();
    let root = directory.root.try_clone();
    let mut parent = root.map_err(|error| io_failure(&error))?;
    for segment in segments {
        if make {
            match mkdirat(&parent, segment, Mode::from_bits_truncate(0o755)) {
                Ok(()) => sync(&parent)?,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(lost(errno)),
            }
        }
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let opened = openat2(&parent, segment, how);
        parent = opened.map_err(if make { lost } else { failure })?;
    }
    Ok(Place { parent, name })
}

/// While something is made, "not there" means that an empty directory was cleared away: made again.
fn lost(errno: Errno) -> Failure {
    match errno {
        Errno::ENOENT => Failure {
            kind: StoreErrorKind::Unreachable,
            reason: "a directory on the way was removed".to_owned(),
            retry: Retry::Pause,
        },
        errno => failure(errno),
    }
}

fn sync(directory: &OwnedFd) -> Result<(), Failure> {
    nix::unistd::fsync(directory).map_err(failure)
}

/// Removes the directories above a removed file as far as they are empty; the root stays.
fn remove_empty(directory: &Directory, key: &str) {
    let mut key = key;
    while let Some((above, _)) = key.rsplit_once('/') {
        let Ok(place) = place(directory, above, false) else {
            return;
        };
        // Not empty, or the root itself: done.
        if unlinkat(&place.parent, place.name.as_str(), UnlinkatFlags::RemoveDir).is_err() {
            return;
        }
        key = above;
    }
}

impl NewFile {
    async fn run(
        &self,
        work: impl FnOnce(&File, &Place, &str) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let (file, place) = (Arc::clone(&self.file), Arc::clone(&self.place));
        let temporary = self.temporary.clone();
        blocking(&self.directory.threads, move || {
            work(&file, &place, &temporary)
        })
        .await
    }
}

/// Syncs a file and gives it its name.
fn publish(file: &File, place: &Place, temporary: &str) -> Result<(), Failure> {
    file.sync_all().map_err(|error| io_failure(&error))?;
    match renameat(&place.parent, temporary, &place.parent, place.name.as_str()) {
        Ok(()) => {}
        Err(errno) => {
            // A retry finds its own work: the file is at its place already.
            let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
            let there = openat2(&place.parent, place.name.as_str(), how).map(File::from);
            let ours = there.is_ok_and(|there| match (version(&there), version(file)) {
                (Ok(there), Ok(ours)) => there == ours,
                _ => false,
            });
            if !ours {
                return Err(failure(errno));
            }
        }
    }
    sync(&place.parent)
}

#[async_trait]
impl Upload for NewFile {
    async fn whole(&self, bytes: Bytes) -> Result<(), Failure> {
        self.run(move |file, place, temporary| {
            file.write_all_at(&bytes, 0)
                .map_err(|error| io_failure(&error))?;
            publish(file, place, temporary)
        })
        .await?;
        self.done.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn part(&self, number: usize, bytes: Bytes) -> Result<(), Failure> {
        self.run(move |file, _, _| {
            file.write_all_at(&bytes, (number * PART) as u64)
                .map_err(|error| io_failure(&error))
        })
        .await
    }

    async fn join(&self, _count: usize) -> Result<(), Failure> {
        self.run(publish).await?;
        self.done.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn abandon(&self) {
        // Its removal happens when it is dropped, as for a file whose writer was dropped.
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.done.load(Ordering::Relaxed) {
            let name = self.temporary.as_str();
            // What stays has a name that tells what it is, and is removed by who owns the place.
            let _ = unlinkat(&self.place.parent, name, UnlinkatFlags::NoRemoveDir);
        }
    }
}
