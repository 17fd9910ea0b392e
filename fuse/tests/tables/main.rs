//! The name space of a catalog against a scripted one, without a kernel.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod about;
mod absence;
mod hub;
mod script;
mod sql;

use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use futures::future::join_all;
use script::{World, names, number_of, runtime, walk};
use support::{list, page};
use terrace_cache::Source as _;
use terrace_fuse::namespace::{FsError, Ino, Kind, Namespace as _};
use terrace_fuse::tables::TableTree;

/// All bytes of a made-up file, read as the cache reads them.
async fn bytes(tree: &TableTree, ino: Ino) -> Vec<u8> {
    let object = tree.object(ino).unwrap();
    let (source, size) = (tree.source(), object.size());
    assert_eq!(size, tree.attr(ino).unwrap().size);
    let mut all = Vec::new();
    // In two ranges: a reader may begin anywhere.
    for range in [0..size / 2, size / 2..size] {
        if range.is_empty() {
            continue;
        }
        let mut pieces = source.read(&object, range).await.unwrap();
        while let Some(piece) = pieces.next().await {
            all.extend_from_slice(&piece.unwrap());
        }
    }
    all
}

// Without it a mount would show other tables than the catalog has, or versions under wrong names.
#[test]
fn tables_are_directories_and_versions_have_names() {
    runtime().block_on(async {
        let world = World::new();
        let first = world.script.commit("ads.clicks", 1, &["dt=1/a", "dt=1/b"]);
        world.script.commit("ads.clicks", 2, &["dt=1/a", "dt=2/a"]);
        world.script.commit("ads.views", 7, &["x"]);
        world.script.commit("web.logs", 1, &["x"]);
        world.script.name("ads.clicks@prod", &first);
        world.script.name("ads.clicks@2026-11-20", &first);
        let tree = world.mount();
        assert_eq!(names(&tree, "").await, ["ads", "web"]);
        assert_eq!(names(&tree, "ads").await, ["clicks", "views"]);
        // Listed and looked at, and no list of files was needed.
        assert_eq!(world.script.fetched.load(Ordering::Relaxed), 0);
        assert_eq!(names(&tree, "ads/clicks").await, ["dt=1", "dt=2"]);
        assert_eq!(names(&tree, "ads/clicks/dt=1").await, ["a"]);
        for name in ["ads/clicks@v1", "ads/clicks@prod", "ads/clicks@2026-11-20"] {
            assert_eq!(
                names(&tree, &format!("{name}/dt=1")).await,
                ["a", "b"],
                "{name}"
            );
            assert_eq!(
                number_of(&tree, &format!("{name}/dt=1/b")).await,
                1,
                "{name}"
            );
        }
        assert_eq!(number_of(&tree, "ads/clicks/dt=1/a").await, 2);
        // Versions with the same files share one list of them.
        assert_eq!(world.script.fetched.load(Ordering::Relaxed), 2);
        assert_eq!(world.script.announced.load(Ordering::Relaxed), 2);
        let file = walk(&tree, "ads/clicks@v1/dt=1/a").await.unwrap();
        assert_eq!((file.kind, file.size, file.mode), (Kind::File, 10, 0o444));
        let object = tree.object(file.ino).unwrap();
        assert_eq!(
            object.to_string(),
            "s3://bucket/warehouse/ads.clicks/dt=1/a"
        );
        assert_eq!(&*tree.dataset(file.ino).unwrap().0, "ads.clicks");
        let attributes = tree.attributes(file.ino).unwrap();
        let digest = object.digest().hex().into_bytes();
        let expected = [
            ("user.terrace.version", b"v1".to_vec()),
            ("user.terrace.digest", digest),
        ];
        assert_eq!(
            attributes,
            expected.map(|(name, value)| (name.to_owned(), value))
        );
    });
}

// Without it a hostile or mistyped name could reach another table, or show one under two inodes.
#[test]
fn names_that_are_none_are_absent() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a"]);
        for hostile in ["..", "a/b", "", "Ads", "x\0", &"n".repeat(300)] {
            world.script.namespace(hostile);
        }
        let tree = world.mount();
        assert_eq!(names(&tree, "").await, ["ads"]);
        let (ads, clicks) = (
            walk(&tree, "ads").await.unwrap(),
            walk(&tree, "ads/clicks").await.unwrap(),
        );
        for parent in [Ino::ROOT, ads.ino, clicks.ino] {
            let long = "n".repeat(256);
            let found = tree.lookup(parent, long.as_bytes()).await;
            assert!(matches!(found, Err(FsError::NameTooLong)), "{found:?}");
            for name in [
                &b"clicks@latest"[..],
                b"clicks@v01",
                b"clicks@",
                b"clicks@v2",
                b"clicks@prod",
                b"clicks@2026-02-30",
                b"clicks.x",
                b"Clicks",
                b"..",
                b"",
                b"cli\xff",
                b".hidden",
            ] {
                let found = tree.lookup(parent, name).await;
                assert!(
                    matches!(found, Err(FsError::NotFound)),
                    "{name:?}: {found:?}"
                );
            }
        }
        let file = walk(&tree, "ads/clicks/a").await.unwrap();
        let below = tree.lookup(file.ino, b"x").await;
        assert!(matches!(below, Err(FsError::NotDirectory)), "{below:?}");
        let listed = list(&tree, file.ino, 10).await;
        assert!(matches!(listed, Err(FsError::NotDirectory)), "{listed:?}");
        // Numbers that were never given.
        for ino in [
            0,
            3,
            1 << 33,
            (1 << 60) - 1,
            clicks.ino.0 + 1000,
            clicks.ino.0 + (2 << 32),
        ] {
            let attr = tree.attr(Ino(ino));
            assert!(matches!(attr, Err(FsError::Stale)), "{ino}: {attr:?}");
        }
        // A cookie of another directory.
        let lost = page(&tree, ads.ino, 1, 10).await;
        assert!(matches!(lost, Err(FsError::Invalid(_))), "{lost:?}");
    });
}

// SEMANTICS S30: a job would read a mix of two versions when a table moves on under it.
#[test]
fn a_flip_is_whole_and_what_is_open_stays() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a", "b", "c", "d"]);
        let tree = world.mount();
        let old = walk(&tree, "ads/clicks").await.unwrap();
        let begun = page(&tree, old.ino, 0, 2).await.unwrap();
        let open = walk(&tree, "ads/clicks/a").await.unwrap();
        world.script.commit("ads.clicks", 2, &["a", "e"]);
        // Believed for the time to live, then seen at once and whole.
        assert_eq!(walk(&tree, "ads/clicks").await.unwrap(), old);
        world.wait();
        let new = walk(&tree, "ads/clicks").await.unwrap();
        assert_ne!(new.ino, old.ino);
        assert_eq!(names(&tree, "ads/clicks").await, ["a", "e"]);
        assert_eq!(number_of(&tree, "ads/clicks/a").await, 2);
        // The scan goes on in the version it began in; so do the handle and relative paths.
        let rest = page(&tree, old.ino, begun[1].next, 10).await.unwrap();
        let rest: Vec<&[u8]> = rest.iter().map(|entry| &*entry.name).collect();
        assert_eq!(rest, [b"c", b"d"]);
        let object = tree.object(open.ino).unwrap();
        assert_eq!(object.version, support::version(1));
        assert!(tree.lookup(old.ino, b"d").await.is_ok());
        assert!(matches!(
            tree.lookup(new.ino, b"d").await,
            Err(FsError::NotFound)
        ));
        // Back again: the same version is the same inode.
        let back = world.script.commit("ads.clicks", 1, &["a", "b", "c", "d"]);
        world.script.name("ads.clicks", &back);
        world.wait();
        assert_eq!(walk(&tree, "ads/clicks").await.unwrap(), old);
    });
}

// Without it a job that lists a name space while tables come and go would miss or repeat tables.
#[test]
fn a_scan_shows_each_lasting_table_once() {
    runtime().block_on(async {
        let world = World::new();
        for table in ["b", "d", "f", "h"] {
            world.script.commit(&format!("ads.{table}"), 1, &["x"]);
        }
        let tree = world.mount();
        let ads = walk(&tree, "ads").await.unwrap().ino;
        let begun = page(&tree, ads, 0, 2).await.unwrap();
        let shown = |entries: &[terrace_fuse::namespace::DirEntry]| {
            let names = entries
                .iter()
                .map(|e| String::from_utf8(e.name.clone()).unwrap());
            names.collect::<Vec<_>>()
        };
        assert_eq!(shown(&begun), ["b", "d"]);
        // `d`, behind which the scan goes on, moves on and then goes; others come and go.
        world.script.commit("ads.d", 2, &["y"]);
        world.script.commit("ads.a", 1, &["x"]);
        world.script.commit("ads.g", 1, &["x"]);
        world.script.remove("ads.f");
        world.wait();
        assert_eq!(names(&tree, "ads").await, ["a", "b", "d", "g", "h"]);
        world.script.remove("ads.d");
        world.wait();
        let rest = page(&tree, ads, begun[1].next, 10).await.unwrap();
        assert_eq!(shown(&rest), ["g", "h"]);
    });
}

// SEMANTICS S31: every number that the kernel holds would be stale, or mean another file, after a crash.
#[test]
fn numbers_survive_the_death_of_the_worker() {
    runtime().block_on(async {
        let world = World::new();
        let first = world.script.commit("ads.clicks", 1, &["dt=1/a", "dt=2/b"]);
        world.script.name("ads.clicks@prod", &first);
        let tree = world.mount();
        let mut known = Vec::new();
        for path in [
            "",
            "ads",
            "ads/clicks",
            "ads/clicks/dt=2/b",
            "ads/clicks@prod/dt=1/a",
            ".hf",
        ] {
            let attr = walk(&tree, path).await.unwrap();
            let object = (attr.kind == Kind::File).then(|| tree.object(attr.ino).unwrap());
            known.push((path, attr, object));
        }
        world.script.commit("ads.clicks", 2, &["dt=3/c"]);
        world.wait();
        walk(&tree, "ads/clicks/dt=3/c").await.unwrap();
        drop(tree);
        world.script.questions();
        let tree = world.take_over();
        for (path, attr, object) in &known {
            assert_eq!(tree.attr(attr.ino).unwrap(), *attr, "{path}");
            if let Some(object) = object {
                assert_eq!(tree.object(attr.ino).unwrap(), *object, "{path}");
            }
        }
        assert_eq!(world.script.questions(), 0, "numbers need no catalog");
        // A pinned name means the same to the new worker.
        let pinned = walk(&tree, "ads/clicks@prod/dt=1/a").await.unwrap();
        assert!(known.iter().any(|(_, attr, _)| *attr == pinned));
    });
}

// Without it a training job that opens one path on every rank would ask the catalog as often.
#[test]
fn equal_questions_are_asked_once() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a"]);
        let tree = world.mount();
        let ads = walk(&tree, "ads").await.unwrap().ino;
        world.script.questions();
        let asked = join_all((0..50).map(|_| tree.lookup(ads, b"clicks"))).await;
        assert!(asked.iter().all(Result::is_ok));
        assert_eq!(world.script.questions(), 1);
        let clicks = walk(&tree, "ads/clicks").await.unwrap().ino;
        let opened = join_all((0..50).map(|_| tree.lookup(clicks, b"a"))).await;
        assert!(opened.iter().all(Result::is_ok));
        assert_eq!(world.script.fetched.load(Ordering::Relaxed), 1);
        // Memory answers within the time to live, and files of a version for ever.
        assert!(tree.try_lookup(ads, b"clicks").is_some());
        world.wait();
        assert!(tree.try_lookup(ads, b"clicks").is_none());
        assert!(tree.try_lookup(clicks, b"a").is_some());
        assert!(tree.ttl_in(clicks).entry > tree.ttl_in(ads).entry);
        assert!(tree.ttl_in(clicks).cache_directories && !tree.ttl().cache_directories);
    });
}
