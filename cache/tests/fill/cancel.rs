//! Who keeps work going, and that it ends when nobody does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures::FutureExt;
use terrace_cache::fill::{ReadError, ReadStream};

use crate::support::{MIB, PageSource, SlowSource, eventually, object};
use crate::world::{World, read, small};

// Without it closing a large file after one look would still download all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_background_fill_ends_with_the_last_handle() {
    let world = World::with(small(), 1 << 30);
    let pages = PageSource::new(MIB);
    let source = SlowSource::new(&pages);
    let id = object(1, 1, 64 * MIB);
    source.gate(&id).add_permits(4);
    let first = world.object(&id, &source);
    let second = world.object(&id, &source);
    first.fill_in_background();
    eventually("some blocks came", || {
        world.cache.stats().fetched_bytes == 4 * MIB
    })
    .await;
    drop(first);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(pages.live() > 0, "a handle is left");
    drop(second);
    eventually("the requests are dropped", || pages.live() == 0).await;
    eventually("it is counted", || world.cache.stats().fills_cancelled == 1).await;
    let stats = world.cache.stats();
    assert_eq!(
        (stats.objects, stats.in_flight_bytes, stats.window_bytes),
        (0, 0, 0)
    );
    assert!(pages.asked_bytes() < 16 * MIB);

    // What came in stays: a later fill asks for the rest only.
    let gate = source.gate(&id);
    gate.add_permits(1000);
    let before = pages.asked_bytes();
    world.object(&id, &source).fill().await.unwrap();
    assert_eq!(pages.asked_bytes() - before, 60 * MIB);
}

// Without it an interrupted open would leave its download behind, or would take down the open of
// another process that waits for the same fill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_lasts_as_long_as_one_of_its_waiters() {
    let world = World::with(small(), 1 << 30);
    let pages = PageSource::new(MIB);
    let source = SlowSource::new(&pages);
    let id = object(2, 1, 8 * MIB);
    let gate = source.gate(&id);
    let object = world.object(&id, &source);

    let mut alone = Box::pin(object.fill());
    assert!(alone.as_mut().now_or_never().is_none());
    eventually("it began", || pages.live() > 0).await;
    drop(alone);
    eventually("it ended", || pages.live() == 0).await;

    let mut first = Box::pin(object.fill());
    let mut second = Box::pin(object.fill());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    eventually("it began again", || pages.live() > 0).await;
    drop(first);
    gate.add_permits(1000);
    second.await.unwrap();
    assert_eq!(object.progress(), (8 * MIB, 8 * MIB));
}

// Without it a reader that joined another reader's readahead would lose its block when that other
// closes the file, and without the cancel nobody would stop fetching for a closed file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readahead_ends_with_its_stream_but_serves_who_joined() {
    let world = World::with(small(), 1 << 30);
    let pages = PageSource::new(MIB);
    let source = SlowSource::new(&pages);
    let id = object(3, 1, 64 * MIB);
    let gate = source.gate(&id);
    let object = world.object(&id, &source);
    gate.add_permits(16);
    let stream = ReadStream::new();
    // Blocks 0..4 in sequence; ahead of them at most 4 more.
    for block in 0..4 {
        read(&object, &stream, block * MIB, MIB).await.unwrap();
    }
    eventually("readahead is in", || {
        world.cache.stats().fetched_bytes == 8 * MIB
    })
    .await;
    gate.forget_permits(16);
    for block in 4..6 {
        read(&object, &stream, block * MIB, MIB).await.unwrap();
    }
    eventually("more readahead waits", || pages.live() > 0).await;
    let ahead = pages.asked(&id).last().unwrap().start;

    let joined = ReadStream::new();
    let mut waiter = Box::pin(object.read(&joined, ahead..ahead + 4096));
    assert!(waiter.as_mut().now_or_never().is_none());
    drop(stream);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(pages.live() > 0, "somebody waits for it");
    gate.add_permits(1);
    assert_eq!(waiter.await.unwrap().len(), 4096);
    eventually("the rest is given up", || pages.live() == 0).await;
    eventually("it is counted", || world.cache.stats().parts_cancelled > 0).await;
}

// Without it the daemon could not end in order, or a read after the end would hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_ends_every_task_and_later_misses_fail_at_once() {
    let world = World::with(small(), 1 << 30);
    let pages = PageSource::new(MIB);
    let source = SlowSource::new(&pages);
    let id = object(4, 1, 64 * MIB);
    source.gate(&id).add_permits(1);
    let object = world.object(&id, &source);
    let stream = ReadStream::new();
    read(&object, &stream, 0, MIB).await.unwrap();
    object.fill_in_background();
    let waiting = object.read(&stream, 60 * MIB..61 * MIB);
    let ((), waited) = tokio::join!(
        async {
            eventually("the read is under way", || pages.asked(&id).len() > 3).await;
            world.cache.shutdown().await;
        },
        waiting
    );
    assert!(matches!(waited, Err(ReadError::Closed)));
    assert_eq!(pages.live(), 0);
    read(&object, &stream, 0, MIB).await.unwrap();
    let miss = object.read(&stream, 50 * MIB..51 * MIB).await;
    assert!(matches!(miss, Err(ReadError::Closed)));
    assert!(matches!(object.fill().await, Err(ReadError::Closed)));
}
