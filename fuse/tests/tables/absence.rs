//! A catalog that is down, slow, or refuses.

use std::time::Duration;

use terrace_cache::store::StoreErrorKind;
use terrace_fuse::live::Opening;
use terrace_fuse::namespace::{FsError, Namespace as _};

use crate::script::{Mood, World, names, number_of, runtime, walk};
use crate::support::list;

const DOWN: Mood = Mood::Fails(StoreErrorKind::Unreachable);

fn kind(error: &FsError) -> Option<StoreErrorKind> {
    match error {
        FsError::Store(error) => Some(error.kind),
        _ => None,
    }
}

// SEMANTICS S32: training stops when the catalog restarts, or a table "disappears" for a moment.
#[test]
fn what_was_seen_stays_while_the_catalog_is_down() {
    runtime().block_on(async {
        let world = World::new();
        let first = world.script.commit("ads.clicks", 1, &["a"]);
        world.script.commit("ads.views", 1, &["a"]);
        world.script.commit("ads.gone", 1, &["a"]);
        world.script.name("ads.clicks@prod", &first);
        let mut tree = world.mount();
        names(&tree, "ads").await;
        for path in ["ads/clicks/a", "ads/clicks@prod/a", "ads/clicks@v1/a"] {
            walk(&tree, path).await.unwrap();
        }
        world.script.remove("ads.gone");
        world.wait();
        assert!(matches!(
            walk(&tree, "ads/gone").await,
            Err(FsError::NotFound)
        ));
        // Now, for the next worker, and for a mount made while it is down.
        for opening in [None, Some(Opening::TakeOver), Some(Opening::Mount)] {
            if let Some(opening) = opening {
                tree = world.open(opening).unwrap();
            }
            world.script.mood(DOWN);
            world.wait();
            tree.check().await.unwrap();
            assert_eq!(names(&tree, "").await, ["ads"], "{opening:?}");
            assert_eq!(
                names(&tree, "ads").await,
                ["clicks", "views"],
                "{opening:?}"
            );
            for path in ["ads/clicks/a", "ads/clicks@prod/a", "ads/clicks@v1/a"] {
                world.wait();
                assert_eq!(number_of(&tree, path).await, 1, "{path}");
            }
            // Seen, and found to be gone: that is the last answer.
            assert!(matches!(
                walk(&tree, "ads/gone").await,
                Err(FsError::NotFound)
            ));
            let (since, why) = tree.status().catalog_down.unwrap();
            assert!(
                since > Duration::ZERO && why.contains("as the test wants it"),
                "{why}"
            );
            assert!(tree.status().stale_answers > 0);
        }
        world.script.mood(Mood::Answers);
        world.script.commit("ads.clicks", 2, &["a"]);
        world.wait();
        assert_eq!(number_of(&tree, "ads/clicks/a").await, 2);
        assert_eq!(tree.status().catalog_down, None);
    });
}

// SEMANTICS S32: "cannot be asked" would look like "does not exist", and pipelines would skip data.
#[test]
fn what_was_not_seen_is_an_error_and_not_absent() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a"]);
        world.script.commit("ads.views", 1, &["a"]);
        let tree = world.mount();
        walk(&tree, "ads/clicks").await.unwrap();
        world.script.mood(DOWN);
        for path in ["ads/views", "ads/clicks@v1", "web", "ads/clicks/a"] {
            world.wait();
            let error = walk(&tree, path).await.unwrap_err();
            let expected = match path {
                // Namespaces are known all together.
                "web" => None,
                _ => Some(StoreErrorKind::Unreachable),
            };
            assert_eq!(kind(&error), expected, "{path}: {error}");
        }
        // Nothing was ever seen here: the mount itself fails.
        let other = World::new();
        other.script.mood(DOWN);
        let error = other.mount().check().await.unwrap_err();
        assert_eq!(kind(&error), Some(StoreErrorKind::Unreachable));
    });
}

// Without it each lookup of a mount would wait for a dead catalog, one after the other.
#[test]
fn a_catalog_that_hangs_is_left_alone() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a"]);
        let tree = world.mount();
        names(&tree, "ads").await;
        walk(&tree, "ads/clicks/a").await.unwrap();
        world.wait();
        world.script.questions();
        world.script.mood(Mood::Hangs);
        assert_eq!(names(&tree, "ads").await, ["clicks"]);
        let asked = world.script.questions();
        assert!(asked > 0);
        // Within the pause nothing is asked, and everything known is answered.
        for step in 0..50 {
            world.clock.advance(Duration::from_millis(1));
            assert_eq!(number_of(&tree, "ads/clicks/a").await, 1, "{step}");
            let unknown = walk(&tree, "ads/views").await.unwrap_err();
            assert_eq!(kind(&unknown), Some(StoreErrorKind::Unreachable));
        }
        assert_eq!(world.script.questions(), 0);
        world.wait();
        assert_eq!(number_of(&tree, "ads/clicks/a").await, 1);
        assert!(world.script.questions() > 0, "it is tried again");
    });
}

// Without it a revoked token would go on reading, or a wrong one look like an outage.
#[test]
fn a_refusal_is_an_answer() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a"]);
        let tree = world.mount();
        walk(&tree, "ads/clicks/a").await.unwrap();
        world.wait();
        world.script.mood(Mood::Fails(StoreErrorKind::Permission));
        for path in ["ads/clicks", "ads"] {
            let error = walk(&tree, path).await.unwrap_err();
            assert_eq!(kind(&error), Some(StoreErrorKind::Permission), "{path}");
        }
        assert_eq!(tree.status().catalog_down, None);
    });
}

// Without it a damaged or lost snapshot on this node would make a version unreadable for ever.
#[test]
fn a_lost_or_damaged_snapshot_is_fetched_again() {
    runtime().block_on(async {
        let world = World::new();
        let version = world.script.commit("ads.clicks", 1, &["a", "b"]);
        let tree = world.mount();
        let before = walk(&tree, "ads/clicks/b").await.unwrap();
        let file = world.directory.path().join(version.manifest.hex());
        for damage in [None, Some(100), Some(0)] {
            match damage {
                None => std::fs::remove_file(&file).unwrap(),
                Some(length) => std::fs::write(&file, vec![7; length]).unwrap(),
            }
            let tree = world.take_over();
            assert!(tree.attr(before.ino).is_err());
            assert_eq!(walk(&tree, "ads/clicks/b").await.unwrap(), before);
            let root = walk(&tree, "ads/clicks").await.unwrap().ino;
            assert_eq!(list(&tree, root, 10).await.unwrap().len(), 2);
        }
    });
}
