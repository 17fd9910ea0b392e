//! Upkeep of complete objects: the scrub.

use std::time::Duration;

use crate::support::*;
use terrace_cache::hot::{BLOCK, HotConfig, Residency};

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
