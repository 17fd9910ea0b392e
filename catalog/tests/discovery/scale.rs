//! A table of many partitions.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use terrace_catalog::discovery::{Discovery, Outcome};
use terrace_catalog::upstream::{Listed, UpFile, Upstream, UpstreamError, UpstreamErrorKind};

use crate::memory::MemoryBlobs;
use crate::world::{World, name, spec};

const BODY: &[u8] = b"1,2\n";
const PARTITIONS: u32 = 10_000;

/// A table with so many partitions of one file, made up while it is listed.
#[derive(Debug)]
struct Many(AtomicU32);

fn file(path: String, mtime_ms: i64) -> UpFile {
    UpFile {
        path: path.into(),
        size: BODY.len() as u64,
        mtime_ms,
        token: "t".into(),
    }
}

#[async_trait]
impl Upstream for Many {
    fn url(&self) -> &str {
        "mem://many"
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        let below = if directory.is_empty() {
            "ele.db"
        } else {
            "ele.db/orders"
        };
        stream::iter([Ok(Listed::Directory(Arc::from(below)))]).boxed()
    }

    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        if let Some(one) = directory.strip_prefix("ele.db/orders/") {
            return stream::iter([Ok(file(format!("ele.db/orders/{one}/a.csv"), 1))]).boxed();
        }
        let all = 0..self.0.load(Ordering::Relaxed);
        let files = all.map(|at| Ok(file(format!("ele.db/orders/dt={at:06}/a.csv"), 1)));
        let marker = Ok(file("ele.db/orders/_SUCCESS".to_owned(), 2));
        stream::iter(files.chain([marker])).boxed()
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        Err(UpstreamError::new(UpstreamErrorKind::NotFound, path))
    }

    async fn read(&self, _: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError> {
        Ok(Bytes::from_static(BODY).slice(range.start as usize..range.end as usize))
    }
}

// A late partition of a large table that is found slowly, or that rewrites the manifest, is found never.
#[tokio::test]
async fn a_late_partition_of_a_large_table_costs_little() {
    let blobs = MemoryBlobs::shared();
    let kept = Arc::clone(&blobs);
    let world = World::with(spec(), move |_| blobs).await;
    let discovery = Discovery::new(world.ledger.clone());
    let many = Arc::new(Many(AtomicU32::new(PARTITIONS)));
    let upstream: Arc<dyn Upstream> = Arc::clone(&many) as Arc<dyn Upstream>;
    discovery.add_root_on_demand(spec(), upstream).unwrap();
    let look = async || {
        let began = Instant::now();
        let outcome = discovery.reconcile(&name("ele.orders")).await.unwrap();
        (outcome, began.elapsed())
    };
    let (outcome, first) = look().await;
    assert_eq!(outcome, Outcome::Published(1));
    let before = kept.blobs.lock().unwrap().len();
    many.0.fetch_add(1, Ordering::Relaxed);
    let (outcome, late) = look().await;
    assert_eq!(outcome, Outcome::Published(2));
    let written = kept.blobs.lock().unwrap().len() - before;
    assert!(written < 20, "{written} blobs for one partition");
    let (outcome, nothing) = look().await;
    assert_eq!(outcome, Outcome::Unchanged);
    assert_eq!(
        world.latest("ele.orders").await.unwrap().totals.partitions,
        u64::from(PARTITIONS) + 1
    );
    println!(
        "{PARTITIONS} partitions: first {first:?}, one late {late:?} ({written} blobs), nothing {nothing:?}"
    );
}
