//! How a scan for a cold store scales: makes a tree of N names (default one million), asks what a
//! policy with a mark of fullness would move (two walks), and prints time and memory.
//!
//! Names of a directory are links to one file, so that a tree of ten million fits a memory file
//! system. Needs root.
//!
//! `cargo run -p terrace-fuse --example tier_scale -- [NAMES] [DIRECTORY]`
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use terrace_cache::store::{Credentials, Store, StoreConfig};
use terrace_cache::units::Span;
use terrace_fuse::directory::{
    Action, ColdParts, DirectoryFs, DirectoryParts, Durability, Job, TierPolicy, Told,
};
use terrace_fuse::handles::HandleTable;

/// Names of one directory.
const PER_DIRECTORY: u64 = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let names: u64 = arguments.next().as_deref().unwrap_or("1000000").parse()?;
    let place = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let place = place.join(format!("terrace-tiers-{}", std::process::id()));
    let result = match build(names, &place) {
        Ok(()) => measure(&place).await,
        Err(error) => Err(error),
    };
    std::fs::remove_dir_all(&place)?;
    result
}

fn build(names: u64, place: &Path) -> Result<(), Box<dyn Error>> {
    for name in ["below", "cold", "state"] {
        std::fs::create_dir_all(place.join(name))?;
    }
    let start = Instant::now();
    for directory in 0..names.div_ceil(PER_DIRECTORY) {
        let path = place.join(format!("below/{}/{directory}", directory / 100));
        std::fs::create_dir_all(&path)?;
        let first = path.join("0");
        File::create(&first)?.set_len(2 << 20)?;
        let rest = PER_DIRECTORY.min(names - directory * PER_DIRECTORY);
        for number in 1..rest {
            std::fs::hard_link(&first, path.join(number.to_string()))?;
        }
    }
    println!("made {names} names in {:.1?}", start.elapsed());
    Ok(())
}

async fn measure(place: &Path) -> Result<(), Box<dyn Error>> {
    let url = format!("file://{}", place.join("cold").display()).parse()?;
    let store = Store::open(&url, &StoreConfig::default(), &Credentials::default()).await?;
    let fs = DirectoryFs::open(DirectoryParts {
        root: &place.join("below"),
        state: &place.join("state"),
        fresh: true,
        handles: HandleTable::open(HandleTable::create()?)?,
        passthrough: false,
        ttl: Duration::ZERO,
        revalidate: Duration::ZERO,
        local_locks: true,
        durability: Durability::default(),
        spool: None,
        quota: None,
        cold: Some(ColdParts {
            store,
            policy: None,
            scratch: place.join("state/marks"),
            held: None,
            runtime: tokio::runtime::Handle::current(),
            witness: None,
        }),
    })?;
    let before = resident()?;
    for (what, high) in [("one walk", None), ("two walks, by age", Some(0))] {
        let start = Instant::now();
        let (told, mut heard) = tokio::sync::mpsc::channel(64);
        let job = Job {
            action: Action::Scan,
            path: Vec::new(),
            policy: TierPolicy {
                older_than: Span(Duration::ZERO),
                high,
                low: high.map(|_| 0),
                ..TierPolicy::default()
            },
            dry_run: true,
        };
        let listen = async {
            let mut rows = 0_u64;
            while let Some(told) = heard.recv().await {
                rows += u64::from(matches!(told, Told::File(_)));
            }
            rows
        };
        let work = async {
            let report = fs.run_job(job, &told).await;
            drop(told);
            report
        };
        let (report, rows) = tokio::join!(work, listen);
        let report = report?;
        let took = start.elapsed();
        println!(
            "{what}: {} files in {took:.1?} ({:.0} a second), {rows} chosen, {} MiB more memory at the peak",
            report.files,
            report.files as f64 / took.as_secs_f64(),
            (resident()? - before) >> 10,
        );
    }
    Ok(())
}

/// Most memory that was resident so far, KiB.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmHWM in /proc/self/status")?.parse()?)
}
