//! How long a hot tier of many objects takes to open, and how much memory it takes.
//!
//! `cargo run -p terrace-cache --example hot_start [-- OBJECTS]`, one million by default. The
//! records are written straight to the index, from the format's description alone, and no data
//! file exists: opening does not look at any.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::{Duration, Instant};

use rocksdb::{DB, Options, WriteBatch};
use sha2::{Digest as _, Sha256};
use terrace_cache::Digest;
use terrace_cache::hot::{HotConfig, HotTier, Residency};
use terrace_cache::policy::{EpochPolicy, Lru, Policy};

const SIZE: u64 = 110_000;

fn digest(number: u64) -> [u8; 32] {
    Sha256::digest(number.to_le_bytes()).into()
}

/// An index record of a complete object of one block, as `record.rs` specifies it.
fn record(key: &[u8; 32], number: u64) -> Vec<u8> {
    let dataset = format!("ns.table-{}", number % 20);
    let mut out = vec![1, 2];
    out.extend_from_slice(&(dataset.len() as u16).to_le_bytes());
    out.extend_from_slice(&1u32.to_le_bytes());
    for field in [number, SIZE, 0x801, number, 1, 1, 110_592, SIZE] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(dataset.as_bytes());
    out.push(1);
    out.extend_from_slice(&0x1234_5678u32.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn write_index(config: &HotConfig, objects: u64) {
    drop(open(config, Box::new(Lru::new())));
    let mut options = Options::default();
    options.set_max_background_jobs(2);
    let families = ["default", "objects", "marks", "pins"];
    let db = DB::open_cf(&options, config.directory.join("index"), families).unwrap();
    let (records, marks) = (
        db.cf_handle("objects").unwrap(),
        db.cf_handle("marks").unwrap(),
    );
    for start in (0..objects).step_by(10_000) {
        let mut batch = WriteBatch::default();
        for number in start..(start + 10_000).min(objects) {
            let key = digest(number);
            batch.put_cf(records, key, record(&key, number));
            let mark = [(number as u32).to_le_bytes(), 7u32.to_le_bytes()].concat();
            batch.put_cf(marks, key, mark);
        }
        db.write(batch).unwrap();
    }
    db.flush_cf(records).unwrap();
    db.flush_cf(marks).unwrap();
}

fn open(config: &HotConfig, policy: Box<dyn Policy>) -> HotTier {
    HotTier::open(config.clone(), policy).unwrap()
}

/// Resident memory of this process in MiB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    (pages * 4096) >> 20
}

/// Processor seconds this process has used, all threads together.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

fn measure(name: &str, config: &HotConfig, objects: u64, policy: impl Fn() -> Box<dyn Policy>) {
    let mut times: Vec<Duration> = Vec::new();
    let mut spent = 0.0;
    for _ in 0..5 {
        let (begun, before) = (Instant::now(), processor());
        let tier = open(config, policy());
        times.push(begun.elapsed());
        spent += (processor() - before) / 5.0;
        assert_eq!(tier.usage().objects, objects);
        drop(tier);
    }
    times.sort();
    let before = resident();
    let tier = open(config, policy());
    let after = resident();
    let begun = Instant::now();
    for number in 0..objects {
        assert_eq!(
            tier.peek(&Digest(digest(number))),
            Some(Residency::Complete)
        );
    }
    let peek = begun.elapsed() / objects.max(1) as u32;
    println!(
        "{name}: {objects} objects open in {:?} (median of 5, worst {:?}), {spent:.2} s \
         of processor time, {} MiB more \
         resident ({before} before), peek with digest {peek:?}",
        times[2],
        times[4],
        after.saturating_sub(before),
    );
}

fn main() {
    let objects = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let objects = objects.unwrap_or(1_000_000);
    let directory = tempfile::tempdir().unwrap();
    let config = HotConfig {
        limit_bytes: 1 << 40,
        scrub_bytes_per_second: 0,
        ..HotConfig::new(directory.path().join("hot"))
    };
    write_index(&config, objects);
    measure("lru", &config, objects, || Box::new(Lru::new()));
    measure("epoch", &config, objects, || {
        Box::new(EpochPolicy::new(config.limit_bytes))
    });
}
