//! Tests of the block table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

proptest! {
    // Without this, a table written to disk could come back as another one.
    #[test]
    fn a_table_survives_encoding(size in 0..200 * BLOCK, seed in any::<u64>()) {
        let mut table = BlockTable::empty(size);
        for index in 0..table.count() {
            if seed.rotate_left(index) & 1 == 1 {
                table.insert(index, (index + 1) * 7);
            }
        }
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), BlockTable::encoded_length(table.count()));
        let mut back = BlockTable::decode(size, &mut Reader(&bytes)).unwrap();
        prop_assert!(table.count() == 0 || back.present.ones == 0 || !back.all_verified());
        back.trust();
        prop_assert_eq!(back, table);
    }

    // Without this, a damaged disk could take the daemon down.
    #[test]
    fn arbitrary_bytes_never_panic(size in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = BlockTable::decode(size, &mut Reader(&bytes));
        let _ = BlockTable::decode(size % (64 * BLOCK), &mut Reader(&bytes));
    }
}

// Without this, a fill would fetch too much, or believe it is done too early.
#[test]
fn missing_runs_and_present_bytes_follow_the_bits() {
    let mut table = BlockTable::empty(3 * BLOCK + 5);
    assert_eq!(table.count(), 4);
    assert_eq!(table.span(3), 3 * BLOCK..3 * BLOCK + 5);
    assert_eq!(table.missing(0..9), vec![0..4]);
    table.insert(1, 9);
    table.insert(3, 9);
    assert_eq!(table.missing(0..4), vec![0..1, 2..3]);
    assert_eq!(table.present_bytes(), BLOCK + 5);
    table.insert(0, 0);
    table.insert(2, 0);
    assert!(table.all_present() && table.all_verified());
    table.remove(2);
    assert!(!table.all_present() && !table.all_verified());
    assert_eq!(table.missing(0..4), vec![2..3]);
}

// Without this, the empty object would never be complete.
#[test]
fn an_empty_object_is_complete() {
    let table = BlockTable::empty(0);
    assert!(table.all_present() && table.all_verified());
    assert_eq!(table.present_bytes(), 0);
}
