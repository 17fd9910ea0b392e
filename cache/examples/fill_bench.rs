//! What the fill engine costs: the same bytes by plain parallel ranged reads of the source, and
//! through the cache into a reader that discards them. Rounds are interleaved; medians are printed.
//!
//! ```text
//! fill_bench HOT_DIR                     a source in memory: the engine's own cost
//! fill_bench HOT_DIR s3://bucket/prefix  the objects below a prefix; AWS_* from the environment
//! ```
//! Large objects (64 MiB and more) are read one after another; small ones make the epoch test.

use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use terrace_cache::fill::{Cache, CacheConfig, ReadStream};
use terrace_cache::hot::{HotConfig, HotTier};
use terrace_cache::policy::Lru;
use terrace_cache::store::{Credentials, Store, StoreConfig, StoreError, StoreUrl};
use terrace_cache::{ByteStream, DatasetKey, ObjectId, Source, Token, Version};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const MIB: u64 = 1 << 20;
const ROUNDS: usize = 5;
/// Objects from this size on are read as large ones.
const LARGE: u64 = 64 * MIB;
/// Readers of small objects at once.
const READERS: usize = 16;

/// Slices of one buffer, in pieces as large as a busy socket gives.
#[derive(Debug)]
struct Memory(Bytes);

#[async_trait]
impl Source for Memory {
    async fn read(&self, _: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        const PIECE: u64 = 256 << 10;
        let buffer = self.0.clone();
        let starts = (range.start..range.end).step_by(PIECE as usize);
        let piece = move |at: u64| {
            let length = PIECE.min(range.end - at) as usize;
            Ok(buffer.slice(..length))
        };
        Ok(stream::iter(starts.map(piece)).boxed())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let hot = PathBuf::from(args.next().ok_or("usage: fill_bench HOT_DIR [STORE_URL]")?);
    let (source, objects) = match args.next() {
        Some(url) => store(&url).await?,
        None => memory(),
    };
    let (large, small): (Vec<_>, Vec<_>) = objects.into_iter().partition(|id| id.size() >= LARGE);
    if !large.is_empty() {
        sequential(&hot, &source, &large).await?;
    }
    if !small.is_empty() {
        epoch(&hot, &source, &small).await?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or("VmHWM: unknown");
    println!(
        "peak resident set {}",
        peak.trim_start_matches("VmHWM:").trim()
    );
    Ok(())
}

fn memory() -> (Arc<dyn Source>, Vec<ObjectId>) {
    let id = |number: usize, size: u64| ObjectId {
        store: "memory:".into(),
        key: number.to_string().into(),
        version: Version {
            token: Token::ETag {
                etag: "\"1\"".into(),
                version_id: None,
            },
            size,
            mtime_ns: 0,
        },
    };
    let mut objects = vec![id(0, 1024 * MIB)];
    objects.extend((1..=2000).map(|number| id(number, 100_000)));
    (
        Arc::new(Memory(Bytes::from(vec![7; MIB as usize]))),
        objects,
    )
}

async fn store(url: &str) -> Result<(Arc<dyn Source>, Vec<ObjectId>)> {
    let environment = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
    let url: StoreUrl = url.parse()?;
    let store = Store::open(
        &url,
        &StoreConfig::default(),
        &Credentials::new(environment),
    )
    .await?;
    let metas: Vec<_> = store.walk(url.prefix()).try_collect().await?;
    let objects = metas.iter().map(|meta| store.object(meta)).collect();
    Ok((Arc::new(store), objects))
}

/// A cache over a new, empty hot tier.
fn cache(directory: &Path) -> Result<Cache> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    let hot = HotTier::open(HotConfig::new(directory), Box::new(Lru::new()))?;
    Ok(Cache::new(
        CacheConfig::default(),
        hot,
        tokio::runtime::Handle::current(),
    ))
}

async fn sequential(hot: &Path, source: &Arc<dyn Source>, ids: &[ObjectId]) -> Result<()> {
    let bytes: u64 = ids.iter().map(ObjectId::size).sum();
    let speed = |start: Instant| bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
    let mut rounds: [Vec<f64>; 3] = Default::default();
    let mut counters = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for id in ids {
            plain(source, id).await?;
        }
        rounds[0].push(speed(start));

        let cache_now = cache(&hot.join("hot"))?;
        let start = Instant::now();
        for id in ids {
            read_through(&cache_now, source, id).await?;
        }
        rounds[1].push(speed(start));
        let stats = cache_now.stats();
        cache_now.shutdown().await;
        drop(cache_now);

        let cache_now = cache(&hot.join("hot"))?;
        let start = Instant::now();
        for id in ids {
            cache_now.object(id, source, &dataset()).fill().await?;
        }
        rounds[2].push(speed(start));
        cache_now.shutdown().await;
        counters = Some(stats);
    }
    println!("last cold read: {counters:?}");
    let [plain, read, fill] = rounds.map(median);
    println!(
        "large: {} objects, {} MB, median MB/s of {ROUNDS} rounds",
        ids.len(),
        bytes / 1_000_000
    );
    println!("  plain parallel ranged reads  {plain:8.0}");
    println!(
        "  sequential read, cold cache  {read:8.0}   ratio {:.2}",
        read / plain
    );
    println!(
        "  whole-object fill            {fill:8.0}   ratio {:.2}",
        fill / plain
    );
    Ok(())
}

async fn epoch(hot: &Path, source: &Arc<dyn Source>, ids: &[ObjectId]) -> Result<()> {
    let speed = |start: Instant| ids.len() as f64 / start.elapsed().as_secs_f64();
    let mut rounds: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for id in ids {
            drain(source, id, 0..id.size()).await?;
        }
        rounds[0].push(speed(start));

        let cache = cache(&hot.join("hot"))?;
        let start = Instant::now();
        stream::iter(ids)
            .map(|id| {
                let object = cache.object(id, source, &dataset());
                async move {
                    object.opened();
                    object.fill().await
                }
            })
            .buffer_unordered(READERS)
            .try_collect::<Vec<()>>()
            .await?;
        rounds[1].push(speed(start));
        cache.shutdown().await;
    }
    let [plain, fill] = rounds.map(median);
    println!(
        "small: {} objects, median objects/s of {ROUNDS} rounds",
        ids.len()
    );
    println!("  one at a time                {plain:8.0}");
    println!(
        "  filled, {READERS} opens at once     {fill:8.0}   ratio {:.2}",
        fill / plain
    );
    Ok(())
}

/// The base line: 8 MiB ranges, as many at once as a fill has.
async fn plain(source: &Arc<dyn Source>, id: &ObjectId) -> Result<()> {
    let config = CacheConfig::default();
    let part = config.part.0;
    let tasks = (0..id.size()).step_by(part as usize).map(|start| {
        let (source, id) = (Arc::clone(source), id.clone());
        async move {
            let range = start..(start + part).min(id.size());
            tokio::spawn(async move { drain(&source, &id, range).await }).await?
        }
    });
    stream::iter(tasks)
        .buffer_unordered(config.parts_per_object)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

async fn drain(source: &Arc<dyn Source>, id: &ObjectId, range: Range<u64>) -> Result<()> {
    let mut stream = source.read(id, range).await?;
    while let Some(piece) = stream.next().await {
        std::hint::black_box(piece?.len());
    }
    Ok(())
}

async fn read_through(cache: &Cache, source: &Arc<dyn Source>, id: &ObjectId) -> Result<()> {
    let object = cache.object(id, source, &dataset());
    object.opened();
    let stream = ReadStream::new();
    for start in (0..id.size()).step_by(MIB as usize) {
        let range = start..start + MIB;
        let bytes = match object.read_now(&stream, range.clone()) {
            Some(bytes) => bytes?,
            None => object.read(&stream, range).await?,
        };
        std::hint::black_box(bytes.len());
    }
    Ok(())
}

fn dataset() -> DatasetKey {
    DatasetKey("bench".into())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
