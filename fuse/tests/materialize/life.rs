//! What crashes leave, and what remove takes away.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::Ordering;
use terrace_fuse::materialize::{MaterializeError, neighbour, remove};

use crate::support::*;

/// Broken: a build that died leaves half a tree that looks whole, or one that is never cleaned up.
#[test]
fn what_a_crash_leaves_is_recognised_and_cleared() {
    let world = World::new();
    let snapshot = snapshot(100, 1_000);
    let (tree, home) = (world.tree(), neighbour(&world.tree()));
    // The store goes away in the middle: no tree, and what was begun is there.
    world.made.broken.store(1_050, Ordering::Relaxed);
    let error = world.try_build(&snapshot, &tree).unwrap_err();
    assert!(matches!(error, MaterializeError::Fetch { .. }), "{error}");
    assert!(!tree.exists() && home.join("tree").is_dir());
    world.made.broken.store(0, Ordering::Relaxed);
    world.build(&snapshot);
    check(&snapshot, &tree);
    // Died after "complete", before the rename: the tree is only moved.
    fs::rename(&tree, home.join("tree")).unwrap();
    assert!(world.build(&snapshot).unchanged);
    check(&snapshot, &tree);
    // Died while building, with the tree full of links.
    let journal = fs::read_to_string(home.join("journal")).unwrap();
    fs::rename(&tree, home.join("tree")).unwrap();
    fs::write(
        home.join("journal"),
        journal.replace("complete", "building"),
    )
    .unwrap();
    assert!(!world.build(&snapshot).unchanged);
    check(&snapshot, &tree);
    // Died while removing, before and after the rename.
    let journal = fs::read_to_string(home.join("journal")).unwrap();
    fs::write(
        home.join("journal"),
        journal.replace("complete", "removing"),
    )
    .unwrap();
    remove(world.hot(), &tree).unwrap();
    assert!(!tree.exists() && !home.exists());
    world.build(&snapshot);
    let journal = fs::read_to_string(home.join("journal")).unwrap();
    fs::write(
        home.join("journal"),
        journal.replace("complete", "removing"),
    )
    .unwrap();
    fs::rename(&tree, home.join("tree")).unwrap();
    fs::remove_dir_all(home.join("tree/class3")).unwrap();
    world.build(&snapshot);
    check(&snapshot, &tree);
    // Somebody deleted the tree by hand: its objects are let go, and it can be built again.
    fs::remove_dir_all(&tree).unwrap();
    assert!(!world.build(&snapshot).unchanged);
    check(&snapshot, &tree);
    remove(world.hot(), &tree).unwrap();
    assert_eq!(world.hot().usage().pinned, 0);
}

/// Broken: `remove` deletes what is not ours, or follows a link out of the tree.
#[test]
fn only_our_trees_are_removed() {
    let world = World::new();
    let snapshot = snapshot(10, 1_000);
    let outside = world.directory.path().join("precious");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("data"), b"x").unwrap();
    for tree in [&outside, &world.directory.path().join("missing")] {
        let error = remove(world.hot(), tree).unwrap_err();
        assert!(matches!(error, MaterializeError::NotATree(_)), "{error}");
    }
    let error = world.try_build(&snapshot, &outside).unwrap_err();
    assert!(matches!(error, MaterializeError::InTheWay(_)), "{error}");
    assert!(!neighbour(&outside).exists());
    // Another directory at the place of the tree.
    world.build(&snapshot);
    let aside = world.directory.path().join("aside");
    fs::rename(world.tree(), &aside).unwrap();
    fs::rename(&outside, world.tree()).unwrap();
    let error = remove(world.hot(), &world.tree()).unwrap_err();
    assert!(matches!(error, MaterializeError::InTheWay(_)), "{error}");
    fs::rename(world.tree(), &outside).unwrap();
    // A symbolic link at the place of the tree, and one inside it.
    symlink(&outside, world.tree()).unwrap();
    assert!(matches!(
        remove(world.hot(), &world.tree()),
        Err(MaterializeError::InTheWay(_))
    ));
    fs::remove_file(world.tree()).unwrap();
    fs::rename(&aside, world.tree()).unwrap();
    fs::set_permissions(world.tree(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir_all(world.tree().join("class0")).unwrap();
    symlink(&outside, world.tree().join("class0")).unwrap();
    remove(world.hot(), &world.tree()).unwrap();
    assert!(!world.tree().exists());
    assert_eq!(fs::read(outside.join("data")).unwrap(), b"x");
    // An empty directory is a place; another snapshot there is not replaced.
    fs::create_dir(world.tree()).unwrap();
    world.build(&snapshot);
    let other = self::snapshot(11, 1_000);
    let error = world.try_build(&other, &world.tree()).unwrap_err();
    assert!(
        matches!(error, MaterializeError::OtherSnapshot(_)),
        "{error}"
    );
    check(&snapshot, &world.tree());
}
