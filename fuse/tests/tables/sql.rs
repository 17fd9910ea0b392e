//! `.iceberg/` of a version.

use terrace_cache::Source as _;
use terrace_cache::store::StoreErrorKind;
use terrace_fuse::namespace::{FsError, Kind, Namespace as _};

use crate::bytes;
use crate::script::{Mood, World, names, runtime, walk};

const FILE: &str = "ads/clicks@v1/.iceberg/at_mnt.snap.avro";

// Without it an engine would find no metadata beside the files, or a user would see it in every listing.
#[test]
fn made_files_are_found_and_not_listed() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a"]);
        let big = "0123456789".repeat(100_000);
        world.script.report_is(&big);
        let tree = world.mount();
        assert_eq!(names(&tree, "ads/clicks@v1").await, ["a"]);
        let directory = walk(&tree, "ads/clicks@v1/.iceberg").await.unwrap();
        assert_eq!(directory.kind, Kind::Directory);
        let file = walk(&tree, FILE).await.unwrap();
        assert_eq!((file.kind, file.size), (Kind::File, 1_000_000));
        assert_eq!(bytes(&tree, file.ino).await, big.as_bytes());
        assert!(names(&tree, "ads/clicks@v1/.iceberg").await.is_empty());
        for none in ["at_mnt.none", "x/y", "\u{1}", &"x".repeat(300)] {
            let found = walk(&tree, &format!("ads/clicks@v1/.iceberg/{none}")).await;
            assert!(found.is_err(), "{none}");
        }
        // Known names and bytes need no catalog, and the next worker serves the same inode.
        world.script.mood(Mood::Fails(StoreErrorKind::Unreachable));
        assert_eq!(walk(&tree, FILE).await.unwrap(), file);
        world.script.mood(Mood::Answers);
        let again = world.take_over();
        assert_eq!(again.attr(file.ino).unwrap(), file);
        assert_eq!(bytes(&again, file.ino).await, big.as_bytes());
        assert_eq!(walk(&again, FILE).await.unwrap(), file);
    });
}

// Without it a catalog that makes other bytes than before would change a file under its readers.
#[test]
fn other_bytes_are_another_file() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a"]);
        world.script.report_is("one");
        let file = walk(&world.mount(), FILE).await.unwrap();
        world.script.report_is("two");
        let tree = world.take_over();
        let object = tree.object(file.ino).unwrap();
        let read = tree.source().read(&object, 0..3).await;
        assert!(matches!(&read, Err(error) if error.kind == StoreErrorKind::NotFound));
        let now = walk(&tree, FILE).await.unwrap();
        assert_ne!(now.ino, file.ino);
        assert_eq!(bytes(&tree, now.ino).await, b"two");
        world.script.mood(Mood::Fails(StoreErrorKind::Unreachable));
        let down = walk(&tree, "ads/clicks@v1/.iceberg/at_mnt.m-0.avro").await;
        assert!(matches!(&down, Err(FsError::Store(_))), "{down:?}");
    });
}
