//! Kills over a real store: the data never fits into the hot tier, so fills are always under way when
//! the worker dies.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::data::{Numbers, noise};
use crate::support::node::Node;
use crate::support::{need_mount, need_s3};

const OBJECTS: u64 = 28;
const READERS: u64 = 4;
const SEED: u64 = 0x50a4;

/// Less than a third of the data.
const HOT_SIZE: &str = "24MiB";

/// How often the worker is killed; `TERRACE_TEST_KILLS=200` for the long run.
fn kills() -> u64 {
    let named = std::env::var("TERRACE_TEST_KILLS").ok();
    named.and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// One to five blocks, no two of the same length.
fn length(number: u64) -> usize {
    700_000 + (number as usize * 1_300_021) % 4_500_000
}

fn name(number: u64) -> String {
    format!("part-{number:02}")
}

/// A file that was written to since then is still being written to.
const JUST_NOW: Duration = Duration::from_millis(50);

/// Whether an object is being filled right now: a data file that is not whole and was just written
/// to. (Those that an earlier kill left behind are not whole either.)
fn fill_is_under_way(hot: &Path) -> bool {
    let lengths: Vec<u64> = (0..OBJECTS).map(|number| length(number) as u64).collect();
    let shards = fs::read_dir(hot.join("objects")).unwrap().flatten();
    let mut files = shards.flat_map(|shard| fs::read_dir(shard.path()).into_iter().flatten());
    files.any(|file| {
        // Unlinked meanwhile: nothing that is being filled.
        let metadata = file.and_then(|file| file.metadata());
        metadata.is_ok_and(|metadata| {
            let partial =
                !lengths.contains(&metadata.len()) || metadata.blocks() * 512 < metadata.len();
            let age = metadata.modified().map(|time| time.elapsed());
            partial && age.is_ok_and(|age| age.is_ok_and(|age| age < JUST_NOW))
        })
    })
}

/// Reads whole objects and ranges at random and compares every byte, until told to stop.
fn read_until(stop: &AtomicBool, mount: &Path, objects: &[Vec<u8>], seed: u64, bytes: &AtomicU64) {
    let mut numbers = Numbers::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let number = numbers.below(OBJECTS);
        let expected = &objects[number as usize];
        let file = File::open(mount.join(name(number))).unwrap();
        let (start, end) = match numbers.below(3) {
            0 => {
                let start = numbers.below(expected.len() as u64);
                (start, (start + 400_000).min(expected.len() as u64))
            }
            _ => (0, expected.len() as u64),
        };
        let mut found = vec![0; (end - start) as usize];
        file.read_exact_at(&mut found, start).unwrap();
        let wanted = &expected[start as usize..end as usize];
        assert!(
            found == wanted,
            "wrong bytes in {} at {start}..{end}",
            name(number)
        );
        bytes.fetch_add(end - start, Ordering::Relaxed);
    }
}

// SEMANTICS S10, S16, S20: without it, a worker that dies in the middle of a download would fail a
// reader, or leave a half-filled object that is served as a whole one.
#[test]
fn kills_during_fills_from_s3_reach_nobody() {
    need_mount!("kills_during_fills_from_s3_reach_nobody");
    let server = need_s3!("kills_during_fills_from_s3_reach_nobody");
    let bucket = server.bucket("soak");
    let objects: Vec<Vec<u8>> = (0..OBJECTS)
        .map(|number| noise(SEED + number, length(number)))
        .collect();
    for (number, bytes) in (0..).zip(&objects) {
        bucket.put(&format!("set/{}", name(number)), bytes);
    }
    let node = Node::patient(Duration::from_secs(120) + Duration::from_secs(4) * kills() as u32);
    let mount = node.mount(&bucket.url("set"), &["--hot-size", HOT_SIZE]);
    let (stop, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut during_fills = 0;
    std::thread::scope(|threads| {
        for reader in 0..READERS {
            let (stop, mount, objects, bytes) = (&stop, &mount, &objects, &bytes);
            threads.spawn(move || {
                // The readers end, and the test fails, as soon as one of them has failed.
                let end = StopOnPanic(stop);
                read_until(stop, mount, objects, SEED ^ (reader << 32), bytes);
                drop(end);
            });
        }
        let mut numbers = Numbers::new(SEED);
        for _ in 0..kills() {
            std::thread::sleep(Duration::from_millis(100 + numbers.below(500)));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let hot = node.hot();
            let hit = node.kill_worker_when(|| fill_is_under_way(&hot), Duration::from_secs(2));
            during_fills += u64::from(hit);
        }
        // Whatever the kills left behind, everything can be read again.
        let before = bytes.load(Ordering::Relaxed);
        let all: usize = objects.iter().map(Vec::len).sum();
        while !stop.load(Ordering::Relaxed) && bytes.load(Ordering::Relaxed) < before + all as u64 {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!(
        "{} kills, {during_fills} of them during a fill; {} MB read and compared",
        kills(),
        bytes.load(Ordering::Relaxed) / 1_000_000,
    );
    assert!(
        during_fills * 2 > kills(),
        "only {during_fills} of {} kills hit a fill",
        kills()
    );
}

/// Ends the others when a reader fails.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
