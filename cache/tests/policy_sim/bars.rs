//! The promises of the epoch policy, each with fixed seeds.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use terrace_cache::policy::{EpochPolicy, Lru};

use crate::replay::Tier;
use crate::workload::{Objects, Order, interleave};

fn epoch_tier(capacity: u64) -> Tier {
    Tier::new(Box::new(EpochPolicy::new(0)), capacity)
}

/// Hit rates of passes over `objects` in a tier of half its size.
fn passes(objects: &Objects, order: Order, seed: u64, count: usize) -> Vec<f64> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut tier = epoch_tier(objects.bytes() / 2);
    (0..count)
        .map(|_| tier.replay(&objects.pass(order, &mut rng)).rate())
        .collect()
}

// Without this, training on twice the budget would read everything from the store every epoch.
#[test]
fn half_of_a_dataset_hits_from_its_third_epoch_on() {
    let shapes = [
        ("few big", Objects::same(0, 10, 1 << 30)),
        ("few small", Objects::same(0, 256, 256 << 10)),
        ("some", Objects::same(0, 300, 50 << 20)),
        ("mixed", Objects::mixed(0, 5_000, 1 << 20, 7)),
        ("many small", Objects::mixed(0, 120_000, 110_000, 8)),
    ];
    for (name, objects) in shapes {
        for order in [Order::Fixed, Order::Shuffled] {
            for seed in 1..4 {
                let rates = passes(&objects, order, seed, 6);
                println!("{name} {order:?}: {rates:.3?}");
                assert!(
                    rates[2..].iter().all(|rate| *rate >= 0.49),
                    "{name} {order:?} {rates:?}"
                );
            }
        }
    }
}

// Without this, the comparison that justifies the policy would be folklore.
#[test]
fn lru_gets_little_of_a_shuffled_and_nothing_of_a_fixed_loop() {
    let objects = Objects::same(0, 5_000, 1 << 20);
    for (order, low, high) in [(Order::Fixed, 0.0, 0.001), (Order::Shuffled, 0.12, 0.18)] {
        let mut rng = SmallRng::seed_from_u64(5);
        let mut tier = Tier::new(Box::new(Lru::new()), objects.bytes() / 2);
        let rates: Vec<f64> = (0..5)
            .map(|_| tier.replay(&objects.pass(order, &mut rng)).rate())
            .collect();
        assert!(
            rates[2..].iter().all(|rate| (low..=high).contains(rate)),
            "{order:?} {rates:?}"
        );
    }
}

// Without this, the SSD would be worn by writes that no later read profits from.
#[test]
fn a_full_share_of_a_loop_is_not_rewritten() {
    let objects = Objects::mixed(0, 20_000, 1 << 20, 9);
    let mut rng = SmallRng::seed_from_u64(1);
    let mut tier = epoch_tier(objects.bytes() / 2);
    tier.replay(&objects.pass(Order::Shuffled, &mut rng));
    let mut written = 0;
    for _ in 0..5 {
        written += tier
            .replay(&objects.pass(Order::Shuffled, &mut rng))
            .written;
    }
    assert!(
        written < objects.bytes() / 100,
        "{written} of {}",
        objects.bytes()
    );
}

// Without this, a finished job's data would keep the SSD from the next job.
#[test]
fn another_dataset_takes_over_within_the_stated_bound() {
    for order in [Order::Fixed, Order::Shuffled] {
        for factor in [0.5, 1.0, 3.0] {
            let mut rng = SmallRng::seed_from_u64(2);
            let old = Objects::same(0, 4_000, 1 << 20);
            let new = Objects::same(1, (4_000.0 * factor) as u64, 1 << 20);
            let capacity = old.bytes() / 2;
            let mut tier = epoch_tier(capacity);
            for _ in 0..4 {
                tier.replay(&old.pass(order, &mut rng));
            }
            let bound = new.bytes() + 2 * new.bytes().max(old.bytes()) + capacity;
            let mut opened = 0;
            let mut rates = Vec::new();
            while opened < bound {
                let tally = tier.replay(&new.pass(order, &mut rng));
                opened += tally.opened;
                rates.push(tally.rate());
            }
            let expected = capacity.min(new.bytes());
            let held = tier.resident_bytes(1);
            println!("{order:?} x{factor}: {rates:.3?}");
            assert!(
                held >= expected * 98 / 100,
                "{order:?} x{factor}: {held} of {expected}"
            );
        }
    }
}

// Without this, one `cat` over an archive would cost every running job its cache.
#[test]
fn a_single_scan_flushes_no_dataset_in_use() {
    let hot = Objects::same(0, 1_000, 1 << 20);
    let scan = Objects::same(1, 20_000, 1 << 20);
    let mut rng = SmallRng::seed_from_u64(3);
    let mut tier = epoch_tier(hot.bytes() * 2);
    for _ in 0..3 {
        tier.replay(&hot.pass(Order::Shuffled, &mut rng));
    }
    let mut beside = Vec::new();
    for _ in 0..4 {
        beside.extend(hot.pass(Order::Shuffled, &mut rng));
    }
    let scan = scan.pass(Order::Fixed, &mut rng);
    let (during, after) = scan.split_at(12_000);
    tier.replay(&interleave(&beside, during, &mut rng));
    assert!(
        tier.resident_bytes(0) >= hot.bytes() * 98 / 100,
        "while it is read"
    );
    tier.replay(after);
    let rate = tier.replay(&hot.pass(Order::Shuffled, &mut rng)).rate();
    assert!(
        rate >= 0.98,
        "read again after a scan of four budgets: {rate}"
    );
}

// Without this, datasets that fit beside each other would push each other out.
#[test]
fn datasets_that_fit_are_kept_whole() {
    let a = Objects::mixed(0, 2_000, 1 << 20, 1);
    let b = Objects::mixed(1, 700, 1 << 20, 2);
    let mut rng = SmallRng::seed_from_u64(4);
    let mut tier = epoch_tier(a.bytes() + b.bytes());
    let mut rates = Vec::new();
    for _ in 0..4 {
        rates.push(tier.replay(&a.pass(Order::Shuffled, &mut rng)).rate());
        rates.push(tier.replay(&b.pass(Order::Fixed, &mut rng)).rate());
    }
    assert!(rates[2..].iter().all(|rate| *rate == 1.0), "{rates:?}");
}

// Without this, datasets in turns would each find the tier full of the other one.
#[test]
fn alternating_datasets_share_without_churn() {
    let a = Objects::mixed(0, 3_000, 1 << 20, 1);
    let b = Objects::mixed(1, 3_000, 1 << 20, 2);
    for order in [Order::Fixed, Order::Shuffled] {
        let mut rng = SmallRng::seed_from_u64(6);
        let capacity = (a.bytes() + b.bytes()) / 2;
        let mut tier = epoch_tier(capacity);
        let mut tallies = Vec::new();
        for _ in 0..8 {
            let mut opens = a.pass(order, &mut rng);
            opens.extend(b.pass(order, &mut rng));
            tallies.push(tier.replay(&opens));
        }
        let rates: Vec<f64> = tallies.iter().map(|tally| tally.rate()).collect();
        let written: u64 = tallies[3..].iter().map(|tally| tally.written).sum();
        println!("{order:?}: {rates:.3?}, written after three rounds {written}");
        assert!(
            rates[3..].iter().all(|rate| *rate >= 0.47),
            "{order:?} {rates:?}"
        );
        assert!(written < capacity / 4, "{order:?} {written} of {capacity}");
    }
}

// Without this, a restart of the daemon would cost an epoch of hits.
#[test]
fn a_restart_keeps_the_subset() {
    let objects = Objects::mixed(0, 5_000, 1 << 20, 5);
    let mut rng = SmallRng::seed_from_u64(8);
    let mut tier = epoch_tier(objects.bytes() / 2);
    for _ in 0..3 {
        tier.replay(&objects.pass(Order::Shuffled, &mut rng));
    }
    tier.restart(Box::new(EpochPolicy::new(0)));
    for _ in 0..3 {
        let rate = tier.replay(&objects.pass(Order::Shuffled, &mut rng)).rate();
        assert!(rate >= 0.49, "{rate}");
    }
}

// Without this, a dataset whose files were replaced would keep the dead ones for ever.
#[test]
fn dead_residents_give_way_inside_their_dataset() {
    let mut rng = SmallRng::seed_from_u64(9);
    let old = Objects::same(0, 2_000, 1 << 20);
    let mut tier = epoch_tier(old.bytes() / 2);
    for _ in 0..3 {
        tier.replay(&old.pass(Order::Shuffled, &mut rng));
    }
    let all = Objects::same(0, 4_000, 1 << 20).pass(Order::Fixed, &mut rng);
    let rewritten = &all[2_000..];
    let rates: Vec<f64> = (0..8).map(|_| tier.replay(rewritten).rate()).collect();
    assert!(rates[6..].iter().all(|rate| *rate >= 0.49), "{rates:?}");
}
