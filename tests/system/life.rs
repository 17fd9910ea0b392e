//! Workers that die, mounts that end, hot directories with two claimants.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::data::{Numbers, assert_same, noise, read_tree, sample_tree, write_tree};
use crate::support::need_mount;
use crate::support::node::{Node, is_mounted};

const FILES: u64 = 200;
const READERS: u64 = 8;

/// How often the worker is killed; `TERRACE_TEST_KILLS=200` for the long run.
fn kills() -> usize {
    let named = std::env::var("TERRACE_TEST_KILLS").ok();
    named.and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Lists, opens and reads at random until told to stop. Returns the operations that took long, as
/// begin and end.
fn read_until(
    stop: &AtomicBool,
    mount: &Path,
    seed: u64,
    reads: &AtomicU64,
) -> Vec<(Instant, Instant)> {
    let mut numbers = Numbers::new(seed);
    let mut slow = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = numbers.below(FILES);
        let path = mount.join(format!("{number:03}"));
        let began = Instant::now();
        if seed == 0 {
            let entries = fs::read_dir(mount).unwrap().map(Result::unwrap);
            assert_eq!(entries.count() as u64, FILES);
        }
        assert!(
            fs::read(&path).unwrap() == contents(number),
            "wrong bytes in {number:03}"
        );
        let ended = Instant::now();
        if ended - began > Duration::from_millis(10) {
            slow.push((began, ended));
        }
        reads.fetch_add(1, Ordering::Relaxed);
    }
    slow
}

fn contents(number: u64) -> Vec<u8> {
    noise(number, 20_000 + 3_000 * (number as usize % 50))
}

// SEMANTICS S10, S16: a worker dies under readers, openers and listers; none of them may notice.
#[test]
fn the_death_of_a_worker_is_invisible() {
    need_mount!("the_death_of_a_worker_is_invisible");
    let node = Node::new();
    let origin = node.scratch("origin");
    for number in 0..FILES {
        fs::write(origin.join(format!("{number:03}")), contents(number)).unwrap();
    }
    let mount = node.mount(&format!("file://{}", origin.display()), &[]);
    let inode = fs::metadata(mount.join("000")).unwrap().ino();
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut killed = Vec::new();
    let slow: Vec<(Instant, Instant)> = std::thread::scope(|threads| {
        let readers: Vec<_> = (0..READERS)
            .map(|seed| {
                threads.spawn({
                    let (stop, mount, reads) = (&stop, &mount, &reads);
                    move || read_until(stop, mount, seed, reads)
                })
            })
            .collect();
        let mut numbers = Numbers::new(77);
        for _ in 0..kills() {
            // Also while the next worker is starting; but not always, or no worker would ever serve
            // and the keeper would rightly take it for a binary that does not start.
            std::thread::sleep(Duration::from_millis(200 + numbers.below(800)));
            killed.push(node.kill_worker());
        }
        stop.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .flat_map(|reader| reader.join().unwrap())
            .collect()
    });
    // The gap of one death: the longest operation that was under way or began while it lasted.
    let mut gaps: Vec<Duration> = killed
        .iter()
        .map(|moment| {
            let hit = slow
                .iter()
                .filter(|(began, ended)| began <= moment && moment <= ended);
            hit.map(|(_, ended)| *ended - *moment)
                .max()
                .unwrap_or_default()
        })
        .collect();
    gaps.sort();
    println!(
        "{} kills, {} reads, gap median {:?}, p99 {:?}",
        gaps.len(),
        reads.load(Ordering::Relaxed),
        gaps[gaps.len() / 2],
        gaps[gaps.len() * 99 / 100]
    );
    assert!(
        reads.load(Ordering::Relaxed) > 100,
        "too few reads to prove anything"
    );
    assert!(gaps[gaps.len() * 99 / 100] < Duration::from_secs(5));
    assert_eq!(fs::metadata(mount.join("000")).unwrap().ino(), inode);
}

// SEMANTICS S16: a handle that was opened before the death goes on reading, mapped or not.
#[test]
fn open_files_outlive_the_worker() {
    need_mount!("open_files_outlive_the_worker");
    let node = Node::new();
    let origin = node.scratch("origin");
    let bytes = noise(8, 12 << 20);
    fs::write(origin.join("file"), &bytes).unwrap();
    let mount = node.mount(&format!("file://{}", origin.display()), &[]);
    let cold = File::open(mount.join("file")).unwrap();
    let mut piece = vec![0; 1 << 20];
    cold.read_exact_at(&mut piece, 0).unwrap();
    node.kill_worker();
    for at in 0..12 {
        cold.read_exact_at(&mut piece, at << 20).unwrap();
        assert!(
            piece == bytes[(at as usize) << 20..][..1 << 20],
            "block {at}"
        );
    }
    let warm = File::open(mount.join("file")).unwrap();
    node.kill_worker();
    warm.read_exact_at(&mut piece, 5 << 20).unwrap();
    assert!(piece == bytes[5 << 20..][..1 << 20]);
}

// SEMANTICS S18: an unmount that hangs keeps a node from being drained.
#[test]
fn a_busy_mount_goes_away() {
    need_mount!("a_busy_mount_goes_away");
    let node = Node::new();
    let origin = node.scratch("origin");
    fs::write(origin.join("file"), noise(1, 5 << 20)).unwrap();
    let mount = node.mount(&format!("file://{}", origin.display()), &[]);
    let held = File::open(mount.join("file")).unwrap();
    held.read_exact_at(&mut [0; 100], 0).unwrap();
    let began = Instant::now();
    node.succeed(&["umount", mount.to_str().unwrap()]);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(!is_mounted(&mount));
    drop(held);
    assert_eq!(
        fs::read_dir(&mount).unwrap().count(),
        0,
        "something is still mounted"
    );
}

// SEMANTICS S20: what a new node finds in the hot directory is served, and is right.
#[test]
fn the_hot_tier_survives_a_crash() {
    need_mount!("the_hot_tier_survives_a_crash");
    let node = Node::new();
    let origin = node.scratch("origin");
    write_tree(&origin, &sample_tree());
    let source = format!("file://{}", origin.display());
    let mount = node.mount(&source, &[]);
    assert_same(&read_tree(&mount), &sample_tree());
    node.kill_worker();
    assert_same(&read_tree(&mount), &sample_tree());
    node.succeed(&["umount", mount.to_str().unwrap()]);
    let again = node.mount(&source, &[]);
    assert_same(&read_tree(&again), &sample_tree());
}

// SEMANTICS S21: two nodes that evict each other's files serve errors to both.
#[test]
fn a_hot_directory_has_one_owner() {
    need_mount!("a_hot_directory_has_one_owner");
    let (first, second) = (Node::new(), Node::new());
    let origin = first.scratch("origin");
    fs::write(origin.join("file"), b"x").unwrap();
    let source = format!("file://{}", origin.display());
    let mount = first.mount(&source, &[]);
    let target = second.scratch("elsewhere");
    let hot = first.hot();
    let refused = second.terrace(&[
        "mount",
        &source,
        target.to_str().unwrap(),
        "--hot",
        hot.to_str().unwrap(),
    ]);
    assert!(
        !refused.status.success(),
        "a second node took the hot directory"
    );
    assert!(!is_mounted(&target));
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"x");
}
