//! Upkeep of complete objects: the scrub, and hard links that keep their fingerprints.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::support::*;
use terrace_cache::hot::{BLOCK, HotConfig, HotTier, LinkAttributes, Linked, Residency};

const SMALL: u64 = 100_000;
const MIDDLE: u64 = 2 * BLOCK + 9;
const BIG: u64 = 18 * BLOCK + 777;

// Without this, rot in what nobody reads would stay, until the day the store is gone.
#[tokio::test]
async fn the_scrub_finds_what_no_fingerprint_shows() {
    let directory = directory("scrub");
    let config = config(directory.path());
    let tier = open(&config);
    for (seed, size) in [(1, SMALL), (2, SMALL), (3, MIDDLE), (4, BIG)] {
        drop(filled(&tier, seed, size).await);
    }
    tier.sync().unwrap();
    let clean = tier.scrub(u64::MAX).unwrap();
    assert_eq!((clean.objects, clean.bad), (4, 0));
    assert!(clean.bytes >= 2 * SMALL + MIDDLE + BIG);

    let held = tier.object(&id(4, BIG), &dataset()).unwrap();
    flip_bit(&data_file(&config, &digest(1, SMALL)), 5);
    flip_bit(&data_file(&config, &digest(4, BIG)), 17 * BLOCK);
    std::fs::remove_file(data_file(&config, &digest(3, MIDDLE))).unwrap();
    let found = tier.scrub(u64::MAX).unwrap();
    assert_eq!((found.objects, found.bad), (1, 3));
    assert!(!held.is_filled());
    assert_eq!(held.missing(0..19), vec![0..19]);
    assert_eq!(tier.peek(&digest(1, SMALL)), None);
    assert_eq!(tier.peek(&digest(2, SMALL)), Some(Residency::Complete));
    assert_eq!(tier.peek(&digest(3, MIDDLE)), None);
}

// Without this, the scrub would not run by itself, or take the whole disk.
#[tokio::test]
async fn the_background_scrub_runs_at_its_rate() {
    let directory = directory("rate");
    let config = HotConfig {
        scrub_bytes_per_second: 2 * BLOCK,
        scrub_min_age: Duration::ZERO,
        ..config(directory.path())
    };
    let tier = open(&config);
    drop(filled(&tier, 4, BIG).await);
    tier.sync().unwrap();
    let begun = std::time::Instant::now();
    while tier.stats().scrubbed_bytes < BIG {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the scrub never came"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The last step of 8 blocks may be taken on credit.
    assert!(
        begun.elapsed() > Duration::from_secs(4),
        "faster than its rate"
    );
}

/// What linked files shall look like, owned by whoever owns `tree`.
fn attributes(tree: &Path) -> LinkAttributes {
    let own = tree.metadata().unwrap();
    LinkAttributes {
        mode: 0o444,
        owner: (own.uid(), own.gid()),
        mtime_ns: 1_600_000_000_123_456_789,
    }
}

// Without this, a materialized tree would lose its files to eviction, or spoil the fingerprints.
#[tokio::test]
async fn links_hold_their_objects_and_keep_them_trusted() {
    let directory = directory("link");
    let config = config(directory.path());
    let tree = directory.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let tree_fd = std::fs::File::open(&tree).unwrap();
    let attributes = attributes(&tree);
    let tier = open(&config);
    let object = filled(&tier, 1, SMALL).await;
    let linker = tier.linker();
    let link = |tier: &HotTier, name: &str| {
        let linker = tier.linker();
        let result = linker.link(
            &digest(1, SMALL),
            tree_fd.as_fd(),
            name.as_ref(),
            &attributes,
        );
        linker.finish().unwrap();
        result
    };
    assert_eq!(link(&tier, "early").unwrap(), Linked::Incomplete);
    tier.sync().unwrap();
    let backing = object.backing().unwrap().unwrap();
    for name in ["a", "b"] {
        let linked = linker.link(
            &digest(1, SMALL),
            tree_fd.as_fd(),
            name.as_ref(),
            &attributes,
        );
        assert_eq!(linked.unwrap(), Linked::Yes);
    }
    linker.finish().unwrap();
    assert!(backing.check(), "our own link is not a change");
    assert!(link(&tier, "a").is_err(), "the name exists");
    assert_eq!(
        std::fs::read(tree.join("b")).unwrap(),
        content(1, 0, SMALL as usize)
    );
    let seen = tree.join("a").metadata().unwrap();
    assert_eq!(
        (seen.mode() & 0o777, seen.mtime(), seen.nlink()),
        (0o444, 1_600_000_000, 3)
    );
    drop((object, backing));
    assert!(!tier.evict(&digest(1, SMALL)).unwrap(), "held by two links");
    drop(tier);

    let tier = open(&config);
    assert!(tier.object(&id(1, SMALL), &dataset()).unwrap().is_filled());
    assert_eq!(tier.stats().verified_blocks, 0);
    let linker = tier.linker();
    linker
        .unlink(&digest(1, SMALL), tree_fd.as_fd(), "a".as_ref())
        .unwrap();
    linker.finish().unwrap();
    assert!(!tier.evict(&digest(1, SMALL)).unwrap(), "held by one link");
    let linker = tier.linker();
    linker
        .unlink(&digest(1, SMALL), tree_fd.as_fd(), "b".as_ref())
        .unwrap();
    linker.finish().unwrap();
    assert!(tier.object(&id(1, SMALL), &dataset()).unwrap().is_filled());

    flip_bit(&data_file(&config, &digest(1, SMALL)), 9);
    assert_eq!(link(&tier, "c").unwrap(), Linked::Unverified);
    assert!(tier.evict(&digest(1, SMALL)).unwrap(), "nobody holds it");
}
