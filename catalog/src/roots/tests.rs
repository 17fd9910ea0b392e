//! Roots that are opened at a start, with a store and a clock of the test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::stream::BoxStream;

use super::*;
use crate::blobs::DirectoryBlobs;
use crate::kv::rocks::RocksKv;
use crate::ledger::{Ledger, LedgerConfig};
use crate::upstream::{Listed, UpFile, UpstreamError};

/// A place that is empty once it can be opened.
#[derive(Debug)]
struct Empty(String);

#[async_trait]
impl Upstream for Empty {
    fn url(&self) -> &str {
        &self.0
    }

    fn list(&self, _: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        futures::stream::empty().boxed()
    }

    fn walk(&self, _: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        futures::stream::empty().boxed()
    }

    async fn head(&self, _: &str) -> Result<UpFile, UpstreamError> {
        unreachable!("an empty place")
    }

    async fn read(&self, _: &UpFile, _: std::ops::Range<u64>) -> Result<Bytes, UpstreamError> {
        unreachable!("an empty place")
    }
}

/// What becomes of attempts to open places.
#[derive(Debug, Default)]
struct Places {
    /// Attempts that are refused before one succeeds; each counts it down.
    refusals: AtomicU64,
    /// Places whose name begins so never answer.
    silent: Option<&'static str>,
    /// Attempts under way, and most of them at a time.
    now: AtomicU64,
    most: AtomicU64,
}

#[async_trait]
impl Opener for Places {
    async fn open(&self, url: &str) -> Result<Arc<dyn Upstream>, String> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        if self.silent.is_some_and(|silent| url.starts_with(silent)) {
            std::future::pending::<()>().await;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        let count = |left: u64| left.checked_sub(1);
        let refused = (self.refusals).fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
        match refused {
            Ok(_) => Err("connection refused".to_owned()),
            Err(_) => Ok(Arc::new(Empty(url.to_owned()))),
        }
    }
}

/// A catalog's database, and starts over it.
struct World {
    kv: Arc<dyn Kv>,
    ledger: Ledger,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kv: Arc<dyn Kv> = Arc::new(RocksKv::open(&directory.path().join("kv")).unwrap());
        let blobs = DirectoryBlobs::open(&directory.path().join("blobs")).unwrap();
        let ledger = Ledger::open(Arc::clone(&kv), Arc::new(blobs), LedgerConfig::default());
        Self {
            ledger: ledger.await.unwrap(),
            kv,
            _directory: directory,
        }
    }

    async fn start(&self, places: Places) -> (Roots, Arc<Places>) {
        let places = Arc::new(places);
        let discovery = Arc::new(Discovery::new(self.ledger.clone()));
        let opener: Arc<dyn Opener> = Arc::<Places>::clone(&places);
        let roots = Roots::resume(Arc::clone(&self.kv), discovery, opener);
        (roots.await.unwrap(), places)
    }
}

/// Places below `s3://away` that never answer.
fn silent() -> Places {
    Places {
        silent: Some("s3://away"),
        ..Places::default()
    }
}

fn refusing(refusals: u64) -> Places {
    Places {
        refusals: AtomicU64::new(refusals),
        ..Places::default()
    }
}

// A store that is away while the catalog starts would never be watched again.
#[tokio::test]
async fn a_root_that_cannot_be_opened_is_tried_again() {
    let world = World::new().await;
    let (roots, _) = world.start(refusing(0)).await;
    roots.add("s3://lake/", RootSpec::default()).await.unwrap();
    drop(roots);
    let (roots, _) = world.start(refusing(4)).await;
    let trouble = roots.status().remove(0).trouble.unwrap();
    assert!(
        trouble.contains("1 tries") && trouble.contains("refused"),
        "{trouble}"
    );
    let why = roots.trouble_at("s3://lake/ads.db/clicks").unwrap();
    assert!(why.reason.contains("s3://lake is not watched"), "{why:?}");
    assert_eq!(roots.trouble_at("s3://lakeside/x").map(drop), None);
    tokio::time::pause();
    // Pauses of 1, 2, 4 and 8 seconds, and the last attempt succeeds.
    tokio::time::sleep(Duration::from_millis(14_500)).await;
    assert_eq!(roots.not_open().len(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(roots.not_open().is_empty());
    assert_eq!(roots.status().len(), 1);
    tokio::time::resume();
    roots.remove("s3://lake").await.unwrap();
    let (roots, _) = world.start(refusing(u64::MAX)).await;
    assert!(roots.status().is_empty(), "a removed root is not tried");
}

// One store that does not answer would keep every table of all others from being watched.
#[tokio::test]
async fn a_place_that_does_not_answer_delays_no_other() {
    let world = World::new().await;
    let (roots, _) = world.start(refusing(0)).await;
    // The silent ones come first in the order of their names.
    for at in 0..3 {
        for place in [format!("s3://away-{at}"), format!("s3://here-{at}")] {
            roots.add(&place, RootSpec::default()).await.unwrap();
        }
    }
    drop(roots);
    let (roots, places) = world.start(silent()).await;
    let urls = |at: &str| (0..3).map(|n| format!("s3://{at}-{n}")).collect::<Vec<_>>();
    assert_eq!(roots.not_open(), urls("away"));
    let watched = roots.discovery().roots_status().into_iter();
    assert_eq!(
        watched.map(|root| root.url).collect::<Vec<_>>(),
        urls("here")
    );
    let trouble = roots.status().remove(0).trouble.unwrap();
    assert_eq!(trouble, "its place is being opened");
    assert!(places.most.load(Ordering::SeqCst) >= 3);
}

// A thousand places that are opened at once would be a thousand connections of one moment.
#[tokio::test]
async fn places_are_opened_some_at_a_time() {
    let world = World::new().await;
    let (roots, _) = world.start(refusing(0)).await;
    let count = OPENED_AT_ONCE as u64 + 9;
    for at in 0..count {
        let place = format!("s3://away-{at:03}");
        roots.add(&place, RootSpec::default()).await.unwrap();
    }
    drop(roots);
    let (roots, places) = world.start(silent()).await;
    assert_eq!(roots.not_open().len() as u64, count);
    assert_eq!(places.most.load(Ordering::SeqCst), OPENED_AT_ONCE as u64);
}
