//! The hot directory: its layout, its lock, its names.
//!
//! ```text
//! <hot>/LOCK                        flock(2) held while a daemon lives; its text is that daemon's pid
//! <hot>/FORMAT                      `terrace-hot 1\n`; anything else is refused
//! <hot>/objects/<xx>/<digest>.<n>   data file; xx = first two hex digits of the digest (64 digits),
//!                                   n = incarnation, 16 hex digits: (start number << 32) + counter
//! <hot>/objects/<xx>/<digest>.<n>.map[.new]   its sidecar, for objects of more than 16 blocks
//! <hot>/index/                      RocksDB
//! <hot>/quarantine/<digest>.<n>.<block>   bytes of blocks that failed their checksum, the last 16
//! <hot>/probe                       scratch file of the health probe
//! ```
//! Directories have mode 0700, files 0600. An incarnation is used for one file and never again, so
//! a late unlink of an old name cannot hit a new file, and a file that is somebody's backing is
//! never reopened for writing.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use super::error::{HotError, HotErrorKind};
use crate::identity::{Digest, hex_digits};

const FORMAT: &str = "terrace-hot 1\n";

/// The directory, locked for this process.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    /// Open on the root, for statvfs(2) and syncfs(2).
    pub(super) handle: File,
    lock: Mutex<Option<Flock<File>>>,
}

impl Directory {
    /// Creates what is missing and takes the lock. Errors: `Locked` names the pid that holds it.
    pub(super) fn open(root: &Path) -> Result<Self, HotError> {
        create_directory(root)?;
        let lock = lock(&root.join("LOCK"))?;
        check_format(&root.join("FORMAT"))?;
        let objects = root.join("objects");
        create_directory(&objects)?;
        create_directory(&root.join("quarantine"))?;
        create_shards(&objects)?;
        let handle = File::open(root).map_err(|e| HotError::io("open directory", root, &e))?;
        Ok(Self {
            root: root.to_owned(),
            handle,
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Lets the next daemon in, although objects of this one may still be held.
    pub(super) fn unlock(&self) {
        drop(
            self.lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn shard(&self, first: u8) -> PathBuf {
        self.root.join("objects").join(format!("{first:02x}"))
    }

    pub(super) fn data(&self, digest: &Digest, incarnation: u64) -> PathBuf {
        self.shard(digest.0[0])
            .join(DataName::new(digest, incarnation).as_os_str())
    }

    pub(super) fn sidecar(&self, digest: &Digest, incarnation: u64) -> PathBuf {
        self.shard(digest.0[0])
            .join(format!("{digest}.{incarnation:016x}.map"))
    }

    /// Unlinks the data file and the sidecar of one incarnation; missing files are fine.
    pub(super) fn unlink(
        &self,
        digest: &Digest,
        incarnation: u64,
        has_sidecar: bool,
    ) -> Result<(), HotError> {
        remove(&self.data(digest, incarnation))?;
        if has_sidecar {
            remove(&self.sidecar(digest, incarnation))?;
        }
        Ok(())
    }
}

/// Length of the name of a data file; that of a sidecar is longer.
pub(super) const DATA_NAME: usize = 64 + 1 + 16;

/// Name of a data file in its directory, as the kernel takes it.
pub(super) struct DataName([u8; DATA_NAME + 1]);

impl DataName {
    pub(super) fn new(digest: &Digest, incarnation: u64) -> Self {
        let mut name = [0; DATA_NAME + 1];
        let (head, tail) = name.split_at_mut(64);
        tail[0] = b'.';
        let pairs = head
            .chunks_exact_mut(2)
            .chain(tail[1..].chunks_exact_mut(2));
        let bytes = digest.0.into_iter().chain(incarnation.to_be_bytes());
        for (pair, byte) in pairs.zip(bytes) {
            pair.copy_from_slice(&hex_digits(byte));
        }
        Self(name)
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).expect("digits, a dot, and one zero at the end")
    }

    fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0[..DATA_NAME])
    }
}

/// Unlinks `path`; missing is fine.
pub(super) fn remove(path: &Path) -> Result<(), HotError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(HotError::io("unlink", path, &e)),
        _ => Ok(()),
    }
}

/// Digest and incarnation that a file name in `objects/<xx>/` stands for.
pub(super) fn parse_name(name: &str) -> Option<(Digest, u64)> {
    let (digest, rest) = name.split_at_checked(64)?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digest.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let incarnation = rest.strip_prefix('.')?.get(..16)?;
    Some((Digest(bytes), u64::from_str_radix(incarnation, 16).ok()?))
}

/// Options for a new file of the tier.
pub(super) fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NOATIME);
    options
}

fn create_directory(path: &Path) -> Result<(), HotError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .map_err(|e| HotError::io("create directory", path, &e))
}

/// Creates those of the 256 directories that are missing. They are listed, not tried one by one:
/// that is a system call instead of 512 while applications wait for a worker.
fn create_shards(objects: &Path) -> Result<(), HotError> {
    let fail = |e: &std::io::Error| HotError::io("list directory", objects, e);
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(objects).map_err(|e| fail(&e))? {
        names.insert(entry.map_err(|e| fail(&e))?.file_name());
    }
    for shard in 0..=255u8 {
        let name = format!("{shard:02x}");
        if !names.contains(OsStr::new(&name)) {
            create_directory(&objects.join(name))?;
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<Flock<File>, HotError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = options
        .open(path)
        .map_err(|e| HotError::io("open lock file", path, &e))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let text = format!("{}\n", std::process::id());
            let written = lock
                .set_len(0)
                .and_then(|()| lock.write_all(text.as_bytes()));
            written.map_err(|e| HotError::io("write lock file", path, &e))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
            let reason = match pid.trim() {
                "" => "another daemon uses this directory".to_owned(),
                pid => format!(
                    "the daemon with pid {pid} uses this directory; stop it or choose another"
                ),
            };
            Err(HotError::new(HotErrorKind::Locked, "lock", path, reason))
        }
        Err((_, errno)) => Err(HotError::io("lock", path, &errno.into())),
    }
}

fn check_format(path: &Path) -> Result<(), HotError> {
    match std::fs::read_to_string(path) {
        Ok(text) if text == FORMAT => Ok(()),
        Ok(text) => {
            let first: String = text.chars().take(40).collect();
            let reason = format!("format {:?} is not known to this version", first.trim());
            Err(HotError::corrupt("read format", path, reason))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => write_format(path),
        Err(e) => Err(HotError::io("read format", path, &e)),
    }
}

fn write_format(path: &Path) -> Result<(), HotError> {
    let fail = |e| HotError::io("write format", path, &e);
    // Renamed into place, so that a crash cannot leave half a format line behind.
    let new = path.with_extension("new");
    remove(&new)?;
    let mut file = new_file().open(&new).map_err(fail)?;
    file.write_all(FORMAT.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    std::fs::rename(&new, path).map_err(fail)
}
