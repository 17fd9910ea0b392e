//! A directory of this machine, or of a mounted shared file system, as a store.
//!
//! Names are resolved by the kernel beneath the directory the store was opened with
//! (`openat2(RESOLVE_BENEATH)`): a link or `..` that leads out of it is refused, whoever wrote it.
//! Only regular files are objects; a link to one inside is followed.
//!
//! Pin: device + inode + size + mtime. A range is read in pieces of [`PIECE`] bytes from one open
//! file; the file is compared with the pin before and after every piece, so that an overwrite in
//! place is seen at the latest by the piece it touched. What cannot be seen: a writer that restores
//! the old mtime, and, on kernels before 6.13, two writes within one tick of the clock (4 ms).
//!
//! Every system call runs on the blocking pool with one of [`THREADS`] permits, which the thread
//! itself holds: a file system that hangs costs that many threads and no more, and callers are
//! answered by their deadline.

mod write;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tokio::sync::Semaphore;

use super::backend::{Backend, Body, Page, Pages, watched};
use super::failure::{Failure, Retry};
use super::write::{Labels, Upload};
use super::{ListEntry, ObjectMeta, StoreConfig, StoreErrorKind, StoreUrl};
use crate::identity::{ObjectId, Token, Version};

/// Bytes read between two checks of the pin.
const PIECE: u64 = 1 << 20;
/// Entries per page of a listing.
const PAGE: usize = 1000;
/// System calls in progress at once.
const THREADS: usize = 32;

#[derive(Clone, Debug)]
struct Directory {
    root: Arc<OwnedFd>,
    prefix: Arc<str>,
    threads: Arc<Semaphore>,
    stall: Duration,
}

/// Opens the directory.
pub(super) async fn open(
    url: &StoreUrl,
    config: &StoreConfig,
) -> Result<Arc<dyn Backend>, Failure> {
    let path = format!("/{}", url.prefix());
    let threads = Arc::new(Semaphore::new(THREADS));
    let opened = blocking(&threads, move || {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty()).map_err(failure)
    });
    let limit = config.attempt_timeout.0;
    let root = tokio::time::timeout(limit, opened).await.map_err(|_| {
        Failure::unreachable(format!("no answer within {} ms", limit.as_millis()))
    })??;
    Ok(Arc::new(Directory {
        root: Arc::new(root),
        prefix: url.prefix().into(),
        threads,
        stall: config.stall_timeout.0,
    }))
}

/// Runs `work` on the blocking pool. Dropping the future leaves the thread its permit until the
/// system call returns.
async fn blocking<T: Send + 'static>(
    threads: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let permit = Arc::clone(threads).acquire_owned().await;
    let permit = permit.expect("the semaphore is never closed");
    let thread = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    thread
        .await
        .unwrap_or_else(|_| Err(Failure::unreachable("the runtime is shutting down")))
}

fn failure(errno: Errno) -> Failure {
    let (kind, retry) = match errno {
        Errno::ENOENT | Errno::ENOTDIR => (StoreErrorKind::NotFound, Retry::Never),
        Errno::EACCES | Errno::EPERM => (StoreErrorKind::Permission, Retry::Never),
        // Out of the root (EXDEV), a loop of links, or no name at all.
        Errno::EXDEV | Errno::ELOOP => (StoreErrorKind::Permission, Retry::Never),
        Errno::ENAMETOOLONG | Errno::EINVAL | Errno::ENOSYS => {
            (StoreErrorKind::Invalid, Retry::Never)
        }
        // A rename raced with the resolution (EAGAIN), or a network file system lost the handle.
        Errno::EAGAIN | Errno::ESTALE => (StoreErrorKind::Unreachable, Retry::Once),
        _ => (StoreErrorKind::Unreachable, Retry::Pause),
    };
    let mut reason = errno.desc().to_lowercase();
    if errno == Errno::EXDEV {
        reason = "leads out of the store's directory".to_string();
    }
    Failure {
        kind,
        reason,
        retry,
    }
}

fn io_failure(error: &io::Error) -> Failure {
    failure(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

impl Directory {
    /// The part of `key` below the opened directory; empty for the directory itself.
    fn relative<'a>(&self, key: &'a str) -> Result<&'a str, Failure> {
        let rest = match key.strip_prefix(&*self.prefix) {
            Some(rest) if self.prefix.is_empty() => Some(rest),
            Some("") => Some(""),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        };
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        match rest {
            Some("") => Ok(""),
            Some(rest) if rest.split('/').all(plain) => Ok(rest),
            Some(_) => Err(Failure::last(StoreErrorKind::Invalid, "not a plain path")),
            None => Err(Failure::last(
                StoreErrorKind::Permission,
                "outside of the store's prefix",
            )),
        }
    }

    /// Opens `key` beneath the root. Blocks.
    fn open_beneath(&self, key: &str, flags: OFlag) -> Result<File, Failure> {
        let relative = self.relative(key)?;
        let path = if relative.is_empty() { "." } else { relative };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&*self.root, path, how)
            .map(File::from)
            .map_err(failure)
    }

    /// Opens a regular file for reading; never waits for the other end of a pipe.
    fn open_file(&self, key: &str) -> Result<(File, Version), Failure> {
        let file = self.open_beneath(key, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let version = version(&file)?;
        Ok((file, version))
    }
}

/// The pin of an open file; `NotFound` for anything but a regular file.
fn version(file: &File) -> Result<Version, Failure> {
    let meta = file.metadata().map_err(|error| io_failure(&error))?;
    if !meta.is_file() {
        return Err(Failure::last(
            StoreErrorKind::NotFound,
            "not a regular file",
        ));
    }
    Ok(Version {
        token: Token::File {
            device: meta.dev(),
            inode: meta.ino(),
        },
        size: meta.len(),
        mtime_ns: meta
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(meta.mtime_nsec()),
    })
}

fn same(file: &File, pinned: &Version) -> Result<(), Failure> {
    match version(file)? == *pinned {
        true => Ok(()),
        false => Err(Failure::changed("the file was written or replaced")),
    }
}

#[async_trait]
impl Backend for Directory {
    async fn head(&self, key: &str) -> Result<ObjectMeta, Failure> {
        let (this, key) = (self.clone(), key.to_string());
        blocking(&self.threads, move || {
            // O_PATH: metadata needs no right to read, and no file system work but the lookup.
            let version = version(&this.open_beneath(&key, OFlag::O_PATH)?)?;
            Ok(ObjectMeta {
                key: key.into(),
                version,
            })
        })
        .await
    }

    fn pages(&self, dir: &str, deep: bool) -> Box<dyn Pages> {
        Box::new(DirectoryPages {
            directory: self.clone(),
            dir: dir.to_string(),
            follow_directories: !deep,
            taken: 0,
            open: None,
            end: false,
        })
    }

    async fn open(&self, object: &ObjectId, range: Range<u64>) -> Result<Body, Failure> {
        let (this, key) = (self.clone(), Arc::clone(&object.key));
        let (pinned, start) = (object.version.clone(), range.start);
        let file = blocking(&self.threads, move || {
            let (mut file, found) = this.open_file(&key)?;
            if found != pinned {
                return Err(Failure::changed("another file is at this path now"));
            }
            file.seek(SeekFrom::Start(start))
                .map_err(|error| io_failure(&error))?;
            Ok(file)
        })
        .await?;
        let (threads, pinned) = (Arc::clone(&self.threads), object.version.clone());
        let pieces = stream::try_unfold((file, range), move |(file, range)| {
            let (threads, pinned) = (Arc::clone(&threads), pinned.clone());
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let size = (range.end - range.start).min(PIECE);
                let (file, piece) = blocking(&threads, move || piece(file, size, &pinned)).await?;
                let next = range.start + piece.len() as u64..range.end;
                Ok(Some((piece, (file, next))))
            }
        });
        Ok(watched(pieces.boxed(), self.stall))
    }

    async fn create(&self, key: &str, labels: &Labels) -> Result<Box<dyn Upload>, Failure> {
        write::create(self, key, labels).await
    }

    async fn remove(&self, object: &ObjectMeta) -> Result<(), Failure> {
        write::remove(self, object).await
    }

    async fn link(&self, from: &ObjectMeta, to: &str) -> Result<bool, Failure> {
        write::link(self, from, to).await
    }
}

/// Exactly `size` bytes from the file's position, all of the pinned version.
fn piece(file: File, size: u64, pinned: &Version) -> Result<(File, Bytes), Failure> {
    let mut bytes = Vec::with_capacity(size as usize);
    (&file)
        .take(size)
        .read_to_end(&mut bytes)
        .map_err(|error| io_failure(&error))?;
    same(&file, pinned)?;
    if bytes.len() as u64 != size {
        return Err(Failure::corrupt("the file is shorter than its size"));
    }
    Ok((file, Bytes::from(bytes)))
}

struct DirectoryPages {
    directory: Directory,
    dir: String,
    follow_directories: bool,
    /// Entries handed out; skipped when the directory has to be opened again after a failure.
    taken: usize,
    open: Option<OwningIter>,
    end: bool,
}

#[async_trait]
impl Pages for DirectoryPages {
    async fn next(&mut self) -> Result<Option<Page>, Failure> {
        if self.end {
            return Ok(None);
        }
        let (directory, dir) = (self.directory.clone(), self.dir.clone());
        let (open, skip) = (self.open.take(), self.taken);
        let follow = self.follow_directories;
        let (open, page, seen) = blocking(&self.directory.threads, move || {
            let mut open = match open {
                Some(open) => open,
                None => reopen(&directory, &dir, skip)?,
            };
            let (page, seen) = read_page(&directory, &dir, &mut open, follow)?;
            Ok((open, page, seen))
        })
        .await?;
        self.end = seen < PAGE;
        self.taken += seen;
        self.open = Some(open);
        Ok(Some(page))
    }
}

fn reopen(directory: &Directory, dir: &str, skip: usize) -> Result<OwningIter, Failure> {
    let fd = directory.open_beneath(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let mut open = Dir::from_fd(OwnedFd::from(fd))
        .map_err(failure)?
        .into_iter();
    for entry in open.by_ref().take(skip) {
        entry.map_err(failure)?;
    }
    Ok(open)
}

/// Up to [`PAGE`] directory entries, and how many were consumed.
fn read_page(
    directory: &Directory,
    dir: &str,
    open: &mut OwningIter,
    follow_directories: bool,
) -> Result<(Page, usize), Failure> {
    let mut page = Page::default();
    let mut seen = 0;
    for entry in open.take(PAGE) {
        let entry = entry.map_err(failure)?;
        seen += 1;
        let Ok(name) = entry.file_name().to_str() else {
            page.hidden += 1;
            continue;
        };
        if matches!(name, "." | "..") {
            continue;
        }
        let key = if dir.is_empty() {
            name.to_string()
        } else {
            format!("{dir}/{name}")
        };
        match look(directory, &key, follow_directories) {
            Ok(Some(found)) => page.entries.push(found),
            Ok(None) => {}
            // Deleted since, or a link that leads nowhere or out: not here.
            Err(gone)
                if matches!(
                    gone.kind,
                    StoreErrorKind::NotFound | StoreErrorKind::Permission | StoreErrorKind::Invalid
                ) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok((page, seen))
}

/// What a name is: an object, a directory, or nothing a store shows.
fn look(
    directory: &Directory,
    key: &str,
    follow_directories: bool,
) -> Result<Option<ListEntry>, Failure> {
    let file = directory.open_beneath(key, OFlag::O_PATH)?;
    let meta = file.metadata().map_err(|error| io_failure(&error))?;
    if meta.is_file() {
        let version = version(&file)?;
        return Ok(Some(ListEntry::Object(ObjectMeta {
            key: key.into(),
            version,
        })));
    }
    if !meta.is_dir() {
        return Ok(None);
    }
    // A link to a directory may lead up again; walks must end.
    let linked = || {
        let itself = directory.open_beneath(key, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        itself
            .metadata()
            .map(|meta| meta.is_symlink())
            .map_err(|error| io_failure(&error))
    };
    let shown = follow_directories || !linked()?;
    Ok(shown.then(|| ListEntry::Directory(key.to_string())))
}
