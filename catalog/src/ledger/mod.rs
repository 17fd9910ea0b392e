//! Names to versions to manifests; the only place that commits.
//!
//! ```text
//! key.rs record.rs     keys and records: the specification of what is stored
//! dataset.rs search.rs create, change, list, search
//! tabular.rs           which of many are tables of SQL engines
//! columns.rs           numbers of columns, kept for ever
//! commit.rs            one transaction that makes a version
//! resolve.rs tag.rs    selectors; tags
//! event.rs hold.rs     what happened; why a version stays
//! save.rs              files that are being written, before they are a version
//! remove.rs retire.rs  two steps and a delay
//! surplus.rs           versions that a descriptor does not keep
//! roots.rs             what a collector must not take
//! mirror.rs rebuild.rs every version also as a file; all of it from the files alone
//! ```
//!
//! Invariants:
//!
//! 1. A version is there whole or not at all: everything it names is durable before the one transaction
//!    that makes it, and nothing is needed after it. What a crash before leaves is garbage.
//! 2. Versions of a dataset have the numbers 1, 2, 3 .. in the order of their transactions; a number is
//!    never given twice, and `created_ms` never decreases along it, whatever the clock does.
//! 3. A record that says "version n" is written in a transaction that has seen version n alive.
//! 4. A version that is the latest, tagged or held is not removed; a model's is not removed by
//!    [`Purpose::Ordinary`] at all; every removal waits for a delay in which it can be taken back.
//! 5. A mirror file that is missing has a record that says so, until it is written.
//!
//! There is no lock across processes and none in one process but that of the search index: every
//! change compares what it has read and is tried again when somebody else was faster, at most
//! [`RETRIES`] times. All calls may be dropped before they end; a dropped change may still happen.

mod columns;
mod commit;
mod dataset;
mod event;
mod hold;
mod key;
mod mirror;
mod rebuild;
mod record;
mod remove;
mod resolve;
mod retire;
mod roots;
mod save;
mod search;
mod surplus;
mod tabular;
mod tag;
mod version;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::blobs::{BlobError, Blobs};
use crate::kv::{Compare, Kv, KvError, MAX_PAGE, Txn, TxnOutcome};
use crate::manifest::ManifestError;
use crate::name::{DatasetName, NameError};
pub use columns::ColumnIds;
pub use commit::{Commit, CommitError, Committed};
pub use dataset::{Dataset, DatasetState};
pub use event::{Event, EventKind};
pub use hold::{Hold, Holder};
use key::Keys;
pub use rebuild::RebuildReport;
pub use remove::Purpose;
pub(crate) use roots::Root;
pub use save::Save;
pub use search::Query;
use search::Search;
pub(crate) use surplus::Next;
pub(crate) use tabular::Tabular;
pub use version::{Version, VersionState, day_of};

/// How often a change is tried again when others were faster.
const RETRIES: usize = 32;

/// Whose catalog: a part of every key, so that two tenants share no prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub u32);

/// A dataset, whatever its name is; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetId(pub u64);

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The name that a sync system gives a delivery: 1 to 200 of letters, digits and `._:=-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(Arc<str>);

impl BatchId {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BatchId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._:=-".contains(&byte);
        if (1..=200).contains(&text.len()) && text.bytes().all(inner) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(NameError::Batch(crate::name::shortened(text)))
        }
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What went wrong, by what the caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no such dataset.
    #[error("there is no dataset {0}")]
    NoDataset(String),
    /// There is no such version.
    #[error("{0} has no version {1}")]
    NoVersion(DatasetName, String),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(DatasetName),
    /// The dataset, or the version, is being removed.
    #[error("{0} is being removed")]
    Removing(String),
    /// Refused by a rule, which the text names.
    #[error("{0}")]
    Refused(String),
    /// Events that were asked for are not there any more: those up to this sequence.
    #[error("events up to {0} were removed: begin anew")]
    Trimmed(u64),
    /// Somebody else changes the same thing all the time.
    #[error("{0} is changed by others all the time; try again")]
    Busy(String),
    /// What is stored is not what this program writes.
    #[error("the catalog is damaged: {0}")]
    Damaged(String),
    /// The database.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The store of manifests and mirror files.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// The clock of a ledger: milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Milliseconds since 1970, by the machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    })
}

/// What a ledger is told when it is opened.
#[derive(Clone)]
pub struct LedgerConfig {
    /// Whose catalog.
    pub tenant: Tenant,
    /// Least time between the two steps of a removal.
    pub removal_delay: Duration,
    /// What time it is.
    pub clock: Clock,
}

impl fmt::Debug for LedgerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LedgerConfig({:?}, {:?})",
            self.tenant, self.removal_delay
        )
    }
}

impl Default for LedgerConfig {
    /// The only tenant, a day, and the machine's clock.
    fn default() -> Self {
        Self {
            tenant: Tenant::default(),
            removal_delay: Duration::from_secs(24 * 60 * 60),
            clock: system_clock(),
        }
    }
}

/// See the module text. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    kv: Arc<dyn Kv>,
    blobs: Arc<dyn Blobs>,
    keys: Keys,
    config: LedgerConfig,
    search: Arc<Search>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({:?}, {:?})", self.config.tenant, self.kv)
    }
}

impl Ledger {
    /// Opens the ledger of a tenant, and finishes what a crash has left.
    pub async fn open(
        kv: Arc<dyn Kv>,
        blobs: Arc<dyn Blobs>,
        config: LedgerConfig,
    ) -> Result<Self, LedgerError> {
        let keys = Keys {
            tenant: config.tenant,
        };
        let ledger = Self {
            kv,
            blobs,
            keys,
            config,
            search: Arc::default(),
        };
        ledger.refuse_half_rebuilt().await?;
        ledger.write_pending_mirrors().await?;
        Ok(ledger)
    }

    /// Where the manifests of this ledger are.
    pub fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.blobs
    }

    pub(crate) fn now(&self) -> i64 {
        (self.config.clock)()
    }

    /// The value that all catalogs over the database have for a name: the first that one proposed.
    pub(crate) async fn agree(&self, name: &str, proposed: Bytes) -> Result<Bytes, LedgerError> {
        let key = Key::from([b"c/", name.as_bytes()].concat());
        let txn = Txn::new()
            .when(Compare::Absent(key.clone()))
            .put(key.clone(), proposed.clone());
        if let TxnOutcome::Committed { .. } = self.kv.txn(txn).await? {
            return Ok(proposed);
        }
        let found = self.kv.get(&key).await?;
        Ok(found.map_or(proposed, |found| found.value))
    }

    fn page(limit: usize) -> usize {
        limit.clamp(1, MAX_PAGE / 4)
    }

    /// Waits a little, longer each time, before a change is tried again.
    async fn back_off(&self, attempt: usize) {
        let most = 1u64 << attempt.min(6);
        let millis = rand::random_range(0..=most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// A key or a value.
type Key = Bytes;
