//! Steps that end in the middle, stores that fail, records that are damaged.

use super::*;
use crate::directory::Asker;

// SEMANTICS S83: without it a worker that dies while it moves a file loses it.
#[tokio::test(flavor = "multi_thread")]
async fn no_step_loses_anything_when_the_process_dies_there() {
    let mut world = world!("no_step_loses_anything_when_the_process_dies_there");
    let steps = [
        Step::Verified,
        Step::Copied,
        Step::Explained,
        Step::Demoting,
        Step::Emptied,
        Step::Dated,
        Step::Stubbed,
        Step::Recalling,
        Step::Fetched,
        Step::Filled,
        Step::Returned,
        Step::Recalled,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let name = format!("file{number}");
        let bytes = contents(number as u8, 9 << 20);
        world.write(&name, &bytes);
        if step >= Step::Recalling {
            assert!(matches!(world.demote(&name).await, Ok(Moved::Away(_))));
        }
        *world.script.stop.lock().unwrap() = Some(step);
        if step >= Step::Recalling {
            world.read(&name).await.unwrap_err();
        } else {
            assert!(
                matches!(world.demote(&name).await, Err(TierError::Stopped)),
                "{step:?}"
            );
        }
        let hits = world.script.hits.load(Ordering::Relaxed);
        assert_eq!(hits, number + 1, "{step:?} was passed once");
        world.restart().await;
        if step != Step::Fetched {
            assert_eq!(world.length(&name), 9 << 20, "{step:?}");
        }
        let stat = world.fs.attributes(world.node(&name), None).unwrap();
        if step < Step::Recalling || step >= Step::Returned {
            assert_eq!(
                (stat.st_mtime, stat.st_mtime_nsec),
                (SECONDS, NANOSECONDS),
                "{step:?}"
            );
        }
        assert!(world.read(&name).await.unwrap() == bytes, "{step:?}");
        let stat = world.fs.attributes(world.node(&name), None).unwrap();
        assert_eq!(
            (stat.st_mtime, stat.st_mtime_nsec),
            (SECONDS, NANOSECONDS),
            "{step:?}"
        );
        // And it can go again.
        assert_eq!(
            world.demote(&name).await.unwrap(),
            Moved::Away(9 << 20),
            "{step:?}"
        );
        assert!(world.read(&name).await.unwrap() == bytes, "{step:?}");
    }
}

// SEMANTICS S88: without it a store that lost or changed an object would be read as something else, or
// would take the stub along.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_changes_nothing() {
    let world = world!("a_store_that_fails_changes_nothing");
    world.write("file", &contents(1, 6 << 20));
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(_))));
    let object = world.objects().remove(0);
    let aside = world.place.path().join("aside");
    fs::rename(&object, &aside).unwrap();
    assert_eq!(
        world.read("file").await,
        Err(Errno::EIO),
        "the object is gone"
    );
    assert_eq!(world.length("file"), 6 << 20);
    fs::rename(&aside, &object).unwrap();
    let damaged = File::options().write(true).open(&object).unwrap();
    damaged.write_all_at(b"!", 5 << 20).unwrap();
    assert_eq!(world.read("file").await, Err(Errno::EIO), "other bytes");
    assert_eq!(fs::metadata(world.below("file")).unwrap().len(), 0);
    assert_eq!(world.length("file"), 6 << 20);
    damaged
        .write_all_at(&contents(1, 6 << 20)[5 << 20..][..1], 5 << 20)
        .unwrap();
    assert!(world.read("file").await.unwrap() == contents(1, 6 << 20));
    assert_eq!(world.fs.tier_status().unwrap().recalls_failed, 2);
}

// SEMANTICS S89: without it a damaged record would be read as an empty file, or destroy one.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_an_error_and_nothing_else() {
    let world = world!("a_damaged_record_is_an_error_and_nothing_else");
    world.write("file", &contents(1, 5000));
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(_))));
    let path = world.below("file");
    let name = c"trusted.terrace.cold";
    let good = xattr(&path, name).unwrap();
    let set = |value: &[u8]| {
        sys::set_xattr(File::open(&path).unwrap().as_fd(), name, value, 0).unwrap();
    };
    let mut bad = vec![good[..20].to_vec(), Vec::new(), vec![0xff; 3000]];
    for at in [0, 5, 8, 40, good.len() - 1] {
        let mut flipped = good.clone();
        flipped[at] ^= 4;
        bad.push(flipped);
    }
    let node = world.node("file");
    for value in bad {
        set(&value);
        assert_eq!(world.fs.open_file(0, node, libc::O_RDONLY), Err(Errno::EIO));
        assert_eq!(world.fs.recall(node).await, Err(Errno::EIO));
        world.fs.attributes(node, None).unwrap();
        let (told, _heard) = mpsc::channel(4);
        let collection = Collection {
            grace: Duration::ZERO,
            dry_run: false,
        };
        world.fs.collect(collection, &told).await.unwrap_err();
        assert_eq!(xattr(&path, name).unwrap(), value, "nothing was changed");
        assert_eq!(world.objects().len(), 1);
    }
    // What has contents keeps them, whatever its record says.
    world.write("full", b"contents");
    sys::set_xattr(
        File::open(world.below("full")).unwrap().as_fd(),
        name,
        b"junk",
        0,
    )
    .unwrap();
    world.demote("full").await.unwrap_err();
    assert_eq!(fs::read(world.below("full")).unwrap(), b"contents");
    set(&good);
    assert!(world.read("file").await.unwrap() == contents(1, 5000));
    // Nobody sets it through the volume.
    let root = Asker {
        uid: 0,
        gid: 0,
        thread: 0,
    };
    for name in [
        &b"trusted.terrace.cold"[..],
        b"user.terrace.cold",
        b"user.terrace.why",
    ] {
        assert_eq!(
            world
                .fs
                .set_xattr((9, root), node, name, b"x", 0)
                .unwrap_err(),
            Errno::EPERM
        );
        assert_eq!(
            world.fs.remove_xattr(9, node, name).unwrap_err(),
            Errno::EPERM
        );
    }
}
