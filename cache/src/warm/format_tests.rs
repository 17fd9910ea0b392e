//! The formats of the warm tier: golden bytes, round trips, damage.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;
use crate::identity::{Token, Version};

fn object(size: u64) -> ObjectId {
    ObjectId {
        store: "s3://bucket".into(),
        key: "a/b.parquet".into(),
        version: Version {
            token: Token::ETag {
                etag: "\"e\"".into(),
                version_id: None,
            },
            size,
            mtime_ns: 0,
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// Without this, a changed encoder would make every copy in the cluster unreadable, or worse,
// readable with another meaning.
#[test]
fn format_one_is_what_the_golden_bytes_say() {
    let object = object(BLOCK + 5);
    let sum = encode_sum(&object, &[0x01020304, 0xa0b0c0d0]);
    let digest = object.digest().hex();
    let label = hex(b"s3://bucket/a/b.parquet");
    let head = format!(
        "5452435741524d0a01000000000010000500100000000000{digest}17000000{label}04030201d0c0b0a0"
    );
    assert_eq!(hex(&sum[..sum.len() - 4]), head);
    let table = decode_sum(&sum, &object.digest(), BLOCK + 5);
    assert_eq!(table.unwrap(), [0x01020304, 0xa0b0c0d0]);

    let record = LeaseRecord {
        owner: [7; 16],
        heartbeat: 9,
        finished: vec![None, Some(0x01020304)],
    };
    let lease = encode_lease(&record);
    let head = format!(
        "5452434c4541530a0100000002000000{}0900000000000000000100000000{}",
        "07".repeat(16),
        "04030201"
    );
    assert_eq!(hex(&lease[..lease.len() - 4]), head);
    assert_eq!(decode_lease(&lease, 2).unwrap(), record);
}

// Without this, a copy of another object, or of another length, would be taken for this one.
#[test]
fn a_sum_counts_for_its_own_object_only() {
    let object = object(100);
    let sum = encode_sum(&object, &[1]);
    assert!(decode_sum(&sum, &Digest([0; 32]), 100).is_none());
    assert!(decode_sum(&sum, &object.digest(), 101).is_none());
    assert!(sum.len() as u64 <= sum_max(100));
}

proptest! {
    // Without this, a hostile or damaged file in the directory could end the daemon, and a
    // flipped bit could pass for a checksum.
    #[test]
    fn any_bytes_are_refused_or_right(
        bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..10_000_usize, bit in 0..8_u8,
    ) {
        prop_assert!(decode_sum(&bytes, &Digest([1; 32]), 3 * BLOCK).is_none());
        prop_assert!(decode_lease(&bytes, 3).is_none());
        let object = object(2 * BLOCK);
        let mut sum = encode_sum(&object, &[5, 6]);
        let index = at % sum.len();
        sum[index] ^= 1 << bit;
        prop_assert!(decode_sum(&sum, &object.digest(), 2 * BLOCK).is_none());
    }
}
