//! How long a tree takes: fills a hot tier with N small objects (default 100,000), builds a tree of
//! them, and removes it; prints the time of each step. Fetching is not what is measured: the
//! objects are made here, and complete before the clock starts.
//!
//! `cargo run -p terrace-fuse --example materialize_scale -- [FILES] [DIRECTORY]`
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use terrace_cache::fill::{Cache, CacheConfig};
use terrace_cache::hot::{HotConfig, HotTier};
use terrace_cache::policy::Lru;
use terrace_cache::store::StoreError;
use terrace_cache::{ByteStream, DatasetKey, ObjectId, Source, Token, Version};
use terrace_fuse::materialize::{MaterializeOptions, Objects, materialize, remove};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::{Builder, Entry, EntryKind, Snapshot, Surplus};

type Failure = Box<dyn std::error::Error>;

/// Zeros.
#[derive(Debug)]
struct Zeros;

#[async_trait]
impl Source for Zeros {
    async fn read(&self, _object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let bytes = Bytes::from(vec![0; (range.end - range.start) as usize]);
        Ok(futures::stream::iter([Ok(bytes)]).boxed())
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let files: u64 = arguments.next().as_deref().unwrap_or("100000").parse()?;
    let base = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let home = base.join(format!("terrace-scale-{}", std::process::id()));
    std::fs::create_dir(&home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(files, home.clone()));
    drop(runtime);
    std::fs::remove_dir_all(&home)?;
    result
}

/// Time that passed, and processor time of this process: what a busy machine shows truly.
struct Clock(Instant, f64);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), processor_seconds())
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (passed, used) = (self.0.elapsed().as_secs_f64(), processor_seconds() - self.1);
        write!(f, "{passed:8.2} s, {used:8.2} s of processor time")
    }
}

fn processor_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.map_or(0.0, |usage| {
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}

async fn run(files: u64, home: PathBuf) -> Result<(), Failure> {
    let mut builder = Builder::new("s3://bucket", "train", Surplus::Refuse);
    for number in 0..files {
        let path = format!("n{:06}/image_{number:08}", number / 1000);
        let token = Token::ETag {
            etag: format!("\"{number:032x}\"").into(),
            version_id: None,
        };
        let mtime_ns = 1_700_000_000_000_000_000 + number as i64;
        let version = Version {
            token,
            size: 100,
            mtime_ns,
        };
        builder.push(&Entry {
            path: &path,
            mode: None,
            kind: EntryKind::File(&version),
        })?;
    }
    let file = home.join("snapshot");
    builder.finish(&file)?;
    let snapshot = Arc::new(Snapshot::open(&file, Ownership::default())?);
    let config = HotConfig {
        min_free_bytes: 0,
        min_free_inodes: 0,
        scrub_bytes_per_second: 0,
        ..HotConfig::new(home.join("hot"))
    };
    let hot = HotTier::open(config, Box::new(Lru::new()))?;
    let runtime = tokio::runtime::Handle::current();
    let cache = Cache::new(CacheConfig::default(), hot.clone(), runtime);
    let dataset = DatasetKey("scale".into());
    let objects = Objects {
        cache: cache.clone(),
        source: Arc::new(Zeros),
        dataset,
    };
    let options = MaterializeOptions::default();
    for round in [
        "first tree, objects filled",
        "second tree, objects complete",
    ] {
        let tree = home.join("tree");
        let clock = Clock::start();
        let report = materialize(&snapshot, &objects, &tree, &options, &|_| ()).await?;
        println!("{round:30} {clock}  {report:?}");
        let clock = Clock::start();
        let (hot, tree) = (hot.clone(), tree.clone());
        tokio::task::spawn_blocking(move || remove(&hot, &tree)).await??;
        println!("{:30} {clock}", "removed");
    }
    cache.shutdown().await;
    Ok(())
}
