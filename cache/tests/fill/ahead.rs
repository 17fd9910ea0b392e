//! What is fetched ahead of a reader, and that memory is bounded while it is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use terrace_cache::fill::{CacheConfig, ReadStream};
use terrace_cache::units::ByteSize;
use tokio::task::JoinSet;

use crate::support::{MIB, PAGE, PageSource, Seeded, eventually, object};
use crate::world::{World, read, small};

// Without it a sequential reader would wait for the source at every block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequential_reader_is_fetched_ahead_of_in_growing_parts() {
    let config = CacheConfig {
        whole_after: ByteSize(1 << 40),
        ..CacheConfig::default()
    };
    let world = World::with(config, 1 << 30);
    let source = PageSource::new(MIB);
    let id = object(1, 1, 100 * MIB);
    let handle = world.object(&id, &source);
    let stream = ReadStream::new();
    for (block, fetched) in [1, 6, 11, 20, 37].into_iter().enumerate() {
        read(&handle, &stream, block as u64 * MIB, MIB)
            .await
            .unwrap();
        eventually("twice the distance each time", || {
            world.cache.stats().fetched_bytes == fetched * MIB && source.live() == 0
        })
        .await;
    }
    for block in 5..100 {
        read(&handle, &stream, block * MIB, MIB).await.unwrap();
    }
    source.assert_asked_once(&id);
    assert!(source.asked(&id).iter().all(|r| r.end - r.start <= 8 * MIB));
}

// Without it random 4 KiB reads of a large file would fetch many times what they need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_reader_fetches_only_the_blocks_it_touches() {
    let world = World::start();
    let source = PageSource::new(MIB);
    let id = object(2, 1, 4096 * MIB);
    let handle = world.object(&id, &source);
    let stream = ReadStream::new();
    let mut random = Seeded(7);
    let mut touched = std::collections::BTreeSet::new();
    let mut last = 1_000_000;
    for _ in 0..40 {
        let block = random.below(4096);
        if block.abs_diff(last) < 8 {
            continue;
        }
        last = block;
        touched.insert(block);
        let page = random.below(MIB / PAGE - 1);
        read(&handle, &stream, block * MIB + page * PAGE, PAGE)
            .await
            .unwrap();
    }
    assert_eq!(source.asked_bytes(), touched.len() as u64 * MIB);
}

// Without it a file that is read from end to end would never become complete when its reader stops
// a little before the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_sequential_run_fills_the_whole_object() {
    let config = CacheConfig {
        whole_after: ByteSize(6 * MIB),
        ..small()
    };
    let world = World::with(config, 1 << 30);
    let source = PageSource::new(MIB);
    let id = object(3, 1, 40 * MIB);
    let handle = world.object(&id, &source);
    let stream = ReadStream::new();
    for block in 0..7 {
        read(&handle, &stream, block * MIB, MIB).await.unwrap();
    }
    let mut filled = handle.filled();
    filled.wait_for(|filled| *filled).await.unwrap();
    source.assert_asked_once(&id);
}

// Without it a model would be loaded one page fault at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_header_of_model_weights_fetches_the_whole_file() {
    let world = World::with(small(), 1 << 30);
    // Page numbers make the first word of a test object its number: a header length of 4096 is an
    // object number of 4096, and the byte after it is the version: `{`.
    let id = object(4096, u64::from(b'{'), 32 * MIB);
    let source = PageSource::new(MIB);
    let handle = world.object(&id, &source);
    read(&handle, &ReadStream::new(), 0, 4096).await.unwrap();
    handle.filled().wait_for(|filled| *filled).await.unwrap();
    source.assert_asked_once(&id);
}

// Without it the daemon would be killed by its memory limit under load, with all mounts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_its_bounds() {
    for hot_bytes in [1 << 30, 2 * MIB] {
        let world = World::with(small(), hot_bytes);
        let source = PageSource::new(64 << 10);
        let mut tasks = JoinSet::new();
        for number in 0..8 {
            let handle = world.object(&object(number, 1, 24 * MIB), &source);
            tasks.spawn(async move {
                handle.fill_in_background();
                let stream = ReadStream::new();
                for block in 0..24 {
                    read(&handle, &stream, block * MIB, MIB).await.unwrap();
                }
            });
        }
        let cache = world.cache.clone();
        let watch = tokio::spawn(async move {
            let mut most = 0;
            loop {
                let stats = cache.stats();
                assert!(stats.window_bytes <= 8 * MIB, "{stats:?}");
                assert!(stats.in_flight_bytes <= 8 * MIB, "{stats:?}");
                most = stats.window_bytes.max(most);
                if stats.objects == 0 {
                    return most;
                }
                tokio::task::yield_now().await;
            }
        });
        tasks.join_all().await;
        assert!(watch.await.unwrap() > MIB, "the test came near the bounds");
    }
}
