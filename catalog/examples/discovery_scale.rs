//! Discovery at the size it is built for: one table with 100,000 partitions and a million files.
//!
//! ```text
//! cargo run -p terrace-catalog --example discovery_scale [-- --partitions N --files N]
//! ```
//!
//! `--files` is of each partition. The table is made up while it is listed, so what is measured is
//! discovery and the catalog (RocksDB and a directory), and no store: how long the first look takes, one
//! that finds a late partition, one that finds nothing, and the most memory the process had until then.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use terrace_catalog::DatasetName;
use terrace_catalog::blobs::DirectoryBlobs;
use terrace_catalog::discovery::{Discovery, Outcome, RootSpec};
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{Ledger, LedgerConfig};
use terrace_catalog::upstream::Upstream;

#[path = "../tests/support/many.rs"]
mod many;

use many::Many;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse().ok().or(Some(default))
    };
    let partitions = number("--partitions", 100_000).unwrap_or(100_000);
    let files = number("--files", 10).unwrap_or(10);
    let done = tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(measure(partitions, files)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("discovery_scale: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(partitions: u32, files: u32) -> Result<(), Failure> {
    let directory = std::env::temp_dir().join(format!("discovery-scale-{}", std::process::id()));
    let kv = Arc::new(RocksKv::open(&directory.join("kv"))?);
    let blobs = Arc::new(DirectoryBlobs::open(&directory.join("blobs"))?);
    let ledger = Ledger::open(kv, blobs, LedgerConfig::default()).await?;
    let many = Arc::new(Many {
        partitions: AtomicU32::new(partitions),
        files,
    });
    let discovery = Discovery::new(ledger);
    let upstream: Arc<dyn Upstream> = Arc::clone(&many) as Arc<dyn Upstream>;
    discovery.add_root_on_demand(RootSpec::default(), upstream)?;
    let name: DatasetName = "ele.orders".parse()?;
    println!("{partitions} partitions of {files} files");
    for (what, expected) in [
        ("first look", Outcome::Published(1)),
        ("nothing new", Outcome::Unchanged),
        ("one late partition", Outcome::Published(2)),
        ("nothing new again", Outcome::Unchanged),
    ] {
        if expected == Outcome::Published(2) {
            many.partitions.fetch_add(1, Ordering::Relaxed);
        }
        let began = Instant::now();
        let outcome = discovery.reconcile(&name).await;
        if outcome.as_ref() != Some(&expected) {
            return Err(format!("{what}: {outcome:?} instead of {expected:?}").into());
        }
        println!("{what:<20} {:>8.2?}   {} MiB", began.elapsed(), peak_mib());
    }
    drop(discovery);
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

/// The most memory that this process has had.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
