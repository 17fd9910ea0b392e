//! The roots that discovery watches, kept in the catalog's database.
//!
//! ```text
//! key    "u/" URL        value  JSON of a `RootSpec`
//! ```
//!
//! Whoever runs the catalog opens stores ([`Opener`]); this module decides which. Invariant: a root that
//! was answered as added is watched again after every start.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::discovery::{Discovery, RootError, RootSpec};
use crate::kv::{KeyRange, Kv, KvError, Txn, TxnOutcome};
use crate::upstream::Upstream;

/// First bytes of the keys of roots.
const KEY: &[u8] = b"u/";

/// Most roots of a catalog: each has a task.
const MAX_ROOTS: usize = 1024;

/// Longest URL, in bytes: it is a part of a key.
const MAX_URL: usize = 768;

/// Opens locations with the credentials of the process.
#[async_trait]
pub trait Opener: Send + Sync + Debug + 'static {
    /// Opens a location. The error is one line for people, without credentials.
    async fn open(&self, url: &str) -> Result<Arc<dyn Upstream>, String>;
}

/// Why a root was not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The URL, a setting, or the place cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// There is one at this place already.
    #[error("{0} is a root already")]
    Exists(String),
    /// There is none at this place.
    #[error("{0} is no root")]
    Absent(String),
    /// The database.
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl From<RootError> for RootsError {
    fn from(error: RootError) -> Self {
        match error {
            RootError::Exists(url) => Self::Exists(url),
            RootError::Invalid(why) => Self::Invalid(why),
        }
    }
}

/// See the module text.
#[derive(Debug)]
pub struct Roots {
    kv: Arc<dyn Kv>,
    discovery: Arc<Discovery>,
    opener: Arc<dyn Opener>,
}

impl Roots {
    /// Watches every root that is kept. One whose place cannot be opened is logged and stays kept.
    pub async fn resume(
        kv: Arc<dyn Kv>,
        discovery: Arc<Discovery>,
        opener: Arc<dyn Opener>,
    ) -> Result<Self, KvError> {
        let roots = Self {
            kv,
            discovery,
            opener,
        };
        for (key, stored) in roots.kv.scan(KeyRange::prefix(KEY), MAX_ROOTS).await? {
            let url = String::from_utf8_lossy(&key[KEY.len()..]).into_owned();
            if let Err(why) = roots.watch_kept(&url, &stored.value).await {
                tracing::error!(url, %why, "a root is not watched; add it again");
            }
        }
        Ok(roots)
    }

    /// What discovery knows.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Opens a place, watches it, and keeps it.
    pub async fn add(&self, url: &str, spec: RootSpec) -> Result<(), RootsError> {
        let url = url.trim_end_matches('/');
        if url.len() > MAX_URL || url.contains(char::is_control) {
            return Err(RootsError::Invalid(format!(
                "a root's URL has at most {MAX_URL} bytes and no control characters"
            )));
        }
        spec.check().map_err(RootsError::Invalid)?;
        let key = key(url);
        if self.kv.get(&key).await?.is_some() {
            return Err(RootsError::Exists(url.to_owned()));
        }
        let upstream = self.opener.open(url).await.map_err(RootsError::Invalid)?;
        let value = serde_json::to_vec(&spec).map_err(|e| RootsError::Invalid(e.to_string()))?;
        let txn = Txn::new()
            .unchanged(key.clone(), None)
            .put(key, value.into());
        // Kept first: what was answered is watched after a crash too.
        match self.kv.txn(txn).await? {
            TxnOutcome::Conflict { .. } => return Err(RootsError::Exists(url.to_owned())),
            TxnOutcome::Committed { .. } => {}
        }
        match self.discovery.add_root(spec, upstream) {
            // Of an earlier start whose record was removed by another replica.
            Ok(()) | Err(RootError::Exists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Watches a place no more. What was published stays.
    pub async fn remove(&self, url: &str) -> Result<(), RootsError> {
        let url = url.trim_end_matches('/');
        let watched = self.discovery.remove_root(url);
        let key = key(url);
        let kept = match key.len() <= crate::kv::MAX_KEY {
            true => self.kv.get(&key).await?.is_some(),
            false => false,
        };
        if kept {
            self.kv.txn(Txn::new().delete(key)).await?;
        }
        if watched || kept {
            return Ok(());
        }
        Err(RootsError::Absent(crate::name::shortened(url)))
    }

    async fn watch_kept(&self, url: &str, value: &[u8]) -> Result<(), String> {
        let spec: RootSpec = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let upstream = self.opener.open(url).await?;
        let added = self.discovery.add_root(spec, upstream);
        added.map_err(|error| error.to_string())
    }
}

fn key(url: &str) -> Bytes {
    [KEY, url.as_bytes()].concat().into()
}
