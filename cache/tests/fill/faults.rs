//! Sources and hot tiers that fail: who sees it, and that nobody sees a wrong byte.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use terrace_cache::fill::{CacheConfig, ReadError, ReadStream};
use terrace_cache::policy::{Access, Admission, Policy};
use terrace_cache::store::StoreErrorKind;
use terrace_cache::{DatasetKey, Digest};

use crate::support::{Fault, FaultSource, MIB, PageSource, check, object};
use crate::world::{World, read, small};

// Without it a reader could get the first half of one version of a file and the second half of
// another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_object_is_stale_for_every_later_miss_and_never_a_mix() {
    let world = World::with(small(), 1 << 30);
    let pages = PageSource::new(128 << 10);
    let source = FaultSource::new(&pages, |_, _, _| None);
    let (old, new) = (object(1, 1, 16 * MIB), object(1, 2, 16 * MIB));
    let handle = world.object(&old, &source);
    let stream = ReadStream::new();
    read(&handle, &stream, 0, MIB).await.unwrap();
    source.replace(&old);
    let miss = handle.read(&stream, 9 * MIB..10 * MIB).await;
    assert_eq!(
        miss.unwrap_err().store_kind(),
        Some(StoreErrorKind::Changed)
    );
    assert!(source.fired() > 0);
    let asked = source.fired();
    let miss = handle.read(&stream, 12 * MIB..13 * MIB).await;
    assert_eq!(
        miss.unwrap_err().store_kind(),
        Some(StoreErrorKind::Changed)
    );
    let fill = handle.fill().await;
    assert_eq!(
        fill.unwrap_err().store_kind(),
        Some(StoreErrorKind::Changed)
    );
    assert_eq!(source.fired(), asked, "the source is not asked again");
    // What is here is of the old version, which the handle has open.
    read(&handle, &stream, 0, MIB).await.unwrap();

    let fresh = world.object(&new, &source);
    fresh.fill().await.unwrap();
    let bytes = fresh.read(&ReadStream::new(), 0..16 * MIB).await.unwrap();
    check(&new, 0, &bytes);
}

// Without it one bad range of a file would make the whole file, or other readers, fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_reaches_the_readers_of_its_range_and_nobody_else() {
    let world = World::with(small(), 1 << 30);
    let pages = PageSource::new(256 << 10);
    let healed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    // Whatever asks for block 5 gets all before it and then an error.
    let source = FaultSource::new(&pages, move |_, range, _| {
        let hit = range.contains(&(5 * MIB)) && !flag.load(SeqCst);
        let pieces = (5 * MIB).saturating_sub(range.start) / (256 << 10);
        hit.then_some(Fault::FailAt(pieces + 1, StoreErrorKind::Unreachable))
    });
    let id = object(2, 1, 8 * MIB);
    let handle = world.object(&id, &source);
    let fill = handle.fill().await.unwrap_err();
    assert_eq!(fill.store_kind(), Some(StoreErrorKind::Unreachable));
    for block in 0..8 {
        let stream = ReadStream::new();
        let got = handle.read(&stream, block * MIB..(block + 1) * MIB).await;
        match (block, got) {
            (5, Err(error)) => assert_eq!(error.store_kind(), Some(StoreErrorKind::Unreachable)),
            (5, Ok(_)) => panic!("block 5 cannot come"),
            (_, got) => check(&id, block * MIB, &got.unwrap()),
        }
    }
    assert!(source.fired() > 1);
    healed.store(true, SeqCst);
    handle.fill().await.unwrap();
    check(
        &id,
        0,
        &handle.read(&ReadStream::new(), 0..8 * MIB).await.unwrap(),
    );
}

// Without it readers that wait for a block in the middle of somebody's readahead would get the
// error of a block before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_later_block_of_a_failed_part_asks_again() {
    let world = World::with(small(), 1 << 30);
    let pages = PageSource::new(MIB);
    let source = FaultSource::new(&pages, |_, range, number| {
        (number == 1 && range.start == 0).then_some(Fault::FailAt(1, StoreErrorKind::Throttled))
    });
    let id = object(3, 1, 2 * MIB);
    let handle = world.object(&id, &source);
    // One part of two blocks; its second block fails, the first and a later request are right.
    let both = handle.read(&ReadStream::new(), 0..2 * MIB).await;
    assert_eq!(
        both.unwrap_err().store_kind(),
        Some(StoreErrorKind::Throttled)
    );
    assert_eq!(source.fired(), 1);
    let bytes = handle.read(&ReadStream::new(), 0..2 * MIB).await.unwrap();
    check(&id, 0, &bytes);
    assert_eq!(pages.asked(&id), [0..2 * MIB, MIB..2 * MIB]);
}

// Without it a truncated or padded answer would be served or kept as if it were the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_the_wrong_length_is_corrupt() {
    for fault in [Fault::EndAt(0), Fault::EndAt(3), Fault::TooLong] {
        let world = World::start();
        let pages = PageSource::new(1000);
        let source = FaultSource::new(&pages, move |_, _, number| (number == 1).then_some(fault));
        let id = object(4, 1, 4500);
        let handle = world.object(&id, &source);
        let first = handle.read(&ReadStream::new(), 0..4500).await;
        if fault == Fault::TooLong {
            check(&id, 0, &first.unwrap());
        } else {
            assert_eq!(
                first.unwrap_err().store_kind(),
                Some(StoreErrorKind::Corrupt),
                "{fault:?}"
            );
            assert_eq!(handle.progress().0, 0);
        }
        check(
            &id,
            0,
            &handle.read(&ReadStream::new(), 0..4500).await.unwrap(),
        );
        handle.fill().await.unwrap();
    }
}

// Without it a full disk would stop reading instead of only caching.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_hot_tier_is_a_miss_and_reads_stay_right() {
    let world = World::with(small(), 4 * MIB);
    let source = PageSource::new(200_000);
    let id = object(5, 1, 24 * MIB + 1);
    let handle = world.object(&id, &source);
    handle.opened();
    let fill = handle.fill().await;
    assert!(matches!(fill, Err(ReadError::NotKept(_))), "{fill:?}");
    let stream = ReadStream::new();
    for block in 0..25 {
        read(&handle, &stream, block * MIB, MIB).await.unwrap();
    }
    assert!(!*handle.filled().borrow());
    assert!(handle.backing().is_none());
    let stats = world.cache.stats();
    assert!(
        stats.window_bytes <= 8 * MIB && stats.in_flight_bytes == 0,
        "{stats:?}"
    );
}

// Without it a dead SSD would make every file of the node unreadable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_hot_tier_is_a_miss_and_reads_stay_right() {
    let world = World::with(small(), 1 << 30);
    let source = PageSource::new(200_000);
    let before = world.object(&object(7, 1, 4 * MIB), &source);
    before.fill().await.unwrap();
    // Data files can neither be made nor found from here on.
    let objects = world.directory.path().join("objects");
    std::fs::remove_dir_all(&objects).unwrap();
    std::fs::write(&objects, b"not a directory").unwrap();
    let stream = ReadStream::new();
    for number in 7..10 {
        let handle = world.object(&object(number, 1, 12 * MIB), &source);
        handle.opened();
        handle.fill_in_background();
        for block in 0..12 {
            read(&handle, &stream, block * MIB, MIB).await.unwrap();
        }
        let fill = handle.fill().await;
        assert!(matches!(fill, Err(ReadError::NotKept(_))), "{fill:?}");
    }
    for block in 0..4 {
        read(&before, &stream, block * MIB, MIB).await.unwrap();
    }
    assert!(world.cache.stats().hot_refused > 0);
}

/// Admits nothing.
#[derive(Debug)]
struct Refuse;

impl Policy for Refuse {
    fn open(&mut self, _: &Access<'_>) -> Admission {
        Admission::Bypass
    }

    fn inserted(&mut self, _: &DatasetKey, _: Digest, _: u64) {}

    fn removed(&mut self, _: &Digest) {}

    fn victims(&mut self, _: u64, _: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        Vec::new()
    }
}

// Without it an object that the policy keeps out would be written to the SSD all the same, or
// could not be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bypassed_object_is_read_through_memory_only() {
    let world = World::with_policy(small(), 1 << 30, Box::new(Refuse));
    let source = PageSource::new(200_000);
    let id = object(6, 1, 6 * MIB);
    let handle = world.object(&id, &source);
    assert_eq!(handle.opened(), Admission::Bypass);
    let stream = ReadStream::new();
    for round in 0..2 {
        handle.fill_in_background();
        for block in 0..6 {
            read(&handle, &stream, block * MIB, MIB).await.unwrap();
        }
        let asked = source.asked_bytes();
        assert_eq!(asked, 6 * MIB, "round {round} is served from memory");
    }
    assert!(world.cache.hot().peek(&id.digest()).is_none());
    assert_eq!(
        (handle.progress(), world.cache.stats().fills),
        ((0, 6 * MIB), 0)
    );
}

// Without it whoever opens a file that a killed process wrote, and could not vouch for any more, waits
// for ever: nothing of it is missing, and nobody checks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_and_not_believed_is_checked_by_the_fill() {
    let world = World::start();
    let source = PageSource::new(1 << 20);
    let ids = [object(40, 1, 100_000), object(41, 1, 40 * MIB)];
    for id in &ids {
        world.object(id, &source).fill().await.unwrap();
    }
    let world = world.touched_and_reopened().await;
    for id in &ids {
        let object = world.object(id, &source);
        assert!(!*object.filled().borrow(), "a touched file is believed");
        let filled = tokio::time::timeout(Duration::from_secs(60), object.fill()).await;
        filled.expect("the fill never ends").unwrap();
        assert!(object.backing().is_some());
        source.assert_asked_once(id);
    }
}

// Without it an open would wait for the disk of a full tier, although every byte of its file is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_every_byte_does_not_wait_for_room() {
    let world = World::with(CacheConfig::default(), 8 * MIB);
    let source = PageSource::new(256 << 10);
    let (old, new) = (object(1, 1, 6 * MIB), object(2, 1, 4 * MIB));
    let resident = world.object(&old, &source);
    resident.fill().await.unwrap();
    world.cache.hot().sync().unwrap();
    // Evicted for the newcomer, and its bytes are not free before this is dropped.
    let backing = resident.backing().unwrap();
    backing.set_idle(true);
    drop(resident);
    let handle = world.object(&new, &source);
    let filled = handle.fill_or_arrive(Duration::ZERO).await.unwrap();
    assert!(!filled, "there is no room");
    read(&handle, &ReadStream::new(), 0, 4 * MIB).await.unwrap();
    drop(backing);
}
