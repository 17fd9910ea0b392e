//! READ and LSEEK. Passthrough handles never come here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::errno::from_read;
use super::files::Reader;
use super::node::Node;
use super::opens::{TIER_GRACE, shutting_down};
use super::{FileSystem, Profile, lock};
use crate::namespace::{FsError, Ino};

impl FileSystem {
    /// Reads up to `size` bytes at `offset`; fewer only at the end of the file.
    ///
    /// Errors: those of the store; `Stale` for an unknown handle. Cancelled by dropping.
    pub async fn read(&self, node: u64, fh: u64, offset: u64, size: u32) -> Result<Bytes, FsError> {
        let ino = Node(node).ino();
        let reader = match self.profile {
            Profile::Default => self.reader(ino, fh)?,
            Profile::SmallFiles => self.stateless_reader(ino, offset)?,
        };
        let end = reader.object.id().size();
        let range = clip(offset, size, end);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = match reader.object.read_now(&reader.stream, range.clone()) {
            Some(bytes) => bytes.map_err(from_read)?,
            None => self.read_waiting(&reader, range).await?,
        };
        self.counters
            .read_bytes
            .fetch_add(bytes.len() as u64, Relaxed);
        let is_last = offset + bytes.len() as u64 == end;
        if self.profile == Profile::SmallFiles && is_last && *reader.object.filled().borrow() {
            // The kernel keeps the pages; a reader kept here would keep the object from eviction. While
            // it is not filled, others may be about to read what would be fetched for them again.
            lock(&self.stateless).remove(&ino);
        }
        Ok(bytes)
    }

    /// Where data (`SEEK_DATA`) or a hole (`SEEK_HOLE`) begins at or after `offset`: files have no
    /// holes, and one at their end. `None`: there is none (ENXIO).
    pub fn seek(&self, node: u64, offset: u64, hole: bool) -> Result<Option<u64>, FsError> {
        let size = self.namespace.attr(Node(node).ino())?.size;
        Ok((offset < size).then_some(if hole { size } else { offset }))
    }

    async fn read_waiting(&self, reader: &Reader, range: Range<u64>) -> Result<Bytes, FsError> {
        let _turn = self
            .waiting_data
            .acquire()
            .await
            .map_err(|_| shutting_down())?;
        let small = reader.object.id().size() <= self.config.fill_on_open;
        if self.profile == Profile::SmallFiles && small {
            // All of it at once: the next read of a small file would come right after. What stands
            // against it (no room, not admitted) does not stand against the read below.
            if let Err(error) = reader.object.fill_or_arrive(TIER_GRACE).await {
                tracing::debug!(object = %reader.object.id(), %error, "not fetched whole");
            }
        }
        reader
            .object
            .read(&reader.stream, range)
            .await
            .map_err(from_read)
    }

    /// The reader of a handle, made anew when a dead worker had opened it.
    fn reader(&self, ino: Ino, fh: u64) -> Result<Arc<Reader>, FsError> {
        if let Some(reader) = self.files.reader(fh) {
            return Ok(reader);
        }
        if self.handles.get(fh).is_none() {
            return Err(FsError::Stale);
        }
        let reader = Arc::new(Reader::new(self.object_of(ino)?));
        self.files.add_reader(fh, Arc::clone(&reader));
        Ok(reader)
    }

    /// The reader of an inode without handles. A read of the first byte counts as an open.
    fn stateless_reader(&self, ino: Ino, offset: u64) -> Result<Arc<Reader>, FsError> {
        let known = lock(&self.stateless).get(&ino).map(Arc::clone);
        let reader = match known {
            Some(reader) => reader,
            None => {
                let reader = Arc::new(Reader::new(self.object_of(ino)?));
                lock(&self.stateless).insert(ino, Arc::clone(&reader));
                reader
            }
        };
        if offset == 0 {
            reader.object.opened();
        }
        Ok(reader)
    }
}

fn clip(offset: u64, size: u32, end: u64) -> Range<u64> {
    let start = offset.min(end);
    start..offset.saturating_add(u64::from(size)).min(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a read at the end could return bytes that do not exist, or panic.
    #[test]
    fn ranges_end_at_the_end_of_the_file() {
        for (offset, size, expected) in [
            (0, 10, 0..10),
            (95, 10, 95..100),
            (100, 10, 100..100),
            (u64::MAX, 10, 100..100),
            (0, 0, 0..0),
        ] {
            assert_eq!(clip(offset, size, 100), expected, "{offset} {size}");
        }
    }
}
