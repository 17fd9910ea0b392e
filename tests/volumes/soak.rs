//! Workers that are killed while a volume is written.
//!
//! Each writer goes round and round: make a directory, create a file, write and sync it, rename it
//! over the last one, link it, remove what is old. No call may fail, and each change of a name has to
//! be made once: repeated, it would be `EEXIST` or `ENOENT`. What was synced is noted outside of the
//! volume and compared at the end, in the directory below.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::Volume;
use crate::numbers::{Numbers, mix};
use crate::spaces::Space;
use crate::world::{World, need_mount, wait_for};

const WRITERS: u64 = 4;
/// Kills, unless `TERRACE_TEST_KILLS` says otherwise.
const KILLS: u64 = 40;
/// More kills until this many changes were sent again.
const RESENT: u64 = 5;
/// An operation that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);
/// Bytes of the largest request.
const REQUEST: usize = 1 << 20;
/// Kept names of each writer.
const KEPT: u64 = 16;

fn content(writer: u64, round: u64) -> Vec<u8> {
    let length = 1 + mix((writer << 32) | round) % 20_000;
    (0..length)
        .map(|at| mix((at / 8) ^ (round << 20) ^ (writer << 50)) as u8)
        .collect()
}

/// One round; every call must succeed.
fn round(home: &Path, writer: u64, round: u64) {
    let slot = round % KEPT;
    let directory = home.join(format!("d{round}"));
    fs::create_dir(&directory).unwrap();
    let fresh = directory.join("fresh");
    let bytes = content(writer, round);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&fresh)
        .unwrap();
    file.write_all(&bytes).unwrap();
    let mut back = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut back).unwrap();
    assert!(back == bytes, "read back while it is open");
    file.sync_all().unwrap();
    // Over the one of an earlier round.
    fs::rename(&fresh, home.join(format!("kept{slot}"))).unwrap();
    let other = home.join(format!("other{slot}"));
    if round >= KEPT {
        fs::remove_file(&other).unwrap();
    }
    fs::hard_link(home.join(format!("kept{slot}")), &other).unwrap();
    symlink("nowhere", directory.join("link")).unwrap();
    nix::unistd::mkfifo(&directory.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::remove_file(directory.join("link")).unwrap();
    fs::remove_file(directory.join("pipe")).unwrap();
    fs::remove_dir(&directory).unwrap();
    // The handle goes on after its name has changed.
    file.write_all_at(&bytes[..1], 0).unwrap();
    fs::File::open(home).unwrap().sync_all().unwrap();
}

/// `resent` and `recognised` of the mount, as the worker that lives tells them.
fn counts(world: &World) -> Option<(i64, [u64; 2])> {
    let worker = world.worker();
    let asked = Command::new(env!("CARGO_BIN_EXE_terrace"))
        .arg("--run-dir")
        .arg(world.scratch("run"))
        .args(["status", "--json"])
        .output()
        .ok()?;
    let status: serde_json::Value = serde_json::from_slice(&asked.stdout).ok()?;
    let mount = status["mounts"].as_array()?.first()?;
    let number = |name: &str| mount[name].as_u64();
    Some((
        i64::from(worker),
        [number("resent")?, number("recognised")?],
    ))
}

// SEMANTICS S43, S44, S46: without it the death of a worker fails a program, or makes a change of names
// twice, or forgets what was synced.
#[test]
fn workers_are_killed_under_writers() {
    need_mount!("workers_are_killed_under_writers");
    let wanted = std::env::var("TERRACE_TEST_KILLS");
    let wanted = wanted.map_or(KILLS, |kills| kills.parse().unwrap());
    let volume = Volume::new(&[]);
    under_kills(&volume.world, &volume.mount, &volume.below, wanted);
}

// SEMANTICS S43, S44, S46: the same where the kernel has no passthrough: every write in flight is sent again.
#[test]
fn workers_are_killed_under_writers_through_the_daemon() {
    need_mount!("workers_are_killed_under_writers_through_the_daemon");
    let volume = Volume::without_passthrough(&[]);
    under_kills(&volume.world, &volume.mount, &volume.below, KILLS / 4);
}

// SEMANTICS S43: without it a worker that dies while it takes a request from the kernel, into memory it
// has not used before, would fail the program's call with EIO. Kills come soon, so that it is new.
#[test]
fn a_request_is_not_lost_in_the_hands_of_a_new_worker() {
    need_mount!("a_request_is_not_lost_in_the_hands_of_a_new_worker");
    let volume = Volume::without_passthrough(&[]);
    let world = &volume.world;
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let path = volume.mount.join(format!("file{writer}"));
                let (stop, written) = (&stop, &written);
                scope.spawn(move || {
                    let file = fs::File::create(path).unwrap();
                    let bytes = vec![writer as u8; REQUEST];
                    while !stop.load(Ordering::Relaxed) {
                        file.write_all_at(&bytes, 0).unwrap();
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let failed = || writers.iter().any(|writer| writer.is_finished());
        let mut numbers = Numbers::new(78);
        let mut before = 0;
        for _ in 0..KILLS {
            wait_for("writes", || {
                written.load(Ordering::Relaxed) > before || failed()
            });
            std::thread::sleep(Duration::from_micros(numbers.below(4000)));
            let worker = world.worker();
            world.signal(worker, Signal::SIGKILL);
            wait_for("another worker", || ![0, worker].contains(&world.worker()));
            // One more than the killed one may have done.
            before = written.load(Ordering::Relaxed) + WRITERS;
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{KILLS} kills, {} writes", written.load(Ordering::Relaxed));
}

// SEMANTICS S114: without it the limit of a volume would fail a program when a worker dies, or what it
// counts be lost with it. Tight enough that writers would meet it if removed files went on counting.
#[test]
fn workers_of_a_limited_volume_are_killed_under_writers() {
    need_mount!("workers_of_a_limited_volume_are_killed_under_writers");
    let space = Space::counting("64MiB", "1K", &[]);
    under_kills(&space.world, &space.mount, &space.below, KILLS / 4);
    space.sum_is_right();
}

/// Writers while workers are killed; then the directory below is looked at.
pub(crate) fn under_kills(world: &World, mount: &Path, below: &Path, wanted: u64) {
    let (stop, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    let rounds: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let mut told = BTreeMap::new();
    let mut kills = 0;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let home = mount.join(format!("writer{writer}"));
                let (stop, longest, done) = (&stop, &longest, &rounds[writer as usize]);
                scope.spawn(move || {
                    fs::create_dir(&home).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        round(&home, writer, done.load(Ordering::Relaxed));
                        done.fetch_add(1, Ordering::Relaxed);
                        let took = began.elapsed().as_millis() as u64;
                        longest.fetch_max(took, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut numbers = Numbers::new(77);
        let mut last = 0;
        let enough = |told: &BTreeMap<i64, [u64; 2]>, kills| {
            let resent: u64 = told.values().map(|[resent, _]| resent).sum();
            kills >= wanted && (resent >= RESENT || kills >= 10 * wanted)
        };
        while !enough(&told, kills) && !writers.iter().any(|writer| writer.is_finished()) {
            wait_for("another worker", || {
                world.worker() != last && world.worker() != 0
            });
            std::thread::sleep(Duration::from_millis(100 + numbers.below(400)));
            told.extend(counts(world));
            last = world.worker();
            world.signal(last, Signal::SIGKILL);
            kills += 1;
        }
        wait_for("the last worker", || world.worker() != last);
        stop.store(true, Ordering::Relaxed);
    });
    told.extend(counts(world));
    let [resent, recognised] = told.values().fold([0, 0], |sum, [resent, known]| {
        [sum[0] + resent, sum[1] + known]
    });
    let total: u64 = rounds
        .iter()
        .map(|rounds| rounds.load(Ordering::Relaxed))
        .sum();
    println!(
        "{kills} kills, {total} rounds, {resent} changes sent again, {recognised} of them done before; \
         longest round {} ms",
        longest.load(Ordering::Relaxed)
    );
    assert!(resent >= RESENT, "nothing was under way when a worker died");
    assert!(longest.load(Ordering::Relaxed) < HANG.as_millis() as u64);
    check(below, &rounds);
}

/// The directory below has exactly what the last rounds left.
fn check(below: &Path, rounds: &[AtomicU64]) {
    for (writer, rounds) in rounds.iter().enumerate() {
        let rounds = rounds.load(Ordering::Relaxed);
        let home = below.join(format!("writer{writer}"));
        let kept = rounds.min(KEPT);
        let names = fs::read_dir(&home).unwrap().count() as u64;
        assert_eq!(
            names,
            2 * kept,
            "names of writer {writer} after {rounds} rounds"
        );
        for round in rounds - kept..rounds {
            for name in ["kept", "other"] {
                let bytes = fs::read(home.join(format!("{name}{}", round % KEPT))).unwrap();
                assert!(
                    bytes == content(writer as u64, round),
                    "{name} of round {round}"
                );
            }
        }
    }
}
