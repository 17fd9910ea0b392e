//! The roots that discovery watches, kept in the catalog's database.
//!
//! ```text
//! key    "u/" URL        value  JSON of a `RootSpec`
//! ```
//!
//! Whoever runs the catalog opens stores ([`Opener`]); this module decides which. Invariant: a root that
//! was answered as added is watched again after every start. Each is opened by a task of its own,
//! `OPENED_AT_ONCE` at a time, so that a place that does not answer delays none but those behind so many
//! of its kind, and the start by `START` at most. One that cannot be opened is tried again with growing
//! pauses, for ever, and says so until it can ([`Roots::status`]).
//!
//! Lock order: the map of waiting roots, then those of discovery; never held across an await.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::discovery::why::Trouble;
use crate::discovery::{Discovery, RootError, RootSpec, RootStatus};
use crate::kv::{KeyRange, Kv, KvError, Txn, TxnOutcome};
use crate::upstream::Upstream;

/// First bytes of the keys of roots.
const KEY: &[u8] = b"u/";

/// Most roots of a catalog: each has a task.
const MAX_ROOTS: usize = 1024;

/// Longest URL, in bytes: it is a part of a key.
const MAX_URL: usize = 768;

/// Most places that are being opened at a time after a start: each may hold a connection until its
/// store's deadline.
const OPENED_AT_ONCE: usize = 16;

/// How long a start waits for places to be opened: those that answer are watched when the first request
/// comes.
const START: Duration = Duration::from_secs(3);

/// First pause before a place is opened again, and the longest: a store that comes back is watched
/// within a minute, and one that never does costs a request a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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

/// A root whose place could not be opened yet.
#[derive(Clone, Debug)]
struct Waiting {
    spec: RootSpec,
    since: Instant,
    tries: u64,
    why: String,
}

/// See the module text. Attempts under way end when it is dropped.
#[derive(Debug)]
pub struct Roots {
    kv: Arc<dyn Kv>,
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

/// What the attempts share with the rest.
#[derive(Debug)]
struct Shared {
    discovery: Arc<Discovery>,
    opener: Arc<dyn Opener>,
    waiting: Mutex<BTreeMap<String, Waiting>>,
    /// Room to open places that are kept.
    room: Semaphore,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a place once; whether that ended the matter.
    async fn try_once(&self, url: &str) -> bool {
        // Never closed; without room nothing would be opened at all.
        let room = self.room.acquire().await;
        let opened = self.opener.open(url).await;
        drop(room);
        let mut waiting = self.waiting();
        // Removed meanwhile.
        let Some(root) = waiting.get_mut(url) else {
            return true;
        };
        root.tries += 1;
        match opened {
            Err(why) => {
                tracing::warn!(url, %why, tries = root.tries, "a root cannot be opened yet");
                root.why = why;
                false
            }
            Ok(upstream) => {
                let spec = root.spec.clone();
                waiting.remove(url);
                match self.discovery.add_root(spec, upstream) {
                    Ok(()) | Err(RootError::Exists(_)) => {}
                    Err(error) => {
                        tracing::error!(url, %error, "a root is not watched; add it again");
                    }
                }
                true
            }
        }
    }

    /// Drops `first` when it has tried once.
    async fn try_until_open(&self, url: &str, first: mpsc::Sender<()>) {
        let mut pause = FIRST_PAUSE;
        let mut is_open = self.try_once(url).await;
        drop(first);
        while !is_open {
            tokio::time::sleep(pause).await;
            is_open = self.try_once(url).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Roots {
    /// Watches every root that is kept, as soon as its place can be opened. Returns when each was tried
    /// once, or after `START`.
    pub async fn resume(
        kv: Arc<dyn Kv>,
        discovery: Arc<Discovery>,
        opener: Arc<dyn Opener>,
    ) -> Result<Self, KvError> {
        let roots = Self {
            kv,
            shared: Arc::new(Shared {
                discovery,
                opener,
                waiting: Mutex::default(),
                room: Semaphore::new(OPENED_AT_ONCE),
            }),
            tasks: Mutex::default(),
        };
        let (first, mut tried) = mpsc::channel(1);
        for (key, stored) in roots.kv.scan(KeyRange::prefix(KEY), MAX_ROOTS).await? {
            let url = String::from_utf8_lossy(&key[KEY.len()..]).into_owned();
            match serde_json::from_slice(&stored.value) {
                Ok(spec) => roots.watch_kept(url, spec, first.clone()),
                Err(error) => tracing::error!(url, %error, "a root is not watched; add it again"),
            }
        }
        drop(first);
        // Nothing is ever sent: it ends with the last sender.
        tokio::time::timeout(START, tried.recv()).await.ok();
        Ok(roots)
    }

    fn watch_kept(&self, url: String, spec: RootSpec, first: mpsc::Sender<()>) {
        let waiting = Waiting {
            spec,
            since: Instant::now(),
            tries: 0,
            why: String::new(),
        };
        self.shared.waiting().insert(url.clone(), waiting);
        let shared = Arc::clone(&self.shared);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(async move { shared.try_until_open(&url, first).await });
    }

    /// What is known of each root, also of those whose place cannot be opened.
    pub fn status(&self) -> Vec<RootStatus> {
        let mut all = self.shared.discovery.roots_status();
        let waiting = self.shared.waiting();
        all.extend(waiting.iter().map(|(url, root)| RootStatus {
            url: url.clone(),
            spec: root.spec.clone(),
            tables: 0,
            refused: BTreeMap::new(),
            trouble: Some(root.text()),
        }));
        all.sort_by(|one, other| one.url.cmp(&other.url));
        all
    }

    /// Why a place is not watched, when it lies below a root that cannot be opened.
    pub fn trouble_at(&self, source: &str) -> Option<Trouble> {
        let waiting = self.shared.waiting();
        let (url, root) = waiting.iter().find(|(url, _)| {
            let rest = source.strip_prefix(url.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })?;
        Some(Trouble {
            reason: format!("the root {url} is not watched: {}", root.text()),
            since_seconds: root.since.elapsed().as_secs(),
        })
    }

    /// The roots that cannot be opened.
    pub fn not_open(&self) -> Vec<String> {
        self.shared.waiting().keys().cloned().collect()
    }

    /// What discovery knows.
    pub fn discovery(&self) -> &Discovery {
        &self.shared.discovery
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
        let opened = self.shared.opener.open(url).await;
        let upstream = opened.map_err(RootsError::Invalid)?;
        let value = serde_json::to_vec(&spec).map_err(|e| RootsError::Invalid(e.to_string()))?;
        let txn = Txn::new()
            .unchanged(key.clone(), None)
            .put(key, value.into());
        // Kept first: what was answered is watched after a crash too.
        match self.kv.txn(txn).await? {
            TxnOutcome::Conflict { .. } => return Err(RootsError::Exists(url.to_owned())),
            TxnOutcome::Committed { .. } => {}
        }
        match self.shared.discovery.add_root(spec, upstream) {
            // Of an earlier start whose record was removed by another replica.
            Ok(()) | Err(RootError::Exists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Watches a place no more. What was published stays.
    pub async fn remove(&self, url: &str) -> Result<(), RootsError> {
        let url = url.trim_end_matches('/');
        let waited = self.shared.waiting().remove(url).is_some();
        let watched = self.shared.discovery.remove_root(url) || waited;
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
}

impl Waiting {
    fn text(&self) -> String {
        let tries = self.tries;
        if tries == 0 {
            return "its place is being opened".to_owned();
        }
        format!("its place cannot be opened ({tries} tries): {}", self.why)
    }
}

fn key(url: &str) -> Bytes {
    [KEY, url.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests;
