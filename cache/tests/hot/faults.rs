//! Faults of the disk under the tier: full, out of inodes, EIO, hung, and power cuts. Reads stay
//! right or become misses; every test asserts that its fault happened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::disk::{Disk, Power, freeze, shut_down, thaw};
use crate::support::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use terrace_cache::hot::{BLOCK, DiskState, HotConfig, HotErrorKind, HotTier};

const MIB: u64 = 1 << 20;

/// No three syncs take longer, however busy the machine is.
const SYNCED: Duration = Duration::from_secs(60);

/// Unwraps a disk, or says on a line of its own why the test cannot run here.
macro_rules! disk_or_skip {
    ($test:literal, $disk:expr) => {
        match $disk {
            Ok(disk) => disk,
            Err(reason) => {
                println!("SKIP {}: {reason}", $test);
                return;
            }
        }
    };
}

/// Compares what is there of `seed`; returns whether all of it was. An error is a miss.
async fn check_object(tier: &HotTier, seed: u64, size: u64) -> bool {
    let Ok(object) = tier.object(&id(seed, size), &dataset()) else {
        return false;
    };
    let mut whole = true;
    let mut at = 0;
    while at < size {
        let end = (at + BLOCK).min(size);
        match object.read(at..end).await {
            Ok(Some(bytes)) => {
                assert!(
                    bytes == content(seed, at, (end - at) as usize),
                    "wrong bytes"
                );
            }
            _ => whole = false,
        }
        at = end;
    }
    whole
}

// Without this, a full disk would stop reads, lose its index, or be full for ever.
#[tokio::test]
async fn a_full_disk_evicts_and_goes_on() {
    let disk = disk_or_skip!("a_full_disk_evicts_and_goes_on", Disk::tmpfs(40 * MIB));
    let config = config(&disk.path());
    let tier = open(&config);
    let mut whole = 0;
    for seed in 0..120 {
        let size = if seed % 3 == 0 { 3 * MIB } else { 400_000 };
        // The budget (1 GiB) never bites: it is the file system that says no.
        if let Ok(object) = tier.object(&id(seed, size), &dataset()) {
            let _ = fill(&object, seed).await;
        }
        whole += u32::from(check_object(&tier, seed, size).await);
    }
    let stats = tier.stats();
    assert!(
        stats.evicted_objects > 10,
        "the disk was never full: {stats:?}"
    );
    assert!(whole > 100, "only {whole} of 120 could be cached");
    assert_eq!(tier.usage().disk, DiskState::Healthy, "full is not broken");
    assert_eq!(stats.quarantined_blocks, 0);
    tier.sync().unwrap();
    drop(tier);
    let tier = open(&config);
    for seed in 0..120 {
        check_object(&tier, seed, if seed % 3 == 0 { 3 * MIB } else { 400_000 }).await;
    }
    assert!(tier.usage().objects > 3);
}

// Without this, the tier would fill a disk that others share.
#[tokio::test]
async fn the_watermark_leaves_room_for_others() {
    let disk = disk_or_skip!(
        "the_watermark_leaves_room_for_others",
        Disk::tmpfs(64 * MIB)
    );
    let config = HotConfig {
        min_free_bytes: 30 * MIB,
        ..config(&disk.path())
    };
    let tier = open(&config);
    for seed in 0..60 {
        drop(filled(&tier, seed, 2 * MIB).await);
        let free = nix::sys::statvfs::statvfs(&disk.path()).unwrap();
        let free = free.blocks_available() * free.fragment_size();
        assert!(free >= 29 * MIB, "only {free} bytes are left");
    }
    assert!(tier.stats().evicted_objects > 20);
}

// Without this, a disk of many small files would refuse everything although it has room.
#[tokio::test]
async fn a_disk_without_inodes_evicts_and_goes_on() {
    let disk = Disk::ext4(96 * MIB, &["-N", "600"]);
    let disk = disk_or_skip!("a_disk_without_inodes_evicts_and_goes_on", disk);
    let tier = open(&config(&disk.path()));
    let mut whole = 0;
    for seed in 0..900 {
        if let Ok(object) = tier.object(&id(seed, 1000), &dataset()) {
            let _ = fill(&object, seed).await;
        }
        whole += u32::from(check_object(&tier, seed, 1000).await);
    }
    let stats = tier.stats();
    assert!(
        stats.evicted_objects > 300,
        "it never ran out of inodes: {stats:?}"
    );
    assert!(whole > 850, "only {whole} of 900 could be cached");
    assert_eq!(tier.usage().disk, DiskState::Healthy);
}

// SEMANTICS S5.
// Without this, a dead SSD would fail or hang the reads of the whole node.
#[tokio::test]
async fn a_dead_disk_is_bypassed_and_a_new_daemon_recovers() {
    let disk = Disk::ext4(128 * MIB, &[]);
    let mut disk = disk_or_skip!("a_dead_disk_is_bypassed_and_a_new_daemon_recovers", disk);
    let config = HotConfig {
        operation_timeout: Duration::from_secs(5),
        probe_interval: Duration::from_millis(20),
        ..config(&disk.path())
    };
    let tier = open(&config);
    for seed in 0..6 {
        drop(filled(&tier, seed, 3 * MIB + 5).await);
    }
    tier.sync().unwrap();
    shut_down(&disk.handle());
    let begun = Instant::now();
    while tier.usage().disk != DiskState::Down {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{:?}",
            tier.usage()
        );
        for seed in 0..12 {
            let asked = Instant::now();
            check_object(&tier, seed, 3 * MIB + 5).await;
            if let Ok(object) = tier.object(&id(seed, 3 * MIB + 5), &dataset()) {
                let _ = fill(&object, seed).await;
            }
            assert!(
                asked.elapsed() < Duration::from_secs(30),
                "an operation waits for the disk"
            );
        }
    }
    let stats = tier.stats();
    assert!(stats.disk_errors > 0, "the fault never happened: {stats:?}");
    let refused = tier.object(&id(99, 5), &dataset()).unwrap_err();
    assert_eq!(
        refused.kind,
        HotErrorKind::Closed,
        "down means: not even asked"
    );
    drop(tier);

    disk.unmount();
    disk.mount().unwrap();
    let tier = open(&rebooted(&config, 2));
    let mut whole = 0;
    for seed in 0..6 {
        whole += u32::from(check_object(&tier, seed, 3 * MIB + 5).await);
    }
    assert_eq!(whole, 6, "what was complete is still there");
    drop(filled(&tier, 50, 3 * MIB).await);
    drop(tier);
}

// SEMANTICS S5.
// Without this, a disk that stops answering would hang every reader, and the tier would stay off
// after it has come back.
#[tokio::test]
async fn a_hung_disk_is_bypassed_until_it_answers_again() {
    let disk = Disk::ext4(128 * MIB, &[]);
    let disk = disk_or_skip!("a_hung_disk_is_bypassed_until_it_answers_again", disk);
    let config = HotConfig {
        // Longer than a busy machine takes for a block while the disk is well.
        operation_timeout: Duration::from_secs(1),
        probe_interval: Duration::from_millis(30),
        ..config(&disk.path())
    };
    let tier = open(&config);
    let kept = filled(&tier, 1, 2 * MIB).await;
    tier.sync().unwrap();
    let handle = disk.handle();
    freeze(&handle);
    let begun = Instant::now();
    let mut timeouts = 0;
    while tier.usage().disk != DiskState::Down {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{:?}",
            tier.usage()
        );
        let asked = Instant::now();
        let seed = 100 + timeouts;
        match tier.object(&id(seed, MIB), &dataset()) {
            Ok(object) => {
                let error = fill(&object, seed).await.unwrap_err();
                timeouts += u64::from(error.kind == HotErrorKind::Timeout);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        assert!(
            asked.elapsed() < Duration::from_secs(30),
            "an operation waits for the disk"
        );
    }
    assert!(
        timeouts > 0 && tier.stats().timeouts > 0,
        "nothing ever hung"
    );
    let refused = kept.read(0..MIB).await.unwrap_err();
    assert_eq!(
        refused.kind,
        HotErrorKind::Closed,
        "down: the disk is not asked, the caller goes to the store"
    );

    thaw(&handle).unwrap();
    let begun = Instant::now();
    while tier.usage().disk != DiskState::Healthy {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{:?}",
            tier.usage()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(check_object(&tier, 1, 2 * MIB).await);
    drop(filled(&tier, 7, 2 * MIB).await);
}

/// Fills and syncs until the power is cut, and counts the syncs; returns the objects that were said to be
/// complete.
async fn work_until_cut(
    tier: &HotTier,
    random: &mut SmallRng,
    seeds: std::ops::Range<u64>,
    syncs: &AtomicU64,
    power: &Power,
) -> Vec<u64> {
    let mut synced = Vec::new();
    let mut open = Vec::new();
    for seed in seeds {
        let size = cut_size(seed);
        let Ok(object) = tier.object(&id(seed, size), &dataset()) else {
            break;
        };
        if fill(&object, seed).await.is_err() {
            break;
        }
        open.push(seed);
        if random.random_range(0..4) == 0 {
            if tier.sync().is_err() || !power.is_on() {
                break;
            }
            synced.append(&mut open);
            syncs.fetch_add(1, Ordering::Relaxed);
        }
    }
    synced
}

fn cut_size(seed: u64) -> u64 {
    match seed % 10 {
        0 => 17 * MIB + seed,
        1..=3 => 2 * MIB + seed,
        _ => 100_000 + seed,
    }
}

// SEMANTICS S20.
// Without this, "complete" would mean nothing after a power cut: files full of zeros under a
// record that vouches for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_complete_and_keeps_nothing_wrong() {
    let disk = Disk::ext4(1024 * MIB, &[]);
    let disk = disk_or_skip!("a_power_cut_loses_nothing_that_was_complete", disk);
    cut_the_power(disk, 22).await;
}

// SEMANTICS S20.
// Without this, the promise would hold on the file system of the machine it was written on only:
// XFS orders data and metadata differently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_on_xfs_loses_nothing_that_was_complete_and_keeps_nothing_wrong() {
    let disk = disk_or_skip!(
        "a_power_cut_on_xfs_loses_nothing_that_was_complete",
        Disk::xfs(1024 * MIB)
    );
    cut_the_power(disk, 22).await;
}

async fn cut_the_power(mut disk: Disk, cycles: u64) {
    let mut random = SmallRng::seed_from_u64(5);
    let mut durable: BTreeSet<u64> = BTreeSet::new();
    let (mut errors, mut checked) = (0, 0);
    for cycle in 0..cycles {
        let config = HotConfig {
            limit_bytes: 900 * MIB,
            ..rebooted(&config(&disk.path()), (cycle + 1) as u8)
        };
        let tier = open(&config);
        let mut evicted = 0;
        for seed in durable.clone() {
            let size = cut_size(seed);
            assert!(
                check_object(&tier, seed, size).await,
                "cycle {cycle}: object {seed} is lost"
            );
            checked += 1;
            // Keeps the disk from filling up; a cut may bring it back, whole or not at all.
            if random.random_range(0..4) > 0 && tier.evict(&digest(seed, size)).unwrap() {
                evicted += 1;
                durable.remove(&seed);
            }
        }
        for seed in 1000 * cycle.saturating_sub(1)..1000 * cycle {
            if tier.peek(&digest(seed, cut_size(seed))).is_some() {
                check_object(&tier, seed, cut_size(seed)).await;
            }
        }
        let handle = disk.handle();
        let pause = Duration::from_millis(random.random_range(5..250));
        // At any moment, but of most cycles behind a sync: on a busy machine nothing is complete within a
        // fraction of a second.
        let (syncs, wanted) = (Arc::new(AtomicU64::new(0)), cycle % 4);
        let seen = Arc::clone(&syncs);
        let power = Arc::new(Power::default());
        let off = Arc::clone(&power);
        let cut = std::thread::spawn(move || {
            let begun = Instant::now();
            while seen.load(Ordering::Relaxed) < wanted && begun.elapsed() < SYNCED {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(pause);
            off.cut(&handle);
        });
        let seeds = 1000 * cycle..1000 * cycle + 1000;
        let synced = work_until_cut(&tier, &mut random, seeds, &syncs, &power).await;
        durable.extend(synced);
        cut.join().unwrap();
        let stats = tier.stats();
        assert_eq!(stats.evicted_objects, evicted, "none for want of room");
        errors += stats.disk_errors;
        drop(tier);
        disk.unmount();
        disk.mount().unwrap();
    }
    println!("{errors} disk errors, {checked} complete objects checked after a cut");
    assert!(
        errors > 0,
        "the power was never cut in the middle of anything"
    );
    assert!(checked > 20, "nothing was complete before a cut");
}
