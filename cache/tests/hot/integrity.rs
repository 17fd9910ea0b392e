//! Damage of every kind, done to the files of a tier between two runs or under a running one: the
//! tier forgets what was damaged, and never returns a wrong byte.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use terrace_cache::hot::{BLOCK, HotConfig, HotTier, Residency};

const SMALL: u64 = 100_000;
const MIDDLE: u64 = 2 * BLOCK + 9;
const BIG: u64 = 18 * BLOCK + 777;

/// Objects 1 to 4, complete and synced: two small ones of one size, a middle and a big one.
async fn prepared(config: &HotConfig) -> [(u64, u64); 4] {
    let tier = open(config);
    let objects = [(1, SMALL), (2, SMALL), (3, MIDDLE), (4, BIG)];
    for (seed, size) in objects {
        drop(filled(&tier, seed, size).await);
    }
    objects
}

/// Reads everything, fetching what is missing as a fill would. Returns how many objects were
/// not wholly there. Panics on a wrong byte.
async fn read_and_refetch(tier: &HotTier, objects: &[(u64, u64)]) -> usize {
    let mut refetched = 0;
    for &(seed, size) in objects {
        let object = tier.object(&id(seed, size), &dataset()).unwrap();
        let mut missed = 0;
        while read_all(&object, seed).await.is_none() {
            missed += 1;
            assert!(missed < 30, "never whole again");
            fill(&object, seed).await.unwrap();
        }
        refetched += usize::from(missed > 0);
        assert!(object.is_filled());
        let backing = object.backing().unwrap().unwrap();
        let mut all = vec![0; size as usize];
        backing.file().read_exact_at(&mut all, 0).unwrap();
        assert!(
            all == content(seed, 0, all.len()),
            "passthrough serves wrong bytes"
        );
    }
    refetched
}

/// Damages a prepared directory and reads all of it; `lost` objects must have been fetched again.
async fn check(name: &str, lost: usize, damage: impl Fn(&HotConfig)) {
    let directory = directory("damage");
    let config = config(directory.path());
    let objects = prepared(&config).await;
    damage(&config);
    let tier = open(&config);
    assert_eq!(read_and_refetch(&tier, &objects).await, lost, "{name}");
    let stats = tier.stats();
    let noticed = stats.quarantined_blocks + stats.discarded_objects;
    assert_eq!(noticed > 0, lost > 0, "{name}: {stats:?}");
    tier.sync().unwrap();
    drop(tier);
    let tier = open(&config);
    assert_eq!(
        read_and_refetch(&tier, &objects).await,
        0,
        "{name}: healed for good"
    );
}

fn truncate(path: &Path, length: u64) {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length)
        .unwrap();
}

fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    std::fs::rename(one, &aside).unwrap();
    std::fs::rename(other, one).unwrap();
    std::fs::rename(&aside, other).unwrap();
}

// SEMANTICS S4.
// Without this, bit rot or a clumsy hand in the hot directory would reach a training job.
#[tokio::test]
async fn damaged_data_files_are_fetched_again() {
    let small = |config: &HotConfig| data_file(config, &digest(1, SMALL));
    let big = |config: &HotConfig| data_file(config, &digest(4, BIG));
    check("nothing", 0, |_| {}).await;
    check("flip small", 1, |config| flip_bit(&small(config), 77_777)).await;
    check("flip first of big", 1, |config| flip_bit(&big(config), 0)).await;
    check("flip last of big", 1, |config| {
        flip_bit(&big(config), BIG - 1)
    })
    .await;
    check("truncate small", 1, |config| {
        truncate(&small(config), SMALL - 1)
    })
    .await;
    check("truncate big", 1, |config| truncate(&big(config), BLOCK)).await;
    check("extend small", 1, |config| {
        truncate(&small(config), SMALL + 1)
    })
    .await;
    check("extend big", 1, |config| truncate(&big(config), BIG + 4096)).await;
    check("empty small", 1, |config| truncate(&small(config), 0)).await;
    check("delete small", 1, |config| {
        std::fs::remove_file(small(config)).unwrap()
    })
    .await;
    check("delete big", 1, |config| {
        std::fs::remove_file(big(config)).unwrap()
    })
    .await;
    check("swap two of one length", 2, |config| {
        swap(&small(config), &data_file(config, &digest(2, SMALL)));
    })
    .await;
    check("zeros", 1, |config| {
        std::fs::write(small(config), vec![0; SMALL as usize]).unwrap();
    })
    .await;
    check("touched only", 0, |config| {
        let bytes = std::fs::read(small(config)).unwrap();
        std::fs::write(small(config), bytes).unwrap();
    })
    .await;
}

// Without this, a damaged description would make right bytes wrong, or wrong ones right.
#[tokio::test]
async fn damaged_sidecars_are_fetched_again() {
    let sidecar = |config: &HotConfig| sidecar_file(config, &digest(4, BIG));
    for at in [0, 9, 41, 50, 57, 64, 70, 100, 142] {
        check("flip", 1, |config| flip_bit(&sidecar(config), at)).await;
    }
    check("delete", 1, |config| {
        std::fs::remove_file(sidecar(config)).unwrap()
    })
    .await;
    check("truncate", 1, |config| truncate(&sidecar(config), 30)).await;
    check("extend", 1, |config| truncate(&sidecar(config), 4096)).await;
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.is_file() && path.metadata().unwrap().len() > 0);
    files.sort();
    files
}

// Without this, a damaged index would stop the daemon from starting, or vouch for wrong bytes.
#[tokio::test]
async fn a_damaged_index_costs_at_most_what_it_described() {
    let directory = directory("index");
    let pristine = config(&directory.path().join("pristine"));
    let objects = prepared(&pristine).await;
    let mut random = SmallRng::seed_from_u64(11);
    let (mut lost, mut unopened) = (0, 0);
    for round in 0..40 {
        let copy = config(&directory.path().join(format!("copy-{round}")));
        copy_tree(&pristine.directory, &copy.directory);
        let files = files_below(&copy.directory.join("index"));
        let file = &files[random.random_range(0..files.len())];
        let length = file.metadata().unwrap().len();
        match round % 4 {
            0 | 1 => flip_bit(file, random.random_range(0..length)),
            2 => truncate(file, random.random_range(0..length)),
            _ => std::fs::remove_file(file).unwrap(),
        }
        let tier = open(&copy);
        lost += read_and_refetch(&tier, &objects).await;
        unopened += usize::from(copy.directory.join("index.damaged").exists());
        drop(tier);
        std::fs::remove_dir_all(&copy.directory).unwrap();
    }
    assert!(lost > 0, "no damage had any effect");
    assert!(unopened > 0, "no damage was bad enough to start anew");
}

// SEMANTICS S4.
// Without this, a file that changes under a running daemon would be served.
#[tokio::test]
async fn damage_under_a_running_tier_is_noticed() {
    let directory = directory("running");
    let config = config(directory.path());
    let tier = open(&config);
    let object = filled(&tier, 4, BIG).await;
    tier.sync().unwrap();
    let backing = object.backing().unwrap().unwrap();
    let before = backing.path();
    assert!(backing.check());

    flip_bit(&before, 3 * BLOCK);
    assert!(!backing.check(), "the next open must not use it");
    assert!(object.backing().unwrap().is_none());
    assert!(
        object.read(0..BIG).await.unwrap().is_none(),
        "the bad block is found"
    );
    assert_eq!(tier.stats().quarantined_blocks, 1);
    assert_eq!(
        object.missing(0..u32::MAX),
        vec![0..19],
        "the object moves to a new file"
    );
    fill(&object, 4).await.unwrap();
    let after = object.backing().unwrap().unwrap();
    assert_ne!(
        after.path(),
        before,
        "a file that may be somebody's backing is not written"
    );
    assert!(!before.exists());
    assert!(backing.is_evicted());
    assert!(
        tier.usage().zombie_bytes >= BIG,
        "its reader still holds the old file"
    );
    drop(backing);
    wait_until("the close of its file", || tier.usage().zombie_bytes == 0);
    read_all(&object, 4).await.unwrap();
    let kept = std::fs::read_dir(config.directory.join("quarantine"))
        .unwrap()
        .count();
    assert_eq!(kept, 1, "the bad bytes are kept for whoever looks into it");

    truncate(&after.path(), 5);
    assert!(!after.check());
    assert!(object.backing().unwrap().is_none());
    assert!(object.read(0..10).await.unwrap().is_none());
    fill(&object, 4).await.unwrap();
    read_all(&object, 4).await.unwrap();
}

// Without this, a bad block of a partial file would be served after a restart.
#[tokio::test]
async fn a_bad_block_of_a_partial_file_is_the_only_one_fetched_again() {
    let directory = directory("partial");
    let config = config(directory.path());
    for (seed, size) in [(3, MIDDLE), (4, BIG)] {
        let tier = open(&config);
        let object = tier.object(&id(seed, size), &dataset()).unwrap();
        for block in [0, 1] {
            object
                .write(block, block_content(seed, size, block))
                .await
                .unwrap();
        }
        drop((object, tier));
        flip_bit(&data_file(&config, &digest(seed, size)), BLOCK + 5);
        let tier = open(&config);
        let object = tier.object(&id(seed, size), &dataset()).unwrap();
        assert!(object.read(0..2 * BLOCK).await.unwrap().is_none());
        assert_eq!(object.missing(0..2), vec![1..2]);
        assert!(object.read(0..BLOCK).await.unwrap().is_some());
        fill(&object, seed).await.unwrap();
        read_all(&object, seed).await.unwrap();
        assert_eq!(tier.stats().quarantined_blocks, 1);
    }
}

// Without this, an unclean boot would be trusted, or everything would be forgotten after one.
#[tokio::test]
async fn after_an_unclean_boot_everything_is_verified_before_its_first_use() {
    let directory = directory("boot");
    let config = config(&directory.path().join("live"));
    let objects = prepared(&config).await;
    let tier = open(&config);
    // The copy is what a power cut would leave behind: not marked clean.
    let crashed = rebooted(
        &crate::support::config(&directory.path().join("crashed")),
        2,
    );
    copy_tree(&config.directory, &crashed.directory);
    drop(tier);
    flip_bit(&data_file(&crashed, &digest(4, BIG)), 5 * BLOCK);

    let tier = open(&crashed);
    for (seed, size) in objects {
        assert_eq!(tier.peek(&digest(seed, size)), Some(Residency::Complete));
        let object = tier.object(&id(seed, size), &dataset()).unwrap();
        assert!(!object.is_filled(), "not before it was verified");
    }
    let big = tier.object(&id(4, BIG), &dataset()).unwrap();
    assert!(
        big.backing().unwrap().is_none(),
        "large ones are not verified on open"
    );
    assert!(!big.verify().await.unwrap());
    assert_eq!(read_and_refetch(&tier, &objects).await, 1);
    let blocks = tier.stats().verified_blocks;
    assert!(blocks >= 1 + 1 + 3 + 6, "{blocks}");
    tier.sync().unwrap();
    drop((big, tier));

    let tier = open(&rebooted(&crashed, 3));
    assert_eq!(read_and_refetch(&tier, &objects).await, 0);
    assert_eq!(
        tier.stats().verified_blocks,
        0,
        "verified once, trusted after a clean shutdown"
    );
}
