//! The inode table of a live mount: number -> (path, version) and back, on disk. Owns `rocksdb`.
//!
//! Invariant: a number that was returned to anyone is in the table before that, and never gets a
//! second meaning; so a worker started after `kill -9` of the last one understands every number the
//! kernel still knows. Writes go to the log of the database without fsync: that survives the death
//! of the process, and the mount itself does not survive the death of the machine.
//!
//! Numbers are never used twice, not even when the table forgets them ([`InodeTable::forget_over`]).
//! Lock order: `allocate`, then `recent`. Calls do disk I/O; from async code they run on the
//! blocking pool, except the single reads of [`InodeTable::record`], which the page cache answers.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, IteratorMode, LogLevel,
    Options, WriteBatch,
};

use super::bounded::Bounded;
use super::record::{Record, What};
use crate::namespace::{FsError, Ino};

const INODES: &str = "inodes";
const NAMES: &str = "names";
const FLOOR: &[u8] = b"floor";

/// Memory of the database per mount: two write buffers of this size and a block cache.
const WRITE_BUFFER: usize = 8 << 20;
const BLOCK_CACHE: usize = 16 << 20;
/// An option that only the text form of the options names.
const NO_FLUSH: &str = "avoid_flush_during_recovery=true";
/// Records kept in memory, about 250 bytes each.
const RECENT: usize = 32 * 1024;
/// Numbers below the bit that the open-mode machine uses.
const INO_END: u64 = 1 << 63;

/// Why the inode table cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TableError {
    /// The database: disk full, damaged, or held by another process.
    #[error("inode table: {0}")]
    Database(String),
    /// A record that does not decode, or a missing half of one.
    #[error("inode table is damaged: {0}; unmount, remove its directory and mount again")]
    Damaged(&'static str),
    /// A version token over 64 KiB.
    #[error("version of an object is too long to record")]
    TokenTooLong,
    /// 2^63 numbers.
    #[error("inode numbers are used up")]
    Exhausted,
}

impl From<rocksdb::Error> for TableError {
    fn from(error: rocksdb::Error) -> Self {
        Self::Database(error.into_string())
    }
}

impl From<TableError> for FsError {
    fn from(error: TableError) -> Self {
        Self::Local(error.to_string())
    }
}

/// The table of one mount.
pub(super) struct InodeTable {
    db: DB,
    /// The next number; held while numbers are given out, so that one path and version never gets
    /// two.
    allocate: Mutex<u64>,
    recent: Mutex<Bounded<u64, Arc<Record>>>,
}

impl fmt::Debug for InodeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InodeTable")
            .field("path", &self.db.path())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the databases of a mount are opened: little memory, and a quick start for the next worker.
pub(crate) fn options() -> Result<Options, rocksdb::Error> {
    // What the log holds is replayed into memory at every open and need not become a file each time:
    // applications wait for the next worker.
    let mut options = Options::default().get_options_from_string(NO_FLUSH)?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_size(WRITE_BUFFER);
    options.set_max_write_buffer_number(2);
    options.set_max_total_wal_size(WRITE_BUFFER as u64);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    // The default starts 15 threads at every open: longer than opening a few files takes.
    options.set_max_file_opening_threads(1);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    let mut table = BlockBasedOptions::default();
    // Most look-ups of a first listing ask for names that are not there.
    table.set_bloom_filter(10.0, false);
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE));
    table.set_cache_index_and_filter_blocks(true);
    options.set_block_based_table_factory(&table);
    Ok(options)
}

impl InodeTable {
    /// Opens or creates the table in `directory`. One process at a time: a lock tells.
    pub(super) fn open(directory: &Path, now_ns: i64) -> Result<Self, TableError> {
        let options = options()?;
        let families = [INODES, NAMES, rocksdb::DEFAULT_COLUMN_FAMILY_NAME]
            .map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = DB::open_cf_descriptors(&options, directory, families)?;
        let mut table = Self {
            db,
            allocate: Mutex::new(0),
            recent: Mutex::new(Bounded::new(RECENT)),
        };
        let last = match table
            .db
            .iterator_cf(table.family(INODES)?, IteratorMode::End)
            .next()
        {
            Some(entry) => number(&entry?.0)?,
            None => 0,
        };
        let floor = table.db.get(FLOOR)?.map_or(Ok(0), |floor| little(&floor))?;
        table.allocate = Mutex::new(last.max(floor).max(Ino::ROOT.0) + 1);
        if last == 0 {
            table.create_root(now_ns)?;
        }
        Ok(table)
    }

    /// What a number stands for; `None`: it was never given out, or is forgotten.
    pub(super) fn record(&self, ino: Ino) -> Result<Option<Arc<Record>>, TableError> {
        if let Some(record) = lock(&self.recent).get(&ino.0) {
            return Ok(Some(Arc::clone(record)));
        }
        let Some(value) = self
            .db
            .get_pinned_cf(self.family(INODES)?, ino.0.to_be_bytes())?
        else {
            return Ok(None);
        };
        let record = Record::decode(&value).ok_or(TableError::Damaged("a record"))?;
        let record = Arc::new(record);
        lock(&self.recent).insert(ino.0, Arc::clone(&record));
        Ok(Some(record))
    }

    /// Numbers of these paths and versions, in the order asked; what has none gets one. All new
    /// numbers are in the table when this returns.
    pub(super) fn resolve(&self, wanted: &[(String, What)]) -> Result<Vec<Ino>, TableError> {
        let keys = wanted.iter().map(|(path, what)| Record::key(path, what));
        let keys: Option<Vec<_>> = keys.collect();
        let keys = keys.ok_or(TableError::TokenTooLong)?;
        let found = self.find(&keys)?;
        if let Some(numbers) = found.iter().copied().collect::<Option<Vec<_>>>() {
            return Ok(numbers);
        }
        let mut next = lock(&self.allocate);
        // Again under the lock: another thread may have given some of them a number meanwhile.
        let mut found = self.find(&keys)?;
        let mut batch = WriteBatch::default();
        let mut number = *next;
        for ((found, key), (path, what)) in found.iter_mut().zip(&keys).zip(wanted) {
            if found.is_some() {
                continue;
            }
            if number >= INO_END {
                return Err(TableError::Exhausted);
            }
            let value = Record::encode(path, what).ok_or(TableError::TokenTooLong)?;
            batch.put_cf(self.family(INODES)?, number.to_be_bytes(), value);
            batch.put_cf(self.family(NAMES)?, key, number.to_le_bytes());
            *found = Some(Ino(number));
            number += 1;
        }
        self.db.write(batch)?;
        *next = number;
        drop(next);
        // Two equal requests in one call would get two numbers; callers have none.
        Ok(found.into_iter().flatten().collect())
    }

    /// Forgets everything but the root when the table holds more than `limit` numbers; `true`: it
    /// did. Only for a mount that no kernel knows yet.
    pub(super) fn forget_over(&self, limit: u64, now_ns: i64) -> Result<bool, TableError> {
        let inodes = self.family(INODES)?;
        let count = self
            .db
            .property_int_value_cf(inodes, rocksdb::properties::ESTIMATE_NUM_KEYS)?;
        if count.unwrap_or(0) <= limit {
            return Ok(false);
        }
        let next = lock(&self.allocate);
        // The floor first and durably: after a crash in between, the old numbers stay taken.
        self.db.put(FLOOR, (*next - 1).to_le_bytes())?;
        self.db.flush_wal(true)?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(inodes, 0_u64.to_be_bytes(), u64::MAX.to_be_bytes());
        batch.delete_range_cf(self.family(NAMES)?, [].as_slice(), &[0xff; 8]);
        self.db.write(batch)?;
        self.create_root(now_ns)?;
        *lock(&self.recent) = Bounded::new(RECENT);
        drop(next);
        self.db
            .compact_range_cf(inodes, None::<&[u8]>, None::<&[u8]>);
        self.db
            .compact_range_cf(self.family(NAMES)?, None::<&[u8]>, None::<&[u8]>);
        Ok(true)
    }

    fn create_root(&self, now_ns: i64) -> Result<(), TableError> {
        let root = What::Directory(now_ns);
        let value = Record::encode("", &root).ok_or(TableError::TokenTooLong)?;
        let key = Record::key("", &root).ok_or(TableError::TokenTooLong)?;
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(INODES)?, Ino::ROOT.0.to_be_bytes(), value);
        batch.put_cf(self.family(NAMES)?, key, Ino::ROOT.0.to_le_bytes());
        self.db.write(batch)?;
        Ok(())
    }

    fn find(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Ino>>, TableError> {
        let answers = self
            .db
            .batched_multi_get_cf(self.family(NAMES)?, keys, false);
        let decode = |answer: Result<Option<rocksdb::DBPinnableSlice<'_>>, rocksdb::Error>| {
            answer?.map(|value| little(&value).map(Ino)).transpose()
        };
        answers.into_iter().map(decode).collect()
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily, TableError> {
        self.db
            .cf_handle(name)
            .ok_or(TableError::Damaged("a column family is missing"))
    }
}

/// A number as it stands in a key.
fn number(bytes: &[u8]) -> Result<u64, TableError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| TableError::Damaged("a number"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// A number as it stands in a value.
fn little(bytes: &[u8]) -> Result<u64, TableError> {
    number(bytes).map(u64::swap_bytes)
}
