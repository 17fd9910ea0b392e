//! The formats on disk: golden files, round trips, arbitrary bytes.
//!
//! The golden files were written by a program that shares no code with this crate, from the
//! diagrams alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::BLOCK;
use super::blocks::BlockTable;
use super::data::Fingerprint;
use super::record::{Head, Marks, Pins, Record, Stage, Times, Trust};
use super::{directory, sidecar};
use crate::identity::Digest;

const RECORD: &[u8] = include_bytes!("../../tests/golden/hot_record_v1.bin");
const FILLED: &[u8] = include_bytes!("../../tests/golden/hot_record_filled_v1.bin");
const SIDECAR: &[u8] = include_bytes!("../../tests/golden/hot_sidecar_v1.bin");
const INCARNATION: u64 = 0x2_0000_0005;

fn digest() -> Digest {
    Digest(std::array::from_fn(|index| index as u8))
}

fn table(size: u64, blocks: &[(u32, u32)]) -> BlockTable {
    let mut bytes = Vec::new();
    let mut table = BlockTable::empty(size);
    for &(block, crc) in blocks {
        table.insert(block, crc);
    }
    table.encode(&mut bytes);
    BlockTable::decode(size, &mut super::codec::Reader(&bytes)).unwrap()
}

fn record() -> Record {
    let size = BLOCK + 5;
    Record {
        stage: Stage::Complete,
        epoch: 3,
        incarnation: INCARNATION,
        size,
        fingerprint: Fingerprint {
            device: 0x801,
            inode: 1_234_567,
            size,
            mtime_ns: 1_700_000_000_123_456_789,
            ctime_ns: -1,
        },
        charged: 1_056_768,
        present: size,
        dataset: "ads.clicks".to_owned(),
        table: Some(table(size, &[(0, 0x1122_3344), (1, 0xdead_beef)])),
    }
}

// Without this, a release could stop reading what an earlier one wrote.
#[test]
fn the_golden_record_and_sidecar_are_what_this_version_writes_and_reads() {
    assert_eq!(record().encode(&digest()), RECORD);
    assert_eq!(Record::decode(&digest(), RECORD).unwrap(), record());
    let filled = Record {
        stage: Stage::Filled,
        ..record()
    };
    assert_eq!(filled.encode(&digest()), FILLED);
    assert_eq!(Record::decode(&digest(), FILLED).unwrap(), filled);
    let head = Head::decode(&digest(), RECORD).unwrap();
    assert_eq!((head.dataset, head.charged), ("ads.clicks", 1_056_768));

    let size = 17 * BLOCK + 1;
    let expected = table(size, &[(0, 1), (9, u32::MAX), (17, 0x8000_0001)]);
    let encoded = sidecar::encode(&digest(), INCARNATION, size, &expected);
    assert_eq!(encoded, SIDECAR);
    let decoded = sidecar::decode(SIDECAR, &digest(), INCARNATION, size);
    assert_eq!(decoded.unwrap(), expected);
}

// Without this, a release could lose the owners that an earlier one wrote, or be refused by it.
#[test]
fn pins_are_read_with_and_without_times() {
    let pins = Pins {
        pinned: true,
        owners: 0x0102_0304,
    };
    let old = [1, 4, 3, 2, 1];
    assert_eq!(pins.encode(), old);
    assert_eq!(Times::decode(&old), None);
    let times = Times {
        incarnation: INCARNATION,
        recorded_ns: record().fingerprint.ctime_ns,
        mtime_ns: 7,
        ctime_ns: 8,
    };
    let mut new = old.to_vec();
    new.extend([5, 0, 0, 0, 2, 0, 0, 0]);
    new.extend([0xff; 8]);
    new.extend([7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!([pins.encode(), times.encode().to_vec()].concat(), new);
    assert_eq!(Times::decode(&new), Some(times));
    assert_eq!(Pins::decode(&new).unwrap(), pins);
    for length in 0..new.len() {
        assert_eq!(Times::decode(&new[..length]), None);
    }
    let mut fingerprint = record().fingerprint;
    times.apply(INCARNATION + 1, &mut fingerprint);
    assert_eq!(fingerprint, record().fingerprint, "of another file");
    times.apply(INCARNATION, &mut fingerprint);
    assert_eq!((fingerprint.mtime_ns, fingerprint.ctime_ns), (7, 8));
    fingerprint.mtime_ns = 9;
    times.apply(INCARNATION, &mut fingerprint);
    assert_eq!(fingerprint.mtime_ns, 9, "of another record");
}

// Without this, one flipped bit of the description could make wrong bytes look right.
#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let size = 17 * BLOCK + 1;
    for at in 0..RECORD.len() * 8 {
        let mut bytes = RECORD.to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        assert_eq!(Record::decode(&digest(), &bytes), None, "bit {at}");
    }
    for at in 0..SIDECAR.len() * 8 {
        let mut bytes = SIDECAR.to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(
            sidecar::decode(&bytes, &digest(), INCARNATION, size).is_err(),
            "bit {at}"
        );
    }
    for length in 0..RECORD.len() {
        assert_eq!(Record::decode(&digest(), &RECORD[..length]), None);
    }
    for length in 0..SIDECAR.len() {
        let cut = &SIDECAR[..length];
        assert!(sidecar::decode(cut, &digest(), INCARNATION, size).is_err());
    }
}

// Without this, a description could be taken for that of another object.
#[test]
fn a_description_of_another_object_is_refused() {
    let size = 17 * BLOCK + 1;
    let mut other = digest();
    other.0[5] ^= 1;
    assert_eq!(Record::decode(&other, RECORD), None);
    assert!(sidecar::decode(SIDECAR, &other, INCARNATION, size).is_err());
    assert!(sidecar::decode(SIDECAR, &digest(), INCARNATION + 1, size).is_err());
    assert!(sidecar::decode(SIDECAR, &digest(), INCARNATION, size + 1).is_err());
}

proptest! {
    // Without this, a damaged disk could take the daemon down.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in any::<u64>()) {
        let _ = Record::decode(&digest(), &bytes);
        let _ = sidecar::decode(&bytes, &digest(), 0, size);
        let _ = Marks::decode(&bytes);
        let _ = Pins::decode(&bytes);
        let _ = Times::decode(&bytes);
        let _ = Trust::decode(&bytes);
        let _ = directory::parse_name(&String::from_utf8_lossy(&bytes));
        // The same behind a valid checksum, which random bytes never have.
        let mut sealed = bytes.clone();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&digest().0), &bytes);
        sealed.extend_from_slice(&crc.to_le_bytes());
        let _ = Record::decode(&digest(), &sealed);
        let mut sealed = b"TERRMAP1".to_vec();
        sealed.extend_from_slice(&bytes);
        let crc = crc32c::crc32c(&sealed);
        sealed.extend_from_slice(&crc.to_le_bytes());
        let _ = sidecar::decode(&sealed, &digest(), 0, size);
    }

    // Without this, some record would not be read back.
    #[test]
    fn records_survive_encoding(
        size in 0..64 * BLOCK,
        numbers in any::<(u64, u32, u8, i64, i64)>(),
        dataset in "\\PC{0,40}",
    ) {
        let (incarnation, epoch, stage, mtime_ns, ctime_ns) = numbers;
        let stages = [Stage::Partial, Stage::Filled, Stage::Complete];
        let embedded = super::blocks::block_count(size) <= super::record::EMBEDDED_BLOCKS;
        let record = Record {
            stage: stages[usize::from(stage) % stages.len()],
            epoch,
            incarnation,
            size,
            fingerprint: Fingerprint { device: 1, inode: incarnation, size, mtime_ns, ctime_ns },
            charged: size,
            present: size / 2,
            dataset,
            table: embedded.then(|| table(size, &[])),
        };
        let bytes = record.encode(&digest());
        prop_assert_eq!(Record::decode(&digest(), &bytes), Some(record));
    }

    #[test]
    fn names_survive(bytes in any::<[u8; 32]>(), incarnation in any::<u64>()) {
        let name = format!("{}.{incarnation:016x}", Digest(bytes));
        let map = format!("{name}.map");
        prop_assert_eq!(directory::parse_name(&name), Some((Digest(bytes), incarnation)));
        prop_assert_eq!(directory::parse_name(&map), Some((Digest(bytes), incarnation)));
    }
}

// Without this, data that a crash may have damaged would be trusted, or a mere restart would
// verify everything again.
#[test]
fn trust_ends_with_an_unclean_boot_only() {
    let first = Trust::at_start(None, [1; 16], 77);
    let again = Trust::at_start(Some(first), [1; 16], 77);
    assert_eq!(
        (again.epoch, again.trusted_from),
        (first.epoch, first.trusted_from)
    );
    assert_eq!(again.starts, first.starts + 1);

    let closed = Trust {
        clean: true,
        ..again
    };
    let booted = Trust::at_start(Some(closed), [2; 16], 77);
    assert_eq!(
        (booted.epoch, booted.trusted_from),
        (first.epoch, first.trusted_from)
    );
    assert!(!booted.clean, "until it is closed again");

    let crashed = Trust::at_start(Some(booted), [3; 16], 77);
    assert_eq!(
        (crashed.epoch, crashed.trusted_from),
        (first.epoch + 1, first.epoch + 1)
    );
    assert_eq!(Trust::decode(&crashed.encode()), Some(crashed));
}
