//! What a tree of tables asks of a catalog: six questions and two notes about files.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use terrace_cache::store::StoreError;
use terrace_catalog::{DatasetName, Selector};

use crate::snapshot::Snapshot;

/// Name of a version's list of files: the SHA-256 that the catalog gave it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ManifestId(pub [u8; 32]);

/// One immutable version of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableVersion {
    /// The dataset.
    pub dataset: DatasetName,
    /// Its number, from 1.
    pub number: u64,
    /// Its list of files. Versions with the same files share it.
    pub manifest: ManifestId,
    /// When it was committed, milliseconds since the epoch; shown as the mtime of its directory.
    pub committed_ms: i64,
}

/// A text about a version that changes while the version does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// Who holds how much of it, as the catalog knows: JSON.
    Heat,
    /// What this node holds of it: one `name value` per line.
    Usage,
}

/// A catalog, as far as paths need it.
///
/// An answer is the catalog's own; "not reachable" is an error of kind `Unreachable` and never an
/// empty answer. Implementations bring their own deadlines. Every call is cancelled by dropping it.
#[async_trait]
pub trait Tables: Send + Sync + fmt::Debug + 'static {
    /// Names of all namespaces, in any order.
    async fn namespaces(&self) -> Result<Vec<String>, StoreError>;

    /// The tables of a namespace that have a version, each with its newest one, in any order. A
    /// namespace that does not exist has none.
    async fn tables(&self, namespace: &str) -> Result<Vec<TableVersion>, StoreError>;

    /// The version a selector names now; `None` when the catalog answers that there is none.
    async fn resolve(&self, selector: &Selector) -> Result<Option<TableVersion>, StoreError>;

    /// Makes the snapshot file of a version ([`Tables::file`]) exist: whole, or not at all.
    async fn fetch(&self, version: &TableVersion) -> Result<(), StoreError>;

    /// The text of a report now.
    async fn report(&self, version: &TableVersion, report: Report) -> Result<Vec<u8>, StoreError>;

    /// The bytes of a file that the catalog makes from a version for SQL engines, by its name; they
    /// never change. `None`: there is no such file, as in a catalog that makes none.
    async fn sql_file(
        &self,
        _version: &TableVersion,
        _name: &str,
    ) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    /// Where the snapshot file of a list of files lies on this node, or would.
    fn file(&self, manifest: &ManifestId) -> PathBuf;

    /// Told when the snapshot of a list of files is opened, before objects of it are read: their store
    /// may have to be opened, and the file is in use.
    fn announce(&self, manifest: &ManifestId, snapshot: &Snapshot);
}

impl ManifestId {
    /// Lower-case hexadecimal, 64 characters.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The id that [`ManifestId::hex`] printed.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut id = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        for (byte, at) in id.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Debug for ManifestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManifestId({})", &self.hex()[..12])
    }
}
