//! The eviction policies against workloads, without bytes: a table, and the bars that must hold.
//!
//! `cargo test -p terrace-cache --test policy_sim -- --nocapture` prints the table.

mod bars;
mod contract;
mod replay;
mod tenants;
mod workload;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use terrace_cache::policy::{EpochPolicy, Fifo, Lru, Policy, S3Fifo};

use replay::{Open, Tally, Tier};
use workload::{Objects, Order, interleave};

/// Names and constructors of all policies; the epoch policy is last.
pub(crate) fn policies() -> [(&'static str, Box<dyn Policy>); 4] {
    [
        ("fifo", Box::new(Fifo::default())),
        ("lru", Box::new(Lru::new())),
        ("s3fifo", Box::new(S3Fifo::default())),
        ("epoch", Box::new(EpochPolicy::new(0))),
    ]
}

/// Passes of one workload; the tier is sized by the caller.
struct Workload {
    name: &'static str,
    capacity: u64,
    /// Counted are the opens from this one on.
    warm: usize,
    opens: Vec<Open>,
}

fn epochs(objects: &Objects, order: Order, count: usize, rng: &mut SmallRng) -> Vec<Open> {
    (0..count).flat_map(|_| objects.pass(order, rng)).collect()
}

fn workloads() -> Vec<Workload> {
    let mut rng = SmallRng::seed_from_u64(11);
    let small = Objects::mixed(0, 20_000, 100_000, 3);
    let mut workloads = loops(&small, &mut rng);
    workloads.extend(mixtures(&small, &mut rng));
    workloads.extend(skewed(&small, &mut rng));
    workloads
}

/// Datasets read once per epoch.
fn loops(small: &Objects, rng: &mut SmallRng) -> Vec<Workload> {
    let big = Objects::same(0, 12, 1 << 30);
    let two = |name, objects: &Objects, order, rng: &mut SmallRng| Workload {
        name,
        capacity: objects.bytes() / 2,
        warm: 2 * objects.pass(Order::Fixed, rng).len(),
        opens: epochs(objects, order, 6, rng),
    };
    let fits = epochs(small, Order::Shuffled, 4, rng);
    vec![
        two("epochs, fixed", small, Order::Fixed, rng),
        two("epochs, shuffled", small, Order::Shuffled, rng),
        two("12 big objects, fixed", &big, Order::Fixed, rng),
        two("12 big objects, shuffled", &big, Order::Shuffled, rng),
        Workload {
            name: "fits",
            capacity: small.bytes(),
            warm: 20_000,
            opens: fits,
        },
    ]
}

/// Several datasets at once.
fn mixtures(small: &Objects, rng: &mut SmallRng) -> Vec<Workload> {
    let half = small.bytes() / 2;
    let tiny = Objects::same(1, 500, 100_000);
    let mut validated = Vec::new();
    for _ in 0..6 {
        validated.extend(small.pass(Order::Shuffled, rng));
        validated.extend(tiny.pass(Order::Fixed, rng));
    }
    let hot = Objects::same(0, 4_000, 100_000);
    let scan = Objects::same(1, 60_000, 100_000).pass(Order::Fixed, rng);
    let scanned = interleave(&epochs(&hot, Order::Shuffled, 8, rng), &scan, rng);
    let other = Objects::mixed(1, 20_000, 100_000, 4);
    let looped = epochs(&other, Order::Shuffled, 6, rng);
    let beside = interleave(&small.zipf(200_000, 0.9, rng), &looped, rng);
    let workload = |name, capacity, warm, opens| Workload {
        name,
        capacity,
        warm,
        opens,
    };
    vec![
        workload("train + validate", half, 41_000, validated),
        workload("hot beside a scan", hot.bytes() * 2, 20_000, scanned),
        workload("zipf 0.9 beside epochs", half, 150_000, beside),
    ]
}

/// Independent opens, some objects much more often than others.
fn skewed(small: &Objects, rng: &mut SmallRng) -> Vec<Workload> {
    let tenth = small.bytes() / 10;
    let cases = [
        ("zipf 0.7", 0.7, 1),
        ("zipf 1.0", 1.0, 1),
        ("zipf 1.0, large tier", 1.0, 5),
    ];
    let workload = |(name, skew, tenths)| Workload {
        name,
        capacity: tenth * tenths,
        warm: 100_000,
        opens: small.zipf(200_000, skew, rng),
    };
    cases.map(workload).into()
}

// Without this, nobody would see what the policy is worth, or that it lost against plain ones.
#[test]
fn no_plain_policy_is_clearly_better_on_any_workload() {
    println!(
        "{:<26}{}",
        "hit rate of bytes",
        policies().map(|(name, _)| format!("{name:>9}")).concat()
    );
    let mut worse = Vec::new();
    for workload in workloads() {
        let rates = policies().map(|(_, policy)| {
            let mut tier = Tier::new(policy, workload.capacity);
            tier.replay(&workload.opens[..workload.warm]);
            let tally: Tally = tier.replay(&workload.opens[workload.warm..]);
            tally.rate()
        });
        println!(
            "{:<26}{}",
            workload.name,
            rates.map(|rate| format!("{rate:>9.3}")).concat()
        );
        if rates[3] < rates[1] - 0.02 || rates[3] < rates[2] - 0.03 {
            worse.push(workload.name);
        }
    }
    assert_eq!(
        worse, [""; 0],
        "worse than LRU by more than two percent of the bytes, or than S3-FIFO by more than three"
    );
}
