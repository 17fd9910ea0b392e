//! The live name space against a store in memory, without a kernel.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod listings;
mod lookups;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use support::{list, page, runtime};
use terrace_cache::store::StoreErrorKind;
use terrace_fuse::live::Opening;
use terrace_fuse::namespace::{FsError, Ino, Kind, Namespace};
use world::{World, keys, model, tree, walk};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Broken: a file is missing, is there twice, or has another kind than its keys say.
    #[test]
    fn listings_and_lookups_follow_the_keys(
        keys in keys(), pages in 1_usize..5, limit in 1_usize..5, ordered: bool, inside: bool,
    ) {
        let prefix = if inside { "a" } else { "" };
        let expected = model(prefix, &keys);
        let world = World::new(prefix, keys);
        world.store.page.store(pages, Ordering::Relaxed);
        world.store.ordered.store(ordered, Ordering::Relaxed);
        runtime().block_on(async {
            let names = world.mount();
            // Names one by one first: nothing is remembered yet.
            for (path, kind) in &expected {
                assert_eq!(walk(&names, path).await.unwrap().kind, *kind, "{path}");
                let missing = format!("{path}x");
                if !expected.contains_key(&missing) {
                    assert!(matches!(walk(&names, &missing).await, Err(FsError::NotFound | FsError::NotDirectory)));
                }
            }
            world.clock.advance(Duration::from_secs(9));
            let found = tree(&names, limit).await;
            let kinds: BTreeMap<_, _> = found.iter().map(|(path, (kind, _))| (path.clone(), *kind)).collect();
            assert_eq!(kinds, expected);
            for (path, (_, ino)) in &found {
                assert_eq!(walk(&names, path).await.unwrap().ino, *ino, "{path}");
            }
            // A worker that takes over knows the same numbers, and a later mount finds them again.
            drop(names);
            for opening in [Opening::TakeOver, Opening::Mount] {
                let names = world.open(opening);
                for (kind, ino) in found.values() {
                    assert_eq!(names.attr(*ino).unwrap().kind, *kind);
                }
                assert_eq!(tree(&names, limit + 1).await, found);
            }
        });
    }
}

/// Broken: an open file changes its meaning when its object is overwritten.
#[test]
fn a_new_version_is_a_new_inode_and_the_old_one_keeps_its_meaning() {
    let world = World::keys(&["d/f"]);
    runtime().block_on(async {
        let names = world.mount();
        let old = walk(&names, "d/f").await.unwrap();
        let object = names.object(old.ino).unwrap();
        world.store.put("d/f", 77);
        assert_eq!(
            walk(&names, "d/f").await.unwrap(),
            old,
            "within the time to live"
        );
        world.clock.advance(Duration::from_millis(500));
        let new = walk(&names, "d/f").await.unwrap();
        assert_ne!(new.ino, old.ino);
        assert_eq!((new.size, new.mtime_ns), (770, 77_000_000_000));
        assert_eq!(names.attr(old.ino).unwrap(), old);
        assert_eq!(names.object(old.ino).unwrap(), object);
        drop(names);
        let names = world.open(Opening::TakeOver);
        assert_eq!(names.object(old.ino).unwrap(), object);
        assert_eq!(walk(&names, "d/f").await.unwrap().ino, new.ino);
        // Back to the first version: back to its number.
        world.store.put("d/f", 1);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(walk(&names, "d/f").await.unwrap(), old);
    });
}

/// SEMANTICS S6.
/// Broken: an unreachable store looks like an empty one, and jobs go on without their data.
#[test]
fn an_unreachable_store_is_never_no_such_file() {
    let world = World::keys(&["d/f", "d/g"]);
    runtime().block_on(async {
        let names = world.mount();
        let known = walk(&names, "d/f").await.unwrap();
        let directory = walk(&names, "d").await.unwrap();
        world.clock.advance(Duration::from_secs(10));
        let kinds = [
            StoreErrorKind::Unreachable,
            StoreErrorKind::Permission,
            StoreErrorKind::Throttled,
            StoreErrorKind::Corrupt,
        ];
        for kind in kinds {
            world.store.fail(Some(kind));
            let is_it =
                |error: FsError| matches!(error, FsError::Store(error) if error.kind == kind);
            for name in [b"f", b"g", b"h"] {
                assert!(is_it(names.lookup(directory.ino, name).await.unwrap_err()));
            }
            assert!(is_it(list(&names, directory.ino, 10).await.unwrap_err()));
            assert!(is_it(names.check().await.unwrap_err()));
            assert_eq!(names.attr(known.ino).unwrap(), known);
            names.object(known.ino).unwrap();
        }
        world.store.fail(None);
        assert_eq!(list(&names, directory.ino, 10).await.unwrap().len(), 2);
        names.check().await.unwrap();
        // Who may only read still reads files by name.
        world.clock.advance(Duration::from_secs(10));
        let world = World::keys(&["f"]);
        *world.store.list_failure.lock().unwrap() = Some(StoreErrorKind::Permission);
        assert_eq!(walk(&world.mount(), "f").await.unwrap().kind, Kind::File);
    });
}

/// SEMANTICS S13.
/// Broken: two keys share a path, or a key climbs out of the mount.
#[test]
fn keys_that_cannot_be_paths_are_hidden_and_counted() {
    let long = "x".repeat(256);
    let hostile = [
        "a", "a/b", "./f", "../f", "a//b", "n\0l", &long, "empty/", "/lead",
    ];
    let world = World::keys(&hostile);
    runtime().block_on(async {
        let names = world.mount();
        let found: Vec<_> = tree(&names, 3).await.into_keys().collect();
        assert_eq!(found, ["a", "a/b", "empty"]);
        let stats = names.stats();
        assert_eq!((stats.hidden, stats.shadowed), (6, 1), "{stats:?}");
        assert!(names.lookup(Ino::ROOT, b"empty").await.unwrap().kind == Kind::Directory);
        for name in [&b".."[..], b".", b"a/b", b"n\0l", b"", b"\xff"] {
            assert!(matches!(
                names.lookup(Ino::ROOT, name).await,
                Err(FsError::NotFound)
            ));
        }
        let error = names.lookup(Ino::ROOT, long.as_bytes()).await;
        assert!(matches!(error, Err(FsError::NameTooLong)));
        let file = walk(&names, "a/b").await.unwrap();
        assert!(matches!(
            names.lookup(file.ino, b"x").await,
            Err(FsError::NotDirectory)
        ));
        assert!(matches!(
            list(&names, file.ino, 9).await,
            Err(FsError::NotDirectory)
        ));
        assert!(matches!(names.attr(Ino(1 << 40)), Err(FsError::Stale)));
        assert!(matches!(
            page(&names, Ino::ROOT, 999, 9).await,
            Err(FsError::Invalid(_))
        ));
    });
}

/// Broken: two mounts share a table and give one number two meanings; or a full table is emptied
/// under a kernel that still knows its numbers, or reuses them.
#[test]
fn the_table_is_exclusive_and_never_reuses_a_number() {
    let mut world = World::new("", (0..300).map(|n| format!("k{n:03}")));
    runtime().block_on(async {
        let names = world.mount();
        assert!(
            world
                .open_at(world.directory.path(), Opening::TakeOver)
                .is_err()
        );
        let old = list(&names, Ino::ROOT, 50).await.unwrap();
        drop(names);
        world.config.inodes = 100;
        let names = world.open(Opening::TakeOver);
        assert_eq!(names.attr(old[7].attr.ino).unwrap(), old[7].attr);
        drop(names);
        let names = world.open(Opening::Mount);
        assert!(matches!(names.attr(old[7].attr.ino), Err(FsError::Stale)));
        assert_eq!(names.attr(Ino::ROOT).unwrap().kind, Kind::Directory);
        drop(names);
        let names = world.open(Opening::TakeOver);
        let new = list(&names, Ino::ROOT, 50).await.unwrap();
        let most = old.iter().map(|entry| entry.attr.ino).max().unwrap();
        assert!(new.len() == 300 && new.iter().all(|entry| entry.attr.ino > most));
    });
}
