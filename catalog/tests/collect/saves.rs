//! Saves at the level of the library: crashes at every call, duplicates, races, and what is refused.

use terrace_catalog::ledger::{LedgerError, Purpose};
use terrace_catalog::manifest::{Checksum, Manifest};
use terrace_catalog::saves::{Progress, SaveError, save_id};

use super::world::{World, name};

fn files(seed: u8) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", vec![seed; 10]),
        ("weights/a.bin", vec![seed ^ 7; 100_000]),
        ("weights/b.bin", Vec::new()),
    ]
}

// Without it a store that fails in the middle of a save leaves a version that is not whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_at_any_call_leaves_no_half_version() {
    let world = World::new().await;
    let (model, id) = (name("team.churn"), save_id("one").unwrap());
    let begun = world.saves.begin(&model, &id, None).await.unwrap();
    let Progress::Writing(save) = begun else {
        panic!("{begun:?}")
    };
    let list = world.write(&save.location(), &files(1)).await;
    let mut failures = 0;
    for call in 0.. {
        world.vault.fail_at(call);
        match world.finish(&model, &id, list).await {
            Err(SaveError::Unavailable(_)) => failures += 1,
            Err(error) => panic!("{error}"),
            Ok(version) => {
                assert_eq!(version.number, 1);
                break;
            }
        }
        assert!(world.latest(&model).await.is_none(), "call {call}");
    }
    world.vault.fail_at(u64::MAX);
    // The list (head, read), the listing, two files that are not empty.
    let fired = world.vault.fired.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!((failures, fired), (5, 5));
}

// A caller that retries, or two that call at once, must not make two versions of one save.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_is_one_version_however_often_it_is_finished() {
    let world = World::new().await;
    let first = world.save("team.churn", "one", &files(1)).await.unwrap();
    let again = world.save("team.churn", "one", &files(1)).await.unwrap();
    assert_eq!(first, again);
    let (model, id) = (name("team.churn"), save_id("two").unwrap());
    let begun = world.saves.begin(&model, &id, None).await.unwrap();
    let Progress::Writing(save) = begun else {
        panic!("{begun:?}")
    };
    let list = world.write(&save.location(), &files(1)).await;
    let each = (0..8).map(|_| world.finish(&model, &id, list));
    for done in futures::future::join_all(each).await {
        // The same bytes, and a save of their own: a version of their own.
        assert_eq!(done.unwrap().number, 2);
    }
    let manifest = Manifest::open(world.ledger.blobs(), &first.manifest)
        .await
        .unwrap();
    let stored = manifest.files("", None, 10).await.unwrap();
    assert!(
        stored
            .iter()
            .all(|file| matches!(file.checksum, Some(Checksum::Sha256(_))))
    );
    assert_eq!(world.read(&first).await, 3);
}

// What lies in the store is not what was saved: no version, and the writer is told which file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_what_was_saved_is_refused() {
    let world = World::new().await;
    let model = name("team.churn");
    let spoil: [(&str, Option<&[u8]>, &str); 4] = [
        (
            "config.json",
            Some(b"0123456789"),
            "config.json has other bytes",
        ),
        (
            "config.json",
            Some(b"short"),
            "config.json has 5 bytes and not 10",
        ),
        ("weights/a.bin", None, "weights/a.bin is not there"),
        (
            ".terrace-save.jsonl",
            Some(b"{}\n"),
            "not the list that was announced",
        ),
    ];
    for (at, (path, bytes, said)) in spoil.into_iter().enumerate() {
        let id = save_id(&format!("bad{at}")).unwrap();
        let begun = world.saves.begin(&model, &id, None).await.unwrap();
        let Progress::Writing(save) = begun else {
            panic!("{begun:?}")
        };
        let list = world.write(&save.location(), &files(1)).await;
        let full = world.directory.path().join("cold");
        let full = full.join(save.place.to_string()).join(path);
        match bytes {
            Some(bytes) => std::fs::write(&full, bytes).unwrap(),
            None => std::fs::remove_file(&full).unwrap(),
        }
        match world.finish(&model, &id, list).await {
            Err(SaveError::NotMet(text)) => assert!(text.contains(said), "{text}"),
            done => panic!("{done:?}"),
        }
        // Written again, it is what it should be.
        let list = world.write(&save.location(), &files(1)).await;
        let version = world.finish(&model, &id, list).await.unwrap();
        assert_eq!(version.number, at as u64 + 1);
    }
}

// No ordinary path deletes what was saved, and a held version stays whoever asks.
#[tokio::test]
async fn a_model_is_removed_on_purpose_only() {
    let world = World::new().await;
    let first = world.save("team.churn", "one", &files(1)).await.unwrap();
    world.save("team.churn", "two", &files(2)).await.unwrap();
    let ledger = &world.ledger;
    let refused = |done: Result<i64, LedgerError>| matches!(done, Err(LedgerError::Refused(_)));
    assert!(refused(
        ledger
            .begin_version_removal(&first, Purpose::Ordinary)
            .await
    ));
    assert!(refused(
        ledger
            .begin_removal(&name("team.churn"), Purpose::Ordinary)
            .await
    ));
    let holder = "model:prod".parse().unwrap();
    ledger.hold(&first, &holder, None, "serving").await.unwrap();
    assert!(refused(
        ledger.begin_version_removal(&first, Purpose::Model).await
    ));
    assert!(refused(
        ledger
            .begin_removal(&name("team.churn"), Purpose::Model)
            .await
    ));
    world.age();
    world.collect(false).await;
    assert_eq!(world.read(&first).await, 3);
    ledger.release(&first, &holder).await.unwrap();
    ledger
        .begin_version_removal(&first, Purpose::Model)
        .await
        .unwrap();
    // Marked, not gone: it can still be kept, so nothing of it may be taken.
    world.age();
    assert_eq!(world.collect(false).await.0.taken, 0);
    assert_eq!(world.read(&first).await, 3);
    ledger
        .finish_version_removal(&first, Purpose::Model)
        .await
        .unwrap();
    let (done, items) = world.collect(false).await;
    // Three files, their list, and the blobs of its manifest.
    let taken = items.iter().filter(|item| item.name.starts_with("file://"));
    assert_eq!(taken.count(), 4, "{items:?}");
    assert!(done.taken > 4);
    world
        .read(&world.latest(&name("team.churn")).await.unwrap())
        .await;
}
