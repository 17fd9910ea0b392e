//! Spaces with limits that the daemon keeps: what is refused, what is shown, and what the sum is after
//! everything that can happen to it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::Signal;

use crate::posix::Bound;
use crate::world::{World, need_mount, wait_for};

const MIB: u64 = 1 << 20;
const KIB: usize = 1 << 10;

/// A space that is mounted: `home/root` below a base directory of its own.
pub(crate) struct Space {
    pub(crate) world: World,
    pub(crate) base: PathBuf,
    pub(crate) below: PathBuf,
    pub(crate) mount: PathBuf,
}

impl Space {
    /// Makes and mounts a space with these limits. It is counted once, so what its sum is afterwards
    /// is what operations made of it.
    pub(crate) fn new(quota: &str, files: &str, options: &[&str]) -> Self {
        Self::made(quota, files, options, "1h")
    }

    /// The same, counted every second.
    pub(crate) fn counting(quota: &str, files: &str, options: &[&str]) -> Self {
        Self::made(quota, files, options, "1s")
    }

    fn made(quota: &str, files: &str, options: &[&str], every: &str) -> Self {
        let world = World::start();
        let base = world.source();
        let config = world.scratch("config").join("terrace.toml");
        fs::write(&config, format!("[volumes]\ncount_every = \"{every}\"\n")).unwrap();
        let space = Self {
            below: base.join("home/root"),
            mount: PathBuf::new(),
            base,
            world,
        };
        space.volume(&["create", "home/root", "--quota", quota, "--files", files]);
        let (base, config) = (space.base.to_str().unwrap(), config.to_str().unwrap());
        let all = [&["--base", base, "--config", config], options].concat();
        let mount = space.world.mount("volume:home/root", &all);
        Self { mount, ..space }
    }

    /// `terrace volume ...`: whether it succeeded, and what it said.
    pub(crate) fn try_volume(&self, arguments: &[&str]) -> (bool, String) {
        let done = Command::new(env!("CARGO_BIN_EXE_terrace"))
            .arg("volume")
            .args(arguments)
            .arg("--base")
            .arg(&self.base)
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8(said).unwrap())
    }

    /// The same, which must succeed.
    pub(crate) fn volume(&self, arguments: &[&str]) -> String {
        let (good, said) = self.try_volume(arguments);
        assert!(good, "terrace volume {arguments:?}: {said}");
        said
    }

    /// The quota of the mount as its worker tells it; nothing while there is none.
    pub(crate) fn quota(&self) -> Option<serde_json::Value> {
        let asked = Command::new(env!("CARGO_BIN_EXE_terrace"))
            .arg("--run-dir")
            .arg(self.world.scratch("run"))
            .args(["status", "--json"])
            .output()
            .ok()?;
        let status: serde_json::Value = serde_json::from_slice(&asked.stdout).ok()?;
        let quota = &status["mounts"].as_array()?.first()?["quota"];
        quota.is_object().then(|| quota.clone())
    }

    /// Bytes and files that the worker counts.
    pub(crate) fn used(&self) -> (u64, u64) {
        let mut used = None;
        wait_for("the worker's status", || {
            used = self.quota().and_then(|quota| {
                let used = &quota["used"];
                Some((used["bytes"].as_u64()?, used["files"].as_u64()?))
            });
            used.is_some()
        });
        used.unwrap()
    }

    /// Waits until the tree was counted after this moment.
    pub(crate) fn counted(&self) {
        let counts = || self.quota().and_then(|quota| quota["counts"].as_u64());
        let mut before = None;
        wait_for("a worker", || {
            before = counts();
            before.is_some()
        });
        // One count may have been under way.
        let enough = before.unwrap() + 2;
        wait_for("a count", || counts().is_some_and(|now| now >= enough));
    }

    /// Waits until the worker's sum is what is there.
    pub(crate) fn sum_is_right(&self) {
        let there = tree(&self.below);
        wait_for("the sum of what is there", || self.used() == there);
    }

    pub(crate) fn kill_worker(&self) {
        let old = self.world.worker();
        self.world.signal(old, Signal::SIGKILL);
        wait_for("another worker", || {
            let worker = self.world.worker();
            worker != old && worker != 0
        });
    }
}

/// Lengths of files, and how many nodes there are.
fn tree(root: &Path) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let found = entry.metadata().unwrap();
            if !found.is_dir() && !seen.insert(found.ino()) {
                continue;
            }
            files += 1;
            if found.is_file() {
                bytes += found.len();
            } else if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    (bytes, files)
}

fn is_full<T: std::fmt::Debug>(result: std::io::Result<T>) -> bool {
    let error = result.expect_err("it was not refused");
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
    true
}

// SEMANTICS S111, S112: without it a tenant fills the file system that all share, or is refused what
// it has room for.
#[test]
fn a_limit_stops_every_way_to_grow() {
    need_mount!("a_limit_stops_every_way_to_grow");
    let space = Space::new("1MiB", "20", &[]);
    let (mount, block) = (&space.mount, vec![7_u8; 256 * KIB]);
    let mut file = File::create_new(mount.join("file")).unwrap();
    for _ in 0..3 {
        file.write_all(&block).unwrap();
    }
    // As much as fits is written, then nothing.
    let large = vec![8_u8; 400 * KIB];
    assert_eq!(file.write(&large).unwrap(), 256 * KIB);
    assert!(is_full(file.write(&large)));
    assert!(is_full(file.set_len(MIB + 1)));
    assert!(is_full(file.write_at(b"x", 5 * MIB)));
    let all = FallocateFlags::empty();
    let more = fallocate(&file, all, 0, 2 * MIB as i64);
    assert_eq!(more, Err(nix::errno::Errno::EDQUOT));
    let behind = fallocate(
        &file,
        FallocateFlags::FALLOC_FL_KEEP_SIZE,
        0,
        2 * MIB as i64,
    );
    assert_eq!(behind, Err(nix::errno::Errno::EOPNOTSUPP));
    let other = File::create_new(mount.join("other")).unwrap();
    assert!(is_full((&other).write(b"x")));
    assert!(is_full(copy(&file, &other)));
    assert!(is_full(fs::copy(mount.join("file"), mount.join("copied"))));
    fs::remove_file(mount.join("copied")).unwrap();
    // Within what is there everything goes on.
    file.write_all_at(&block, 0).unwrap();
    map_and_write(&file);
    fs::rename(mount.join("other"), mount.join("moved")).unwrap();
    wait_for("the removed copy", || space.used() == (MIB, 2));
    assert_eq!(fs::metadata(space.below.join("file")).unwrap().len(), MIB);
    // What is given back can be had again.
    file.set_len(MIB - 100).unwrap();
    (&other).write_all(&[1; 100]).unwrap();
    assert!(is_full((&other).write(b"x")));
    drop(other);
    fs::remove_file(mount.join("moved")).unwrap();
    wait_for("the removed bytes", || space.used() == (MIB - 100, 1));
}

/// copy_file_range(2) of the first bytes.
fn copy(from: &File, to: &File) -> std::io::Result<usize> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    let (mut from_at, mut to_at) = (0, 0);
    // SAFETY: both offsets are valid for the call.
    let copied =
        unsafe { nix::libc::copy_file_range(from, &raw mut from_at, to, &raw mut to_at, 100, 0) };
    let failed = std::io::Error::last_os_error();
    usize::try_from(copied).map_err(|_| failed)
}

/// Changes a byte through a shared mapping; it is seen by a read of the same handle and below.
fn map_and_write(file: &File) {
    // SAFETY: nobody makes the file shorter while it is mapped.
    let mut map = unsafe { memmap2::MmapMut::map_mut(file) }.unwrap();
    map[100] = 99;
    map.flush().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100).unwrap();
    assert_eq!(byte, [99]);
}

// SEMANTICS S111: without it a tenant could take all the inodes of a file system.
#[test]
fn a_limit_of_files_counts_everything_that_is_made() {
    need_mount!("a_limit_of_files_counts_everything_that_is_made");
    let space = Space::new("1GiB", "5", &[]);
    let mount = &space.mount;
    fs::create_dir(mount.join("directory")).unwrap();
    symlink("nowhere", mount.join("link")).unwrap();
    nix::unistd::mkfifo(&mount.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(mount.join("file"), "x").unwrap();
    fs::write(mount.join("directory/file"), "x").unwrap();
    // Another name is no other file.
    fs::hard_link(mount.join("file"), mount.join("name")).unwrap();
    assert!(is_full(File::create_new(mount.join("more"))));
    assert!(is_full(fs::create_dir(mount.join("more"))));
    assert!(is_full(symlink("nowhere", mount.join("more"))));
    let made = nix::unistd::mkfifo(&mount.join("more"), nix::sys::stat::Mode::S_IRWXU);
    assert_eq!(made, Err(nix::errno::Errno::EDQUOT));
    assert_eq!(space.used(), (2, 5));
    fs::remove_file(mount.join("file")).unwrap();
    assert!(
        is_full(File::create_new(mount.join("more"))),
        "it has another name"
    );
    fs::remove_file(mount.join("name")).unwrap();
    wait_for("the removed file", || space.used() == (1, 4));
    fs::write(mount.join("more"), "y").unwrap();
    // Renamed over: one less.
    fs::rename(mount.join("more"), mount.join("directory/file")).unwrap();
    wait_for("the replaced file", || space.used() == (1, 4));
    fs::remove_file(mount.join("directory/file")).unwrap();
    fs::remove_dir(mount.join("directory")).unwrap();
    wait_for("the removed directory", || space.used() == (0, 2));
}

// SEMANTICS S112: without it a program that asks how much it may write would be told of everybody's disk.
#[test]
fn df_shows_the_limit() {
    need_mount!("df_shows_the_limit");
    let space = Space::new("64MiB", "1K", &[]);
    fs::write(space.mount.join("file"), vec![1; 4 * MIB as usize]).unwrap();
    let shown = nix::sys::statvfs::statvfs(&space.mount).unwrap();
    let unit = shown.fragment_size();
    assert_eq!(shown.blocks() * unit, 64 * MIB);
    assert_eq!(shown.blocks_available() * unit, 60 * MIB);
    assert_eq!((shown.files(), shown.files_available()), (1000, 999));
}

// SEMANTICS S113: without it readers and writers of one file would see different bytes, because writes
// go through the daemon and reads do not.
#[test]
fn readers_and_counted_writers_see_the_same_bytes() {
    need_mount!("readers_and_counted_writers_see_the_same_bytes");
    let space = Space::new("64MiB", "1K", &[]);
    let path = space.mount.join("file");
    fs::write(&path, vec![1; 64 * KIB]).unwrap();
    let mut reader = File::open(&path).unwrap();
    // SAFETY: the file is not made shorter while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&reader) }.unwrap();
    let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
    let mut appender = OpenOptions::new().append(true).open(&path).unwrap();
    let mut bytes = Vec::new();
    for round in 2..40_u8 {
        writer
            .write_all_at(&[round; 100], u64::from(round) * 1000)
            .unwrap();
        assert_eq!(map[usize::from(round) * 1000 + 99], round, "mapping");
        appender.write_all(&[round; 777]).unwrap();
        bytes.clear();
        reader.seek(SeekFrom::Start(0)).unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 64 * KIB + 777 * (usize::from(round) - 1));
        assert!(bytes[bytes.len() - 777..].iter().all(|byte| *byte == round));
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64);
    }
    writer.seek(SeekFrom::Start(0)).unwrap();
    writer.write_all(b"begin").unwrap();
    writer.sync_all().unwrap();
    assert_eq!(fs::read(space.below.join("file")).unwrap()[..5], *b"begin");
    let status = space.quota().unwrap();
    assert_eq!(status["used"]["bytes"].as_u64(), Some(bytes.len() as u64));
}

// SEMANTICS S111: without it two programs that write at once would get more than the limit, or less.
#[test]
fn writers_at_once_share_one_limit() {
    need_mount!("writers_at_once_share_one_limit");
    let space = Space::new("2MiB", "100", &[]);
    let written: u64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u8)
            .map(|writer| {
                let path = space.mount.join(format!("file{writer}"));
                scope.spawn(move || {
                    let mut file = File::create_new(path).unwrap();
                    let mut written = 0;
                    loop {
                        match file.write(&[writer; 10_000]) {
                            Ok(more) => written += more as u64,
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
                                return written;
                            }
                        }
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    assert_eq!(written, 2 * MIB, "all of the limit and not a byte more");
    assert_eq!(tree(&space.below), (2 * MIB, 4));
    assert_eq!(space.used(), (2 * MIB, 4));
}

// SEMANTICS S114: without it a limit would end with the worker, or a raised one need a new mount, or what
// other nodes do never be seen.
#[test]
fn a_limit_outlives_the_worker_and_follows_the_record() {
    need_mount!("a_limit_outlives_the_worker_and_follows_the_record");
    let space = Space::counting("1MiB", "10", &[]);
    let path = space.mount.join("file");
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&vec![1; MIB as usize]).unwrap();
    space.kill_worker();
    assert!(is_full(file.write(b"x")), "the next worker knows");
    space.volume(&["quota", "home/root", "--quota", "3MiB"]);
    wait_for("the raised limit", || {
        space
            .quota()
            .is_some_and(|quota| quota["limits"]["bytes"] == 3 * MIB)
    });
    file.write_all(&[1; 100]).unwrap();
    // Another node: beside the mount.
    fs::write(space.below.join("elsewhere"), vec![2; MIB as usize]).unwrap();
    wait_for("what came from elsewhere", || {
        space.used() == (2 * MIB + 100, 2)
    });
    fs::remove_file(space.below.join("elsewhere")).unwrap();
    wait_for("what went elsewhere", || space.used() == (MIB + 100, 1));
    space.volume(&["quota", "home/root", "--quota", "none", "--files", "none"]);
    wait_for("no limit", || {
        space
            .quota()
            .is_some_and(|quota| quota["limits"]["bytes"].is_null())
    });
    file.write_all(&vec![1; 4 * MIB as usize]).unwrap();
    space.sum_is_right();
}

// SEMANTICS S114: without it the sum would drift with every file that a program has open when it is deleted.
#[test]
fn deleted_files_count_as_long_as_they_are_open() {
    need_mount!("deleted_files_count_as_long_as_they_are_open");
    let space = Space::counting("1MiB", "10", &[]);
    let path = space.mount.join("file");
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&vec![1; 1000 * KIB]).unwrap();
    fs::remove_file(&path).unwrap();
    space.counted();
    let mut other = File::create_new(space.mount.join("other")).unwrap();
    assert_eq!(other.write(&vec![2; 100 * KIB]).unwrap(), 24 * KIB);
    assert!(is_full(file.write_at(b"x", 1000 * KIB as u64)));
    drop(file);
    wait_for("the deleted file", || space.used() == (24 * KIB as u64, 1));
    other.write_all(&vec![2; 100 * KIB]).unwrap();
    space.counted();
    assert_eq!(space.used(), (124 * KIB as u64, 1), "a count says the same");
}

// SEMANTICS S116: without it nobody would know who fills the file system.
#[test]
fn reports_say_what_volumes_take() {
    need_mount!("reports_say_what_volumes_take");
    let space = Space::new("10MiB", "100", &[]);
    fs::write(space.mount.join("file"), vec![1; 2 * MIB as usize]).unwrap();
    let usage = || -> serde_json::Value {
        serde_json::from_str(&space.volume(&["usage", "home/root", "--json"])).unwrap()
    };
    wait_for("the report", || usage()["used_bytes"] == 2 * MIB);
    let told = usage();
    assert_eq!(told["used_files"], 1);
    assert_eq!(told["quota_bytes"], 10 * MIB);
    assert_eq!(told["quota_files"], 100);
    assert!(told["as_of"].as_u64().is_some_and(|at| at > 0), "{told}");
    let listed = space.volume(&["list"]);
    assert!(
        listed.contains("home/root") && listed.contains("10MiB"),
        "{listed}"
    );
    let metrics = Command::new(env!("CARGO_BIN_EXE_terrace"))
        .arg("--run-dir")
        .arg(space.world.scratch("run"))
        .args(["status", "--metrics"])
        .output()
        .unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    let row = format!(
        "terrace_volume_used_bytes{{mount=\"{}\"}} 2097152",
        space.mount.display()
    );
    assert!(metrics.contains(&row), "{metrics}");
    // At the end the last word is written, whatever the interval.
    fs::write(space.mount.join("last"), vec![1; MIB as usize]).unwrap();
    space.world.umount(&space.mount);
    wait_for("the last word", || usage()["used_bytes"] == 3 * MIB);
}

// SEMANTICS S110: without it a volume could be deleted under its user, or for ever by one mistyped word.
#[test]
fn deleting_takes_two_steps_and_asks_for_the_mount() {
    need_mount!("deleting_takes_two_steps_and_asks_for_the_mount");
    let space = Space::new("10MiB", "100", &[]);
    fs::write(space.mount.join("file"), vec![1; MIB as usize]).unwrap();
    let told = space.volume(&["delete", "home/root", "--dry-run"]);
    assert!(
        told.contains("1 file, 1MiB") && told.contains("mounted on"),
        "{told}"
    );
    let (good, said) = space.try_volume(&["delete", "home/root"]);
    assert!(!good && said.contains("mounted on"), "{said}");
    space.world.umount(&space.mount);
    space.volume(&["delete", "home/root"]);
    assert!(!space.below.exists());
    assert!(space.volume(&["list"]).contains("trash until"));
    let told = space.volume(&["purge"]);
    assert!(told.contains("nothing in the trash"), "seven days: {told}");
    let base = space.base.to_str().unwrap();
    let refused = space
        .world
        .try_mount("volume:home/root", &space.mount, &["--base", base]);
    assert!(
        refused.0 == 1 && refused.1.contains("there is no volume"),
        "{refused:?}"
    );
    space.volume(&["restore", "home/root"]);
    assert_eq!(fs::metadata(space.below.join("file")).unwrap().len(), MIB);
    space.volume(&["delete", "home/root", "--after", "0s"]);
    assert!(
        space
            .volume(&["purge", "--dry-run"])
            .contains("would remove home/root")
    );
    assert!(space.volume(&["purge"]).contains("removed home/root"));
    assert_eq!(fs::read_dir(space.base.join("home")).unwrap().count(), 0);
    for bad in ["home/../etc", "etc", "home/", "../home/root", "home/Root"] {
        let (good, said) = space.try_volume(&["delete", bad]);
        assert!(
            !good && said.contains("is not the name of a volume"),
            "{bad}: {said}"
        );
    }
}

// SEMANTICS S119: without it whoever is on the node reads what others' jobs have in the cache.
#[test]
fn nobody_else_reads_the_cache() {
    need_mount!("nobody_else_reads_the_cache");
    let world = World::start();
    let hot = world.hot();
    // As somebody has left it who made it by hand.
    fs::set_permissions(&hot, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(world.source().join("secret"), "for one tenant only").unwrap();
    let mount = world.mount(&world.source_url(), &[]);
    // Below a directory that everybody may enter.
    let seen = Bound::new(&hot);
    assert_eq!(
        fs::read(mount.join("secret")).unwrap(),
        b"for one tenant only"
    );
    for command in [
        "ls \"$0\"",
        "cat \"$0\"/objects/*/*",
        "cat \"$0\"/index/*",
        "ls \"$0\"/mounts",
    ] {
        let mut tried = Command::new("/bin/sh");
        tried.args(["-c", command]).arg(seen.path());
        std::os::unix::process::CommandExt::uid(&mut tried, 65534);
        std::os::unix::process::CommandExt::gid(&mut tried, 65534);
        let tried = tried.output().unwrap();
        let said = String::from_utf8_lossy(&tried.stderr);
        assert!(!tried.status.success(), "{command} as another user");
        assert!(
            tried.stdout.is_empty() && said.contains("ermission"),
            "{command}: {said}"
        );
    }
    assert_eq!(fs::metadata(&hot).unwrap().mode() & 0o7777, 0o700);
    let mut files = 0;
    let mut open = vec![hot.join("objects")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let (path, found) = entry.map(|e| (e.path(), e.metadata().unwrap())).unwrap();
            assert_eq!(found.mode() & 0o077, 0, "{}", path.display());
            match found.is_dir() {
                true => open.push(path),
                false => files += 1,
            }
        }
    }
    assert!(files > 0, "nothing was cached");
}
