//! The hot tier as its callers use it: fill, read, promote, restart, evict.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::*;
use bytes::Bytes;
use terrace_cache::hot::{BLOCK, HotConfig, HotErrorKind, Residency, WriteHint};

const BIG: u64 = 20 * BLOCK + 777;

// Without this, nothing of the tier works at all.
#[tokio::test]
async fn what_was_written_is_read_promoted_and_survives_a_restart() {
    let directory = directory("basic");
    let config = config(directory.path());
    for (seed, size) in [(1, 100_000), (2, BIG), (3, BLOCK), (4, 1)] {
        let tier = open(&config);
        let object = tier.object(&id(seed, size), &dataset()).unwrap();
        assert_eq!(tier.peek(&digest(seed, size)), None);
        assert!(object.backing().unwrap().is_none());
        assert!(object.read(0..size).await.unwrap().is_none());
        fill(&object, seed).await.unwrap();
        read_all(&object, seed).await.unwrap();
        let backing = object.backing().unwrap().unwrap();
        assert!(backing.check());
        let mut all = vec![0; size as usize];
        backing.file().read_exact_at(&mut all, 0).unwrap();
        assert_eq!(all, content(seed, 0, size as usize));
        tier.sync().unwrap();
        assert_eq!(tier.peek(&digest(seed, size)), Some(Residency::Complete));
        drop((object, backing, tier));

        let tier = open(&config);
        assert_eq!(tier.peek(&digest(seed, size)), Some(Residency::Complete));
        let object = tier.object(&id(seed, size), &dataset()).unwrap();
        assert!(object.is_filled(), "trusted after a clean shutdown");
        assert!(object.backing().unwrap().is_some());
        read_all(&object, seed).await.unwrap();
        assert_eq!(tier.stats().verified_blocks, 0);
    }
}

// Without this, an empty file could not be opened in passthrough mode, or would be fetched for ever.
#[tokio::test]
async fn an_empty_object_is_filled_from_the_start() {
    let directory = directory("empty");
    let tier = open(&config(directory.path()));
    let object = tier.object(&id(1, 0), &dataset()).unwrap();
    assert!(object.is_filled());
    assert!(object.missing(0..9).is_empty());
    assert_eq!(object.read(0..10).await.unwrap(), Some(Bytes::new()));
    assert_eq!(
        object
            .backing()
            .unwrap()
            .unwrap()
            .file()
            .metadata()
            .unwrap()
            .len(),
        0
    );
}

// Without this, a caller could store bytes under the wrong block.
#[tokio::test]
async fn blocks_of_the_wrong_length_or_number_are_refused() {
    let directory = directory("refuse");
    let tier = open(&config(directory.path()));
    let object = tier.object(&id(1, BLOCK + 5), &dataset()).unwrap();
    for (block, length) in [(0, 5), (1, 4), (1, BLOCK), (2, 5)] {
        let result = object
            .write(block, Bytes::from(vec![0; length as usize]))
            .await;
        assert_eq!(result.unwrap_err().kind, HotErrorKind::Corrupt);
    }
    assert_eq!(object.missing(0..2), vec![0..2]);
    assert_eq!(tier.peek(&digest(1, BLOCK + 5)), None);
}

// Without this, a partial file would serve zeros, or forget what it has, or keep stale presence.
#[tokio::test]
async fn a_partial_object_survives_and_serves_only_what_it_has() {
    let directory = directory("partial");
    let config = config(directory.path());
    for (seed, size) in [(1, 5 * BLOCK + 3), (2, BIG)] {
        let tier = open(&config);
        let object = tier.object(&id(seed, size), &dataset()).unwrap();
        for block in [1, 2, 5] {
            let data = block_content(seed, size, block);
            object
                .write_with(block, data, WriteHint::Uncached)
                .await
                .unwrap();
        }
        drop((object, tier));

        let tier = open(&config);
        assert!(matches!(
            tier.peek(&digest(seed, size)),
            Some(Residency::Partial { .. })
        ));
        let object = tier.object(&id(seed, size), &dataset()).unwrap();
        let mut expected = vec![0..1, 3..5];
        if size == BIG {
            expected.push(6..21);
        }
        assert_eq!(object.missing(0..100), expected);
        assert!(object.read(0..BLOCK + 1).await.unwrap().is_none());
        let bytes = object.read(BLOCK + 1..3 * BLOCK).await.unwrap().unwrap();
        assert!(bytes == content(seed, BLOCK + 1, (2 * BLOCK - 1) as usize));
        assert_eq!(tier.stats().verified_blocks, 2, "checked on first read");
        object.read(BLOCK..2 * BLOCK).await.unwrap().unwrap();
        assert_eq!(tier.stats().verified_blocks, 2, "trusted after");
        fill(&object, seed).await.unwrap();
        assert!(!object.is_filled(), "block 5 was not checked yet");
        assert!(object.verify().await.unwrap());
        read_all(&object, seed).await.unwrap();
        assert!(object.backing().unwrap().is_some());
    }
}

// Without this, two instances of one object would overwrite each other's state.
#[tokio::test]
async fn there_is_one_instance_per_object() {
    let directory = directory("one");
    let tier = open(&config(directory.path()));
    let first = tier.object(&id(1, BLOCK), &dataset()).unwrap();
    let second = tier.object(&id(1, BLOCK), &dataset()).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
}

// Without this, a hit could wait for the disk on a thread that must not.
#[tokio::test]
async fn read_now_answers_from_the_page_cache_only() {
    let directory = directory("now");
    let tier = open(&config(directory.path()));
    let object = filled(&tier, 1, 2 * BLOCK).await;
    let bytes = object
        .read_now(5..BLOCK + 5)
        .unwrap()
        .expect("just written, so cached");
    assert!(bytes == content(1, 5, BLOCK as usize));
    assert_eq!(
        object.read_now(2 * BLOCK..3 * BLOCK).unwrap(),
        Some(Bytes::new())
    );
}

// Without this, a second daemon would corrupt the directory of the first one.
#[test]
fn a_second_daemon_is_refused_and_told_who_is_there() {
    let directory = directory("lock");
    let config = config(directory.path());
    let tier = open(&config);
    let error = try_open(&config).unwrap_err();
    assert_eq!(error.kind, HotErrorKind::Locked);
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(tier);
    open(&config);
}

// Without this, another user of the node could read cached data.
#[tokio::test]
async fn nobody_else_can_read_the_directory() {
    let directory = directory("mode");
    let config = config(directory.path());
    let tier = open(&config);
    let _object = filled(&tier, 1, BIG).await;
    tier.sync().unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&config.directory), 0o700);
    assert_eq!(mode(&data_file(&config, &digest(1, BIG))), 0o600);
    assert_eq!(mode(&sidecar_file(&config, &digest(1, BIG))), 0o600);
    assert_eq!(mode(&config.directory.join("LOCK")), 0o600);
}

// Without this, an old version of the program would misread a directory of a newer one.
#[test]
fn an_unknown_format_is_refused() {
    let directory = directory("format");
    let config = config(directory.path());
    drop(open(&config));
    std::fs::write(config.directory.join("FORMAT"), "terrace-hot 2\n").unwrap();
    let error = try_open(&config).unwrap_err();
    assert_eq!(error.kind, HotErrorKind::Corrupt);
    assert!(error.to_string().contains("terrace-hot 2"), "{error}");
}

// Without this, the tier would grow past its budget, or evict what is pinned or open.
#[tokio::test]
async fn the_budget_holds_and_pins_and_users_are_spared() {
    let directory = directory("budget");
    let config = HotConfig {
        limit_bytes: 8 * BLOCK,
        ..config(directory.path())
    };
    let tier = open(&config);
    let pinned = vec![digest(0, BLOCK)];
    tier.pin_all(pinned.clone(), true).await.unwrap();
    drop(filled(&tier, 0, BLOCK).await);
    let used = filled(&tier, 1, BLOCK).await;
    for seed in 2..40 {
        drop(filled(&tier, seed, BLOCK).await);
        assert!(
            tier.usage().used_bytes <= config.limit_bytes,
            "{:?}",
            tier.usage()
        );
    }
    tier.sync().unwrap();
    assert_eq!(tier.peek(&digest(0, BLOCK)), Some(Residency::Complete));
    assert_eq!(tier.peek(&digest(1, BLOCK)), Some(Residency::Complete));
    assert!(tier.peek(&digest(2, BLOCK)).is_none());
    assert_eq!(tier.peek(&digest(39, BLOCK)), Some(Residency::Complete));
    assert!(!tier.evict(&digest(0, BLOCK)).unwrap(), "pinned");
    assert!(!tier.evict(&digest(1, BLOCK)).unwrap(), "in use");
    drop(used);
    assert!(tier.evict(&digest(1, BLOCK)).unwrap());
    drop(tier);

    let tier = open(&config);
    assert!(!tier.evict(&digest(0, BLOCK)).unwrap(), "pins survive");
    tier.pin_all(pinned, false).await.unwrap();
    assert!(tier.evict(&digest(0, BLOCK)).unwrap());
    assert_eq!(
        tier.reserve(9 * BLOCK).unwrap_err().kind,
        HotErrorKind::Full
    );
    let hold = tier.reserve(8 * BLOCK).unwrap();
    assert_eq!(tier.usage().objects, 0, "all had to go");
    let object = tier.object(&id(50, BLOCK), &dataset()).unwrap();
    assert_eq!(
        fill(&object, 50).await.unwrap_err().kind,
        HotErrorKind::Full
    );
    drop(hold);
    fill(&object, 50).await.unwrap();
}

// Without this, the disk would fill with bytes that nobody counts.
#[tokio::test]
async fn bytes_of_evicted_objects_count_until_the_last_reader_lets_go() {
    let directory = directory("zombie");
    let config = config(directory.path());
    let tier = open(&config);
    let object = filled(&tier, 1, 4 * BLOCK).await;
    tier.sync().unwrap();
    let backing = object.backing().unwrap().unwrap();
    drop(object);
    assert!(
        !tier.evict(&digest(1, 4 * BLOCK)).unwrap(),
        "a reader has it"
    );
    backing.set_idle(true);
    let told = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&told);
    tier.on_evict(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let used = tier.usage().used_bytes;
    assert!(tier.evict(&digest(1, 4 * BLOCK)).unwrap());
    assert_eq!(told.load(Ordering::SeqCst), 1);
    assert!(backing.is_evicted());
    assert_eq!(tier.usage().zombie_bytes, 4 * BLOCK);
    assert_eq!(tier.usage().used_bytes, used);
    let mut all = vec![0; 4 * BLOCK as usize];
    backing.file().read_exact_at(&mut all, 0).unwrap();
    assert!(
        all == content(1, 0, all.len()),
        "readers of an evicted object go on"
    );
    drop(backing);
    wait_until("the close of its file", || tier.usage().zombie_bytes == 0);
    assert_eq!(tier.usage().used_bytes, 0);
    assert_eq!(tier.usage().objects, 0);
}

// Without this, a restart would turn the order of eviction into chance.
#[tokio::test]
async fn the_order_of_eviction_survives_a_restart() {
    let directory = directory("order");
    let config = HotConfig {
        limit_bytes: 4 * BLOCK,
        ..config(directory.path())
    };
    let tier = open(&config);
    for seed in 0..3 {
        drop(filled(&tier, seed, BLOCK).await);
    }
    // The order is kept in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    tier.opened(&digest(0, BLOCK), BLOCK, &dataset());
    drop(tier);
    let tier = open(&config);
    drop(filled(&tier, 7, 2 * BLOCK).await);
    assert!(tier.peek(&digest(0, BLOCK)).is_some(), "used last");
}

// Without this, objects would be used after the tier has given up its lock.
#[tokio::test]
async fn a_closed_tier_refuses_everything() {
    let directory = directory("closed");
    let config = config(directory.path());
    let tier = open(&config);
    let object = filled(&tier, 1, BLOCK).await;
    drop(tier);
    assert_eq!(
        object.read(0..5).await.unwrap_err().kind,
        HotErrorKind::Closed
    );
    let tier = open(&config);
    assert_eq!(tier.peek(&digest(1, BLOCK)), Some(Residency::Complete));
}
