//! The index: RocksDB with the column families that `record.rs` specifies.
//!
//! The only file of the crate that names `rocksdb`. Memory is bounded: 3 write buffers of 2 MiB per
//! family at most, 8 MiB of block cache, 64 open files. Writes go through its log; only completions
//! and pins are synced. Every value is checked again by its own decoder.
//!
//! After an error RocksDB may refuse writes for ever although its disk has recovered, hence
//! [`Index::reopen`]. A database that cannot be opened because it is damaged is set aside and an
//! empty one takes its place: the tier forgets.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode,
    LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::error::{HotError, HotErrorKind};
use super::record::{Head, Marks, Pins, Record, Times, Trust};
use crate::identity::Digest;

const OBJECTS: &str = "objects";
const MARKS: &str = "marks";
const PINS: &str = "pins";
const TRUST_KEY: &[u8] = b"trust";

/// An option that only the text form of the options names.
const NO_FLUSH: &str = "avoid_flush_during_recovery=true";

/// Bytes of log that an open may have to replay: some 25,000 records.
const LOG_LIMIT: u64 = 4 << 20;

/// Files of a family, each from one write buffer, that are merged into the others at a time: twice the
/// default halves the work of writing many records, and costs a read a few more looks.
const LEVEL_ZERO: i32 = 8;

/// One change of the index; a slice of them is applied atomically.
#[derive(Debug)]
pub(super) enum Change {
    Put(Digest, Record),
    Remove(Digest),
    Mark(Digest, Marks),
    /// Leaves the times of an object that has owners as they are.
    Pin(Digest, Pins),
    /// A link was made or removed, which moved these times; it has owners.
    Link(Digest, Pins, Times),
    Trust(Trust),
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// `None` after a failed reopen and after [`Index::close`].
    db: RwLock<Option<DB>>,
    /// The last write failed.
    sick: AtomicBool,
}

impl Index {
    /// Opens or creates the index. Says whether a damaged one had to be set aside.
    pub(super) fn open(path: &Path) -> Result<(Self, bool), HotError> {
        let (db, set_aside) = match open(path) {
            Ok(db) => (db, false),
            Err(error) if is_damage(&error) => {
                tracing::error!(path = %path.display(), %error, "index is damaged, starting anew");
                set_aside(path)?;
                (
                    open(path).map_err(|e| failure("open index", path, &e))?,
                    true,
                )
            }
            Err(error) => return Err(failure("open index", path, &error)),
        };
        let index = Self {
            path: path.to_owned(),
            db: RwLock::new(Some(db)),
            sick: AtomicBool::new(false),
        };
        Ok((index, set_aside))
    }

    /// Closes and opens the database again.
    pub(super) fn reopen(&self) -> Result<(), HotError> {
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        drop(slot.take());
        let db = open(&self.path).map_err(|e| failure("reopen index", &self.path, &e))?;
        *slot = Some(db);
        Ok(())
    }

    /// Closes the database for good; everything after answers an error.
    pub(super) fn close(&self) {
        drop(
            self.db
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    fn with<T>(
        &self,
        operation: &'static str,
        f: impl FnOnce(&DB) -> Result<T, rocksdb::Error>,
    ) -> Result<T, HotError> {
        let slot = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = slot.as_ref() else {
            let reason = "the index is closed";
            return Err(HotError::new(
                HotErrorKind::Io,
                operation,
                &self.path,
                reason,
            ));
        };
        f(db).map_err(|e| failure(operation, &self.path, &e))
    }

    /// Applies `changes` atomically; with `sync` they are durable when this returns.
    pub(super) fn apply(&self, changes: &[Change], sync: bool) -> Result<(), HotError> {
        let result = self.with("write index", |db| {
            let mut batch = WriteBatch::default();
            let (objects, marks, pins) = (family(db, OBJECTS), family(db, MARKS), family(db, PINS));
            for change in changes {
                match change {
                    Change::Put(digest, record) => {
                        batch.put_cf(objects, digest.0, record.encode(digest));
                    }
                    Change::Remove(digest) => {
                        batch.delete_cf(objects, digest.0);
                        batch.delete_cf(marks, digest.0);
                    }
                    Change::Mark(digest, value) => batch.put_cf(marks, digest.0, value.encode()),
                    Change::Pin(digest, value) if value.is_held() => {
                        let times = match value.owners {
                            0 => None,
                            _ => times(db, digest)?,
                        };
                        batch.put_cf(pins, digest.0, pin_value(*value, times));
                    }
                    Change::Link(digest, value, times) => {
                        batch.put_cf(pins, digest.0, pin_value(*value, Some(*times)));
                    }
                    Change::Pin(digest, _) => batch.delete_cf(pins, digest.0),
                    Change::Trust(trust) => batch.put(TRUST_KEY, trust.encode()),
                }
            }
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            db.write_opt(batch, &options)
        });
        self.sick.store(result.is_err(), Ordering::Release);
        result
    }

    /// Whether the last write failed, so that a probe or [`Index::reopen`] is due.
    pub(super) fn is_sick(&self) -> bool {
        self.sick.load(Ordering::Acquire)
    }

    /// The record of `digest`, without what links have moved since: see [`Index::times`]. Errors:
    /// `Corrupt` when there is one that cannot be believed.
    pub(super) fn get(&self, digest: &Digest) -> Result<Option<Record>, HotError> {
        let found = self.with("read index", |db| {
            let value = db.get_pinned_cf(family(db, OBJECTS), digest.0)?;
            Ok(value.map(|bytes| Record::decode(digest, &bytes)))
        })?;
        match found {
            None => Ok(None),
            Some(Some(record)) => Ok(Some(record)),
            Some(None) => {
                let reason = format!("record of {digest} fails its checksum");
                Err(HotError::corrupt("read index", &self.path, reason))
            }
        }
    }

    /// The records of `digests`, which are sorted, so that neighbours are read together. `visit` gets
    /// the heads of those that can be believed, whole records, and their places.
    pub(super) fn get_many(
        &self,
        digests: &[Digest],
        mut visit: impl FnMut(usize, Head<'_>, &[u8]),
    ) -> Result<(), HotError> {
        self.with("read index", |db| {
            let keys = digests.iter().map(|digest| &digest.0);
            let values = db.batched_multi_get_cf(family(db, OBJECTS), keys, true);
            for (place, value) in values.into_iter().enumerate() {
                if let Some(bytes) = value?
                    && let Some(head) = Head::decode(&digests[place], &bytes)
                {
                    visit(place, head, &bytes);
                }
            }
            Ok(())
        })
    }

    /// What links have moved since the record of `digest` was written.
    pub(super) fn times(&self, digest: &Digest) -> Result<Option<Times>, HotError> {
        self.with("read index", |db| times(db, digest))
    }

    pub(super) fn trust(&self) -> Result<Option<Trust>, HotError> {
        let bytes = self.with("read index", |db| db.get(TRUST_KEY))?;
        Ok(bytes.and_then(|bytes| Trust::decode(&bytes)))
    }

    /// About how many objects there are, without counting them.
    pub(super) fn estimated_objects(&self) -> usize {
        let estimate = self.with("read index", |db| {
            let name = rocksdb::properties::ESTIMATE_NUM_KEYS;
            db.property_int_value_cf(family(db, OBJECTS), name)
        });
        let estimate = estimate.ok().flatten().unwrap_or(0);
        usize::try_from(estimate).unwrap_or(usize::MAX)
    }

    /// Calls `visit` for each object whose digest begins with a byte in `first..=last`, in order.
    /// `None` stands for a record that cannot be believed.
    pub(super) fn scan(
        &self,
        first: u8,
        last: u8,
        mut visit: impl FnMut(Digest, Option<Head<'_>>, Marks),
    ) -> Result<(), HotError> {
        self.with("scan index", |db| {
            // Raw iterators: they lend keys and values, and a million copies would take seconds.
            let mut objects = db.raw_iterator_cf_opt(family(db, OBJECTS), scan_options());
            let mut marks = db.raw_iterator_cf_opt(family(db, MARKS), scan_options());
            objects.seek([first]);
            marks.seek([first]);
            while let Some((key, value)) = objects.item() {
                let Ok(key) = <[u8; 32]>::try_from(key) else {
                    objects.next();
                    continue;
                };
                if key[0] > last {
                    break;
                }
                while marks.key().is_some_and(|found| found < &key[..]) {
                    marks.next();
                }
                let mark = match marks.item() {
                    Some((found, value)) if found == key => Marks::decode(value),
                    _ => None,
                };
                let digest = Digest(key);
                visit(
                    digest,
                    Head::decode(&digest, value),
                    mark.unwrap_or_default(),
                );
                objects.next();
            }
            objects.status().and(marks.status())
        })
    }

    /// All pins.
    pub(super) fn pins(&self) -> Result<Vec<(Digest, Pins)>, HotError> {
        self.with("scan index", |db| {
            let mut found = Vec::new();
            for item in db.iterator_cf_opt(family(db, PINS), scan_options(), IteratorMode::Start) {
                let (key, value) = item?;
                if let (Ok(key), Some(pins)) = (key.as_ref().try_into(), Pins::decode(&value)) {
                    found.push((Digest(key), pins));
                }
            }
            Ok(found)
        })
    }
}

fn times(db: &DB, digest: &Digest) -> Result<Option<Times>, rocksdb::Error> {
    let value = db.get_pinned_cf(family(db, PINS), digest.0)?;
    Ok(value.and_then(|bytes| Times::decode(&bytes)))
}

fn pin_value(pins: Pins, times: Option<Times>) -> Vec<u8> {
    let mut value = pins.encode();
    value.extend(times.into_iter().flat_map(Times::encode));
    value
}

fn scan_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(1 << 20);
    options
}

fn family<'a>(db: &'a DB, name: &str) -> &'a rocksdb::ColumnFamily {
    db.cf_handle(name).expect("opened with every family")
}

fn open(path: &Path) -> Result<DB, rocksdb::Error> {
    // What the log holds is replayed into memory at every open and need not become a file each time:
    // applications wait for the next worker. So the log is kept short, too.
    let mut options = Options::default().get_options_from_string(NO_FLUSH)?;
    options.set_max_total_wal_size(LOG_LIMIT);
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(64);
    // The default starts 15 threads for each family, and again after recovery: longer than opening
    // a few files takes, while applications wait for the next worker.
    options.set_max_file_opening_threads(1);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_skip_stats_update_on_db_open(true);
    let mut table = BlockBasedOptions::default();
    let cache = Cache::new_lru_cache(8 << 20);
    table.set_block_cache(&cache);
    let family = |name: &str| {
        let mut options = Options::default();
        options.set_write_buffer_size(2 << 20);
        options.set_max_write_buffer_number(3);
        options.set_compression_type(DBCompressionType::None);
        options.set_block_based_table_factory(&table);
        // Digests are spread evenly, so each compaction rewrites the whole family.
        options.set_level_zero_file_num_compaction_trigger(LEVEL_ZERO);
        ColumnFamilyDescriptor::new(name, options)
    };
    let families = [
        family("default"),
        family(OBJECTS),
        family(MARKS),
        family(PINS),
    ];
    DB::open_cf_descriptors(&options, path, families)
}

/// Whether opening again cannot help. A file that went missing is damage that RocksDB reports as
/// an I/O error.
fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::InvalidArgument => true,
        rocksdb::ErrorKind::IOError => error.as_ref().contains("No such file or directory"),
        _ => false,
    }
}

/// Moves a damaged index out of the way; only the last one is kept.
fn set_aside(path: &Path) -> Result<(), HotError> {
    let kept = path.with_extension("damaged");
    match std::fs::remove_dir_all(&kept) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(HotError::io("remove old damaged index", &kept, &e));
        }
        _ => {}
    }
    std::fs::rename(path, &kept).map_err(|e| HotError::io("set damaged index aside", path, &e))
}

fn failure(operation: &'static str, path: &Path, error: &rocksdb::Error) -> HotError {
    let text = error.as_ref();
    let kind = match error.kind() {
        rocksdb::ErrorKind::Corruption => HotErrorKind::Corrupt,
        _ if text.contains("No space left") => HotErrorKind::Full,
        _ => HotErrorKind::Io,
    };
    HotError::new(kind, operation, path, text)
}
