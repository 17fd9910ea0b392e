//! Finished copies: opened with suspicion, read with verification, put aside when wrong.
//!
//! The directory belongs to many nodes and perhaps to other programs. A copy is a regular file (no
//! link is followed, no pipe is waited for) of exactly the object's length with a whole `.sum`
//! about this object; and still every block is checked each time it is read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::disk::{Disk, Fault};
use super::format::{block_len, decode_sum, sum_max};
use super::layout::{Layout, hex};
use crate::hot::BLOCK;
use crate::identity::{Digest, ObjectId};

/// Most damaged copies that are kept for inspection; further ones are removed.
const QUARANTINE_MAX: usize = 16;

/// A copy's time of use is set at most this often: it costs a metadata write.
const USE_STEP: Duration = Duration::from_secs(600);

/// An open copy. Stays readable after the file was unlinked.
#[derive(Debug)]
pub(super) struct Copy {
    file: Arc<File>,
    table: Arc<[u32]>,
    length: u64,
}

/// Opens a file for reading that somebody else may have put there: no links, no waiting.
pub(super) fn open_suspicious(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match file {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(damaged()),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Err(damaged());
    }
    Ok(file)
}

/// Reads a whole file of at most `limit` bytes.
pub(super) fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_suspicious(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(damaged());
    }
    Ok(bytes)
}

/// What [`Disk`] reports as [`Fault::Corrupt`].
pub(super) fn damaged() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// `None` instead of "not found".
pub(super) fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error says that a file is not there: never was, or was unlinked by another node between
/// two operations on it, which file systems on a network tell as a stale handle.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, StaleNetworkFileHandle};
    matches!(error.kind(), NotFound | StaleNetworkFileHandle)
}

impl Copy {
    /// Opens the copy of `object`, if there is one. Blocking.
    pub(super) fn open(layout: &Layout, object: &ObjectId) -> io::Result<Option<Self>> {
        let digest = object.digest();
        let Some(file) = optional(open_suspicious(&layout.data(&digest)))? else {
            return Ok(None);
        };
        let length = object.size();
        let path = layout.sum(&digest);
        // The data without sums is either half removed or half published, in another order than
        // ours: not a copy, and not damage.
        let Some(sum) = optional(read_small(&path, sum_max(length)))? else {
            return Ok(None);
        };
        let table = decode_sum(&sum, &digest, length).ok_or_else(damaged)?;
        if file.metadata()?.len() != length {
            return Err(damaged());
        }
        mark_used(&path);
        let (file, table) = (Arc::new(file), table.into());
        Ok(Some(Self {
            file,
            table,
            length,
        }))
    }

    /// Reads and checks some blocks, at most a few at a time.
    pub(super) async fn read(&self, disk: &Disk, blocks: Range<u32>) -> Result<Bytes, Fault> {
        let (file, table, length) = (Arc::clone(&self.file), Arc::clone(&self.table), self.length);
        disk.run(move || {
            let begin = u64::from(blocks.start) * BLOCK;
            let end = (u64::from(blocks.end) * BLOCK).min(length);
            let mut bytes = vec![0; end.saturating_sub(begin) as usize];
            read_exact(&file, &mut bytes, begin)?;
            for (index, block) in blocks.zip(bytes.chunks(BLOCK as usize)) {
                if table.get(index as usize) != Some(&crc32c::crc32c(block)) {
                    return Err(damaged());
                }
            }
            Ok(Bytes::from(bytes))
        })
        .await
    }

    /// Puts a damaged copy aside, unless its name means another file by now. Blocking.
    pub(super) fn quarantine(&self, layout: &Layout, digest: &Digest) -> io::Result<()> {
        let named = std::fs::symlink_metadata(layout.data(digest))?;
        let mine = self.file.metadata()?;
        if (named.dev(), named.ino()) != (mine.dev(), mine.ino()) {
            return Ok(());
        }
        put_aside(layout, digest)
    }
}

/// Reads block `index` of a file that may still be growing, and checks it. Blocking.
pub(super) fn read_block(file: &File, index: u32, length: u64, sum: u32) -> io::Result<Bytes> {
    let mut bytes = vec![0; block_len(length, index)];
    read_exact(file, &mut bytes, u64::from(index) * BLOCK)?;
    if crc32c::crc32c(&bytes) != sum {
        return Err(damaged());
    }
    Ok(Bytes::from(bytes))
}

/// A file that is too short is damaged, which is no fault of the disk.
fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(),
            _ => error,
        })
}

/// Moves whatever bears the object's name out of the way. Blocking.
pub(super) fn put_aside(layout: &Layout, digest: &Digest) -> io::Result<()> {
    let data = layout.data(digest);
    let directory = layout.quarantine();
    let kept = std::fs::read_dir(&directory).map_or(QUARANTINE_MAX, Iterator::count);
    let random: [u8; 4] = rand::random();
    let target = directory.join(format!("{}.{}", digest.hex(), hex(&random)));
    let moved = kept < QUARANTINE_MAX && std::fs::rename(&data, target).is_ok();
    if !moved {
        optional(std::fs::remove_file(&data))?;
    }
    optional(std::fs::remove_file(layout.sum(digest)))?;
    Ok(())
}

/// Sets the time of use that the sweep sorts by. Best effort; nothing but that order depends on it.
fn mark_used(sum: &Path) {
    let now = SystemTime::now();
    let Ok(file) = open_suspicious(sum) else {
        return;
    };
    let before = file.metadata().and_then(|metadata| metadata.modified());
    let age = before
        .ok()
        .and_then(|before| now.duration_since(before).ok());
    if age.is_some_and(|age| age > USE_STEP) {
        let _ = file.set_modified(now);
    }
}
