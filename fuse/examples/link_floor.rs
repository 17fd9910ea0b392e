//! What a tree of hard links costs without any program around it: N empty files (default 100,000)
//! under names as long as those of the hot tier, in 256 directories, then trees of links to them in
//! directories of 1,000, by two threads that share no directory. Prints passed time and processor
//! time of each step: the floor of `materialize_scale`.
//!
//! `cargo run -p terrace-fuse --example link_floor -- [FILES] [DIRECTORY]`
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, fstatat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::linkat;
use sha2::{Digest as _, Sha256};
use terrace_cache::Digest;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Files of a directory of the tree.
const DIRECTORY: u64 = 1000;

/// What is done with each file beside its link.
#[derive(Clone, Copy)]
struct Beside {
    /// A look at it before and after.
    stats: bool,
    /// Mode and time.
    attributes: bool,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let files: u64 = arguments.next().as_deref().unwrap_or("100000").parse()?;
    let base = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let home = base.join(format!("terrace-link-floor-{}", std::process::id()));
    std::fs::create_dir(&home)?;
    let result = run(files, &home);
    std::fs::remove_dir_all(&home)?;
    result
}

fn run(files: u64, home: &Path) -> Result<(), Failure> {
    let mut hot = Vec::with_capacity(256);
    for shard in 0..=255u8 {
        let path = home.join(format!("{shard:02x}"));
        std::fs::create_dir(&path)?;
        hot.push(File::open(path)?);
    }
    let make = |number| {
        let (shard, name) = place(number);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(&hot[shard], name.as_str(), flags, Mode::S_IRUSR)?;
        Ok(())
    };
    timed("files", || {
        by_two(files, |_, numbers| numbers.into_iter().try_for_each(make))
    })?;
    for (what, stats, attributes) in [
        ("links", false, false),
        ("links, two looks each", true, false),
        ("links, two looks, mode and time", true, true),
    ] {
        let beside = Beside { stats, attributes };
        let tree = home.join(what);
        std::fs::create_dir(&tree)?;
        timed(what, || {
            by_two(files, |directory, numbers| {
                let path = tree.join(format!("n{directory:06}"));
                std::fs::create_dir(&path)?;
                let open = File::open(path)?;
                numbers
                    .into_iter()
                    .try_for_each(|number| link(&hot, &open, number, beside))
            })
        })?;
    }
    Ok(())
}

fn link(hot: &[File], tree: &File, number: u64, beside: Beside) -> Result<(), Failure> {
    let (shard, from) = place(number);
    let (hot, from) = (hot[shard].as_fd(), from.as_str());
    let to = format!("image_{number:08}");
    if beside.stats {
        fstatat(hot, from, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    if beside.attributes {
        let mode = Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH;
        fchmodat(hot, from, mode, FchmodatFlags::FollowSymlink)?;
        let time = TimeSpec::new(1_700_000_000, 0);
        let flag = UtimensatFlags::NoFollowSymlink;
        utimensat(hot, from, &TimeSpec::UTIME_OMIT, &time, flag)?;
    }
    linkat(hot, from, tree, to.as_str(), AtFlags::empty())?;
    if beside.stats {
        fstatat(hot, from, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Directory and name of a file: as spread, and as long, as those of objects.
fn place(number: u64) -> (usize, String) {
    let digest = Digest(Sha256::digest(number.to_le_bytes()).into());
    (usize::from(digest.0[0]), format!("{digest}.{number:016x}"))
}

/// Hands directories with the numbers of their files to two threads.
fn by_two(
    files: u64,
    work: impl Fn(u64, std::ops::Range<u64>) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let next = AtomicU64::new(0);
    let one = || {
        loop {
            let directory = next.fetch_add(1, Ordering::Relaxed);
            let first = directory * DIRECTORY;
            if first >= files {
                return Ok(());
            }
            work(directory, first..files.min(first + DIRECTORY))?;
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(one);
        one()?;
        other.join().map_err(|_| "a thread ended early")?
    })
}

fn timed(what: &str, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let (start, used) = (Instant::now(), processor_seconds()?);
    work()?;
    let (passed, used) = (start.elapsed().as_secs_f64(), processor_seconds()? - used);
    println!("{what:32} {passed:8.2} s, {used:8.2} s of processor time");
    Ok(())
}

fn processor_seconds() -> Result<f64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
