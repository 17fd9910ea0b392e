//! Workers, keepers and mounts that come and go under load: the binary, a real kernel mount, real
//! processes.
//!
//! What every test asserts: no operation fails, every byte is the one that belongs at its place (the
//! files describe themselves), and nothing hangs. `killed_at_random_times` also tells the gap that a
//! kill costs: the longest time a stat, open or read of a continuously polling client took around each
//! kill, and the same for moments without a kill, spread over the same run: the client waits for its
//! turn on a busy machine, and for its disk, also when nobody is killed.
//!
//! | environment | is |
//! | --- | --- |
//! | `TERRACE_TEST_KILLS` | kills, 200 unless told |
//! | `TERRACE_TEST_GAP` | what a kill may cost at p99, in ms; unless told only [`HANG`] counts |
//! | `TERRACE_TEST_DIR` | where data and hot tier lie, unless below the build directory |
//!
//! `make bench-kills` names all three: a bar for time is for a quiet machine and a quiet disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod load;
#[path = "../support/numbers.rs"]
mod numbers;
mod world;

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use load::{Load, check_everything, make_files};
use nix::sys::signal::Signal;
use numbers::Numbers;
use world::{World, need_mount, wait_for};

const SEED: u64 = 0x7e44ace;

/// An operation that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

/// After so many kills there is a rest without any.
const KILLS_BETWEEN_RESTS: usize = 10;

/// From a kill to the first quiet moment.
const SETTLED: Duration = Duration::from_millis(700);

/// Quiet moments of a rest, so far apart.
const QUIET_MOMENTS: u32 = 10;
const QUIET_PAUSE: Duration = Duration::from_millis(100);

/// A number that the environment names.
fn named(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{variable}={text}: {error}")),
    )
}

fn kills() -> usize {
    named("TERRACE_TEST_KILLS").map_or(200, |kills| usize::try_from(kills).unwrap())
}

fn percentile(sorted: &[Duration], part: f64) -> Duration {
    let index = (sorted.len() as f64 * part).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

/// Longest waits of the polling client.
struct Waits {
    /// Around each kill.
    kills: Vec<Duration>,
    /// Around as many moments without a kill.
    quiet: Vec<Duration>,
}

/// Kills the worker again and again while clients work; what each kill cost.
fn kill_under_load(world: &World, load: &Load, kills: usize, seed: u64) -> Waits {
    let mut numbers = Numbers::new(seed);
    let (mut moments, mut quiet) = (Vec::new(), Vec::new());
    let mut last = 0;
    for kill in 0..kills {
        if kill % KILLS_BETWEEN_RESTS == 0 {
            quiet.extend(rest(world, load, last));
        }
        wait_for("another worker", || {
            world.worker() != last && world.worker() != 0
        });
        // From "just started" to "long at work".
        std::thread::sleep(Duration::from_millis(numbers.below(1000)));
        load.assert_alive();
        last = world.worker();
        moments.push(Instant::now());
        world.signal(last, Signal::SIGKILL);
    }
    wait_for("the last worker", || world.worker() != last);
    load.wait_for_progress();
    Waits {
        kills: load.costs(&moments),
        quiet: load.gaps(&quiet),
    }
}

/// Lets the clients work without a kill; moments of that time.
fn rest(world: &World, load: &Load, last: i32) -> Vec<Instant> {
    wait_for("another worker", || {
        world.worker() != last && world.worker() != 0
    });
    load.wait_for_progress();
    let begun = Instant::now() + SETTLED;
    std::thread::sleep(SETTLED + QUIET_PAUSE * (QUIET_MOMENTS + 1));
    (0..QUIET_MOMENTS)
        .map(|number| begun + QUIET_PAUSE * number)
        .collect()
}

// SEMANTICS S10, S16: without it a crash of the worker reaches applications.
#[test]
fn killed_at_random_times() {
    need_mount!("killed_at_random_times");
    let world = World::start();
    make_files(&world.source());
    // Smaller than the data, so that there are always misses; names are never believed.
    let mount = world.mount(&world.source_url(), &["--hot-size", "64MiB", "--ttl", "0s"]);
    let load = Load::start(&mount, SEED);
    let Waits {
        kills: mut gaps,
        mut quiet,
    } = kill_under_load(&world, &load, kills(), SEED);
    let done = load.finish();
    for (what, gaps) in [("quiet moments", &mut quiet), ("kills", &mut gaps)] {
        gaps.sort();
        println!(
            "{} {what}: gap p50 {:?}, p99 {:?}, longest {:?}",
            gaps.len(),
            percentile(gaps, 0.5),
            percentile(gaps, 0.99),
            gaps[gaps.len() - 1],
        );
    }
    println!("{done} operations, none failed");
    check_everything(&mount);
    assert!(gaps[gaps.len() - 1] < HANG, "an application hung");
    if let Some(bar) = named("TERRACE_TEST_GAP").map(Duration::from_millis) {
        assert!(
            percentile(&gaps, 0.99) < bar,
            "applications waited longer than {bar:?} at p99"
        );
    }
}

// SEMANTICS S16: without it an upgrade breaks running jobs.
#[test]
fn upgraded_under_load() {
    need_mount!("upgraded_under_load");
    let world = World::start();
    make_files(&world.source());
    let mount = world.mount(&world.source_url(), &["--hot-size", "64MiB", "--ttl", "0s"]);
    let load = Load::start(&mount, SEED + 1);
    let mut moments = Vec::new();
    for number in 0..3 {
        load.wait_for_progress();
        let (keeper, worker) = (world.keeper(), world.worker());
        let binary = world.new_binary(number);
        moments.push(Instant::now());
        let hot = world.hot();
        world.run_with(
            &binary,
            &["keeper", "--upgrade", "--hot", hot.to_str().unwrap()],
        );
        assert_ne!((world.keeper(), world.worker()), (keeper, worker));
        for process in [world.keeper(), world.worker()] {
            let running = fs::read_link(format!("/proc/{process}/exe")).unwrap();
            assert_eq!(running, binary, "the new binary runs");
        }
        wait_for("the old keeper's end", || !world::is_running(keeper));
    }
    load.wait_for_progress();
    let gaps = load.gaps(&moments);
    println!("3 upgrades, {} operations: gaps {gaps:?}", load.finish());
    check_everything(&mount);
    world.umount(&mount);
    wait_for("the node's end", || !world::is_running(world.keeper()));
}

// SEMANTICS S17: without it applications hang for ever when the worker cannot start any more.
#[test]
fn a_worker_that_does_not_come_back() {
    need_mount!("a_worker_that_does_not_come_back");
    let world = World::start();
    fs::write(world.source().join("file"), "text").unwrap();
    world.start_breakable_keeper("2s");
    let mount = world.mount(&world.source_url(), &["--ttl", "0s"]);
    world.break_worker();
    let begun = Instant::now();
    let error = fs::read(mount.join("file")).unwrap_err();
    println!("a read failed after {:?}: {error}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(15));
    wait_for("the mount point", || !world::is_mounted(&mount));
    fs::read_dir(&mount).unwrap();
    // What stopped the worker is repaired: the same command works again.
    world.repair_worker();
    let mount = world.mount(&world.source_url(), &[]);
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"text");
}

// SEMANTICS S18: without it a node with a busy mount cannot be drained.
#[test]
fn umount_of_a_busy_mount() {
    need_mount!("umount_of_a_busy_mount");
    let world = World::start();
    make_files(&world.source());
    let mount = world.mount(&world.source_url(), &[]);
    let mut busy = File::open(mount.join("big0")).unwrap();
    busy.read_exact(&mut [0; 100]).unwrap();
    let (keeper, worker) = (world.keeper(), world.worker());
    world.umount(&mount);
    assert!(!world::is_mounted(&mount));
    // Its user goes on, even over the death of the worker.
    world.signal(worker, Signal::SIGKILL);
    let mut rest = Vec::new();
    busy.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() as u64 + 100, load::BIG);
    drop(busy);
    wait_for("the node's end", || !world::is_running(keeper));
}

// SEMANTICS S18: without it a mount whose worker is dead or hung could not be removed.
#[test]
fn umount_without_a_working_worker() {
    need_mount!("umount_without_a_working_worker");
    let world = World::start();
    fs::write(world.source().join("file"), "text").unwrap();
    world.start_breakable_keeper("1h");
    let mount = world.mount(&world.source_url(), &["--ttl", "0s"]);
    let reader = |path: std::path::PathBuf| std::thread::spawn(move || fs::read(path));

    world.signal(world.worker(), Signal::SIGSTOP);
    let hung = reader(mount.join("file"));
    std::thread::sleep(Duration::from_millis(200));
    world.umount(&mount);
    assert!(!world::is_mounted(&mount));
    hung.join().unwrap().unwrap_err();

    wait_for("the node's end", || !world::is_running(world.keeper()));
    world.start_breakable_keeper("1h");
    let mount = world.mount(&world.source_url(), &["--ttl", "0s"]);
    world.break_worker();
    let hung = reader(mount.join("file"));
    std::thread::sleep(Duration::from_millis(200));
    world.umount(&mount);
    assert!(!world::is_mounted(&mount));
    hung.join().unwrap().unwrap_err();
}

// SEMANTICS S16, S18: without it the death of the keeper would end all mounts, or make them eternal.
#[test]
fn mounts_without_a_keeper() {
    need_mount!("mounts_without_a_keeper");
    let world = World::start();
    make_files(&world.source());
    let first = world.mount(&world.source_url(), &["--ttl", "0s"]);
    let load = Load::start(&first, SEED + 2);
    let worker = world.worker();
    world.signal(world.keeper(), Signal::SIGKILL);
    load.wait_for_progress();
    // The next mount starts a keeper, which adopts the worker with the first mount.
    let second = world.mount(&world.source_url(), &[]);
    assert_eq!(world.worker(), worker, "the worker went on");
    check_everything(&second);
    load.wait_for_progress();
    // The new keeper can do what the old one could.
    kill_under_load(&world, &load, 3, SEED);
    load.finish();
    world.umount(&second);

    // Without a keeper umount does it alone, and the orphan ends by itself.
    let worker = world.worker();
    world.signal(world.keeper(), Signal::SIGKILL);
    let busy = File::open(first.join("big0")).unwrap();
    world.umount(&first);
    assert!(!world::is_mounted(&first));
    fs::read_dir(first.join("d0")).unwrap_err();
    drop(busy);
    wait_for("the orphan's end", || !world::is_running(worker));
}

// Without it users would guess why nothing was mounted, and find half a mount left behind.
#[test]
fn a_failed_mount_says_why_and_leaves_nothing() {
    need_mount!("a_failed_mount_says_why_and_leaves_nothing");
    let world = World::start();
    let full = world.scratch("full");
    fs::write(full.join("x"), "").unwrap();
    let free = world.scratch("free");
    let absent = world.scratch("free").join("absent");
    let cases = [
        ("file:///does/not/exist", &free, "1"),
        (&world.source_url(), &absent, "mkdir"),
        (&world.source_url(), &full, "not empty"),
        ("ftp://host/x", &free, "ftp"),
    ];
    for (source, mountpoint, expected) in cases {
        let (status, said) = world.try_mount(source, mountpoint, &[]);
        println!("  {}", said.trim_end());
        assert_eq!(status, 1, "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
        assert!(expected == "1" || said.contains(expected), "{said}");
        assert!(
            said.contains(mountpoint.to_str().unwrap()),
            "it names the mount point: {said}"
        );
        assert!(!world::is_mounted(mountpoint));
    }
    wait_for("the end of every process", || world.processes().is_empty());
    // And a mount that is there already is neither hidden nor broken by a second one.
    let mount = world.mount(&world.source_url(), &[]);
    let (status, said) = world.try_mount(&world.source_url(), &mount, &[]);
    assert!(
        status == 1 && said.contains("mounted there already"),
        "{said}"
    );
}

// Without it a mount in the foreground would outlive the terminal it was started from.
#[test]
fn a_mount_in_the_foreground_ends_with_its_command() {
    need_mount!("a_mount_in_the_foreground_ends_with_its_command");
    let world = World::start();
    fs::write(world.source().join("file"), "text").unwrap();
    for by_signal in [true, false] {
        let (mount, mut command) = world.mount_in_foreground();
        wait_for("the mount", || fs::read(mount.join("file")).is_ok());
        if by_signal {
            world.signal(i32::try_from(command.id()).unwrap(), Signal::SIGTERM);
        } else {
            world.umount(&mount);
        }
        let mut status = None;
        wait_for("the command's end", || {
            status = command.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
        assert!(!world::is_mounted(&mount));
    }
}
