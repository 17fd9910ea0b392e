//! Contents that move and come back, and what is seen of them meanwhile.

use super::*;

// SEMANTICS S80, S81, S82, S85: without it a demotion would change what a file looks like, or a recall what it has.
#[tokio::test(flavor = "multi_thread")]
async fn contents_go_and_come_back() {
    let world = world!("contents_go_and_come_back");
    let bytes = contents(1, 9_000_001);
    world.write("d/file", &bytes);
    fs::set_permissions(world.below("d/file"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = world.fs.attributes(world.node("d/file"), None).unwrap();
    assert_eq!(
        world.demote("d/file").await.unwrap(),
        Moved::Away(9_000_001)
    );
    let below = fs::metadata(world.below("d/file")).unwrap();
    assert_eq!(below.len(), 0);
    let why = String::from_utf8(xattr(&world.below("d/file"), attribute::WHY).unwrap()).unwrap();
    assert!(
        why.contains("9000001 bytes") && why.contains("terrace volume recall"),
        "{why}"
    );
    let objects = world.objects();
    assert_eq!(objects.len(), 1);
    assert!(
        fs::read(&objects[0]).unwrap() == bytes,
        "the object is the contents"
    );
    let path = xattr(&objects[0], c"user.terrace.size").unwrap();
    assert_eq!(path, b"9000001");
    let shown = world.fs.attributes(world.node("d/file"), None).unwrap();
    assert_eq!(
        (shown.st_size, shown.st_mode),
        (before.st_size, before.st_mode)
    );
    assert_eq!(
        (shown.st_mtime, shown.st_mtime_nsec),
        (SECONDS, NANOSECONDS)
    );
    assert!(
        (1..=8).contains(&shown.st_blocks),
        "{} blocks",
        shown.st_blocks
    );
    let node = world.node("d/file");
    assert_eq!(world.fs.open_file(0, node, libc::O_RDONLY), Err(ELSEWHERE));
    let names = world.fs.xattr_names(node, 0).unwrap();
    assert!(
        !String::from_utf8_lossy(&names).contains("terrace"),
        "records are not listed"
    );
    assert!(world.read("d/file").await.unwrap() == bytes);
    let back = fs::metadata(world.below("d/file")).unwrap();
    assert_eq!(
        (back.len(), back.mtime(), back.mtime_nsec()),
        (9_000_001, SECONDS, NANOSECONDS)
    );
    assert!(back.atime() > SECONDS, "it was used");
    assert_eq!(xattr(&world.below("d/file"), attribute::WHY), None);
    // The copy spares the next upload.
    assert_eq!(
        world.demote("d/file").await.unwrap(),
        Moved::Away(9_000_001)
    );
    assert_eq!(world.objects(), objects);
    assert!(world.read("d/file").await.unwrap() == bytes);
}

// SEMANTICS S86: without it eight programs that open one file would fetch it eight times.
#[tokio::test(flavor = "multi_thread")]
async fn contents_come_once_for_all_who_wait() {
    let world = world!("contents_come_once_for_all_who_wait");
    let bytes = contents(7, 3 << 20);
    world.write("file", &bytes);
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(_))));
    let before = world.store.stats().bytes;
    let node = world.node("file");
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let fs = Arc::clone(&world.fs);
            tokio::spawn(async move { fs.recall(node).await })
        })
        .collect();
    for opener in openers {
        opener.await.unwrap().unwrap();
    }
    assert_eq!(world.store.stats().bytes - before, 3 << 20, "read once");
    let status = world.fs.tier_status().unwrap();
    assert_eq!(
        (status.recalled_files, status.recalled_bytes, status.waited),
        (1, 3 << 20, 8)
    );
    assert!(world.read("file").await.unwrap() == bytes);
}

// SEMANTICS S81: without it listing or measuring a tree would bring it back.
#[tokio::test(flavor = "multi_thread")]
async fn looking_at_files_brings_nothing_back() {
    let world = world!("looking_at_files_brings_nothing_back");
    for number in 0..20 {
        let name = format!("f{number}");
        world.write(&name, &contents(number, 10_000));
        assert!(matches!(world.demote(&name).await, Ok(Moved::Away(_))));
    }
    let before = world.store.stats().bytes;
    let listing = world.fs.open_listing(ROOT).unwrap();
    let mut lengths = Vec::new();
    let mut tell = |row: &crate::directory::Row<'_>| {
        lengths.extend(row.entry.map(|entry| entry.stat.st_size));
        true
    };
    world.fs.list((ROOT, listing), 0, true, &mut tell).unwrap();
    world.fs.close_listing(listing);
    assert_eq!(lengths, [10_000; 20]);
    // Names, owners, modes and times change without contents.
    let node = world.node("f0");
    let change = Change {
        mode: Some(0o600),
        uid: Some(7),
        gid: None,
        size: None,
        times: [
            OMIT,
            libc::timespec {
                tv_sec: 99,
                tv_nsec: 5,
            },
        ],
        fh: None,
    };
    let stat = world.fs.change(node, &change).unwrap();
    assert_eq!((stat.st_size, stat.st_mtime, stat.st_uid), (10_000, 99, 7));
    world.fs.rename(3, (ROOT, b"f0"), (ROOT, b"g0"), 0).unwrap();
    world.fs.link(4, node, ROOT, b"h0").unwrap();
    world.fs.remove(5, ROOT, b"g0", false).unwrap();
    assert_eq!(world.length("h0"), 10_000);
    assert_eq!(world.store.stats().bytes, before);
    assert!(world.read("h0").await.unwrap() == contents(0, 10_000));
    assert_eq!(fs::metadata(world.below("h0")).unwrap().mtime(), 99);
}

// SEMANTICS S87: without it a file would be emptied under whoever reads it, here or on another node.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_stays() {
    let world = world!("what_is_open_stays");
    world.write("file", &contents(1, 5000));
    let node = world.node("file");
    let opened = world.fs.open_file(1, node, libc::O_RDONLY).unwrap();
    assert_eq!(world.demote("file").await.unwrap(), Moved::Kept(Kept::Open));
    world.fs.release(opened.fh);
    // Another node: another instance, which knows nothing of this one.
    let script = Arc::new(Script::default());
    let (_, other) = open(world.place.path(), "other", &script, &[]).await;
    let node = other.lookup(ROOT, b"file").unwrap().entry().unwrap().node;
    for flags in [libc::O_RDONLY, libc::O_WRONLY] {
        let opened = other.open_file(1, node, flags).unwrap();
        assert_eq!(world.demote("file").await.unwrap(), Moved::Kept(Kept::Open));
        other.release(opened.fh);
    }
    // A program without Terrace.
    let program = File::open(world.below("file")).unwrap();
    assert_eq!(world.demote("file").await.unwrap(), Moved::Kept(Kept::Open));
    drop(program);
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(5000))));
    // Both bring it back at once.
    let (one, two) = tokio::join!(world.fs.recall(node), other.recall(node));
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert!(world.read("file").await.unwrap() == contents(1, 5000));
}

// SEMANTICS S82: without it truncating a stub would fetch what is thrown away, or keep what is not.
#[tokio::test(flavor = "multi_thread")]
async fn truncating_takes_only_what_it_needs() {
    let world = world!("truncating_takes_only_what_it_needs");
    let truncate = |node, size| {
        let change = Change {
            mode: None,
            uid: None,
            gid: None,
            size: Some(size),
            times: [OMIT, OMIT],
            fh: None,
        };
        world.fs.change(node, &change)
    };
    world.write("file", &contents(1, 5000));
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(5000))));
    let node = world.node("file");
    assert_eq!(truncate(node, 100).unwrap_err(), ELSEWHERE);
    world.fs.recall(node).await.unwrap();
    assert_eq!(truncate(node, 100).unwrap().st_size, 100);
    assert!(world.read("file").await.unwrap() == contents(1, 5000)[..100]);
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(100))));
    let before = world.store.stats().bytes;
    assert_eq!(truncate(node, 0).unwrap().st_size, 0);
    assert_eq!(world.store.stats().bytes, before);
    assert_eq!(world.read("file").await.unwrap(), b"");
    // By an open, also by one that only reads; of a stub and of a file.
    for name in ["stub", "file2"] {
        world.write(name, &contents(2, 5000));
    }
    assert!(matches!(world.demote("stub").await, Ok(Moved::Away(5000))));
    let before = world.store.stats().bytes;
    for name in ["stub", "file2"] {
        let node = world.node(name);
        let flags = libc::O_RDONLY | libc::O_TRUNC;
        let opened = world.fs.open_file(1, node, flags).unwrap();
        world.fs.release(opened.fh);
        assert_eq!(world.read(name).await.unwrap(), b"", "{name}");
    }
    assert_eq!(world.store.stats().bytes, before);
}
