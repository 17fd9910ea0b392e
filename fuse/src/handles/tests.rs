//! Tests of the handle table: what a successor reads after any crash.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

fn table(slots: u32) -> (OwnedFd, HandleTable) {
    let fd = HandleTable::create_sized(slots, slots).unwrap();
    let table = HandleTable::open(fd.try_clone().unwrap()).unwrap();
    (fd, table)
}

// Without it a resent OPEN would count twice, and the inode would keep its mode for ever.
#[test]
fn a_resent_open_finds_the_slot_of_the_dead_worker_once() {
    let (fd, first) = table(8);
    let fh = first.insert(42, 7, Mode::Passthrough(3)).unwrap();
    assert_eq!(
        first.resent(42 | RESENT),
        None,
        "only another worker's requests are resent"
    );
    drop(first);
    let second = HandleTable::open(fd).unwrap();
    assert_eq!(
        second.resent(42),
        None,
        "a new request never matches an old one"
    );
    let found = second.resent(42 | RESENT).unwrap();
    assert_eq!(
        found,
        Handle {
            fh,
            node: 7,
            mode: Mode::Passthrough(3),
            unique: 42
        }
    );
    assert_eq!(second.len(), 1);
    second.remove(fh).unwrap();
    assert_eq!(second.resent(42 | RESENT), None);
}

// Without it a repeated RELEASE would close somebody else's handle.
#[test]
fn a_repeated_release_does_nothing() {
    let (_fd, table) = table(1);
    let old = table.insert(1, 7, Mode::Cached).unwrap();
    assert!(table.remove(old).is_some());
    assert!(table.remove(old).is_none());
    let new = table.insert(2, 8, Mode::Cached).unwrap();
    assert_ne!(old, new);
    assert!(table.remove(old).is_none());
    assert_eq!(table.get(new).unwrap().node, 8);
    assert!(
        table.remove(0).is_none(),
        "fh 0 is that of mounts without OPEN"
    );
}

// Without it the table would grow over its end.
#[test]
fn a_full_table_refuses_and_takes_again() {
    let (_fd, table) = table(2);
    let a = table.insert(1, 1, Mode::Cached).unwrap();
    table.insert(2, 2, Mode::Cached).unwrap();
    assert_eq!(table.insert(3, 3, Mode::Cached), Err(TableFull));
    table.remove(a);
    assert!(table.insert(3, 3, Mode::Cached).is_ok());
}

// Without it a damaged table would make every open fail later, far from the cause.
#[test]
fn damage_is_refused_with_its_reason() {
    let cases: [(u64, &[u8], &str); 5] = [
        (0, b"XX", "magic"),
        (8, &[9], "checksum"),
        (24, &[255, 255, 255, 255], "room"),
        (4096, &[9], "unknown state"),
        (4096 + 8, &[99], "checksum"),
    ];
    for (at, bytes, reason) in cases {
        let (fd, table) = table(4);
        table.insert(1, 1, Mode::Cached).unwrap();
        drop(table);
        let file = File::from(fd);
        file.write_all_at(bytes, at).unwrap();
        let error = HandleTable::open(file.into()).unwrap_err();
        assert!(error.to_string().contains(reason), "{at}: {error}");
    }
    let plain = File::from(HandleTable::create_sized(1, 1).unwrap());
    assert!(plain.set_len(1).is_err(), "the size is sealed");
    let file = tempfile::tempfile().unwrap();
    assert!(HandleTable::open(file.into()).is_err());
}

// Without it ids of a dead worker would pin evicted files until the mount ends.
#[test]
fn ids_that_were_registered_but_not_recorded_are_candidates_for_closing() {
    let (_fd, table) = table(8);
    table.record_backing(10, 1).unwrap();
    table.record_backing(12, 2).unwrap();
    let strays = table.stray_backings();
    assert!(strays.contains(&11) && strays.contains(&13));
    assert!(!strays.contains(&10) && !strays.contains(&12) && !strays.contains(&0));
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, bool),
    Remove(usize),
    Record(u64),
    Forget(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..5u64, any::<bool>()).prop_map(|(node, pass)| Step::Insert(node, pass)),
        2 => any::<usize>().prop_map(Step::Remove),
        1 => (1..5u64).prop_map(Step::Record),
        1 => any::<usize>().prop_map(Step::Forget),
    ]
}

type Model = (Vec<Handle>, Vec<Backing>);

fn apply(table: &HandleTable, model: &mut Model, step: &Step, number: u64) {
    match step {
        Step::Insert(node, pass) => {
            let mode = if *pass {
                Mode::Passthrough(*node as u32)
            } else {
                Mode::Cached
            };
            if let Ok(fh) = table.insert(number, *node, mode) {
                model.0.push(Handle {
                    fh,
                    node: *node,
                    mode,
                    unique: number,
                });
            }
        }
        Step::Remove(which) => {
            if !model.0.is_empty() {
                let handle = model.0.swap_remove(which % model.0.len());
                table.remove(handle.fh);
            }
        }
        Step::Record(node) => {
            if let Ok(index) = table.record_backing(number as u32, *node) {
                model.1.push(Backing {
                    index,
                    id: number as u32,
                    node: *node,
                });
            }
        }
        Step::Forget(which) => {
            if !model.1.is_empty() {
                let backing = model.1.swap_remove(which % model.1.len());
                table.forget_backing(backing.index);
            }
        }
    }
}

fn contents(table: &HandleTable) -> Model {
    let (mut handles, mut backings) = (table.handles(), table.backings());
    handles.sort_by_key(|handle| handle.fh);
    backings.sort_by_key(|backing| backing.index);
    (handles, backings)
}

fn sorted(model: &Model) -> Model {
    let (mut handles, mut backings) = model.clone();
    handles.sort_by_key(|handle| handle.fh);
    backings.sort_by_key(|backing| backing.index);
    (handles, backings)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    // Without it a worker killed between two stores could leave a table that nobody can read, or
    // that claims another state than before or after the operation.
    #[test]
    fn after_a_crash_at_any_store_the_table_is_as_before_or_after_the_operation(
        steps in proptest::collection::vec(step(), 1..40),
        crash in 0u64..120,
    ) {
        let (fd, table) = table(6);
        let mut model: Model = (Vec::new(), Vec::new());
        table.memory.die_after(crash);
        let mut allowed = Vec::new();
        for (number, step) in (1u64..).zip(&steps) {
            let before = sorted(&model);
            apply(&table, &mut model, step, number);
            allowed = vec![before, sorted(&model)];
            let now = contents(&HandleTable::open(fd.try_clone().unwrap()).unwrap());
            prop_assert!(allowed.contains(&now), "{now:?} is none of {allowed:?}");
            if now != allowed[1] {
                break; // dead: the writer believes in a step that memory does not have
            }
        }
        let next = HandleTable::open(fd).unwrap();
        prop_assert!(allowed.contains(&contents(&next)));
        prop_assert_eq!(next.len() as usize, next.handles().len());
        // The successor can go on.
        let free = 6 - next.len();
        for number in 0..u64::from(free) {
            prop_assert!(next.insert(1000 + number, 9, Mode::Cached).is_ok());
        }
        prop_assert_eq!(next.insert(2000, 9, Mode::Cached), Err(TableFull));
    }
}
