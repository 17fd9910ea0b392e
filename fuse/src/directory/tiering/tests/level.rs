//! Level `cold` of durability: copies that calls wait for, and what becomes of them.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::directory::{Call, Flushed};

const COLD: &[&str] = &["fsync=cold,close=cold"];

const SYNC: Call = Call::Sync { data_only: false };

impl World {
    /// Opens a file for writing.
    fn opened(&self, name: &str) -> HandleOf {
        let node = self.node(name);
        let opened = self.fs.open_file(0, node, libc::O_RDWR).unwrap();
        HandleOf {
            node,
            fh: opened.fh,
        }
    }

    /// What a call on a handle does, and what it answers.
    async fn call(&self, of: HandleOf, call: Call) -> Result<(), Errno> {
        match self.fs.settle_here(of, call)? {
            true => self.fs.reach_cold(of.node).await,
            false => Ok(()),
        }
    }

    fn level(&self, name: &str) -> String {
        let value = self.fs.xattr(self.node(name), b"user.terrace.durability");
        String::from_utf8(value.unwrap()).unwrap()
    }

    fn copies(&self) -> u64 {
        self.fs.tier_status().unwrap().copied_files
    }

    async fn flush(&self, path: &str, only_owed: bool) -> Flushed {
        let (tell, mut heard) = mpsc::channel(4);
        let listen = async { while heard.recv().await.is_some() {} };
        let work = async {
            let path = path.as_bytes().to_vec();
            let done = self.fs.flush_to_cold(path, only_owed, &tell).await;
            drop(tell);
            done.unwrap()
        };
        tokio::join!(work, listen).0
    }
}

fn is_one_of(objects: &[PathBuf], bytes: &[u8]) -> bool {
    objects.iter().any(|path| fs::read(path).unwrap() == bytes)
}

// SEMANTICS S93, S94: without it an fsync would return before its bytes are in the store, or a program would be
// told that they are when they are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_level_cold_leaves_a_checked_copy() {
    let world = world!("a_call_of_level_cold_leaves_a_checked_copy", COLD);
    let bytes = contents(1, 5_000_001);
    world.write("file", b"");
    assert_eq!(world.level("file"), "cold", "there is nothing to lose");
    let of = world.opened("file");
    world.fs.write(of, 0, &bytes).unwrap();
    assert_eq!(world.level("file"), "shared");
    world.call(of, SYNC).await.unwrap();
    assert_eq!(world.level("file"), "cold");
    assert!(is_one_of(&world.objects(), &bytes));
    // Nothing was written since.
    world.call(of, Call::Close).await.unwrap();
    assert_eq!((world.copies(), world.objects().len()), (1, 1));
    world.fs.write(of, 7, b"newer").unwrap();
    assert_eq!(world.level("file"), "shared");
    world.call(of, Call::Close).await.unwrap();
    let mut newer = bytes.clone();
    newer[7..12].copy_from_slice(b"newer");
    assert!(is_one_of(&world.objects(), &newer));
    assert_eq!(world.level("file"), "cold");
    // The same time and length do not hide other contents from a call.
    let stat = fs::metadata(world.below("file")).unwrap();
    fs::write(world.below("file"), &bytes).unwrap();
    let file = File::options().write(true).open(world.below("file"));
    let times = FileTimes::new().set_modified(stat.modified().unwrap());
    file.unwrap().set_times(times).unwrap();
    world.call(of, SYNC).await.unwrap();
    assert_eq!(world.copies(), 3);
    world.fs.release(of.fh);
    // A reader's close has nothing to wait for, and its fsync has.
    let node = world.node("file");
    let reader = world.fs.open_file(0, node, libc::O_RDONLY).unwrap();
    let of = HandleOf {
        node,
        fh: reader.fh,
    };
    assert_eq!(world.fs.settle_here(of, Call::Close), Ok(false));
    assert_eq!(world.fs.settle_here(of, SYNC), Ok(true));
    world.fs.release(of.fh);
    // Bytes that nobody can find again are not sent.
    let of = world.opened("file");
    fs::remove_file(world.below("file")).unwrap();
    assert_eq!(world.fs.settle_here(of, Call::Close), Ok(false));
    world.fs.release(of.fh);
}

// SEMANTICS S101: without it writes with O_SYNC would be answered without the copy that fsync promises.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_writes_synced_is_refused() {
    let world = world!("what_the_kernel_writes_synced_is_refused", COLD);
    world.write("file", b"x");
    let node = world.node("file");
    for flag in [libc::O_SYNC, libc::O_DSYNC] {
        let refused = world.fs.open_file(0, node, libc::O_RDWR | flag);
        assert_eq!(refused, Err(Errno::EOPNOTSUPP));
    }
    let read = world.fs.open_file(0, node, libc::O_RDONLY | libc::O_SYNC);
    world.fs.release(read.unwrap().fh);
}

// SEMANTICS S93: without it a process that dies in the middle of a copy would leave a file that says more of
// itself than is true, or that can never be copied.
#[tokio::test(flavor = "multi_thread")]
async fn no_step_of_a_copy_promises_too_much_when_the_process_dies_there() {
    let mut world = world!(
        "no_step_of_a_copy_promises_too_much_when_the_process_dies_there",
        COLD
    );
    for (number, step) in [Step::Verified, Step::Copied].into_iter().enumerate() {
        let name = format!("file{number}");
        let bytes = contents(number as u8, 300_000);
        world.write(&name, &bytes);
        *world.script.stop.lock().unwrap() = Some(step);
        let of = world.opened(&name);
        assert_eq!(world.call(of, SYNC).await, Err(Errno::EIO), "{step:?}");
        assert_eq!(
            world.script.hits.load(Ordering::Relaxed),
            number + 1,
            "{step:?}"
        );
        world.restart().await;
        let expected = if step == Step::Copied {
            "cold"
        } else {
            "shared"
        };
        assert_eq!(world.level(&name), expected, "{step:?}");
        let of = world.opened(&name);
        world.call(of, SYNC).await.unwrap();
        world.fs.release(of.fh);
        assert_eq!(world.level(&name), "cold", "{step:?}");
        assert!(is_one_of(&world.objects(), &bytes), "{step:?}");
        assert!(fs::read(world.below(&name)).unwrap() == bytes, "{step:?}");
    }
    // The object of the first attempt has no name, and goes.
    assert_eq!(world.objects().len(), 3);
    assert_eq!(world.collect(Duration::ZERO, false).await.taken, 1);
    assert!(is_one_of(&world.objects(), &contents(0, 300_000)));
}

// SEMANTICS S93: without it a copy of half an old and half a new version would pass for either.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_meanwhile_is_copied_again() {
    let world = world!("a_file_that_is_written_meanwhile_is_copied_again", COLD);
    world.write("file", &contents(1, 200_000));
    let path = world.below("file");
    let act: AtStep = Box::new(move || fs::write(path, contents(2, 150_000)).unwrap());
    *world.script.act.lock().unwrap() = Some((Step::Verified, act));
    let of = world.opened("file");
    world.call(of, SYNC).await.unwrap();
    assert_eq!(world.script.hits.load(Ordering::Relaxed), 1);
    assert_eq!(world.level("file"), "cold");
    assert!(is_one_of(&world.objects(), &contents(2, 150_000)));
}

// SEMANTICS S93: without it a program could wait for ever, or fail, because another one writes to the same
// file all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_all_the_time_is_copied_as_it_is() {
    let world = world!(
        "a_file_that_is_written_all_the_time_is_copied_as_it_is",
        COLD
    );
    world.write("file", &[1; 100_000]);
    let of = world.opened("file");
    world
        .fs
        .write(of, 50_000, b"written before the call")
        .unwrap();
    let (path, end) = (world.below("file"), Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&end);
    let writer = std::thread::spawn(move || {
        let file = File::options().write(true).open(path).unwrap();
        let mut wrote = 0_u64;
        while !ended.load(Ordering::Relaxed) {
            file.write_all_at(&[2; 512], wrote % 40 * 512).unwrap();
            wrote += 1;
        }
        wrote
    });
    let done = world.call(of, SYNC).await;
    end.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 0);
    done.unwrap();
    let has_it = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        bytes[50_000..].starts_with(b"written before the call")
    };
    assert!(world.objects().iter().any(has_it));
    // At rest, its copy is of all of it.
    world.call(of, SYNC).await.unwrap();
    assert_eq!(world.level("file"), "cold");
    assert!(is_one_of(
        &world.objects(),
        &fs::read(world.below("file")).unwrap()
    ));
}

// SEMANTICS S95: without it a failure would be told once to somebody who did not listen, and nobody would try
// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_kept_and_tried_again() {
    let world = world!("a_failure_is_kept_and_tried_again", COLD);
    world.write("deep/file", &contents(1, 10_000));
    let of = world.opened("deep/file");
    let below = File::open(world.below("deep/file")).unwrap();
    sys::set_xattr(below.as_fd(), c"trusted.terrace.cold", b"nonsense", 0).unwrap();
    assert_eq!(world.call(of, SYNC).await, Err(Errno::EIO));
    let debts = world.fs.cold_debts(b"deep").unwrap().unwrap();
    assert_eq!((debts.owed, debts.errors), (1, 1));
    assert_eq!(debts.list[0].name, "deep/file");
    assert!(debts.list[0].error.as_ref().unwrap().contains("record"));
    let failed = world.flush("", true).await;
    assert_eq!((failed.done, failed.total, failed.failed), (0, 1, 1));
    assert!(failed.error.starts_with("deep/file: "), "{}", failed.error);
    let paying = tokio::spawn(Arc::clone(&world.fs).pay_debts());
    sys::remove_xattr(below.as_fd(), c"trusted.terrace.cold").unwrap();
    while world.fs.cold_debts(b"").unwrap().unwrap().owed > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    paying.abort();
    assert_eq!(world.level("deep/file"), "cold");
    let debts = world.fs.cold_debts(b"").unwrap().unwrap();
    assert_eq!((debts.errors, debts.list[0].owed), (1, false));
    assert_eq!(world.fs.acknowledge_below(b"deep"), Ok(1));
    assert!(world.fs.cold_debts(b"").unwrap().unwrap().list.is_empty());
}

// SEMANTICS S93: without it a collection would take the only copy of bytes that a call was told are safe there,
// because the file was written since.
#[tokio::test(flavor = "multi_thread")]
async fn a_promised_copy_stays_until_there_is_a_newer_one() {
    for (rules, left) in [(COLD, 1), (&[][..], 0)] {
        let world = world!("a_promised_copy_stays_until_there_is_a_newer_one", rules);
        world.write("file", &contents(1, 10_000));
        assert_eq!(world.flush("", false).await.done, 1);
        fs::write(world.below("file"), "not synced").unwrap();
        for _ in 0..2 {
            world.collect(Duration::ZERO, false).await;
        }
        assert_eq!(world.objects().len(), left, "{rules:?}");
        assert_eq!(world.flush("", false).await.done, 1);
        world.collect(Duration::ZERO, false).await;
        assert!(is_one_of(&world.objects(), b"not synced"));
        assert_eq!(world.objects().len(), 1);
    }
}

// SEMANTICS S102: without it a flush would leave files behind, send what is there already, or bring back what
// is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_brought_to_the_level() {
    let world = world!("a_tree_is_brought_to_the_level");
    for name in ["d/one", "d/stub", "d/pinned", "other"] {
        world.write(name, &contents(1, 20_000));
    }
    world.write("d/empty", b"");
    world.demote("d/stub").await.unwrap();
    world.fs.pin(b"d/pinned".to_vec(), true).await.unwrap();
    let of = world.opened("d/one");
    let done = world.flush("d", false).await;
    assert_eq!(
        (done.done, done.total, done.failed),
        (4, 4, 0),
        "{}",
        done.error
    );
    assert_eq!(done.bytes, 60_000);
    for name in ["d/one", "d/stub", "d/pinned", "d/empty"] {
        assert_eq!(world.level(name), "cold", "{name}");
    }
    assert_eq!(world.level("other"), "shared");
    assert_eq!(fs::metadata(world.below("d/stub")).unwrap().len(), 0);
    assert_eq!(world.copies(), 2);
    world.flush("d", false).await;
    assert_eq!(world.copies(), 2, "nothing has changed");
    world.fs.release(of.fh);
    // The copy spares the upload when the file is moved.
    let before = world.objects().len();
    assert_eq!(world.demote("d/one").await.unwrap(), Moved::Away(20_000));
    assert_eq!(world.objects().len(), before);
}
