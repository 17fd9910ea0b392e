//! Two daemons, one directory: each byte comes from the store once.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use terrace_cache::ObjectId;
use terrace_cache::warm::WarmConfig;

use crate::support::{MIB, Node, Pattern, config, directories, files, object};

fn slow(millis: u64) -> Pattern {
    Pattern {
        pause: Duration::from_millis(millis),
        ..Pattern::default()
    }
}

/// Small and large objects, of lengths with and without a short last block.
fn dataset(count: usize) -> Vec<ObjectId> {
    let mut rng = SmallRng::seed_from_u64(1);
    let sizes = (0..count).map(|n| match n % 8 {
        0 => 20 * MIB + rng.random_range(0..MIB),
        1 => 2 * MIB,
        _ => rng.random_range(1..300_000),
    });
    sizes
        .enumerate()
        .map(|(n, size)| object(&format!("part-{n}"), size))
        .collect()
}

async fn read_shuffled(node: &Node, mut objects: Vec<ObjectId>, seed: u64) {
    objects.shuffle(&mut SmallRng::seed_from_u64(seed));
    let reads = objects.iter().map(|object| node.check(object));
    stream::iter(reads)
        .buffer_unordered(4)
        .collect::<Vec<()>>()
        .await;
}

// Without this, every node would fetch the whole dataset from the store: what the tier is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_read_each_byte_from_the_store_once() {
    for dir in directories("two_nodes_read_each_byte_from_the_store_once") {
        let objects = dataset(48);
        let total: u64 = objects.iter().map(ObjectId::size).sum();
        let a = Node::start(config(dir.path()), slow(1));
        let b = Node::start(config(dir.path()), slow(1));
        tokio::join!(
            read_shuffled(&a, objects.clone(), 1),
            read_shuffled(&b, objects.clone(), 2),
        );
        a.settle().await;
        b.settle().await;
        let served = a.served() + b.served();
        println!(
            "served {served} of {total}; a {:?}; b {:?}",
            a.stats(),
            b.stats()
        );
        assert!(served <= total + total / 50, "{served} of {total}");
        assert_eq!(a.stats().fills + b.stats().fills, objects.len() as u64);

        let c = Node::start(config(dir.path()), Pattern::default());
        read_shuffled(&c, objects, 3).await;
        assert_eq!((c.served(), c.stats().hit_bytes > 0), (0, true));
        assert_eq!(
            (files(dir.path(), ".part"), files(dir.path(), ".lease")),
            (vec![], vec![])
        );
    }
}

// Without this, two nodes that read the same small files at the same moment would read some of them past
// each other: before the directory is made, or when one finds a lease that the other just removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_objects_read_side_by_side_come_once() {
    for dir in directories("small_objects_read_side_by_side_come_once") {
        let objects: Vec<_> = (0..80)
            .map(|n| object(&format!("small-{n}"), 50_000 + n))
            .collect();
        let nodes = [(); 2].map(|()| Node::start(config(dir.path()), slow(1)));
        join_all(nodes.iter().map(async |node| {
            for object in &objects {
                node.check(object).await;
            }
        }))
        .await;
        for node in &nodes {
            node.settle().await;
            let stats = node.stats();
            assert_eq!((stats.cold_bytes, stats.faults), (0, 0), "{stats:?}");
        }
        let total: u64 = objects.iter().map(ObjectId::size).sum();
        assert_eq!(nodes.iter().map(Node::served).sum::<u64>(), total);
    }
}

// Without this, readers of one object in one daemon would each fetch it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_one_daemon_share_one_fill() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(config(dir.path()), slow(2));
    let object = object("shared", 9 * MIB + 17);
    join_all((0..8).map(|_| node.check(&object))).await;
    node.settle().await;
    assert_eq!(node.served(), object.size());
    assert_eq!((node.stats().fills, node.stats().cold_bytes), (1, 0));
}

// Without this, the second reader of a large object would wait for all of it, or fetch it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_reads_what_the_holder_has_finished() {
    for dir in directories("a_follower_reads_what_the_holder_has_finished") {
        let object = object("large", 48 * MIB);
        // Parts one after the other, as when the object is much larger than the parts under way.
        let holder = WarmConfig {
            parts_per_object: 1,
            ..config(dir.path())
        };
        let a = Node::start(holder, slow(15));
        let b = Node::start(config(dir.path()), Pattern::default());
        let first = a.read(&object, 0..10);
        first.await.unwrap();
        b.check(&object).await;
        println!("follower: {:?}", b.stats());
        assert_eq!((b.served(), b.stats().fills), (0, 0));
        assert!(b.stats().followed_bytes > 8 * MIB, "{:?}", b.stats());
        a.settle().await;
    }
}

// Without this, ranges would be cut wrongly at block borders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_range_is_exact_from_store_flight_and_copy() {
    let dir = tempfile::tempdir().unwrap();
    let object = object("ranges", 5 * MIB + 3);
    let ranges = [
        0..1,
        MIB - 1..MIB + 1,
        5 * MIB..5 * MIB + 3,
        7..5 * MIB + 1,
        0..5 * MIB + 3,
    ];
    let node = Arc::new(Node::start(config(dir.path()), slow(3)));
    for _ in 0..2 {
        for range in ranges.clone() {
            let bytes = node.read(&object, range.clone()).await.unwrap();
            assert!(
                bytes == crate::support::bytes_of(&object, range.clone()),
                "{range:?}"
            );
        }
        node.settle().await;
    }
    assert_eq!(node.served(), object.size());
}
