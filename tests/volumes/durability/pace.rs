//! What staging costs beside the SSD itself, measured in turns: a checkpoint in large writes with an
//! fsync at its end, and the same in small ones. Nothing here fails for its time: that is for a quiet
//! machine and a reader.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::{LOCAL, Staged};
use crate::world::need_mount;

/// Bytes of a checkpoint, unless `TERRACE_TEST_MIB` says otherwise.
const MIB: usize = 128;
/// Turns, likewise `TERRACE_TEST_TURNS`.
const TURNS: usize = 5;

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// MiB per second of one file, written in blocks and synced.
fn save(path: &Path, block: usize) -> f64 {
    let bytes = number("TERRACE_TEST_MIB", MIB) << 20;
    let block = vec![7_u8; block];
    let began = Instant::now();
    let mut file = File::create_new(path).unwrap();
    for _ in 0..bytes / block.len() {
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    let rate = (bytes >> 20) as f64 / began.elapsed().as_secs_f64();
    fs::remove_file(path).unwrap();
    rate
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

// Without it nobody would know what staging costs.
#[test]
fn the_pace_of_a_checkpoint() {
    need_mount!("the_pace_of_a_checkpoint");
    let staged = Staged::new(&[LOCAL], &[]);
    let native = staged.volume.world.scratch("native");
    for (name, block) in [("16 MiB", 16 << 20), ("64 KiB", 64 << 10)] {
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        for turn in 0..number("TERRACE_TEST_TURNS", TURNS) {
            // Who goes first changes, so that what the disk still has to do meets both.
            let (mut here, mut beside) = (0.0, 0.0);
            for first in [turn % 2 == 0, turn % 2 != 0] {
                if first {
                    here = save(&staged.path("checkpoint"), block);
                } else {
                    beside = save(&native.join("checkpoint"), block);
                }
            }
            ratios.push(here / beside);
            rates.push(here);
        }
        println!(
            "writes of {name} and fsync(local): {:.2} of the SSD's rate, {:.0} MiB/s",
            median(ratios),
            median(rates)
        );
    }
}
