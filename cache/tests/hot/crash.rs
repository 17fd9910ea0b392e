//! kill -9 at any step: a child process fills, evicts, links nothing and promotes, and is killed;
//! what it leaves behind is opened and every byte is compared.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use terrace_cache::hot::{BLOCK, HotConfig, Residency};

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
