//! Histories of concurrent calls, and whether some order of them explains every answer.
//!
//! Four clients read and compare-and-swap a few registers, each write with a value of its own. A
//! register's history is linearizable if its calls can be put in an order that agrees with the clock
//! (a call that ended before another began comes first) and in which every answer is right; the
//! checker tries orders as Wing and Gong do, remembering what it has tried. A call whose answer is
//! unknown may have happened at any later time, or never.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use terrace_catalog::kv::{Compare, Kv, KvError, Txn, TxnOutcome};

use super::Fixture;
use super::suite::bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Answered this value; 0 is absent.
    Read(u64),
    /// From one value to another; whether it happened, if known.
    Swap(u64, u64, Option<bool>),
}

#[derive(Clone, Copy, Debug)]
struct Record {
    call: Call,
    began: u64,
    ended: u64,
}

/// Whether an order explains the history of one register (at most 64 calls).
fn is_linearizable(history: &[Record]) -> bool {
    assert!(history.len() <= 64, "the checker counts in 64 bits");
    let unknown = |record: &Record| matches!(record.call, Call::Swap(_, _, None));
    let needed = (0..history.len()).filter(|at| !unknown(&history[*at]));
    let needed: u64 = needed.map(|at| 1u64 << at).sum();
    let mut tried = HashSet::new();
    let mut open = vec![(0u64, 0u64)];
    while let Some((done, value)) = open.pop() {
        if done & needed == needed {
            return true;
        }
        if !tried.insert((done, value)) {
            continue;
        }
        let left = |at: &usize| done & (1 << at) == 0;
        let first_end = (0..history.len())
            .filter(left)
            .map(|at| history[at].ended)
            .min();
        for at in (0..history.len()).filter(left) {
            let record = history[at];
            if first_end.is_some_and(|end| record.began > end) {
                continue;
            }
            let after = match record.call {
                Call::Read(found) if found != value => continue,
                Call::Read(_) => value,
                Call::Swap(from, to, Some(true)) if from == value => to,
                Call::Swap(from, _, Some(false)) if from != value => value,
                Call::Swap(_, _, Some(_)) => continue,
                Call::Swap(from, to, None) => {
                    if from == value {
                        to
                    } else {
                        value
                    }
                }
            };
            open.push((done | 1 << at, after));
        }
    }
    false
}

// A checker that accepts everything proves nothing.
#[test]
fn the_checker_tells_right_from_wrong() {
    let record = |call, began, ended| Record { call, began, ended };
    let swap = |from, to, done| Call::Swap(from, to, done);
    assert!(is_linearizable(&[
        record(swap(0, 1, Some(true)), 0, 3),
        record(Call::Read(0), 1, 2),
        record(Call::Read(1), 4, 5),
    ]));
    // Read what was there before a swap that had ended.
    assert!(!is_linearizable(&[
        record(swap(0, 1, Some(true)), 0, 1),
        record(Call::Read(0), 2, 3),
    ]));
    // Both swaps from one value.
    assert!(!is_linearizable(&[
        record(swap(0, 1, Some(true)), 0, 3),
        record(swap(0, 2, Some(true)), 1, 2),
    ]));
    // Seen, and then not seen any more.
    assert!(!is_linearizable(&[
        record(swap(0, 1, Some(true)), 0, 9),
        record(Call::Read(1), 1, 2),
        record(Call::Read(0), 3, 4),
    ]));
    // Nobody knows, and it happened; it cannot have been undone.
    let lost = record(swap(0, 1, None), 0, u64::MAX);
    assert!(is_linearizable(&[
        lost,
        record(Call::Read(0), 1, 2),
        record(Call::Read(1), 3, 4)
    ]));
    assert!(!is_linearizable(&[
        lost,
        record(Call::Read(1), 1, 2),
        record(Call::Read(0), 3, 4)
    ]));
}

/// A small generator, so that a failure can be repeated from its seed.
struct Seed(u64);

impl Seed {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

const CLIENTS: u64 = 4;
const REGISTERS: u64 = 3;
const ROUNDS: u64 = 6;
const CALLS: u64 = 30;

pub(crate) async fn histories_are_linearizable(fixture: Fixture) {
    let mut swaps = 0;
    for round in 0..ROUNDS {
        let clock = Arc::new(AtomicU64::new(0));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let kv = if client % 2 == 0 {
                &fixture.kv
            } else {
                &fixture.other
            };
            let seed = 0x7e55_ace0 + round * CLIENTS + client;
            clients.spawn(run_client(
                Arc::clone(kv),
                Arc::clone(&clock),
                round,
                client,
                seed,
            ));
        }
        let histories = clients.join_all().await;
        for register in 0..REGISTERS {
            let of_register = histories.iter().flat_map(|history: &Vec<(u64, Record)>| {
                history
                    .iter()
                    .filter(|(which, _)| *which == register)
                    .map(|(_, record)| *record)
            });
            let mut history: Vec<Record> = of_register.collect();
            history.sort_by_key(|record| record.began);
            history.truncate(64);
            let cut = history.last().map_or(0, |record| record.began);
            // Calls that were cut off may have happened while the last ones ran.
            for record in &mut history {
                if record.ended > cut && matches!(record.call, Call::Swap(..)) {
                    record.ended = u64::MAX;
                }
            }
            swaps += history
                .iter()
                .filter(|r| matches!(r.call, Call::Swap(_, _, Some(true))))
                .count();
            assert!(
                is_linearizable(&history),
                "round {round}, register {register}: no order explains {history:#?}"
            );
        }
    }
    assert!(swaps > 40, "only {swaps} swaps happened: nothing was shown");
}

async fn run_client(
    kv: Arc<dyn Kv>,
    clock: Arc<AtomicU64>,
    round: u64,
    client: u64,
    seed: u64,
) -> Vec<(u64, Record)> {
    let mut seed = Seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut history = Vec::new();
    let mut known = [0u64; REGISTERS as usize];
    for number in 0..CALLS {
        let register = seed.next(REGISTERS);
        let key = bytes(&format!("register/{round}/{register}"));
        let began = clock.fetch_add(1, Ordering::SeqCst);
        let call = if seed.next(2) == 0 {
            let found = kv.get(&key).await.unwrap();
            let text = found.map(|found| String::from_utf8(found.value.to_vec()).unwrap());
            let value = text.map_or(0, |text| text.parse().unwrap());
            known[register as usize] = value;
            Call::Read(value)
        } else {
            let from = known[register as usize];
            let to = 1 + client * CALLS + number;
            let compare = match from {
                0 => Compare::Absent(key.clone()),
                from => Compare::Value(key.clone(), bytes(&from.to_string())),
            };
            let txn = Txn::new().when(compare).put(key, bytes(&to.to_string()));
            match kv.txn(txn).await {
                Ok(TxnOutcome::Committed { .. }) => {
                    known[register as usize] = to;
                    Call::Swap(from, to, Some(true))
                }
                Ok(TxnOutcome::Conflict { .. }) => Call::Swap(from, to, Some(false)),
                Err(KvError::Unknown(_)) => Call::Swap(from, to, None),
                Err(error) => panic!("{error}"),
            }
        };
        let ended = match call {
            Call::Swap(_, _, None) => u64::MAX,
            _ => clock.fetch_add(1, Ordering::SeqCst),
        };
        history.push((register, Record { call, began, ended }));
    }
    history
}
