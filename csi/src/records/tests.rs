//! Records: what a restart finds, what damage does, writers side by side, and the format itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// What version 1 looks like on disk. Never edited: a change of the format is a new version.
const GOLDEN: &[u8] = include_bytes!("volume-1.golden");

fn record() -> VolumeRecord {
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    VolumeRecord {
        id: "scratch-0f".parse().unwrap(),
        name: "pvc-6f1c \"ü\"".to_owned(),
        state: RecordState::Ready,
        size: 1 << 30,
        parameters: BTreeMap::from([text("scratch", "true")]),
        mutable: BTreeMap::from([text("writeBytesPerSecond", "100MiB")]),
        access: vec!["SINGLE_NODE_WRITER".to_owned()],
        source: Some(ContentSource::Snapshot("snap-1".parse().unwrap())),
        context: BTreeMap::new(),
    }
}

// An upgrade that cannot read the records of the version before loses every volume of the node.
#[test]
fn version_one_stays_readable() {
    assert_eq!(decode::<VolumeRecord>(GOLDEN), Ok(record()));
    assert_eq!(
        String::from_utf8(encode(&record()).unwrap()).unwrap(),
        String::from_utf8(GOLDEN.to_vec()).unwrap()
    );
}

// A promise that a restart forgets becomes a second volume, and the first one is never deleted.
#[test]
fn a_restart_finds_what_was_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records");
    let records = Records::open(&path).unwrap();
    assert_eq!(records.insert(&record()).unwrap(), None);
    let other = VolumeRecord {
        size: 7,
        ..record()
    };
    assert_eq!(records.insert(&other).unwrap(), Some(record()));
    // A writer that was killed before its rename.
    fs::write(path.join("0f.volume.new"), "terrace-vol").unwrap();
    let records: Records<VolumeRecord> = Records::open(&path).unwrap();
    assert_eq!(records.list().unwrap(), [record()]);
    assert!(!path.join("0f.volume.new").exists());
    records.put(&other).unwrap();
    assert_eq!(records.get(&other.id).unwrap(), Some(other.clone()));
    let changed = records.update(&other.id, |r| r.state = RecordState::Deleting);
    assert_eq!(changed.unwrap().unwrap().state, RecordState::Deleting);
    assert!(records.remove(&other.id).unwrap());
    assert!(!records.remove(&other.id).unwrap());
    assert_eq!(records.update(&other.id, |_| ()).unwrap(), None);
    // A snapshot of the same directory is no volume.
    let snapshots: Records<SnapshotRecord> = Records::open(&path).unwrap();
    assert!(snapshots.list().unwrap().is_empty());
}

// A damaged record that counts as absent lets a driver make a new volume over an old one.
#[test]
fn damage_is_an_error_and_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(directory.path()).unwrap();
    records.put(&record()).unwrap();
    let path = records.path(&record().id);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let found = records.get(&record().id);
        assert!(
            matches!(found, Err(RecordError::Damaged { .. })),
            "byte {at}"
        );
        fs::write(&path, &whole[..at]).unwrap();
        let found = records.get(&record().id).unwrap_err().to_string();
        assert!(found.contains(".volume"), "{found}");
    }
    let newer = [b"terrace-volume 2", &whole[16..]].concat();
    assert!(
        decode::<VolumeRecord>(&newer)
            .unwrap_err()
            .contains("version")
    );
}

// Two requests of one name must not both be told that they made the volume.
#[test]
fn one_of_many_writers_inserts() {
    let directory = tempfile::tempdir().unwrap();
    let made: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let records = Records::open(directory.path()).unwrap();
                    usize::from(records.insert(&record()).unwrap().is_none())
                })
            })
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    assert_eq!(made, 1);
}

proptest::proptest! {
    // Whatever a disk gives back, reading it ends in an answer.
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = decode::<VolumeRecord>(&bytes);
    }
}

// A list that reads every record for each page takes a quarter of a minute of a node with ten thousand
// volumes; one that goes by position loses volumes when others are removed between two pages.
#[test]
fn pages_have_every_record_once_and_read_only_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(directory.path()).unwrap();
    for number in 0..25 {
        let id = format!("volume-{number}").parse().unwrap();
        records.put(&VolumeRecord { id, ..record() }).unwrap();
    }
    let wanted = |record: &VolumeRecord| record.id.as_str() != "volume-3";
    let (mut after, mut found, mut more) = (String::new(), Vec::new(), true);
    while more {
        let page;
        (page, more) = records.page(&after, 4, wanted).unwrap();
        after = page.last().unwrap().id.hash();
        // What a page ended with goes away before the next one.
        records.remove(&page.last().unwrap().id).unwrap();
        found.extend(page.into_iter().map(|record| record.id));
    }
    assert_eq!(found.len(), 24);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 24);
    let left: Vec<_> = records.page("", 0, |_| true).unwrap().0;
    assert_eq!(left.len(), 25 - 6);
    let last = records.path(&left.last().unwrap().id);
    fs::write(last, "damaged").unwrap();
    assert_eq!(records.page("", 3, |_| true).unwrap().0, left[..3]);
    assert!(records.page("", 0, |_| true).is_err());
}
