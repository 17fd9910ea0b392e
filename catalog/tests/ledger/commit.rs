//! Commits, selectors, tags, events and holds.

use std::collections::BTreeMap;

use terrace_catalog::ledger::{CommitError, Committed, LedgerError};

use super::world::{World, commit_in_turn, commit_of};

// The whole product hangs on this: what is committed is what a selector answers, once and in order.
#[tokio::test]
async fn commits_are_ordered_idempotent_and_resolved() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let one = world.manifest(&ledger, &[("dt=1", 3)]).await;
    let two = world.manifest(&ledger, &[("dt=1", 3), ("dt=2", 5)]).await;

    let mut first = commit_of(&name, None, one);
    first.batch = Some("batch-1".parse().unwrap());
    let Committed::New(v1) = ledger.commit(first.clone()).await.unwrap() else {
        panic!("not new");
    };
    assert_eq!(
        (v1.number, v1.totals.files, v1.totals.partitions),
        (1, 3, 1)
    );
    // A retry of the caller, long after: the same version, though the head it expects is gone.
    let again = ledger.commit(first).await.unwrap();
    assert_eq!(again, Committed::Same(v1.clone()));
    // The same files once more are no version.
    let same = ledger.commit(commit_of(&name, Some(1), one)).await.unwrap();
    assert_eq!(same, Committed::Same(v1.clone()));
    // Made from a head that is not there any more.
    let conflict = ledger
        .commit(commit_of(&name, None, two))
        .await
        .unwrap_err();
    assert!(matches!(
        conflict,
        CommitError::Conflict {
            expected: None,
            found: Some(1)
        }
    ));
    let v2 = ledger.commit(commit_of(&name, Some(1), two)).await.unwrap();
    assert_eq!((v2.version().number, v2.version().parent), (2, Some(1)));

    ledger
        .tag(&v1, &"prod".parse().unwrap(), None)
        .await
        .unwrap();
    for (selector, number) in [
        ("ads.clicks", 2),
        ("ads.clicks@v1", 1),
        ("ads.clicks@v2", 2),
        ("ads.clicks@prod", 1),
        ("ads.clicks@2026-11-20", 2),
    ] {
        let version = ledger.resolve(&selector.parse().unwrap()).await.unwrap();
        assert_eq!(version.number, number, "{selector}");
    }
    for absent in ["ads.clicks@v3", "ads.clicks@test", "ads.clicks@2026-11-19"] {
        let error = ledger.resolve(&absent.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, LedgerError::NoVersion(..)), "{absent}");
    }
    let error = ledger.resolve(&"ads.nothing".parse().unwrap()).await;
    assert!(matches!(error, Err(LedgerError::NoDataset(_))));
    let numbers = ledger.versions(&name, 0, 10).await.unwrap();
    assert_eq!(numbers.iter().map(|v| v.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(numbers[0], v1);
}

// Deliveries arrive late and twice: an old one must not take the place of a newer one.
#[tokio::test]
async fn deliveries_keep_their_order() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let mut head = None;
    let mut deliver = async |files: u64, seq: &[(&str, u64)]| {
        let manifest = world.manifest(&ledger, &[("dt=1", files)]).await;
        let mut commit = commit_of(&name, head, manifest);
        commit.source_seq = seq.iter().map(|(p, seq)| ((*p).into(), *seq)).collect();
        let done = ledger.commit(commit).await;
        if let Ok(done) = &done {
            head = Some(done.version().number);
        }
        done
    };
    deliver(1, &[("dt=1", 10), ("dt=2", 4)]).await.unwrap();
    let stale = deliver(2, &[("dt=1", 9)]).await.unwrap_err();
    assert!(matches!(
        stale,
        CommitError::Stale {
            got: 9,
            committed: 10,
            ..
        }
    ));
    deliver(2, &[("dt=2", 5)]).await.unwrap();
    deliver(3, &[("dt=1", 10)]).await.unwrap();
    // The whole table comes after everything, and everything after it.
    assert!(matches!(
        deliver(4, &[("", 7)]).await,
        Err(CommitError::Stale { .. })
    ));
    deliver(4, &[("", 20)]).await.unwrap();
    assert!(matches!(
        deliver(5, &[("dt=7", 19)]).await,
        Err(CommitError::Stale { .. })
    ));
    deliver(5, &[("dt=7", 21)]).await.unwrap();
    // The same files at a later place still move the place.
    let Committed::Same(_) = deliver(5, &[("dt=7", 30)]).await.unwrap() else {
        panic!("equal files made a version");
    };
    assert!(matches!(
        deliver(6, &[("dt=7", 29)]).await,
        Err(CommitError::Stale { .. })
    ));
}

// Two discoverers of one table: each version is made once, and no number is lost or given twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commits_take_turns() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let mut manifests = Vec::new();
    for files in 0..8 {
        manifests.push(world.manifest(&ledger, &[("dt=1", files + 1)]).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for manifest in manifests {
        let (ledger, name) = (ledger.clone(), name.clone());
        tasks.spawn(async move { commit_in_turn(&ledger, &name, manifest).await });
    }
    let mut numbers = tasks.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<u64>>());
    let events = ledger.events(0, 100).await.unwrap();
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b));
    assert_eq!(events.len(), 9);
    let after = ledger.events(sequences[4], 2).await.unwrap();
    assert_eq!(after[..], events[5..7]);
}

// A reader that is told of a version must find it, and be woken for the next one.
#[tokio::test]
async fn events_wake_and_holds_keep() {
    let world = World::new();
    let ledger = world.open().await;
    let mut watch = ledger.watch_events().await.unwrap();
    let name = world.dataset(&ledger, "ads.clicks").await;
    watch.changed().await.unwrap();
    let one = world.manifest(&ledger, &[("dt=1", 1)]).await;
    let version = ledger.commit(commit_of(&name, None, one)).await.unwrap();
    watch.changed().await.unwrap();
    let holder = "mount:node-1/vol".parse().unwrap();
    ledger
        .hold(version.version(), &holder, None, "")
        .await
        .unwrap();
    let lease = std::time::Duration::from_secs(60);
    let other = "job:train/7".parse().unwrap();
    ledger
        .hold(version.version(), &other, Some(lease), "epoch 3")
        .await
        .unwrap();
    assert_eq!(ledger.holds(version.version(), 10).await.unwrap().len(), 2);
    world.pass(61_000);
    let left = ledger.holds(version.version(), 10).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].holder, holder);
    assert_eq!(ledger.held_versions(&name).await.unwrap(), [1]);
    ledger.release(version.version(), &holder).await.unwrap();
    assert!(ledger.held_versions(&name).await.unwrap().is_empty());
}

// A tag that is moved by two at once must end where one of them put it, and say so to the other.
#[tokio::test]
async fn tags_move_by_comparison() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let one = world.manifest(&ledger, &[("dt=1", 1)]).await;
    let two = world.manifest(&ledger, &[("dt=1", 2)]).await;
    let v1 = ledger.commit(commit_of(&name, None, one)).await.unwrap();
    let v2 = ledger.commit(commit_of(&name, Some(1), two)).await.unwrap();
    let (v1, v2) = (v1.version(), v2.version());
    let prod = "prod".parse().unwrap();
    ledger.tag(v1, &prod, Some(0)).await.unwrap();
    let taken = ledger.tag(v2, &prod, Some(0)).await;
    assert!(matches!(taken, Err(LedgerError::Busy(_))));
    ledger.tag(v2, &prod, Some(1)).await.unwrap();
    assert_eq!(
        ledger.tags(&name).await.unwrap(),
        BTreeMap::from([(prod.clone(), 2)])
    );
    ledger.untag(&name, &prod).await.unwrap();
    assert!(ledger.tags(&name).await.unwrap().is_empty());
}
