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
//! Where handles do not last, the value is where the file was last seen:
//! ```text
//! value  kind     4 bytes: -2           integers are little endian
//!        file     12 bytes: inode number below, type
//!        parent   8 bytes: number of the directory
//!        kind     4 bytes, and
//!        length   1 byte, of the handle; 0: none
//!        handle
//!        name     up to 255 bytes, to the end
//! ```

use std::ffi::CString;
use std::fmt;
use std::path::Path;

use rocksdb::DB;

use super::naming::{NUMBERED, Way};
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

    /// The file of a number, and where it was last seen.
    pub(super) fn get(&self, number: u64) -> Result<Option<Record>, TableError> {
        match self.db.get_pinned(number.to_be_bytes())? {
            None => Ok(None),
            Some(value) => decode(&value)
                .map(Some)
                .ok_or(TableError::Damaged("a handle")),
        }
    }

    /// Writes a number down.
    pub(super) fn put(
        &self,
        number: u64,
        id: &FileId,
        way: Option<&Way>,
    ) -> Result<(), TableError> {
        self.db.put(number.to_be_bytes(), encode(id, way))?;
        Ok(())
    }

    /// Forgets a number.
    pub(super) fn remove(&self, number: u64) -> Result<(), TableError> {
        self.db.delete(number.to_be_bytes())?;
        Ok(())
    }
}

/// A file, and where it was last seen.
type Record = (FileId, Option<Way>);

fn encode(id: &FileId, way: Option<&Way>) -> Vec<u8> {
    let mut value = [&id.kind.to_le_bytes()[..], &id.bytes].concat();
    if let Some(way) = way {
        let none = FileId {
            kind: 0,
            bytes: Box::default(),
        };
        let handle = way.handle.as_ref().unwrap_or(&none);
        value.extend(way.parent.to_le_bytes());
        value.extend(handle.kind.to_le_bytes());
        value.push(handle.bytes.len() as u8); // at most 128
        value.extend(&handle.bytes);
        value.extend(way.name.to_bytes());
    }
    value
}

fn decode(value: &[u8]) -> Option<Record> {
    let (kind, bytes) = value.split_first_chunk()?;
    let kind = i32::from_le_bytes(*kind);
    if kind != NUMBERED {
        return (bytes.len() <= HANDLE_MAX).then(|| {
            let bytes = bytes.into();
            (FileId { kind, bytes }, None)
        });
    }
    let (file, rest) = bytes.split_first_chunk::<12>()?;
    let (parent, rest) = rest.split_first_chunk()?;
    let (handle_kind, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let (handle, name) = rest.split_at_checked(usize::from(*length))?;
    let way = Way {
        parent: u64::from_le_bytes(*parent),
        name: CString::new(name).ok()?.into(),
        handle: (1..=HANDLE_MAX).contains(&handle.len()).then(|| FileId {
            kind: i32::from_le_bytes(*handle_kind),
            bytes: handle.into(),
        }),
    };
    let bytes = file[..].into();
    Some((FileId { kind, bytes }, Some(way)))
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
        table.put(12, &one, None).unwrap();
        table.put(13, &two, None).unwrap();
        table.remove(13).unwrap();
        drop(table);
        let table = Table::open(place.path(), false).unwrap();
        assert_eq!(table.get(12).unwrap(), Some((one, None)));
        assert_eq!(table.get(13).unwrap(), None);
        drop(table);
        let table = Table::open(place.path(), true).unwrap();
        assert_eq!(table.get(12).unwrap(), None);
    }

    // Without it a change of the format would read old tables as other files.
    #[test]
    fn the_format_stays() {
        let plain = id(&[7, 8]);
        assert_eq!(encode(&plain, None), [1, 0, 0, 0, 7, 8]);
        assert_eq!(decode(&[1, 0, 0, 0, 7, 8]), Some((plain, None)));
        assert_eq!(decode(&[1, 0, 0]), None);
        assert_eq!(decode(&[0; 4 + HANDLE_MAX + 1]), None);
        let numbered = FileId {
            kind: NUMBERED,
            bytes: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0].into(),
        };
        let way = Way {
            parent: 9,
            name: c"ab".into(),
            handle: Some(id(&[7, 8])),
        };
        let mut value = vec![
            0xfe, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0,
        ];
        value.extend([9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 7, 8, b'a', b'b']);
        assert_eq!(encode(&numbered, Some(&way)), value);
        assert_eq!(decode(&value), Some((numbered, Some(way))));
        assert_eq!(decode(&value[..20]), None);
    }

    proptest::proptest! {
        /// Broken: a damaged table takes the worker down.
        #[test]
        fn any_value_is_read_or_refused(value: Vec<u8>) {
            decode(&value);
        }
    }
}
