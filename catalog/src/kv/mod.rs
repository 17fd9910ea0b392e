//! Ordered keys and one all-or-nothing transaction: what the catalog asks of a database.
//!
//! The trait is narrow on purpose, and designed to the floor of what a database can do: a transaction
//! has at most [`MAX_OPS`] operations, a value at most [`MAX_VALUE`] bytes, a key at most [`MAX_KEY`],
//! and nothing scans inside a transaction. Knows no dataset.
//!
//! Invariants of every implementation, checked by one suite (`tests/kv`):
//!
//! ```text
//! 1  A transaction happens whole or not at all, also when the process is killed in the middle of it.
//! 2  Transactions are linearizable: one order of all of them, that agrees with the clock.
//! 3  A committed transaction has a revision, greater than that of every transaction before it in that
//!    order; a value carries the revision of the transaction that wrote it.
//! 4  What was answered as committed is durable.
//! 5  A key of `Op::Append` is its prefix and the revision, big-endian: whoever has read such keys up
//!    to one of them never misses an earlier one that commits later.
//! 6  A watch wakes after every change of its key; it may wake without one.
//! ```
//!
//! A `get_many` and a `scan` may see different keys at different moments; only [`Kv::dump`] is a view
//! of one moment.

mod backup;
mod encrypt;
mod hub;
mod pool;
pub mod postgres;
pub mod rocks;

use std::fmt::Debug;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use backup::{BackupError, BackupReport, export, import};
pub use hub::Watch;

/// Most compares and most operations of one transaction.
pub const MAX_OPS: usize = 12;
/// Most bytes of one value.
pub const MAX_VALUE: usize = 256 << 10;
/// Most bytes of one key: what a B-tree index of PostgreSQL takes.
pub const MAX_KEY: usize = 1 << 10;
/// Most keys of one [`Kv::scan`] or [`Kv::get_many`].
pub const MAX_PAGE: usize = 4096;

/// A value and the revision of the transaction that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// The transaction that wrote it; grows with each transaction over the whole store.
    pub revision: u64,
}

/// The keys from `start` up to and without `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    start: Bytes,
    end: Option<Bytes>,
}

impl KeyRange {
    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self {
            start: Bytes::copy_from_slice(prefix),
            end: successor(prefix),
        }
    }

    /// The part of this range behind `key`: how the next page is asked for.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        if key >= self.start.as_ref() {
            let mut next = Vec::with_capacity(key.len() + 1);
            next.extend_from_slice(key);
            next.push(0);
            self.start = next.into();
        }
        self
    }

    /// The first key that may be in the range.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The first key behind the range; none for a range up to the last key of all.
    pub fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }

    /// Both ends, as the standard library's maps take them.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = self.end.as_deref();
        (
            Bound::Included(&self.start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        )
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// The first key that is greater than every key with this prefix.
fn successor(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next.into())
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// There is no such key.
    Absent(Bytes),
    /// The key's value was written by the transaction with this revision.
    Revision(Bytes, u64),
    /// The key has exactly this value.
    Value(Bytes, Bytes),
}

impl Compare {
    /// The key that is looked at.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Absent(key) | Self::Revision(key, _) | Self::Value(key, _) => key,
        }
    }

    /// Whether the condition holds for what is stored.
    pub(crate) fn holds(&self, stored: Option<&Versioned>) -> bool {
        match self {
            Self::Absent(_) => stored.is_none(),
            Self::Revision(_, revision) => stored.is_some_and(|found| found.revision == *revision),
            Self::Value(_, value) => stored.is_some_and(|found| found.value == value),
        }
    }
}

/// A change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key; no error when there is none.
    Delete(Bytes),
    /// Sets the key made of this prefix and the transaction's revision (8 bytes, big-endian). Wakes
    /// the watches of the prefix. At most one for each prefix in a transaction.
    Append(Bytes, Bytes),
}

impl Op {
    /// The key that is changed, or for `Append` its prefix.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Delete(key) | Self::Append(key, _) => key,
        }
    }
}

/// Conditions and changes: if every compare holds, every operation happens, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All of them must hold.
    pub compares: Vec<Compare>,
    /// All of them happen, or none.
    pub ops: Vec<Op>,
    /// The transaction's revision is greater than this too: for restoring keys that contain
    /// revisions of another store. 0 for everything else.
    pub floor: u64,
}

impl Txn {
    /// A transaction without conditions and changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds a condition that a key is still what was read: absent, or of the same revision.
    #[must_use]
    pub fn unchanged(self, key: Bytes, read: Option<&Versioned>) -> Self {
        self.when(match read {
            None => Compare::Absent(key),
            Some(found) => Compare::Revision(key, found.revision),
        })
    }

    /// Adds [`Op::Put`].
    #[must_use]
    pub fn put(mut self, key: Bytes, value: Bytes) -> Self {
        self.ops.push(Op::Put(key, value));
        self
    }

    /// Adds [`Op::Delete`].
    #[must_use]
    pub fn delete(mut self, key: Bytes) -> Self {
        self.ops.push(Op::Delete(key));
        self
    }

    /// Adds [`Op::Append`].
    #[must_use]
    pub fn append(mut self, prefix: Bytes, value: Bytes) -> Self {
        self.ops.push(Op::Append(prefix, value));
        self
    }

    /// Refuses what is above the limits, before anything is sent anywhere.
    pub(crate) fn check(&self) -> Result<(), KvError> {
        let count = self.compares.len().max(self.ops.len());
        if count > MAX_OPS {
            return Err(KvError::limit(
                "operations of a transaction",
                count,
                MAX_OPS,
            ));
        }
        for key in self.compares.iter().map(Compare::key) {
            check_key(key)?;
        }
        for op in &self.ops {
            match op {
                Op::Put(key, value) => {
                    check_key(key)?;
                    check_value(value)?;
                }
                Op::Delete(key) => check_key(key)?,
                Op::Append(prefix, value) => {
                    if prefix.len() + 8 > MAX_KEY {
                        return Err(KvError::limit("bytes of a key", prefix.len() + 8, MAX_KEY));
                    }
                    check_value(value)?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses an empty key and one above the limit.
pub(crate) fn check_key(key: &[u8]) -> Result<(), KvError> {
    match key.len() {
        1..=MAX_KEY => Ok(()),
        length => Err(KvError::limit("bytes of a key", length, MAX_KEY)),
    }
}

/// Refuses more keys than one call takes, and a text that is no key.
pub(crate) fn check_keys(keys: &[Bytes]) -> Result<(), KvError> {
    if keys.len() > MAX_PAGE {
        return Err(KvError::limit("keys of a page", keys.len(), MAX_PAGE));
    }
    keys.iter().try_for_each(|key| check_key(key))
}

fn check_value(value: &[u8]) -> Result<(), KvError> {
    if value.len() > MAX_VALUE {
        return Err(KvError::limit("bytes of a value", value.len(), MAX_VALUE));
    }
    Ok(())
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// It happened, and is durable.
    Committed {
        /// Its revision.
        revision: u64,
    },
    /// Nothing happened.
    Conflict {
        /// Position of the first compare that did not hold.
        failed: usize,
    },
}

/// What an implementation takes in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Compares, and operations, of one transaction.
    pub ops: usize,
    /// Bytes of one key.
    pub key: usize,
    /// Bytes of one value.
    pub value: usize,
    /// Keys of one page.
    pub page: usize,
}

/// The limits of both implementations.
pub const LIMITS: Limits = Limits {
    ops: MAX_OPS,
    key: MAX_KEY,
    value: MAX_VALUE,
    page: MAX_PAGE,
};

/// What went wrong, by what the caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// Nothing happened; the same call may succeed later.
    #[error("the catalog's database does not answer: {0}")]
    Unavailable(String),
    /// A transaction may have happened or not: read before trying again.
    #[error("the catalog's database did not say whether a change happened: {0}")]
    Unknown(String),
    /// What was read is not what this program writes.
    #[error("the catalog's database is damaged: {0}")]
    Corrupt(String),
    /// More than the limits allow; nothing happened, and never will.
    #[error("{what}: {got}, and at most {max}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// How many there were.
        got: usize,
        /// How many there may be.
        max: usize,
    },
}

impl KvError {
    pub(crate) fn limit(what: &'static str, got: usize, max: usize) -> Self {
        Self::Limit { what, got, max }
    }
}

/// A page of [`Kv::dump`].
pub type DumpPage = Vec<(Bytes, Versioned)>;

/// See the module text. Every method may be dropped before it ends; a dropped [`Kv::txn`] may still
/// happen.
#[async_trait]
pub trait Kv: Send + Sync + Debug + 'static {
    /// The value of a key.
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, KvError> {
        let mut found = self.get_many(&[Bytes::copy_from_slice(key)]).await?;
        Ok(found.pop().flatten())
    }

    /// The values of many keys, in their order, in one round trip.
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, KvError>;

    /// The first `limit` keys of a range, in order. Fewer than `limit`: there are no more.
    async fn scan(&self, range: KeyRange, limit: usize)
    -> Result<Vec<(Bytes, Versioned)>, KvError>;

    /// Checks and changes, all or nothing.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, KvError>;

    /// Wakes when a key may have changed since this call. A hint: read after waking, and before the
    /// first wait.
    async fn watch(&self, key: &[u8]) -> Result<Watch, KvError>;

    /// Everything as it was at one moment, in order, page by page: for backups.
    fn dump(&self) -> BoxStream<'static, Result<DumpPage, KvError>>;

    /// Whether several catalogs may be open over it at a time. Not so: nobody else reads what is written.
    fn is_shared(&self) -> bool {
        false
    }

    /// What one call may carry.
    fn limits(&self) -> Limits;
}
