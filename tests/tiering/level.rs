//! Level `cold` of durability: calls that wait for the store, the store and the worker that go away
//! meanwhile, and the commands that bring files there.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::faults::hasty;
use crate::support::data::noise;
use crate::support::node::Node;
use crate::support::proxy::Proxy;
use crate::support::{need_hdfs, need_mount, need_s3};
use crate::{Volume, bytes_of};

/// Every call waits for the store.
const COLD: [&str; 2] = ["--durability", "fsync=cold,close=cold"];

/// Workers that die while a call waits for the store.
const KILLS: u32 = 5;

/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How safe a file is, as it says.
fn level(path: &Path) -> String {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut room = [0_u8; 64];
    // SAFETY: both strings end, and `room` is as long as said.
    let length = unsafe {
        nix::libc::getxattr(
            path.as_ptr(),
            c"user.terrace.durability".as_ptr(),
            room.as_mut_ptr().cast(),
            room.len(),
        )
    };
    let length = usize::try_from(length).unwrap_or_else(|_| {
        panic!("{path:?}: {}", std::io::Error::last_os_error());
    });
    String::from_utf8(room[..length].to_vec()).unwrap()
}

fn wait_for(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command that must fail, in one line; what it said.
fn refused(node: &Node, arguments: &[&str]) -> String {
    let output = node.terrace(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

impl Volume {
    /// A number of `terrace volume status --json`.
    fn debts(&self, name: &str) -> u64 {
        let mount = self.mount.to_str().unwrap();
        let said = self.node.succeed(&["volume", "status", "--json", mount]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said["cold"][name].as_u64().unwrap()
    }

    /// Whether the store has what this file has: its contents go and come back without an upload.
    fn comes_back(&self, path: &Path, bytes: &[u8]) {
        assert_eq!(level(path), "cold");
        let copied = self.cold("copied_files");
        assert_eq!(self.demote(&[path]), 1);
        let name = path.strip_prefix(&self.mount).unwrap();
        assert_eq!(self.length_below(name.to_str().unwrap()), 0);
        assert_eq!(level(path), "cold");
        assert!(fs::read(path).unwrap() == bytes, "{}", path.display());
        assert_eq!(
            (level(path), self.cold("copied_files")),
            ("cold".to_owned(), copied)
        );
    }
}

// SEMANTICS S93, S94: without it a program would be told that its bytes survive the shared file system when
// nobody has sent them.
#[test]
fn fsync_and_close_wait_for_the_bucket() {
    need_mount!("fsync_and_close_wait_for_the_bucket");
    let server = need_s3!("fsync_and_close_wait_for_the_bucket");
    let bucket = server.bucket("level");
    let volume = Volume::with(Node::new(), &bucket.url("cold"), &COLD);
    let bytes = noise(1, 19 << 20);
    let path = volume.mount.join("synced");
    let mut file = File::create(&path).unwrap();
    file.write_all(&bytes).unwrap();
    assert_eq!(level(&path), "shared");
    file.sync_all().unwrap();
    assert_eq!(
        (level(&path), volume.cold("copied_files")),
        ("cold".to_owned(), 1)
    );
    file.sync_data().unwrap();
    drop(file);
    assert_eq!(volume.cold("copied_files"), 1, "nothing was written since");
    let closed = volume.write("closed", &bytes_of(3));
    assert_eq!(volume.cold("copied_files"), 2);
    volume.comes_back(&path, &bytes);
    volume.comes_back(&closed, &bytes_of(3));
    // Contents that a program has mapped are no less safe.
    let file = File::options()
        .read(true)
        .write(true)
        .open(&closed)
        .unwrap();
    // SAFETY: nobody else writes to the file.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap();
    map[..6].copy_from_slice(b"mapped");
    file.sync_all().unwrap();
    drop((map, file));
    let mut mapped = bytes_of(3);
    mapped[..6].copy_from_slice(b"mapped");
    volume.comes_back(&closed, &mapped);
}

// SEMANTICS S93: without it a cluster whose cold store is HDFS could not use the level.
#[test]
fn close_waits_for_hdfs() {
    need_mount!("close_waits_for_hdfs");
    let cluster = need_hdfs!("close_waits_for_hdfs");
    let place = format!("/level-{}", std::process::id());
    let volume = Volume::with(Node::new(), &format!("{}{place}", cluster.native), &COLD);
    let path = volume.write("file", &noise(2, 3 << 20));
    volume.comes_back(&path, &noise(2, 3 << 20));
    cluster.remove(&place);
}

// SEMANTICS S95, S102: without it a dead store would hang programs without a word, or nobody would know which
// files it lacks.
#[test]
fn a_store_that_is_gone_fails_calls_and_gets_all_when_it_is_back() {
    need_mount!("a_store_that_is_gone_fails_calls_and_gets_all_when_it_is_back");
    let server = need_s3!("a_store_that_is_gone_fails_calls_and_gets_all_when_it_is_back");
    let bucket = server.bucket("level-gone");
    let proxy = Proxy::to(&std::env::var("TERRACE_TEST_S3").unwrap());
    let (node, config) = hasty("3s");
    let node = node.with("AWS_ENDPOINT_URL", proxy.address());
    let options = [&COLD[..], &["--config", &config]].concat();
    let volume = Volume::with(node, &bucket.url("cold"), &options);
    proxy.cut();
    let path = volume.mount.join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(&bytes_of(5)).unwrap();
    let began = Instant::now();
    let error = file.sync_all().unwrap_err().raw_os_error();
    assert!(
        matches!(error, Some(nix::libc::ETIMEDOUT | nix::libc::EIO)),
        "{error:?}"
    );
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    // The directory has it all the same, and says no more than that.
    assert!(fs::read(volume.below.join("file")).unwrap() == bytes_of(5));
    assert_eq!(level(&path), "shared");
    assert_eq!((volume.debts("owed"), volume.debts("errors")), (1, 1));
    let mount = volume.mount.to_str().unwrap();
    let said = volume.node.succeed(&["volume", "status", mount]);
    assert!(said.contains("owed      file"), "{said}");
    let said = refused(&volume.node, &["volume", "flush", "--level", "cold", mount]);
    assert!(said.contains("not at level cold"), "{said}");
    let said = refused(&volume.node, &["umount", "--drain", mount]);
    assert!(said.contains("not at level cold"), "{said}");
    proxy.mend();
    // By itself in the end; pauses have grown, so it is asked for.
    wait_for("the debt to be paid", || {
        let asked = ["volume", "flush", "--level", "cold", mount];
        volume.node.terrace(&asked).status.success() && volume.debts("owed") == 0
    });
    assert_eq!(level(&path), "cold");
    assert_eq!(volume.debts("errors"), 1, "nobody has acknowledged it");
    volume
        .node
        .succeed(&["volume", "status", "--acknowledge", mount]);
    assert_eq!(volume.debts("errors"), 0);
    file.sync_all().unwrap();
    drop(file);
    volume.comes_back(&path, &bytes_of(5));
    assert!(volume.cold("copies_failed") > 0, "the fault was met");
}

// SEMANTICS S93, S46: without it the death of a worker would answer a call whose bytes are not there, or fail it.
#[test]
fn workers_die_while_calls_wait_for_the_store() {
    need_mount!("workers_die_while_calls_wait_for_the_store");
    let server = need_s3!("workers_die_while_calls_wait_for_the_store");
    let bucket = server.bucket("level-killed");
    let volume = Volume::with(Node::new(), &bucket.url("cold"), &COLD);
    let (waits, end) = (AtomicBool::new(false), AtomicBool::new(false));
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !end.load(Ordering::Relaxed) {
                let path = volume.mount.join(format!("f{written}"));
                let mut file = File::create(&path).unwrap();
                file.write_all(&noise(written, 2 << 20)).unwrap();
                waits.store(true, Ordering::SeqCst);
                let done = file.sync_all();
                waits.store(false, Ordering::SeqCst);
                done.unwrap();
                assert_eq!(level(&path), "cold");
                written += 1;
            }
            written
        });
        let mut hit = 0;
        let deadline = Instant::now() + PATIENCE;
        while hit < KILLS && Instant::now() < deadline && !writer.is_finished() {
            let waiting = || waits.load(Ordering::SeqCst);
            hit += u32::from(volume.node.kill_worker_when(waiting, PATIENCE));
        }
        end.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        assert_eq!(hit, KILLS, "workers that died while a call waited");
        written
    });
    println!("{written} files were synced while {KILLS} workers died");
    for number in 0..written {
        let path = volume.mount.join(format!("f{number}"));
        volume.comes_back(&path, &noise(number, 2 << 20));
    }
}

// SEMANTICS S93, S102: without it a staged file would go to the store as it was before, or not at all.
#[test]
fn staged_files_go_to_the_directory_and_then_to_the_store() {
    need_mount!("staged_files_go_to_the_directory_and_then_to_the_store");
    let rules = [
        "--durability",
        "fast/**:fsync=local",
        "--durability",
        "safe/**:fsync=cold,close=cold",
        "--ttl",
        "0s",
    ];
    let (volume, _) = Volume::with_directory(&rules);
    for name in ["fast", "safe"] {
        fs::create_dir(volume.mount.join(name)).unwrap();
    }
    let (fast, safe) = (
        volume.mount.join("fast/file"),
        volume.mount.join("safe/file"),
    );
    let mut file = File::create(&fast).unwrap();
    file.write_all(&bytes_of(1)).unwrap();
    file.sync_all().unwrap();
    assert_eq!(
        (level(&fast), volume.length_below("fast/file")),
        ("local".to_owned(), 0)
    );
    // Where it is now, and while it is staged, more is promised.
    fs::rename(&fast, &safe).unwrap();
    let mut other = File::options().append(true).open(&safe).unwrap();
    other.write_all(b"and more").unwrap();
    other.sync_all().unwrap();
    let expected = [&bytes_of(1)[..], b"and more"].concat();
    assert!(fs::read(volume.below.join("safe/file")).unwrap() == expected);
    assert_eq!(volume.cold("copied_files"), 1);
    drop((file, other));
    wait_for("the file's rest", || level(&safe) == "cold");
    // Asked for, a file of a lesser level goes there, too.
    let mut file = File::create(&fast).unwrap();
    file.write_all(&bytes_of(2)).unwrap();
    file.sync_all().unwrap();
    let mount = volume.mount.to_str().unwrap();
    let said = volume
        .node
        .succeed(&["volume", "flush", "--level", "cold", mount]);
    assert!(
        said.contains("2 files") && said.contains("at level cold"),
        "{said}"
    );
    drop(file);
    wait_for("the file's rest", || level(&fast) == "cold");
    volume.comes_back(&fast, &bytes_of(2));
    volume.comes_back(&safe, &expected);
}

// SEMANTICS S60, S101: without it a volume would promise what it has no store for.
#[test]
fn the_level_needs_a_store() {
    need_mount!("the_level_needs_a_store");
    let node = Node::new();
    let (hot, mount) = (node.hot(), node.mountpoint());
    let source = format!("file://{}", node.scratch("below").display());
    let (hot, mount) = (hot.to_str().unwrap(), mount.to_str().unwrap());
    let asked = ["mount", &source, mount, "--hot", hot, "--rw"];
    let said = refused(&node, &[&asked[..], &COLD].concat());
    assert!(said.contains("--cold"), "{said}");
    let volume = Volume::with_directory(&COLD).0;
    let path = volume.write("file", b"x");
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    let error = options
        .write(true)
        .custom_flags(nix::libc::O_SYNC)
        .open(&path);
    assert_eq!(
        error.unwrap_err().raw_os_error(),
        Some(nix::libc::EOPNOTSUPP)
    );
}
