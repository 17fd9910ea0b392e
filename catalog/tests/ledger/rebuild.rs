//! The catalog from its mirror files alone.

use std::sync::Arc;

use futures::StreamExt;
use terrace_catalog::blobs::Blobs;
use terrace_catalog::kv::Kv;
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{CommitError, Committed, Ledger, LedgerError, Purpose};

use super::fault::{Crash, FaultBlobs, FaultKv};
use super::memory::MemoryBlobs;
use super::world::{World, commit_of};

fn empty(directory: &tempfile::TempDir, name: &str) -> Arc<dyn Kv> {
    Arc::new(RocksKv::open(&directory.path().join(name)).unwrap())
}

/// A catalog with something of everything.
async fn fill(world: &World, ledger: &Ledger) {
    let name = world.dataset(ledger, "ads.clicks").await;
    for files in 1..=3u64 {
        let manifest = world.manifest(ledger, &[("dt=1", files)]).await;
        let mut commit = commit_of(&name, (files > 1).then_some(files - 1), manifest);
        commit.batch = Some(format!("batch-{files}").parse().unwrap());
        commit.source_seq = vec![("dt=1".into(), files * 10)];
        ledger.commit(commit.clone()).await.unwrap();
        // A delivery without news: no version, but a place in the order and a batch.
        commit.expected_head = Some(files);
        commit.batch = Some(format!("again-{files}").parse().unwrap());
        commit.source_seq = vec![("dt=1".into(), files * 10 + 5)];
        assert!(matches!(
            ledger.commit(commit).await.unwrap(),
            Committed::Same(_)
        ));
        world.pass(86_400_000);
    }
    let v2 = ledger
        .resolve(&"ads.clicks@v2".parse().unwrap())
        .await
        .unwrap();
    ledger
        .tag(&v2, &"prod".parse().unwrap(), None)
        .await
        .unwrap();
    ledger
        .tag(&v2, &"gone".parse().unwrap(), None)
        .await
        .unwrap();
    ledger.untag(&name, &"gone".parse().unwrap()).await.unwrap();
    let v1 = ledger
        .resolve(&"ads.clicks@v1".parse().unwrap())
        .await
        .unwrap();
    world.remove_version(ledger, &v1).await;
    world.dataset(ledger, "ads.empty").await;
    let removed = world.dataset(ledger, "ads.removed").await;
    world.begin_removal(ledger, &removed).await;
    ledger
        .finish_removal(&removed, Purpose::Ordinary)
        .await
        .unwrap();
}

// The database is lost: what was promised about versions, tags and order must hold all the same.
#[tokio::test]
async fn a_rebuilt_catalog_is_the_same() {
    let world = World::new();
    let blobs: Arc<dyn Blobs> = MemoryBlobs::shared();
    let before = Ledger::open(world.kv(), Arc::clone(&blobs), world.config())
        .await
        .unwrap();
    fill(&world, &before).await;
    let last = before
        .events(0, 1024)
        .await
        .unwrap()
        .pop()
        .unwrap()
        .sequence;

    let kv = empty(&world.directory, "rebuilt");
    let report = Ledger::rebuild(&kv, &blobs, &world.config()).await.unwrap();
    assert_eq!((report.datasets, report.versions, report.tags), (2, 2, 1));
    assert!(report.damaged.is_empty(), "{:?}", report.damaged);
    let again = Ledger::rebuild(&kv, &blobs, &world.config()).await;
    assert!(matches!(again, Err(LedgerError::Refused(_))));
    let after = Ledger::open(kv, blobs, world.config()).await.unwrap();

    let everything = terrace_catalog::ledger::Query::default();
    let described = async |ledger: &Ledger| {
        let datasets = ledger.datasets(&everything, None, 10).await.unwrap();
        let described = datasets
            .into_iter()
            .map(|d| (d.id, d.descriptor, d.created_ms, d.state));
        described.collect::<Vec<_>>()
    };
    assert_eq!(described(&after).await, described(&before).await);
    let name = "ads.clicks".parse().unwrap();
    assert_eq!(
        after.versions(&name, 0, 10).await.unwrap(),
        before.versions(&name, 0, 10).await.unwrap()
    );
    assert_eq!(
        after.tags(&name).await.unwrap(),
        before.tags(&name).await.unwrap()
    );
    for selector in [
        "ads.clicks",
        "ads.clicks@prod",
        "ads.clicks@v3",
        "ads.clicks@2026-11-21",
    ] {
        let selector = selector.parse().unwrap();
        assert_eq!(
            after.resolve(&selector).await.unwrap(),
            before.resolve(&selector).await.unwrap()
        );
    }
    // Deliveries are still known, and their order.
    let manifest = world.manifest(&after, &[("dt=1", 9)]).await;
    for (batch, version) in [("batch-3", 3), ("again-3", 3), ("again-2", 2)] {
        let mut commit = commit_of(&name, Some(3), manifest);
        commit.batch = Some(batch.parse().unwrap());
        let Committed::Same(known) = after.commit(commit).await.unwrap() else {
            panic!("{batch} made a second version");
        };
        assert_eq!(known.number, version);
    }
    let mut late = commit_of(&name, Some(3), manifest);
    late.source_seq = vec![("dt=1".into(), 34)];
    let stale = after.commit(late.clone()).await;
    assert!(matches!(
        stale,
        Err(CommitError::Stale { committed: 35, .. })
    ));
    late.source_seq[0].1 = 36;
    assert_eq!(after.commit(late).await.unwrap().version().number, 4);
    // Nobody who resumes his reading of events misses this one.
    assert_eq!(after.events(last, 10).await.unwrap().len(), 1);
}

// A rebuild that is interrupted must be done again, not taken for a catalog.
#[tokio::test]
async fn an_interrupted_rebuild_is_done_again() {
    let world = World::new();
    let blobs: Arc<dyn Blobs> = MemoryBlobs::shared();
    let before = Ledger::open(world.kv(), Arc::clone(&blobs), world.config())
        .await
        .unwrap();
    fill(&world, &before).await;
    let expected = before
        .versions(&"ads.clicks".parse().unwrap(), 0, 10)
        .await
        .unwrap();
    let mut interrupted = 0;
    for at in 1..100 {
        let kv = empty(&world.directory, &format!("rebuilt-{at}"));
        let crash = Crash::new(at, false);
        let doomed_kv: Arc<dyn Kv> = Arc::new(FaultKv {
            inner: Arc::clone(&kv),
            crash: Arc::clone(&crash),
        });
        let doomed_blobs: Arc<dyn Blobs> = Arc::new(FaultBlobs {
            inner: Arc::clone(&blobs),
            crash: Arc::clone(&crash),
        });
        let answer = Ledger::rebuild(&doomed_kv, &doomed_blobs, &world.config()).await;
        assert_eq!(answer.is_err(), crash.came());
        if crash.came() {
            interrupted += 1;
            let begun = kv.get(b"x\0\0\0\0").await.unwrap().is_some();
            let opened = Ledger::open(Arc::clone(&kv), Arc::clone(&blobs), world.config()).await;
            assert_eq!(opened.is_err(), begun, "half a catalog was opened");
            Ledger::rebuild(&kv, &blobs, &world.config()).await.unwrap();
        }
        let after = Ledger::open(kv, Arc::clone(&blobs), world.config())
            .await
            .unwrap();
        assert_eq!(
            after
                .versions(&"ads.clicks".parse().unwrap(), 0, 10)
                .await
                .unwrap(),
            expected
        );
        if !crash.came() {
            break;
        }
    }
    assert!((10..99).contains(&interrupted), "{interrupted} crashes");
}

// One damaged file must cost what it held, and be named; the rest must come back.
#[tokio::test]
async fn damaged_mirror_files_are_named() {
    let world = World::new();
    let memory = MemoryBlobs::shared();
    let blobs: Arc<dyn Blobs> = Arc::clone(&memory) as Arc<dyn Blobs>;
    let before = Ledger::open(world.kv(), Arc::clone(&blobs), world.config())
        .await
        .unwrap();
    fill(&world, &before).await;
    let names: Vec<_> = blobs
        .list_named("datasets")
        .map(Result::unwrap)
        .collect()
        .await;
    let version = |number: u64| {
        let ending = format!("version-{number:020}.json");
        names
            .iter()
            .find(|name| name.as_str().ends_with(&ending))
            .unwrap()
            .clone()
    };
    let clicks = version(3).as_str().rsplit_once('/').unwrap().0.to_owned();
    let good = memory.named.lock().unwrap().clone();
    // The file of the dataset is gone: a version's file says enough to go on.
    for name in &names {
        if name.as_str().starts_with(&clicks) && name.as_str().contains("/dataset-") {
            memory.named.lock().unwrap().remove(name);
        }
    }
    let kv = empty(&world.directory, "without-dataset");
    let report = Ledger::rebuild(&kv, &blobs, &world.config()).await.unwrap();
    assert_eq!((report.datasets, report.versions, report.tags), (2, 2, 0));
    let after = Ledger::open(kv, Arc::clone(&blobs), world.config())
        .await
        .unwrap();
    assert_eq!(
        after
            .resolve(&"ads.clicks".parse().unwrap())
            .await
            .unwrap()
            .number,
        3
    );
    // A version's file is cut short, and a manifest is gone.
    *memory.named.lock().unwrap() = good;
    memory
        .named
        .lock()
        .unwrap()
        .insert(version(2), bytes::Bytes::from_static(b"{\"format\":1"));
    let lost = before
        .resolve(&"ads.clicks@v3".parse().unwrap())
        .await
        .unwrap()
        .manifest;
    blobs.delete(&lost).await.unwrap();
    let kv = empty(&world.directory, "damaged");
    let report = Ledger::rebuild(&kv, &blobs, &world.config()).await.unwrap();
    assert_eq!((report.datasets, report.versions), (2, 1));
    assert_eq!(report.damaged.len(), 2, "{:?}", report.damaged);
    assert!(report.damaged.iter().all(|what| what.contains("version-")));
}

// A mirror file that could not be written is written later, or a rebuild forgets a version.
#[tokio::test]
async fn a_missing_mirror_file_is_written_when_the_ledger_is_opened() {
    let world = World::new();
    let blobs: Arc<dyn Blobs> = MemoryBlobs::shared();
    let kv = world.kv();
    let ledger = Ledger::open(Arc::clone(&kv), Arc::clone(&blobs), world.config())
        .await
        .unwrap();
    let name = world.dataset(&ledger, "ads.clicks").await;
    let manifest = world.manifest(&ledger, &[("dt=1", 1)]).await;
    let count = async || blobs.list_named("datasets").count().await;
    assert_eq!(count().await, 1);
    // The store refuses from the first mirror file on: the commit holds all the same.
    let crash = Crash::new(1, false);
    let refusing: Arc<dyn Blobs> = Arc::new(FaultBlobs {
        inner: Arc::clone(&blobs),
        crash: Arc::clone(&crash),
    });
    let deaf = Ledger::open(Arc::clone(&kv), refusing, world.config())
        .await
        .unwrap();
    let refused = deaf.commit(commit_of(&name, None, manifest)).await;
    assert!(
        refused.is_err(),
        "a manifest that cannot be read was committed"
    );
    let crash = Crash::new(2, false);
    let refusing: Arc<dyn Blobs> = Arc::new(FaultBlobs {
        inner: Arc::clone(&blobs),
        crash: Arc::clone(&crash),
    });
    let deaf = Ledger::open(Arc::clone(&kv), refusing, world.config())
        .await
        .unwrap();
    deaf.commit(commit_of(&name, None, manifest)).await.unwrap();
    assert!(crash.came());
    assert_eq!(count().await, 1);
    let ledger = Ledger::open(kv, Arc::clone(&blobs), world.config())
        .await
        .unwrap();
    assert_eq!(count().await, 2);
    // And what the store has lost since, when somebody asks for it.
    let names: Vec<_> = blobs
        .list_named("datasets")
        .map(Result::unwrap)
        .collect()
        .await;
    for name in names {
        blobs.delete_named(&name).await.unwrap();
    }
    assert_eq!(ledger.write_missing_mirrors().await.unwrap(), 2);
    assert_eq!(count().await, 2);
    assert_eq!(ledger.write_missing_mirrors().await.unwrap(), 0);
}
