//! The embedded store: RocksDB, one process at a time.
//!
//! ```text
//! default   key -> revision (8 bytes, big-endian) ++ value
//! meta      "revision" -> the greatest revision (8 bytes, big-endian)
//!           "format"   -> FORMAT
//! ```
//!
//! One thread commits: it takes what has gathered in a bounded queue, checks each transaction against
//! the database and those before it in the same turn, and writes all that hold as one synced
//! `WriteBatch`. So there is one order, a revision belongs to one place in it, and many callers share
//! one sync. An answer is sent after the sync; a process that is killed before it has promised nothing.
//! If a write fails, nobody can say what reached the disk: all of the turn get `Unknown`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, Direction,
    IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hub::{Hub, Watch};
use super::{
    DumpPage, KeyRange, Kv, KvError, LIMITS, Limits, MAX_PAGE, Op, Txn, TxnOutcome, Versioned,
    check_key, check_keys,
};

const META: &str = "meta";
const REVISION_KEY: &[u8] = b"revision";
const FORMAT_KEY: &[u8] = b"format";
/// Name and number of the layout in the module text.
const FORMAT: &[u8] = b"terrace-kv 1";

/// Transactions that wait for the committing thread.
const QUEUE: usize = 1024;
/// Most transactions that share one sync.
const TURN: usize = 256;

/// See the module text. Closing it waits for what is queued.
#[derive(Debug)]
pub struct RocksKv {
    shared: Arc<Shared>,
    /// None while closing.
    queue: Option<mpsc::Sender<Request>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// Ends the dumps that still run.
    _dumps: DropGuard,
    closing: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    db: DB,
    hub: Hub,
}

/// A transaction and who waits for it.
struct Request {
    txn: Txn,
    answer: oneshot::Sender<Result<TxnOutcome, KvError>>,
}

impl RocksKv {
    /// Opens or creates the store in a directory. Blocks while RocksDB replays its log. Errors:
    /// `Unavailable` (also when another process has it open), `Corrupt`.
    pub fn open(directory: &Path) -> Result<Self, KvError> {
        let db = open(directory)?;
        let meta = db.cf_handle(META).expect("opened with every family");
        match db.get_cf(meta, FORMAT_KEY).map_err(failure)? {
            None => db
                .put_cf_opt(meta, FORMAT_KEY, FORMAT, &synced())
                .map_err(failure)?,
            Some(found) if found == FORMAT => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(KvError::Corrupt(format!("its format is {found:?}")));
            }
        }
        let revision = match db.get_cf(meta, REVISION_KEY).map_err(failure)? {
            None => 0,
            Some(bytes) => u64::from_be_bytes(
                bytes
                    .try_into()
                    .map_err(|_| KvError::Corrupt("its revision is no number".into()))?,
            ),
        };
        let shared = Arc::new(Shared {
            db,
            hub: Hub::default(),
        });
        let (queue, requests) = mpsc::channel(QUEUE);
        let committer = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("catalog-commit".into())
                .spawn(move || commit_all(&shared, requests, revision))
                .map_err(|error| KvError::Unavailable(error.to_string()))?
        };
        let closing = CancellationToken::new();
        Ok(Self {
            shared,
            queue: Some(queue),
            committer: Mutex::new(Some(committer)),
            _dumps: closing.clone().drop_guard(),
            closing,
        })
    }

    /// Runs a read on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&DB) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || read(&shared.db))
            .await
            .map_err(|error| KvError::Unavailable(error.to_string()))?
    }
}

impl Drop for RocksKv {
    fn drop(&mut self) {
        drop(self.queue.take());
        let slot = &self.committer;
        let thread = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread ends when the queue is empty; it does not panic, and could tell nobody.
            let _ = thread.join();
        }
        self.shared.hub.close();
    }
}

#[async_trait]
impl Kv for RocksKv {
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, KvError> {
        check_keys(keys)?;
        let keys = keys.to_vec();
        self.read(move |db| keys.iter().map(|key| stored(db, key)).collect())
            .await
    }

    async fn scan(
        &self,
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, KvError> {
        if limit > MAX_PAGE {
            return Err(KvError::limit("keys of a page", limit, MAX_PAGE));
        }
        self.read(move |db| {
            let mut options = ReadOptions::default();
            if let Some(end) = range.end() {
                options.set_iterate_upper_bound(end.to_vec());
            }
            if range.is_empty() {
                return Ok(Vec::new());
            }
            let from = IteratorMode::From(range.start(), Direction::Forward);
            let items = db.iterator_opt(from, options).take(limit);
            items
                .map(|item| decode_item(item.map_err(failure)?))
                .collect()
        })
        .await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, KvError> {
        txn.check()?;
        let (answer, wait) = oneshot::channel();
        let closed = || KvError::Unavailable("it was closed".into());
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        let request = Request { txn, answer };
        queue.send(request).await.map_err(|_| closed())?;
        wait.await
            .map_err(|_| KvError::Unknown("its thread ended".into()))?
    }

    async fn watch(&self, key: &[u8]) -> Result<Watch, KvError> {
        check_key(key)?;
        self.shared.hub.watch(key)
    }

    fn dump(&self) -> BoxStream<'static, Result<DumpPage, KvError>> {
        let (pages, received) = mpsc::channel(2);
        let shared = Arc::clone(&self.shared);
        let closing = self.closing.clone();
        // Ends with its stream, at the latest when the store is closed.
        tokio::task::spawn_blocking(move || dump_all(&shared.db, &pages, &closing));
        crate::stream::received(received).boxed()
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

/// Sends every key of one snapshot, page by page.
fn dump_all(db: &DB, pages: &mpsc::Sender<Result<DumpPage, KvError>>, closing: &CancellationToken) {
    let snapshot = db.snapshot();
    let mut page = Vec::new();
    for item in snapshot.iterator(IteratorMode::Start) {
        if closing.is_cancelled() {
            return;
        }
        match item.map_err(failure).and_then(decode_item) {
            Ok(entry) => page.push(entry),
            Err(error) => {
                let _ = pages.blocking_send(Err(error));
                return;
            }
        }
        if page.len() == MAX_PAGE / 4 && pages.blocking_send(Ok(std::mem::take(&mut page))).is_err()
        {
            return;
        }
    }
    // An error means that nobody listens any more.
    let _ = pages.blocking_send(Ok(page));
}

/// The committing thread: until the queue is closed and empty.
fn commit_all(shared: &Shared, mut requests: mpsc::Receiver<Request>, mut revision: u64) {
    while let Some(first) = requests.blocking_recv() {
        let mut turn = vec![first];
        while turn.len() < TURN {
            match requests.try_recv() {
                Ok(request) => turn.push(request),
                Err(_) => break,
            }
        }
        revision = commit_turn(shared, turn, revision);
    }
}

/// Decides, writes and answers one turn; the greatest revision afterwards.
fn commit_turn(shared: &Shared, turn: Vec<Request>, before: u64) -> u64 {
    let mut changes: HashMap<Bytes, Option<Versioned>> = HashMap::new();
    let mut revision = before;
    let mut decided = Vec::with_capacity(turn.len());
    for request in turn {
        let outcome = decide(&shared.db, &mut changes, &request.txn, &mut revision);
        decided.push((request, outcome));
    }
    let written = if revision == before {
        Ok(())
    } else {
        write(&shared.db, &changes, revision)
    };
    for (request, mut outcome) in decided {
        if let (Err(error), Ok(TxnOutcome::Committed { .. })) = (&written, &outcome) {
            outcome = Err(KvError::Unknown(error.to_string()));
        }
        if matches!(outcome, Ok(TxnOutcome::Committed { .. })) {
            shared.hub.wake(request.txn.ops.iter().map(Op::key));
        }
        // The caller may have gone.
        let _ = request.answer.send(outcome);
    }
    revision
}

/// Checks one transaction and, if it holds, adds its changes.
fn decide(
    db: &DB,
    changes: &mut HashMap<Bytes, Option<Versioned>>,
    txn: &Txn,
    revision: &mut u64,
) -> Result<TxnOutcome, KvError> {
    for (at, compare) in txn.compares.iter().enumerate() {
        let holds = match changes.get(compare.key()) {
            Some(pending) => compare.holds(pending.as_ref()),
            None => compare.holds(stored(db, compare.key())?.as_ref()),
        };
        if !holds {
            return Ok(TxnOutcome::Conflict { failed: at });
        }
    }
    let mine = (*revision).max(txn.floor).saturating_add(1);
    *revision = mine;
    for op in &txn.ops {
        let value = |value: &Bytes| {
            Some(Versioned {
                value: value.clone(),
                revision: mine,
            })
        };
        match op {
            Op::Put(key, bytes) => changes.insert(key.clone(), value(bytes)),
            Op::Delete(key) => changes.insert(key.clone(), None),
            Op::Append(prefix, bytes) => {
                let key = [prefix.as_ref(), &mine.to_be_bytes()].concat();
                changes.insert(key.into(), value(bytes))
            }
        };
    }
    Ok(TxnOutcome::Committed { revision: mine })
}

fn write(
    db: &DB,
    changes: &HashMap<Bytes, Option<Versioned>>,
    revision: u64,
) -> Result<(), KvError> {
    let meta = db.cf_handle(META).expect("opened with every family");
    let mut batch = WriteBatch::default();
    for (key, change) in changes {
        match change {
            None => batch.delete(key),
            Some(versioned) => {
                let bytes = [&versioned.revision.to_be_bytes(), versioned.value.as_ref()].concat();
                batch.put(key, bytes);
            }
        }
    }
    batch.put_cf(meta, REVISION_KEY, revision.to_be_bytes());
    db.write_opt(batch, &synced()).map_err(failure)
}

fn stored(db: &DB, key: &[u8]) -> Result<Option<Versioned>, KvError> {
    let found = db.get_pinned(key).map_err(failure)?;
    found.map(|bytes| decode(&bytes)).transpose()
}

fn decode_item((key, value): (Box<[u8]>, Box<[u8]>)) -> Result<(Bytes, Versioned), KvError> {
    let versioned = decode(&value)?;
    Ok((Bytes::from(key), versioned))
}

fn decode(bytes: &[u8]) -> Result<Versioned, KvError> {
    let Some((revision, value)) = bytes.split_first_chunk::<8>() else {
        return Err(KvError::Corrupt("a value is too short".into()));
    };
    Ok(Versioned {
        value: Bytes::copy_from_slice(value),
        revision: u64::from_be_bytes(*revision),
    })
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// Memory is bounded: three write buffers of 8 MiB, 32 MiB of block cache, 128 open files.
fn open(directory: &Path) -> Result<DB, KvError> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(128);
    options.set_max_file_opening_threads(1);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(64 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(32 << 20));
    table.set_bloom_filter(10.0, false);
    let family = |name: &str| {
        let mut options = Options::default();
        options.set_write_buffer_size(8 << 20);
        options.set_max_write_buffer_number(3);
        options.set_compression_type(DBCompressionType::None);
        options.set_block_based_table_factory(&table);
        ColumnFamilyDescriptor::new(name, options)
    };
    let families = [family("default"), family(META)];
    DB::open_cf_descriptors(&options, directory, families).map_err(failure)
}

fn failure(error: rocksdb::Error) -> KvError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => KvError::Corrupt(error.into_string()),
        _ => KvError::Unavailable(error.into_string()),
    }
}
