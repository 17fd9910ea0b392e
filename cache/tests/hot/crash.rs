//! kill -9 at any step: a child process fills, evicts, links nothing and promotes, and is killed;
//! what it leaves behind is opened and every byte is compared. A second child only fills, is never
//! given the time to sync, and is killed: what it had filled must be there, on the same boot at once.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use terrace_cache::hot::{BLOCK, HotConfig, HotTier, Residency};

/// Set for the child: the directory to work in.
const CHILD: &str = "TERRACE_TEST_HOT_CHILD";

const OBJECTS: u64 = 40;
const CYCLES: u64 = 25;

/// Mostly small, some with a sidecar.
fn size_of(seed: u64) -> u64 {
    match seed % 8 {
        0 => 17 * BLOCK + seed,
        1 | 2 => 3 * BLOCK + seed,
        _ => 50_000 * (1 + seed % 5),
    }
}

fn crash_config(directory: &Path) -> HotConfig {
    HotConfig {
        // Too small for all of it, so that the child evicts, too.
        limit_bytes: 100 * BLOCK,
        sync_interval: Duration::from_millis(5),
        checkpoint_interval: Duration::from_millis(10),
        ..config(directory)
    }
}

// Not a test of its own: the body of the child that the next test kills. Without the variable there
// is nothing to do.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let tier = open(&crash_config(Path::new(&directory)));
    let mut random = SmallRng::seed_from_u64(std::process::id().into());
    for step in 0u64.. {
        if step == 3 {
            // The parent may kill from now on.
            let name = format!("busy-{}", std::process::id());
            std::fs::write(Path::new(&directory).join(name), "").unwrap();
        }
        let seed = random.random_range(0..OBJECTS);
        let size = size_of(seed);
        let Ok(object) = tier.object(&id(seed, size), &dataset()) else {
            continue;
        };
        let blocks = size.div_ceil(BLOCK) as u32;
        for _ in 0..random.random_range(1..=blocks) {
            let block = random.random_range(0..blocks);
            let _ = object.write(block, block_content(seed, size, block)).await;
        }
        if random.random_range(0..3) > 0 {
            let _ = fill(&object, seed).await;
            let _ = object.verify().await;
            if let Ok(Some(backing)) = object.backing() {
                let mut first = [0; 100];
                backing.file().read_exact_at(&mut first, 0).unwrap();
                assert_eq!(first[..], content(seed, 0, 100));
            }
        }
        drop(object);
        if random.random_range(0..10) == 0 {
            let _ = tier.evict(&digest(random.random_range(0..OBJECTS), size));
        }
    }
}

/// Set for the second child: the directory to fill.
const FILLER: &str = "TERRACE_TEST_HOT_FILLER";

/// A tier that does not come to sync anything by itself.
fn never_synced(directory: &Path) -> HotConfig {
    HotConfig {
        sync_interval: Duration::from_secs(3600),
        checkpoint_interval: Duration::from_secs(3600),
        ..config(directory)
    }
}

// Not a test of its own: the body of the child that the next test kills while it fills.
#[tokio::test]
async fn child_that_fills_until_it_is_killed() {
    let Some(directory) = std::env::var_os(FILLER) else {
        return;
    };
    let tier = open(&never_synced(Path::new(&directory)));
    for seed in 0u64.. {
        let object = filled(&tier, seed, size_of(seed)).await;
        assert!(object.backing().unwrap().is_some());
        drop(object);
        // Said after the fact, so what is said is filled.
        std::fs::write(Path::new(&directory).join("said.new"), seed.to_string()).unwrap();
        let said = Path::new(&directory).join("said");
        std::fs::rename(Path::new(&directory).join("said.new"), said).unwrap();
    }
}

/// Runs the second child until it has said `wanted`, kills it, and returns what it said last.
fn fill_and_kill(directory: &Path, wanted: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_fills_until_it_is_killed"])
        .env(FILLER, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = || -> Option<u64> {
        let text = std::fs::read_to_string(directory.join("said")).ok()?;
        text.parse().ok()
    };
    let begun = Instant::now();
    while said().is_none_or(|seed| seed < wanted) {
        let late = begun.elapsed() > Duration::from_secs(60);
        assert!(!late, "the child never filled {wanted} objects");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    said().unwrap()
}

// SEMANTICS S20.
// Without this, every crash of a worker would throw away the fills of the last moments and fetch
// them from the store again, although their bytes lie in the page cache.
#[tokio::test]
async fn what_was_filled_survives_a_kill_without_any_sync() {
    let directory = directory("filled");
    let last = fill_and_kill(directory.path(), 30);
    let config = never_synced(directory.path());
    let tier = open(&config);
    for seed in 0..=last {
        let object = tier.object(&id(seed, size_of(seed)), &dataset()).unwrap();
        assert!(object.is_filled(), "object {seed} of {last} is not filled");
        read_all(&object, seed).await.unwrap();
    }
    let partial = Residency::Partial {
        present_bytes: size_of(3).next_multiple_of(4096),
    };
    let residency = |tier: &HotTier| tier.peek(&digest(3, size_of(3)));
    assert_eq!(residency(&tier), Some(partial), "not synced yet");
    tier.sync().unwrap();
    assert_eq!(residency(&tier), Some(Residency::Complete));
    assert!(tier.stats().completed_objects > last);
    drop(tier);

    // Closed in order, so the next boot believes it as well.
    let tier = open(&rebooted(&config, 2));
    for seed in 0..=last {
        let object = tier.object(&id(seed, size_of(seed)), &dataset()).unwrap();
        assert!(object.is_filled(), "object {seed} was not adopted");
    }
}

// SEMANTICS S20.
// Without this, a record written before its data was synced would vouch for zeros after a power cut.
#[tokio::test]
async fn what_was_filled_and_not_synced_has_to_prove_itself_after_another_boot() {
    let directory = directory("filled-cut");
    let last = fill_and_kill(directory.path(), 20);
    let config = rebooted(&never_synced(directory.path()), 2);
    // What a power cut does to data that was never synced: its blocks are zeros.
    let (small, big) = (3, 8);
    let zeros = data_file(&config, &digest(small, size_of(small)));
    let file = std::fs::File::options().write(true).open(zeros).unwrap();
    file.write_all_at(&vec![0; size_of(small) as usize], 0)
        .unwrap();
    flip_bit(&data_file(&config, &digest(big, size_of(big))), 9 * BLOCK);

    let tier = open(&config);
    tier.sync().unwrap();
    for seed in 0..=last {
        let object = tier.object(&id(seed, size_of(seed)), &dataset()).unwrap();
        assert!(!object.is_filled(), "object {seed} is believed unchecked");
        let spoiled = seed == small || seed == big;
        assert_eq!(object.verify().await.unwrap(), !spoiled, "object {seed}");
        assert_eq!(read_all(&object, seed).await.is_some(), !spoiled);
    }
    assert_eq!(tier.stats().quarantined_blocks, 2);
}

/// Number of data files in the directory.
fn data_files(config: &HotConfig) -> usize {
    let objects = config.directory.join("objects");
    let shards = std::fs::read_dir(objects)
        .unwrap()
        .map(|shard| shard.unwrap().path());
    shards
        .flat_map(|shard| std::fs::read_dir(shard).unwrap())
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            !name.to_str().unwrap().contains(".map")
        })
        .count()
}

// SEMANTICS S20.
// Without this, a daemon that is killed in the middle of a fill would serve zeros or half blocks
// ever after, or fill the disk with files nobody knows.
#[tokio::test]
async fn kill_nine_at_any_step_leaves_nothing_wrong_behind() {
    let directory = directory("kill");
    let config = crash_config(directory.path());
    let mut random = SmallRng::seed_from_u64(42);
    let (mut complete, mut partial, mut swept) = (0, 0, 0);
    for cycle in 0..CYCLES {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_is_killed", "--test-threads=1"])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let busy = directory.path().join(format!("busy-{}", child.id()));
        while !busy.exists() {
            let late = begun.elapsed() > Duration::from_secs(60);
            assert!(!late, "cycle {cycle}: the child never began");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        assert!(
            child.try_wait().unwrap().is_none(),
            "cycle {cycle}: the child ended by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();

        let tier = open(&config);
        for seed in 0..OBJECTS {
            let size = size_of(seed);
            match tier.peek(&digest(seed, size)) {
                Some(Residency::Complete) => complete += 1,
                Some(Residency::Partial { .. }) => partial += 1,
                None => continue,
            }
            let object = tier.object(&id(seed, size), &dataset()).unwrap();
            for block in 0..size.div_ceil(BLOCK) {
                let range = block * BLOCK..((block + 1) * BLOCK).min(size);
                let length = (range.end - range.start) as usize;
                if let Some(bytes) = object.read(range.clone()).await.unwrap() {
                    assert!(bytes == content(seed, range.start, length), "cycle {cycle}");
                }
            }
            if let Some(backing) = object.backing().unwrap() {
                let mut all = vec![0; size as usize];
                backing.file().read_exact_at(&mut all, 0).unwrap();
                assert!(all == content(seed, 0, all.len()), "cycle {cycle}");
            }
        }
        let begun = Instant::now();
        while data_files(&config) as u64 != tier.usage().objects {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "files without a record stay"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        swept += tier.stats().swept_files;
        let found = tier.stats();
        assert_eq!(
            found.quarantined_blocks, 0,
            "the page cache survives a kill"
        );
    }
    println!("{complete} complete, {partial} partial objects, {swept} files swept");
    assert!(
        complete > CYCLES && partial > 0 && swept > 0,
        "the kills hit nothing"
    );
}
