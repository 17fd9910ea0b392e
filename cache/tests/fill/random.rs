//! Random interleavings of everything, checked against pages that say what they are.

use std::sync::Arc;

use terrace_cache::fill::{CacheConfig, ReadError, ReadStream};
use terrace_cache::store::StoreErrorKind;
use terrace_cache::units::ByteSize;
use terrace_cache::{ObjectId, Source};
use tokio::task::JoinSet;

use crate::support::{Fault, FaultSource, MIB, PageSource, Seeded, eventually, object};
use crate::world::{World, read, small};

/// Random opens, reads, fills and closes by one task.
async fn act<S: Source>(world: &World, source: &Arc<S>, ids: &[ObjectId], seed: u64) -> u64 {
    let mut random = Seeded(seed);
    let mut errors = 0;
    let mut count = |result: Result<(), ReadError>| match result {
        Ok(()) | Err(ReadError::NotKept(_)) => {}
        Err(ReadError::Closed) => panic!("seed {seed}: nothing was closed"),
        Err(ReadError::Store(error)) => {
            assert_ne!(error.kind, StoreErrorKind::Changed, "seed {seed}");
            errors += 1;
        }
    };
    for _ in 0..12 {
        let handle = world.object(&ids[random.below(ids.len() as u64) as usize], source);
        let stream = ReadStream::new();
        let size = handle.id().size();
        let mut at = random.below(size + 1);
        handle.opened();
        for _ in 0..random.below(10) {
            match random.below(10) {
                0 => count(handle.fill().await),
                1 => handle.fill_in_background(),
                2 => at = random.below(size + 1),
                3 => {
                    // A reader that gives up at once.
                    let range = at..at + MIB;
                    let read = handle.read(&stream, range);
                    let _ = tokio::time::timeout(std::time::Duration::ZERO, read).await;
                }
                _ => {
                    let length = 1 + random.below(3 * MIB);
                    count(read(&handle, &stream, at, length).await.map(drop));
                    at = (at + length).min(size);
                }
            }
        }
    }
    errors
}

// Without it some order of events would give a wrong byte, an error out of nowhere, or a hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_interleaving_gives_the_right_bytes() {
    let sizes = [
        0,
        1,
        4095,
        MIB,
        MIB + 1,
        3 * MIB - 1,
        7 * MIB + 77,
        13 * MIB,
    ];
    let ids: Arc<Vec<_>> = Arc::new(
        sizes
            .iter()
            .enumerate()
            .map(|(n, size)| object(n as u64, 1, *size))
            .collect(),
    );
    for seed in 1..=4_u64 {
        let hot_bytes = if seed % 2 == 0 { 10 * MIB } else { 1 << 30 };
        let config = CacheConfig {
            whole_after: ByteSize(4 * MIB),
            ..small()
        };
        let world = Arc::new(World::with(config, hot_bytes));
        let pages = PageSource::new(90_001);
        let source = FaultSource::new(&pages, move |_, range, number| {
            let mut random = Seeded(seed ^ number << 8 ^ range.start);
            let fault = match random.below(3) {
                0 => Fault::Refuse(StoreErrorKind::Throttled),
                _ => Fault::FailAt(random.below(14), StoreErrorKind::Unreachable),
            };
            // By number: where the tier keeps all, few reads are needed, and luck would spare them all.
            (seed > 2 && number % 6 == 2).then_some(fault)
        });
        let mut tasks = JoinSet::new();
        for task in 0..12 {
            let (world, source, ids) = (Arc::clone(&world), Arc::clone(&source), Arc::clone(&ids));
            tasks.spawn(async move { act(&world, &source, &ids, seed * 1000 + task).await });
        }
        let errors: u64 = tasks.join_all().await.iter().sum();
        // A fault in readahead is nobody's error; an error without a fault is a defect.
        assert_eq!(source.fired() > 0, seed > 2, "seed {seed}");
        assert!(
            errors == 0 || source.fired() > 0,
            "seed {seed}: {errors} errors"
        );
        eventually("all ends when the last handle is dropped", || {
            let stats = world.cache.stats();
            pages.live() == 0 && (stats.objects, stats.in_flight_bytes) == (0, 0)
        })
        .await;
        assert_eq!(world.cache.stats().window_bytes, 0, "seed {seed}");
    }
}
