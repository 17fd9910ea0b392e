//! What tenants may count on, whatever others read.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use terrace_cache::policy::{EpochPolicy, TenantShare};

use crate::replay::Tier;
use crate::workload::{Objects, Order, interleave};

const MIB: u64 = 1 << 20;

/// A tier of `capacity` bytes whose datasets 0, 1, ... belong to the tenants "t0", "t1", ..., as
/// long as there are shares: guaranteed bytes and cap.
fn tier(capacity: u64, shares: &[(u64, Option<u64>)]) -> Tier {
    let shares = shares
        .iter()
        .enumerate()
        .map(|(number, share)| TenantShare {
            name: format!("t{number}").into(),
            guaranteed: share.0,
            cap: share.1,
        });
    let policy = EpochPolicy::new(0).with_tenants(shares.collect());
    Tier::new(Box::new(policy), capacity).of_tenants()
}

// SEMANTICS S117: without it one tenant's scan of everything would make all others read from the store again.
#[test]
fn a_scan_takes_nothing_of_what_is_guaranteed_to_others() {
    for seed in 1..4 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut tier = tier(1000 * MIB, &[(400 * MIB, None), (100 * MIB, None)]);
        let own = Objects::mixed(0, 200, MIB, seed);
        let own = if own.bytes() <= 380 * MIB {
            own
        } else {
            Objects::same(0, 300, MIB)
        };
        tier.replay(&own.pass(Order::Shuffled, &mut rng));
        let before = tier.resident_bytes(0);
        assert_eq!(before, own.bytes());
        // Ten times the tier, twice, by a neighbour and by nobody's mount.
        for dataset in [1, 5] {
            let scan = Objects::same(dataset, 5000, 2 * MIB);
            for _ in 0..2 {
                tier.replay(&scan.pass(Order::Shuffled, &mut rng));
                assert_eq!(
                    tier.resident_bytes(0),
                    before,
                    "seed {seed}, dataset {dataset}"
                );
            }
        }
        let again = tier.replay(&own.pass(Order::Shuffled, &mut rng));
        assert!(again.rate() > 0.999, "{}", again.rate());
    }
}

// Without it a guarantee would be a reservation that stands empty, or one that is lost once lent.
#[test]
fn what_is_lent_comes_back() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut tier = tier(1000 * MIB, &[(400 * MIB, None), (100 * MIB, None)]);
    let loan = Objects::same(1, 900, MIB);
    for _ in 0..3 {
        tier.replay(&loan.pass(Order::Shuffled, &mut rng));
    }
    assert_eq!(
        tier.resident_bytes(1),
        900 * MIB,
        "the first tenant was idle"
    );
    // It comes, and its first pass is kept although its neighbour goes on.
    let own = Objects::same(0, 350, MIB);
    let both = interleave(
        &own.pass(Order::Fixed, &mut rng),
        &loan.pass(Order::Shuffled, &mut rng),
        &mut rng,
    );
    tier.replay(&both);
    assert_eq!(tier.resident_bytes(0), 350 * MIB);
    let rate = tier.replay(&own.pass(Order::Shuffled, &mut rng)).rate();
    assert!(rate > 0.999, "{rate}");
    // The neighbour keeps a stable part of what is left instead of pushing itself in circles.
    let mut rates = Vec::new();
    for _ in 0..4 {
        rates.push(tier.replay(&loan.pass(Order::Shuffled, &mut rng)).rate());
    }
    assert!(rates[2..].iter().all(|rate| *rate > 0.6), "{rates:?}");
}

// SEMANTICS S118: without it a tenant could fill the disk that it shares, or be stuck with what it read first.
#[test]
fn a_cap_holds_and_what_it_holds_changes() {
    let mut rng = SmallRng::seed_from_u64(5);
    let mut tier = tier(1000 * MIB, &[(0, Some(200 * MIB))]);
    let large = Objects::same(0, 600, MIB);
    for _ in 0..4 {
        tier.replay(&large.pass(Order::Shuffled, &mut rng));
        assert!(
            tier.resident_bytes(0) <= 200 * MIB,
            "{}",
            tier.resident_bytes(0)
        );
    }
    let rate = tier.replay(&large.pass(Order::Shuffled, &mut rng)).rate();
    assert!(rate > 0.25, "a third fits: {rate}");
    // Nobody's dataset has the rest for itself.
    let other = Objects::same(5, 780, MIB);
    tier.replay(&other.pass(Order::Fixed, &mut rng));
    let rate = tier.replay(&other.pass(Order::Shuffled, &mut rng)).rate();
    assert!(rate > 0.999, "{rate}");
}

// Without it a disk that others fill would leave guarantees for more than there is, and no victim.
#[test]
fn guarantees_shrink_with_the_tier() {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut tier = tier(1000 * MIB, &[(500 * MIB, None), (500 * MIB, None)]);
    for dataset in [0, 1] {
        let own = Objects::same(dataset, 500, MIB);
        tier.replay(&own.pass(Order::Fixed, &mut rng));
        assert_eq!(tier.resident_bytes(dataset), 500 * MIB);
    }
    tier.shrink(400 * MIB);
    let (one, other) = (tier.resident_bytes(0), tier.resident_bytes(1));
    assert!(
        one + other <= 400 * MIB && one >= 190 * MIB && other >= 190 * MIB,
        "{one} {other}"
    );
}
