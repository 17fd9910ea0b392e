//! Listings: complete, in order, in bounded memory, while the store changes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use terrace_fuse::live::{LiveParts, LivePrefix, Opening};
use terrace_fuse::namespace::{FsError, Ino, Kind};
use terrace_fuse::ownership::Ownership;

use crate::support::{Backwards, FakeLister, list, page, runtime};
use crate::world::World;

/// Broken: a large directory costs memory without bound, or a seek loses entries.
#[test]
fn a_large_listing_streams_in_bounded_memory_and_seeks_anywhere() {
    let names: Vec<_> = (0..100_000).map(|n| format!("d/file-{n:06}")).collect();
    let mut world = World::new("d", names);
    world.config.listed = 20_000;
    runtime().block_on(async {
        let names = world.mount();
        let first = page(&names, Ino::ROOT, 0, 10).await.unwrap();
        assert_eq!(first.len(), 10);
        let pages = world.store.pages.load(Ordering::Relaxed);
        assert!(
            pages <= 3,
            "the first entries took {pages} pages of the store"
        );
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let entries = page(&names, Ino::ROOT, after, 997).await.unwrap();
            let Some(last) = entries.last() else { break };
            after = last.next;
            assert!(names.stats().listed <= 22_000, "{:?}", names.stats());
            all.extend(entries);
            // The listing grows older than its time to live while it is read.
            world.clock.advance(Duration::from_millis(50));
        }
        assert_eq!(all.len(), 100_000);
        assert_eq!(names.stats().listings, 1);
        let unique: BTreeSet<_> = all.iter().map(|entry| &entry.name).collect();
        assert_eq!(unique.len(), 100_000);
        for place in [99_990, 5, 50_000, 49_999] {
            let entries = page(&names, Ino::ROOT, all[place].next, 3).await.unwrap();
            let names = |entries: &[terrace_fuse::namespace::DirEntry]| {
                entries
                    .iter()
                    .map(|entry| entry.name.clone())
                    .collect::<Vec<_>>()
            };
            assert_eq!(names(&entries), names(&all[place + 1..place + 4]));
        }
        // Cookies mean the same to the next worker, even when their entry is gone.
        drop(names);
        let names = world.open(Opening::TakeOver);
        world.store.remove("d/file-000500");
        let entries = page(&names, Ino::ROOT, all[500].next, 1).await.unwrap();
        assert_eq!(entries[0].name, b"file-000501");
    });
}

/// Broken: a scan that goes on while the directory changes skips or repeats files that stay.
#[test]
fn a_scan_sees_everything_that_stays_exactly_once() {
    let world = World::new("", (0..5_000).map(|n| format!("k{:05}", n * 2)));
    runtime().block_on(async {
        let names = world.mount();
        let mut seen = BTreeSet::new();
        let mut after = 0;
        let mut round = 0_u64;
        loop {
            let entries = page(&names, Ino::ROOT, after, 100).await.unwrap();
            let Some(last) = entries.last() else { break };
            after = last.next;
            for entry in entries {
                assert!(seen.insert(entry.name.clone()), "{:?} twice", entry.name);
            }
            // Others come and go: odd names, and scans from the start that replace the listing.
            round += 1;
            world
                .store
                .put(&format!("k{:05}", ((round * 977) % 10_000) | 1), round);
            world
                .store
                .remove(&format!("k{:05}", ((round * 331) % 10_000) | 1));
            world.clock.advance(Duration::from_millis(700));
            page(&names, Ino::ROOT, 0, 1).await.unwrap();
        }
        let stays = (0..5_000).map(|n| format!("k{:05}", n * 2).into_bytes());
        assert!(stays.into_iter().all(|name| seen.contains(&name)));
    });
}

/// Broken: a shadowed file shows up beside its directory because they are pages apart.
#[test]
fn a_directory_hides_its_file_across_pages() {
    let mut keys: Vec<_> = (0..4_000).map(|n| format!("a-{n:04}")).collect();
    keys.extend(["a".to_owned(), "a/x".to_owned(), "b".to_owned()]);
    let world = World::new("", keys);
    runtime().block_on(async {
        let names = world.mount();
        let entries = list(&names, Ino::ROOT, 500).await.unwrap();
        assert_eq!(entries.len(), 4_002);
        let a: Vec<_> = entries.iter().filter(|entry| entry.name == b"a").collect();
        assert!(a.len() == 1 && a[0].attr.kind == Kind::Directory);
        assert_eq!(names.stats().shadowed, 1);
    });
}

/// Broken: a store without order (or one that claims it) shows entries twice or never.
#[test]
fn a_store_that_breaks_its_order_is_noticed_and_then_read_whole() {
    let world = World::new("", (0..3_000).map(|n| format!("k{n:04}")));
    runtime().block_on(async {
        let names = LivePrefix::open(LiveParts {
            lister: Arc::new(Backwards(FakeLister(Arc::clone(&world.store)))),
            prefix: "",
            table: world.directory.path(),
            opening: Opening::Mount,
            config: world.config,
            ownership: Ownership::default(),
            clock: Arc::clone(&world.clock) as _,
        })
        .unwrap();
        assert!(matches!(
            list(&names, Ino::ROOT, 100).await,
            Err(FsError::Local(_))
        ));
        let entries = list(&names, Ino::ROOT, 100).await.unwrap();
        assert_eq!(entries.len(), 3_000);
        assert!(entries.is_sorted_by(|a, b| a.name < b.name));
    });
}
