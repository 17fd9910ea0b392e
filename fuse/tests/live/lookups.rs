//! Lookups: how many questions the store is asked, and how long answers hold.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use terrace_cache::store::StoreErrorKind;
use terrace_fuse::namespace::{FsError, Ino, Kind, Namespace};

use crate::support::{list, runtime};
use crate::world::{World, walk};

/// Broken: applications see names older than promised, or the store is asked for each stat.
#[test]
fn answers_are_remembered_for_their_time_and_no_longer() {
    let world = World::keys(&["f"]);
    runtime().block_on(async {
        let names = world.mount();
        assert!(names.try_lookup(Ino::ROOT, b"f").is_none());
        names.lookup(Ino::ROOT, b"f").await.unwrap();
        assert_eq!(world.requests(), (1, 1));
        assert!(matches!(
            names.lookup(Ino::ROOT, b"g").await,
            Err(FsError::NotFound)
        ));
        assert_eq!(world.requests(), (1, 1));
        names.try_lookup(Ino::ROOT, b"f").unwrap().unwrap();
        assert!(matches!(
            names.try_lookup(Ino::ROOT, b"g"),
            Some(Err(FsError::NotFound))
        ));
        world.clock.advance(Duration::from_millis(499));
        names.try_lookup(Ino::ROOT, b"f").unwrap().unwrap();
        world.clock.advance(Duration::from_millis(1));
        assert!(names.try_lookup(Ino::ROOT, b"f").is_none());
        assert!(names.try_lookup(Ino::ROOT, b"g").is_none());
        world.store.put("g", 5);
        assert_eq!(names.lookup(Ino::ROOT, b"g").await.unwrap().size, 50);
        assert_eq!(names.ttl().entry, Duration::from_millis(500));
    });
}

/// Broken: a thousand workers that open one file send a thousand requests.
#[test]
fn equal_questions_are_asked_once() {
    let world = World::new("", (0..2_500).map(|n| format!("k{n:04}")));
    world.store.slow.store(true, Ordering::Relaxed);
    runtime().block_on(async {
        let names = world.mount();
        let answers = join_all((0..100).map(|_| names.lookup(Ino::ROOT, b"k0001"))).await;
        let first = answers[0].as_ref().unwrap().ino;
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().unwrap().ino == first)
        );
        assert_eq!(world.requests(), (1, 1));
        let scans = join_all((0..20).map(|_| list(&names, Ino::ROOT, 700))).await;
        assert!(
            scans
                .iter()
                .all(|scan| scan.as_ref().unwrap().len() == 2_500)
        );
        assert_eq!(world.requests(), (0, 1));
        // A waiter that goes away does not take the answer from the others.
        world.clock.advance(Duration::from_secs(1));
        let mut gone = Box::pin(names.lookup(Ino::ROOT, b"k0002"));
        assert!(futures::poll!(&mut gone).is_pending());
        let other = names.lookup(Ino::ROOT, b"k0002");
        let (_, other) = tokio::join!(async { drop(gone) }, other);
        other.unwrap();
    });
}

/// Broken: opening each file of a small directory costs two requests per file and second.
#[test]
fn small_directories_are_looked_up_by_listing_them() {
    let world = World::new("", (0..50).map(|n| format!("s/k{n:02}")));
    runtime().block_on(async {
        let names = world.mount();
        let directory = walk(&names, "s").await.unwrap().ino;
        for round in 0..3 {
            for n in 0..50 {
                let name = format!("k{n:02}");
                names.lookup(directory, name.as_bytes()).await.unwrap();
            }
            let (heads, lists) = world.requests();
            assert!(
                heads + lists <= 12,
                "{heads} heads, {lists} listings in round {round}"
            );
            world.clock.advance(Duration::from_secs(1));
        }
    });
}

/// Broken: an epoch over a large directory costs two requests per file, or sees what was there when
/// the directory was listed.
#[test]
fn names_of_a_large_directory_are_asked_for_many_at_once() {
    let world = World::new("", (0..2_500).map(|n| format!("d/k{n:05}")));
    runtime().block_on(async {
        let names = world.mount();
        let directory = walk(&names, "d").await.unwrap().ino;
        let before = list(&names, directory, 500).await.unwrap();
        for round in 0..3_u64 {
            world.clock.advance(Duration::from_secs(2));
            world.store.put("d/k01200", 70_000 + round);
            world.store.put(&format!("d/k0120{round}-new"), 80_000);
            world.store.remove(&format!("d/k0130{round}"));
            world.store.put(&format!("d/k0140{round}/below"), 1);
            world.requests();
            for (n, old) in before.iter().enumerate() {
                let attr = names.lookup(directory, &old.name).await;
                match n as u64 {
                    1_200 => assert_eq!(attr.unwrap().size, (70_000 + round) * 10),
                    n if (1_300..=1_300 + round).contains(&n) => {
                        assert!(matches!(attr, Err(FsError::NotFound)));
                    }
                    n if (1_400..=1_400 + round).contains(&n) => {
                        assert_eq!(attr.unwrap().kind, Kind::Directory);
                    }
                    _ => assert_eq!(attr.unwrap().ino, old.attr.ino),
                }
            }
            let new = format!("k0120{round}-new");
            assert!(names.lookup(directory, new.as_bytes()).await.is_ok());
            let (heads, _) = world.requests();
            let stretches = world.store.stretches.swap(0, Ordering::Relaxed);
            assert!(
                heads <= 30 && (1..=6).contains(&stretches),
                "{heads} heads, {stretches} stretches in round {round}"
            );
        }
    });
}

/// Broken: a loader that asks for a few names of a large directory has thousands listed; or one that
/// may not list cannot read; or an outage looks like a missing file.
#[test]
fn few_names_are_asked_for_alone_and_refusals_are_no_absence() {
    let world = World::new("", (0..2_500).map(|n| format!("d/k{n:05}")));
    runtime().block_on(async {
        let names = world.mount();
        let directory = walk(&names, "d").await.unwrap().ino;
        list(&names, directory, 500).await.unwrap();
        let stretches = || world.store.stretches.swap(0, Ordering::Relaxed);
        for n in (0..2_500).step_by(300) {
            world.clock.advance(Duration::from_secs(2));
            let name = format!("k{n:05}");
            names.lookup(directory, name.as_bytes()).await.unwrap();
        }
        assert_eq!(stretches(), 0);
        world.clock.advance(Duration::from_secs(2));
        *world.store.list_failure.lock().unwrap() = Some(StoreErrorKind::Permission);
        for n in 0..20 {
            let name = format!("k{n:05}");
            names.lookup(directory, name.as_bytes()).await.unwrap();
        }
        assert!(stretches() > 0);
        world.store.fail(Some(StoreErrorKind::Unreachable));
        for n in 20..40 {
            let name = format!("k{n:05}");
            let answer = names.lookup(directory, name.as_bytes()).await;
            assert!(matches!(answer, Err(FsError::Store(_))));
        }
    });
}
