//! Collections: what they take, what they leave, and crashes at every step of one.

use std::sync::Arc;

use terrace_catalog::blobs::Blobs;
use terrace_catalog::collect::{CollectError, Collection, ItemKind};
use terrace_catalog::ledger::Purpose;
use terrace_catalog::saves::{Progress, save_id};
use tokio::sync::mpsc;

use super::world::{GRACE, World, name};

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![("a", vec![1; 100]), ("b/c", vec![2; 5000])]
}

/// A world with garbage of every kind, and versions that need the rest.
async fn littered() -> World {
    let world = World::new().await;
    let table = world.dataset("ads.clicks").await;
    for round in 0..6 {
        let partitions: Vec<_> = (0..20).map(|at| (at, 3 + (at + round) % 5)).collect();
        world.commit(&table, &partitions).await;
    }
    for number in 2..5 {
        let version = world
            .ledger
            .versions(&table, number - 1, 1)
            .await
            .unwrap()
            .remove(0);
        let ledger = &world.ledger;
        ledger
            .begin_version_removal(&version, Purpose::Ordinary)
            .await
            .unwrap();
        ledger
            .finish_version_removal(&version, Purpose::Ordinary)
            .await
            .unwrap();
    }
    world.save("team.churn", "one", &files()).await.unwrap();
    world.save("team.churn", "two", &files()).await.unwrap();
    // Given up, and forgotten.
    let model = name("team.churn");
    for id in ["left", "forgotten"] {
        let id = save_id(id).unwrap();
        let begun = world.saves.begin(&model, &id, None).await.unwrap();
        let Progress::Writing(save) = begun else {
            panic!("{begun:?}")
        };
        world.write(&save.location(), &files()).await;
    }
    world
        .saves
        .abandon(&model, &save_id("left").unwrap())
        .await
        .unwrap();
    world
}

async fn read_everything(world: &World) -> u64 {
    let mut read = 0;
    for dataset in ["ads.clicks", "team.churn"] {
        for version in world.ledger.versions(&name(dataset), 0, 100).await.unwrap() {
            read += world.read(&version).await;
        }
    }
    read
}

// A dry run that says something else than the run does is worse than none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_exactly_what_a_run_takes() {
    let world = littered().await;
    assert_eq!(world.collect(false).await.0.taken, 0, "everything is young");
    // The lease of the forgotten save is a day.
    (0..13).for_each(|_| world.age());
    let before = (world.count("store/blobs"), world.count("cold"));
    let (planned, plan) = world.collect(true).await;
    assert_eq!((world.count("store/blobs"), world.count("cold")), before);
    let (done, taken) = world.collect(false).await;
    assert_eq!(plan, taken);
    assert_eq!(
        (planned.taken, planned.taken_bytes),
        (done.taken, done.taken_bytes)
    );
    let of = |kind| taken.iter().filter(|item| item.kind == kind).count();
    // Two saves of two files and a list each.
    assert_eq!((of(ItemKind::File), of(ItemKind::Save)), (6, 1));
    assert!(of(ItemKind::Blob) >= 5, "{taken:?}");
    let after = (world.count("store/blobs"), world.count("cold"));
    assert_eq!(after, (before.0 - of(ItemKind::Blob), before.1 - 6));
    assert!(read_everything(&world).await > 60);
    let (again, nothing) = world.collect(false).await;
    assert_eq!((again.taken, nothing.len()), (0, 0));
    assert_eq!(again.blobs, after.0 as u64, "what is left is needed");
}

// The process dies at any step: what is needed is there, and the next run ends the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_loses_nothing() {
    let world = littered().await;
    (0..13).for_each(|_| world.age());
    let (planned, _) = world.collect(true).await;
    let expected = read_everything(&world).await;
    let mut crashes = 0;
    loop {
        let wanted = Collection {
            grace: GRACE,
            dry_run: false,
        };
        // One thing is taken, and then nobody listens any more.
        let (sender, mut items) = mpsc::channel(1);
        let run = async {
            let done = world.collector.run(wanted, &sender).await;
            drop(sender);
            done
        };
        let cut = async {
            items.recv().await;
            drop(items);
        };
        match tokio::join!(run, cut).0 {
            Err(CollectError::Gone) => crashes += 1,
            Ok(_) => break,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(read_everything(&world).await, expected);
    }
    assert!(
        crashes > planned.taken / 4,
        "{crashes} of {}",
        planned.taken
    );
    assert_eq!(world.collect(false).await.0.taken, 0);
}

// A database that was lost or is an old copy knows fewer versions: they must not be taken for garbage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_that_only_mirror_files_know_stay() {
    let world = littered().await;
    let expected = read_everything(&world).await;
    let directory = world.directory;
    drop((world.ledger, world.saves, world.collector));
    std::fs::rename(directory.path().join("kv"), directory.path().join("old")).unwrap();
    let kv = terrace_catalog::kv::rocks::RocksKv::open(&directory.path().join("kv")).unwrap();
    let world = World::over(directory, Arc::new(kv)).await;
    (0..13).for_each(|_| world.age());
    let (done, items) = world.collect(false).await;
    assert_eq!(done.unknown_versions, 5, "{done:?}");
    assert!(done.taken > 0, "garbage is garbage for both: {items:?}");
    let directory = world.directory;
    drop((world.ledger, world.saves, world.collector));
    std::fs::remove_dir_all(directory.path().join("kv")).unwrap();
    std::fs::rename(directory.path().join("old"), directory.path().join("kv")).unwrap();
    let kv = terrace_catalog::kv::rocks::RocksKv::open(&directory.path().join("kv")).unwrap();
    let world = World::over(directory, Arc::new(kv)).await;
    assert_eq!(read_everything(&world).await, expected);
}

// What cannot be read may name anything: then nothing at all is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_manifest_stops_the_run() {
    let world = littered().await;
    (0..13).for_each(|_| world.age());
    let version = world.latest(&name("ads.clicks")).await.unwrap();
    world
        .ledger
        .blobs()
        .delete(&version.manifest)
        .await
        .unwrap();
    world.collector.claim().await.unwrap();
    let before = (world.count("store/blobs"), world.count("cold"));
    let wanted = Collection {
        grace: GRACE,
        dry_run: false,
    };
    let (sender, _items) = mpsc::channel(10_000);
    let error = world.collector.run(wanted, &sender).await.unwrap_err();
    assert!(
        error.to_string().contains("nothing was taken away"),
        "{error}"
    );
    assert_eq!((world.count("store/blobs"), world.count("cold")), before);
}

// Two catalogs that share a place by mistake would take each other's models.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_of_another_catalog_is_left_alone() {
    let world = littered().await;
    world.collect(false).await;
    let marker = world.directory.path().join("cold/.terrace-vault");
    std::fs::write(marker, "0123").unwrap();
    let wanted = Collection {
        grace: GRACE,
        dry_run: false,
    };
    let (sender, _items) = mpsc::channel(10_000);
    let error = world.collector.run(wanted, &sender).await.unwrap_err();
    assert!(matches!(error, CollectError::Foreign(_)), "{error}");
    // Files that are in no place of ours, in a vault that is ours, stay too.
    std::fs::remove_file(world.directory.path().join("cold/.terrace-vault")).unwrap();
    std::fs::write(world.directory.path().join("cold/notes.txt"), "mine").unwrap();
    (0..13).for_each(|_| world.age());
    let (done, _) = world.collect(false).await;
    assert_eq!(done.foreign, 1);
    assert!(world.directory.path().join("cold/notes.txt").exists());
}

// A blob that is stored again while a collector looks at it must be there when `put` returns.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn putting_and_collecting_the_same_blob_keeps_it() {
    let world = World::new().await;
    let blobs: Arc<dyn Blobs> = Arc::clone(world.ledger.blobs());
    let bytes = bytes::Bytes::from_static(b"contended");
    let id = blobs.put(bytes.clone()).await.unwrap();
    let mut taken = 0;
    for _ in 0..300 {
        world.age();
        let (put, collected) = tokio::join!(
            tokio::spawn({
                let (blobs, bytes) = (Arc::clone(&blobs), bytes.clone());
                async move { blobs.put(bytes).await }
            }),
            tokio::spawn({
                let blobs = Arc::clone(&blobs);
                async move { blobs.collect(&id, GRACE).await }
            }),
        );
        put.unwrap().unwrap();
        taken += u64::from(collected.unwrap().unwrap());
        assert_eq!(blobs.get(&id).await.unwrap(), bytes);
    }
    println!("{taken} of 300 were taken and stored again");
}
