//! What a tree is made of.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use terrace_fuse::materialize::{MaterializeError, neighbour, remove};

use crate::support::*;

/// Broken: a tree differs from its snapshot, or costs the bytes twice.
#[test]
fn a_tree_is_its_snapshot_in_links() {
    let world = World::new();
    let snapshot = snapshot(300, 1_000);
    let report = world.build(&snapshot);
    assert_eq!(
        (report.linked, report.copied, report.symlinks),
        (301, 1, 2),
        "{report:?}"
    );
    assert_eq!(report.directories, 34);
    check(&snapshot, &world.tree());
    let links = fs::metadata(world.tree().join("deep/er/big"))
        .unwrap()
        .nlink();
    assert_eq!(links, 2);
    // Again: nothing to do, nothing fetched.
    let reads = world.made.reads.load(Ordering::Relaxed);
    assert!(world.build(&snapshot).unchanged);
    assert_eq!(world.made.reads.load(Ordering::Relaxed), reads);
    // The objects stay as long as the tree does, also in the next process.
    let mut world = world;
    world.open();
    let object = |number| {
        use terrace_fuse::namespace::{Ino, Kind, Namespace as _};
        let file = |ino: &Ino| snapshot.attr(*ino).unwrap().kind == Kind::File;
        let mut files = (1..=snapshot.entries()).map(Ino).filter(file);
        snapshot
            .object(files.nth(number).unwrap())
            .unwrap()
            .digest()
    };
    assert!(!world.hot().evict(&object(5)).unwrap());
    remove(world.hot(), &world.tree()).unwrap();
    assert!(!world.tree().exists() && !neighbour(&world.tree()).exists());
    assert!(world.hot().evict(&object(5)).unwrap());
    let error = remove(world.hot(), &world.tree()).unwrap_err();
    assert!(matches!(error, MaterializeError::NotATree(_)), "{error}");
}

/// Broken: a second tree changes what the first one shows, or the hot tier stops trusting its files.
#[test]
fn trees_of_other_times_get_copies_and_leave_the_first_alone() {
    let mut world = World::new();
    let (first, second) = (snapshot(20, 1_000), snapshot(20, 2_000));
    let same = world.directory.path().join("same");
    world.build(&first);
    let report = world.try_build(&first, &same).unwrap();
    assert_eq!((report.linked, report.copied), (21, 1));
    let other = world.directory.path().join("other");
    let report = world.try_build(&second, &other).unwrap();
    assert_eq!((report.linked, report.copied), (0, 22), "{report:?}");
    for (snapshot, tree) in [(&first, &world.tree()), (&first, &same), (&second, &other)] {
        check(snapshot, tree);
    }
    // A clean restart believes every file without reading it: our links did not look like damage.
    let reads = world.made.reads.load(Ordering::Relaxed);
    world.open();
    let again = world.directory.path().join("again");
    world.try_build(&first, &again).unwrap();
    assert_eq!(world.made.reads.load(Ordering::Relaxed), reads);
    for tree in [&other, &same, &world.tree()] {
        remove(world.hot(), tree).unwrap();
    }
    check(&first, &again);
    assert_eq!(fs::metadata(again.join("deep/er/big")).unwrap().nlink(), 2);
}

/// Broken: a tree on another disk fails late or without a word about why.
#[test]
fn a_tree_on_another_file_system_is_refused() {
    let test = "a_tree_on_another_file_system_is_refused";
    let world = World::new();
    let memory = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let Some(other) = device(memory).filter(|_| device(memory) != device(world.directory.path()))
    else {
        println!("SKIP {test}: no second file system at {}", memory.display());
        return;
    };
    let directory = tempfile::tempdir_in(memory).unwrap();
    let tree = directory.path().join("tree");
    let error = world.try_build(&snapshot(3_000, 1_000), &tree).unwrap_err();
    assert!(
        matches!(error, MaterializeError::OtherFileSystem(_)),
        "{error} (device {other})"
    );
    assert!(
        world.made.reads.load(Ordering::Relaxed) < 100,
        "most was not even fetched"
    );
    remove(world.hot(), &tree).unwrap();
    assert!(!neighbour(&tree).exists());
}
