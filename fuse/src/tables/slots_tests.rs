//! Tests of the slot file: what the next worker reads after any end of this one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use super::super::catalog::ManifestId;
use super::super::hub::Hub;
use super::*;

fn version(number: u64) -> TableVersion {
    TableVersion {
        dataset: "ads.clicks".parse().unwrap(),
        number,
        manifest: ManifestId([number as u8; 32]),
        committed_ms: 1_700_000_000_000 + number as i64,
    }
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

/// Everything a mount writes, in an order that it could happen in.
fn script(slots: &Slots) -> Vec<u32> {
    let mut given = slots.put(&[Slot::Namespace("ads".into())]).unwrap();
    let latest = selector("ads.clicks");
    for number in [1, 2, 1] {
        given.extend(
            slots
                .point(vec![(latest.clone(), version(number))])
                .unwrap(),
        );
    }
    given.extend(
        slots
            .point(vec![(selector("ads.clicks@prod"), version(2))])
            .unwrap(),
    );
    slots.gone(&selector("ads.clicks@prod")).unwrap();
    let rest = [
        Slot::Repository(Hub::Models, "ads.clicks".parse().unwrap()),
        Slot::Link(Hub::Models, version(2)),
        Slot::Text(7, Arc::from(*b"commit")),
    ];
    given.extend(slots.put(&rest).unwrap());
    given
}

fn path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("slots")
}

// Without it a new worker would show another version under a number that the kernel holds.
#[test]
fn numbers_and_answers_survive() {
    let directory = tempfile::tempdir().unwrap();
    let first = Slots::open(&path(&directory), Opening::Mount).unwrap();
    let given = script(&first);
    // Version 1 came back: its number did too, and one slot says so.
    assert_eq!(given, [1, 2, 3, 2, 5, 7, 8, 9]);
    drop(first);
    for opening in [Opening::TakeOver, Opening::Mount] {
        let again = Slots::open(&path(&directory), opening).unwrap();
        assert_eq!(again.now(&selector("ads.clicks")), Some(Some(2)));
        assert_eq!(again.now(&selector("ads.clicks@prod")), Some(None));
        assert_eq!(again.now(&selector("ads.clicks@v1")), None);
        assert_eq!(
            *again.get(3).unwrap(),
            Slot::Version(selector("ads.clicks"), version(2))
        );
        assert_eq!(
            again
                .text(&Sha256::digest(b"commit").into())
                .unwrap()
                .as_ref(),
            b"commit"
        );
        assert_eq!(again.namespaces(), [("ads".into(), 1)]);
        assert_eq!(again.tables("ads"), [("ads.clicks".parse().unwrap(), 2)]);
        assert_eq!(
            again
                .links(Hub::Models, &"ads.clicks".parse().unwrap())
                .len(),
            1
        );
        // The same again needs no new number, and changes nothing on disk.
        let length = std::fs::metadata(path(&directory)).unwrap().len();
        assert_eq!(again.put(&[Slot::Namespace("ads".into())]).unwrap(), [1]);
        assert_eq!(
            again
                .point(vec![(selector("ads.clicks"), version(1))])
                .unwrap(),
            [2]
        );
        again.gone(&selector("ads.none")).unwrap();
        assert_eq!(std::fs::metadata(path(&directory)).unwrap().len(), length);
    }
}

// Without it a worker killed in the middle of a write would end the mount, or shift every number.
#[test]
fn a_torn_end_is_cut_off_at_any_byte() {
    let directory = tempfile::tempdir().unwrap();
    let whole = Slots::open(&path(&directory), Opening::Mount).unwrap();
    script(&whole);
    drop(whole);
    let bytes = std::fs::read(path(&directory)).unwrap();
    for cut in 0..bytes.len() {
        std::fs::write(path(&directory), &bytes[..cut]).unwrap();
        let slots = Slots::open(&path(&directory), Opening::TakeOver).unwrap();
        let before = slots.len();
        let next = slots.put(&[Slot::Text(1, Arc::from(*b"new"))]).unwrap();
        assert_eq!(u64::from(next[0]), before + 1, "cut at {cut}");
        drop(slots);
        let again = Slots::open(&path(&directory), Opening::TakeOver).unwrap();
        assert_eq!(again.len(), before + 1, "cut at {cut}");
    }
}

// Without it numbers of the kernel would be given new meanings after damage.
#[test]
fn damage_ends_a_take_over_and_not_a_new_mount() {
    let directory = tempfile::tempdir().unwrap();
    let whole = Slots::open(&path(&directory), Opening::Mount).unwrap();
    script(&whole);
    drop(whole);
    let good = std::fs::read(path(&directory)).unwrap();
    for at in 0..good.len() - 30 {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        std::fs::write(path(&directory), &bad).unwrap();
        let refused = Slots::open(&path(&directory), Opening::TakeOver);
        assert!(matches!(refused, Err(SlotsError::Damaged(_))), "byte {at}");
        let anew = Slots::open(&path(&directory), Opening::Mount).unwrap();
        assert_eq!(anew.len(), 0);
        assert_eq!(anew.put(&[Slot::Namespace("b".into())]).unwrap(), [1]);
    }
}

// Without it a release could not read what the one before it wrote: an upgrade would end mounts.
#[test]
fn the_format_is_that_of_the_golden_file() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/slots-1.bin");
    let directory = tempfile::tempdir().unwrap();
    script(&Slots::open(&path(&directory), Opening::Mount).unwrap());
    let written = std::fs::read(path(&directory)).unwrap();
    assert!(
        written == std::fs::read(golden).unwrap(),
        "format 1 changed"
    );
}
