//! What every policy owes the hot tier, under random calls.

use std::collections::BTreeMap;

use proptest::prelude::*;
use terrace_cache::DatasetKey;
use terrace_cache::policy::{Access, Admission};

use crate::policies;
use crate::replay::digest;

#[derive(Clone, Debug)]
enum Call {
    Open {
        dataset: usize,
        object: u64,
        insert: bool,
    },
    Grow {
        object: u64,
        size: u64,
    },
    Remove {
        object: u64,
    },
    Victims {
        need: u64,
        pinned: u64,
        evict: bool,
    },
    Capacity(u64),
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        8 => (0..3_usize, 0..60_u64, any::<bool>())
            .prop_map(|(dataset, object, insert)| Call::Open { dataset, object, insert }),
        1 => (0..60_u64, 0..2_000_u64).prop_map(|(object, size)| Call::Grow { object, size }),
        1 => (0..60_u64).prop_map(|object| Call::Remove { object }),
        3 => (0..3_000_u64, 1..5_u64, any::<bool>())
            .prop_map(|(need, pinned, evict)| Call::Victims { need, pinned, evict }),
        1 => (1_000..20_000_u64).prop_map(Call::Capacity),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    // Without this, a policy could name what is gone or pinned, free too little while more could
    // be freed, or evict more than was asked for.
    #[test]
    fn victims_are_resident_evictable_and_no_more_than_needed(
        calls in prop::collection::vec(call(), 1..300),
    ) {
        for (name, mut policy) in policies() {
            policy.set_capacity(10_000);
            let keys: Vec<DatasetKey> =
                (0..3).map(|n| DatasetKey(format!("d{n}").into())).collect();
            let mut model = BTreeMap::new();
            for call in &calls {
                match *call {
                    Call::Open { dataset, object, insert } => {
                        let (digest, size) = (digest(0, object), 50 + object * 7);
                        let resident = model.contains_key(&digest);
                        let access =
                            Access { dataset: &keys[dataset], digest: &digest, size, resident };
                        let kept = policy.open(&access) == Admission::Keep;
                        prop_assert!(kept || !resident, "{name}: a resident is not bypassed");
                        if kept && insert && !resident {
                            policy.inserted(&keys[dataset], digest, size);
                            model.insert(digest, size);
                        }
                    }
                    Call::Grow { object, size } => {
                        if let Some(old) = model.get_mut(&digest(0, object)) {
                            *old = size;
                            policy.inserted(&keys[0], digest(0, object), size);
                        }
                    }
                    Call::Remove { object } => {
                        model.remove(&digest(0, object));
                        policy.removed(&digest(0, object));
                    }
                    Call::Victims { need, pinned, evict } => {
                        let evictable = |d: &terrace_cache::Digest| u64::from(d.0[0]) % 5 >= pinned;
                        let victims = policy.victims(need, &evictable);
                        let mut freed = 0;
                        let mut last = 0;
                        let mut seen = std::collections::BTreeSet::new();
                        for victim in &victims {
                            prop_assert!(model.contains_key(victim), "{name}: not resident");
                            prop_assert!(evictable(victim), "{name}: not evictable");
                            prop_assert!(seen.insert(*victim), "{name}: named twice");
                            prop_assert!(freed < need, "{name}: more than needed");
                            last = model[victim];
                            freed += last;
                        }
                        let possible: u64 =
                            model.iter().filter(|(d, _)| evictable(d)).map(|(_, s)| s).sum();
                        prop_assert!(freed >= need.min(possible), "{name}: {freed} of {need}");
                        prop_assert!(freed < need + last.max(1), "{name}: one too many");
                        if evict {
                            for victim in &victims {
                                model.remove(victim);
                                policy.removed(victim);
                            }
                        }
                    }
                    Call::Capacity(bytes) => policy.set_capacity(bytes),
                }
            }
        }
    }
}
