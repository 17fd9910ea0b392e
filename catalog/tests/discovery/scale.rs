//! A table of many partitions. (`examples/discovery_scale.rs` measures a larger one.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use terrace_catalog::discovery::{Discovery, Outcome};
use terrace_catalog::upstream::Upstream;

use crate::many::Many;
use crate::memory::MemoryBlobs;
use crate::world::{World, name, spec};

const PARTITIONS: u32 = 10_000;

// A late partition of a large table that is found slowly, or that rewrites the manifest, is found never.
#[tokio::test]
async fn a_late_partition_of_a_large_table_costs_little() {
    let blobs = MemoryBlobs::shared();
    let kept = Arc::clone(&blobs);
    let world = World::with(spec(), move |_| blobs).await;
    let discovery = Discovery::new(world.ledger.clone());
    let many = Arc::new(Many {
        partitions: AtomicU32::new(PARTITIONS),
        files: 1,
    });
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
    many.partitions.fetch_add(1, Ordering::Relaxed);
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
