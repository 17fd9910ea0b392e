//! Single flight, and objects that do not wait for each other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use terrace_cache::fill::ReadStream;
use terrace_cache::policy::Admission;
use tokio::task::JoinSet;

use crate::support::{MIB, PageSource, SlowSource, eventually, object};
use crate::world::{World, read, small};

// Without it 64 processes that open the same cold file would download it 64 times.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_of_a_cold_object_ask_the_source_for_each_byte_once() {
    let world = World::start();
    let source = PageSource::new(100_000);
    let id = object(1, 1, 20 * MIB + 12_345);
    let mut tasks = JoinSet::new();
    for task in 0..64_u64 {
        let object = world.object(&id, &source);
        tasks.spawn(async move {
            let stream = ReadStream::new();
            if task % 4 == 0 {
                object.fill().await.unwrap();
            }
            let size = object.id().size();
            for step in 0..21 {
                let offset = (task + step) % 21 * MIB;
                read(&object, &stream, offset, MIB.min(size - offset))
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
    source.assert_asked_once(&id);
    assert!(world.cache.stats().joined > 0);
    assert_eq!(world.cache.stats().fetched_bytes, id.size());
}

// Without it a fill-on-open of a small file would cost more than its one request.
#[tokio::test]
async fn a_small_object_is_filled_with_one_request() {
    let world = World::start();
    let source = PageSource::new(64 << 10);
    let id = object(2, 1, 100_000);
    let object = world.object(&id, &source);
    assert_eq!(object.opened(), Admission::Keep);
    let filled = object.filled();
    assert!(!*filled.borrow());
    object.fill().await.unwrap();
    assert!(*filled.borrow());
    assert_eq!(source.asked(&id), std::slice::from_ref(&(0..100_000)));
    assert_eq!(object.progress(), (100_000, 100_000));
    assert_eq!(
        world.cache.stats().window_bytes,
        0,
        "nobody reads it through the daemon"
    );
    object.fill().await.unwrap();
    assert_eq!(source.asked(&id).len(), 1);
}

// Without it an empty file could not be opened, or the end of a file would be read wrong.
#[tokio::test]
async fn empty_objects_and_the_ends_of_objects_are_right() {
    let world = World::start();
    let source = PageSource::new(7777);
    let empty = world.object(&object(3, 1, 0), &source);
    let stream = ReadStream::new();
    assert_eq!(empty.opened(), Admission::Keep);
    empty.fill().await.unwrap();
    assert!(*empty.filled().borrow());
    assert!(read(&empty, &stream, 0, 4096).await.unwrap().is_empty());
    assert!(read(&empty, &stream, 4096, 4096).await.unwrap().is_empty());
    assert_eq!(empty.progress(), (0, 0));
    assert_eq!(source.asked_bytes(), 0);

    for size in [1, MIB - 1, MIB, MIB + 1] {
        let object = world.object(&object(4, size, size), &source);
        assert_eq!(
            read(&object, &stream, size - 1, 4096).await.unwrap().len(),
            1
        );
        assert!(read(&object, &stream, size, 1).await.unwrap().is_empty());
        assert!(
            read(&object, &stream, size + MIB, MIB)
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            read(&object, &stream, 0, 10 * MIB).await.unwrap().len() as u64,
            size
        );
    }
}

// Without it reads through two mounts would fetch everything twice.
#[tokio::test]
async fn an_object_is_one_instance_while_somebody_holds_it() {
    let world = World::start();
    let source = PageSource::new(1 << 20);
    let id = object(5, 1, MIB);
    let first = world.object(&id, &source);
    let second = world.object(&id, &source);
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(world.cache.stats().objects, 1);
    drop((first, second));
    assert_eq!(world.cache.stats().objects, 0);
}

// Without it one store that does not answer would stop the readers of all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_object_does_not_hold_up_another() {
    let world = World::with(small(), 1 << 30);
    let pages = PageSource::new(256 << 10);
    let source = SlowSource::new(&pages);
    let mut stalled = Vec::new();
    for number in 10..16 {
        let id = object(number, 1, 16 * MIB);
        source.gate(&id);
        let object = world.object(&id, &source);
        object.fill_in_background();
        stalled.push(object);
    }
    // Let the stalled fills get as far as they can: each part holds a block that never comes.
    eventually("all parts are under way", || pages.live() >= 6).await;
    let id = object(20, 1, 16 * MIB);
    let object = world.object(&id, &source);
    let stream = ReadStream::new();
    for block in 0..16 {
        read(&object, &stream, block * MIB, MIB).await.unwrap();
    }
    pages.assert_asked_once(&id);
}

// Without it a reader would wait for a slow source although the block has arrived, or would get
// nothing before a long part is complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_handed_over_as_soon_as_it_arrived() {
    let world = World::start();
    let pages = PageSource::new(MIB);
    let source = SlowSource::new(&pages);
    let id = object(21, 1, 8 * MIB);
    let gate = source.gate(&id);
    let object = world.object(&id, &source);
    object.fill_in_background();
    eventually("the part is asked", || pages.live() == 1).await;
    gate.add_permits(1);
    let stream = ReadStream::new();
    read(&object, &stream, 0, MIB).await.unwrap();
    assert!(!*object.filled().borrow());
    assert!(object.progress().0 <= MIB);
    gate.add_permits(100);
    object.fill().await.unwrap();
    pages.assert_asked_once(&id);
}
