//! A crash at every step of a commit, of a creation and of a removal.

use std::sync::Arc;

use futures::StreamExt;
use terrace_catalog::DatasetName;
use terrace_catalog::blobs::Blobs;
use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::kv::Kv;
use terrace_catalog::ledger::{EventKind, Ledger, LedgerError, Purpose};

use super::fault::{Crash, FaultBlobs, FaultKv};
use super::memory::MemoryBlobs;
use super::world::{World, commit_of};

/// More steps than any of the operations here has.
const MOST: u64 = 200;

struct Stores {
    world: World,
    kv: Arc<dyn Kv>,
    blobs: Arc<dyn Blobs>,
}

impl Stores {
    fn new() -> Self {
        let world = World::new();
        Self {
            kv: world.kv(),
            blobs: MemoryBlobs::shared(),
            world,
        }
    }

    async fn open(&self) -> Ledger {
        let (kv, blobs) = (Arc::clone(&self.kv), Arc::clone(&self.blobs));
        Ledger::open(kv, blobs, self.world.config()).await.unwrap()
    }

    /// A ledger that dies at a step, counted from when it is open.
    async fn doomed(&self, at: u64, done: bool) -> (Ledger, Arc<Crash>) {
        // Opening takes one read of the marker and one scan when nothing is left to do.
        let crash = Crash::new(at + 2, done);
        let kv = Arc::new(FaultKv {
            inner: Arc::clone(&self.kv),
            crash: Arc::clone(&crash),
        });
        let blobs = Arc::new(FaultBlobs {
            inner: Arc::clone(&self.blobs),
            crash: Arc::clone(&crash),
        });
        let ledger = Ledger::open(kv, blobs, self.world.config()).await.unwrap();
        assert!(!crash.came(), "opening alone has more steps than thought");
        (ledger, crash)
    }

    async fn mirror_files(&self, what: &str) -> usize {
        let names = self.blobs.list_named("datasets");
        names
            .filter(|name| std::future::ready(name.as_ref().unwrap().as_str().contains(what)))
            .count()
            .await
    }
}

/// How many versions a dataset has, everything about them being in agreement.
async fn whole_versions(ledger: &Ledger, name: &DatasetName) -> usize {
    let versions = ledger.versions(name, 0, 10).await.unwrap();
    let latest = ledger
        .resolve(&name.as_str().parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        versions.last(),
        Some(&latest),
        "latest and the versions disagree"
    );
    let events = ledger.events(0, 1024).await.unwrap();
    let committed = events.iter().filter(|event| {
        event.dataset == *name && matches!(event.what, EventKind::VersionCommitted { .. })
    });
    assert_eq!(
        committed.count(),
        versions.len(),
        "events and versions disagree"
    );
    for version in &versions {
        terrace_catalog::manifest::Manifest::open(ledger.blobs(), &version.manifest)
            .await
            .unwrap();
    }
    versions.len()
}

// A version that is half there is served to a training run; one that is lost was promised to a caller.
#[tokio::test]
async fn a_crash_at_any_step_of_a_commit_leaves_a_whole_version_or_none() {
    let stores = Stores::new();
    let (mut before, mut after, mut steps) = (0, 0, 0);
    for (at, done) in (1..MOST).flat_map(|at| [(at, false), (at, true)]) {
        let ledger = stores.open().await;
        let name = stores
            .world
            .dataset(&ledger, &format!("ads.t{at}-{}", u8::from(done)))
            .await;
        let first = stores.world.manifest(&ledger, &[("dt=1", 1)]).await;
        ledger.commit(commit_of(&name, None, first)).await.unwrap();
        let manifest = stores
            .world
            .manifest(&ledger, &[("dt=1", 1), ("dt=2", at)])
            .await;
        let mut commit = commit_of(&name, Some(1), manifest);
        commit.batch = Some("batch".parse().unwrap());
        commit.source_seq = vec![("dt=2".into(), 7)];
        drop(ledger);

        let (ledger, crash) = stores.doomed(at, done).await;
        let answer = ledger.commit(commit.clone()).await;
        drop(ledger);
        if !crash.came() {
            assert_eq!(answer.unwrap().version().number, 2);
            break;
        }
        steps += 1;

        let ledger = stores.open().await;
        match whole_versions(&ledger, &name).await {
            1 => {
                before += 1;
                assert!(answer.is_err(), "a promise was broken");
            }
            2 => after += 1,
            more => panic!("{more} versions"),
        }
        // Whoever got no answer asks again, and there is one version.
        let again = ledger.commit(commit).await.unwrap();
        assert_eq!(again.version().number, 2);
        assert_eq!(ledger.versions(&name, 0, 10).await.unwrap().len(), 2);
        let found = stores.mirror_files("version-").await;
        let expected = 2 * steps;
        assert_eq!(found, expected, "a mirror file is missing after step {at}");
    }
    assert!(
        before >= 5 && after >= 3,
        "{before} crashes before and {after} after: not every step"
    );
    assert!(steps < MOST as usize, "the commit never ended");
}

// A name that is taken by nobody, or a dataset without a name, can be neither used nor removed.
#[tokio::test]
async fn a_crash_at_any_step_of_a_creation_leaves_a_dataset_or_none() {
    let stores = Stores::new();
    let mut steps = 0;
    for (at, done) in (1..MOST).flat_map(|at| [(at, false), (at, true)]) {
        let name: DatasetName = format!("ads.t{at}-{}", u8::from(done)).parse().unwrap();
        let descriptor = Descriptor::new(Kind::Dataset, name.clone(), "s3://lake/t");
        let (ledger, crash) = stores.doomed(at, done).await;
        let answer = ledger.create(descriptor.clone()).await;
        drop(ledger);
        let ledger = stores.open().await;
        match ledger.create(descriptor).await {
            Ok(_) => assert!(answer.is_err()),
            Err(LedgerError::Exists(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(ledger.dataset(&name).await.unwrap().name(), &name);
        steps += 1;
        assert_eq!(stores.mirror_files("dataset-").await, steps);
        if !crash.came() {
            break;
        }
    }
    assert!((3..MOST as usize).contains(&steps), "{steps} steps");
}

// A removal that stops in the middle must not leave what can be neither read nor created again.
#[tokio::test]
async fn a_crash_at_any_step_of_a_removal_ends_in_a_removal() {
    let stores = Stores::new();
    let mut steps = 0;
    for (at, done) in (1..MOST).flat_map(|at| [(at, false), (at, true)]) {
        let ledger = stores.open().await;
        let name = stores.world.dataset(&ledger, "ads.clicks").await;
        stores.world.versions(&ledger, &name, 2).await;
        stores.world.begin_removal(&ledger, &name).await;
        drop(ledger);
        let (ledger, crash) = stores.doomed(at, done).await;
        let answer = ledger.finish_removal(&name, Purpose::Ordinary).await;
        drop(ledger);
        let ledger = stores.open().await;
        if ledger.dataset(&name).await.is_ok() {
            assert!(answer.is_err());
            ledger
                .finish_removal(&name, Purpose::Ordinary)
                .await
                .unwrap();
        }
        assert!(matches!(
            ledger.dataset(&name).await,
            Err(LedgerError::NoDataset(_))
        ));
        // Nothing is left but the events.
        let keys = terrace_catalog::kv::KeyRange::prefix(b"");
        let left = stores.kv.scan(keys, 4096).await.unwrap();
        let left: Vec<_> = left.iter().filter(|(key, _)| key[0] != b'e').collect();
        assert!(left.is_empty(), "after step {at}: {left:?}");
        assert_eq!(stores.mirror_files("").await, 0, "after step {at}");
        ledger.trim_events(u64::MAX >> 1).await.unwrap();
        let trim = terrace_catalog::kv::Txn::new().delete(bytes::Bytes::from_static(b"t\0\0\0\0"));
        stores.kv.txn(trim).await.unwrap();
        steps += 1;
        if !crash.came() {
            break;
        }
    }
    assert!((10..MOST as usize).contains(&steps), "{steps} steps");
}
