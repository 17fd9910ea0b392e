//! The node table of a directory volume, on disk: number -> file handle. Owns `rocksdb` here.
//!
//! Invariant: a number that was returned to the kernel is in the table before that, so a worker that
//! starts after `kill -9` of the last one finds the file of every number the kernel still knows.
//! Writes go to the log of the database without fsync: that survives the death of the process, and
//! the mount itself does not survive the death of the machine.
//!
//! ```text
//! key    number   8 bytes, big endian
//! value  kind     4 bytes, little endian, as name_to_handle_at(2) gave it
//!        handle   up to 128 bytes, likewise
//! ```

use std::fmt;
use std::path::Path;

use rocksdb::{DB, WriteBatch};

use super::sys::{FileId, HANDLE_MAX};
use crate::live::TableError;
use crate::live::database_options;

/// See the module text.
pub(super) struct Table {
    db: DB,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("path", &self.db.path())
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Opens or creates the table. `fresh`: no kernel knows any number, so all are forgotten.
    pub(super) fn open(directory: &Path, fresh: bool) -> Result<Self, TableError> {
        let options = database_options()?;
        if fresh {
            // Nothing of it is needed, and what is damaged would only be in the way.
            DB::destroy(&options, directory)?;
        }
        let db = DB::open(&options, directory)?;
        Ok(Self { db })
    }

    /// The file of a number.
    pub(super) fn get(&self, number: u64) -> Result<Option<FileId>, TableError> {
        match self.db.get_pinned(number.to_be_bytes())? {
            None => Ok(None),
            Some(value) => decode(&value)
                .map(Some)
                .ok_or(TableError::Damaged("a handle")),
        }
    }

    /// Writes these down, all of them or none.
    pub(super) fn put(&self, entries: &[(u64, &FileId)]) -> Result<(), TableError> {
        let mut batch = WriteBatch::default();
        for (number, id) in entries {
            batch.put(number.to_be_bytes(), encode(id));
        }
        self.db.write(batch)?;
        Ok(())
    }

    /// Forgets a number.
    pub(super) fn remove(&self, number: u64) -> Result<(), TableError> {
        self.db.delete(number.to_be_bytes())?;
        Ok(())
    }
}

fn encode(id: &FileId) -> Vec<u8> {
    [&id.kind.to_le_bytes()[..], &id.bytes].concat()
}

fn decode(value: &[u8]) -> Option<FileId> {
    let (kind, bytes) = value.split_first_chunk()?;
    (bytes.len() <= HANDLE_MAX).then(|| FileId {
        kind: i32::from_le_bytes(*kind),
        bytes: bytes.into(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn id(bytes: &[u8]) -> FileId {
        FileId {
            kind: 1,
            bytes: bytes.into(),
        }
    }

    // Without it the next worker would answer ESTALE for every file that is known or open.
    #[test]
    fn numbers_outlive_the_process_and_not_the_mount() {
        let place = tempfile::tempdir().unwrap();
        let table = Table::open(place.path(), true).unwrap();
        let (one, two) = (id(b"one"), id(b"two"));
        table.put(&[(12, &one), (13, &two)]).unwrap();
        table.remove(13).unwrap();
        drop(table);
        let table = Table::open(place.path(), false).unwrap();
        assert_eq!(table.get(12).unwrap(), Some(one));
        assert_eq!(table.get(13).unwrap(), None);
        drop(table);
        let table = Table::open(place.path(), true).unwrap();
        assert_eq!(table.get(12).unwrap(), None);
    }

    // Without it a change of the format would read old tables as other files.
    #[test]
    fn the_format_stays() {
        assert_eq!(encode(&id(&[7, 8])), [1, 0, 0, 0, 7, 8]);
        assert_eq!(decode(&[1, 0, 0, 0, 7, 8]), Some(id(&[7, 8])));
        assert_eq!(decode(&[1, 0, 0]), None);
        assert_eq!(decode(&[0; 4 + HANDLE_MAX + 1]), None);
    }
}
