//! A pass over listings: what counts, where it counts, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::super::layout::Layout;
use super::*;

fn shape(layout: Layout) -> Shape {
    Shape {
        layout,
        marker: Arc::from("_SUCCESS"),
    }
}

fn scan_of(layout: Layout, paths: &[(&str, i64)]) -> Scan {
    let shape = shape(layout);
    let mut scan = Scan::default();
    for (path, mtime_ms) in paths {
        let file = UpFile {
            path: Arc::from(*path),
            size: 10,
            mtime_ms: *mtime_ms,
            token: Arc::from("t"),
        };
        scan.absorb(file, &shape);
    }
    scan.finish();
    scan
}

// A staging file or a marker that counts as data puts a partial sync into a version.
#[test]
fn only_data_counts() {
    let scan = scan_of(
        Layout::Hive,
        &[
            ("dt=1/a.parquet", 5),
            ("dt=1/sub/b.parquet", 7),
            ("dt=1/.a.parquet.crc", 99),
            ("dt=1/_SUCCESS", 8),
            ("dt=2/a.parquet", 5),
            ("dt=2/_temporary/0/task/a.parquet", 9),
            (".spark-staging-1/dt=3/a.parquet", 9),
            ("_SUCCESS", 6),
            ("_delta_log/0.json", 1),
            ("metadata/v1.metadata.json", 1),
            ("_metadata", 1),
        ],
    );
    let names: Vec<&str> = scan.partitions.keys().map(|name| &**name).collect();
    assert_eq!(names, ["dt=1", "dt=2"]);
    let one = &scan.partitions["dt=1"];
    assert_eq!((one.files, one.bytes, one.newest_ms), (2, 20, Some(7)));
    assert_eq!(scan.partition_marker("dt=1"), Some(8));
    assert_eq!(scan.partition_marker("dt=2"), None);
    assert_eq!(scan.table_marker(), Some(6));
    assert_eq!((scan.staging("dt=1"), scan.staging("dt=2")), (1, 2));
    assert_eq!(scan.staging_anywhere(), 2);
    assert_eq!(scan.table_log.len(), 2);
}

// The order of a listing is the store's business.
#[test]
fn order_does_not_matter() {
    let paths = [("dt=1/a", 1), ("dt=1/b", 2), ("dt=1/c", 3)];
    let forward = scan_of(Layout::Hive, &paths);
    let mut turned = paths;
    turned.reverse();
    let backward = scan_of(Layout::Hive, &turned);
    assert_eq!(
        forward.partitions["dt=1"].fingerprint,
        backward.partitions["dt=1"].fingerprint
    );
    let other = scan_of(Layout::Hive, &[("dt=1/a", 1), ("dt=1/b", 2), ("dt=1/c", 4)]);
    assert_ne!(
        forward.partitions["dt=1"].fingerprint,
        other.partitions["dt=1"].fingerprint
    );
}

// Two directories for one partition, a foreign column, a stray file, a hostile name: rows would be
// counted twice, or lost, or written outside the mount.
#[test]
fn what_contradicts_the_table_is_refused() {
    let long = format!("dt=1/{}", "n".repeat(300));
    let scan = scan_of(
        Layout::Hive,
        &[
            ("dt=1/a", 1),
            ("dt=2/a", 1),
            ("dt=2026-11-20 07%3A00/a", 1),
            ("dt=2026-11-20 07:00/a", 1),
            ("day=3/a", 1),
            ("dt=%FF/a", 1),
            ("dt=4/../../etc/passwd", 1),
            ("stray.parquet", 1),
            ("../up", 1),
            (&long, 1),
        ],
    );
    let refused: Vec<&str> = scan
        .partitions
        .iter()
        .filter(|(_, sketch)| sketch.refusal.is_some())
        .map(|(name, _)| &**name)
        .collect();
    let expected = [
        "day=3",
        "dt=%FF",
        "dt=1",
        "dt=2026-11-20 07%3A00",
        "dt=2026-11-20 07:00",
        "dt=4",
    ];
    assert_eq!(refused, expected);
    assert!(scan.partitions["dt=2"].refusal.is_none());
    assert_eq!(scan.refused_count, 2);
}

// The class directories of an image folder are no partitions, and `a=b` is a fine class.
#[test]
fn a_flat_table_has_one_partition() {
    let scan = scan_of(
        Layout::Flat,
        &[("cats/1.png", 1), ("a=b/2.png", 1), ("_SUCCESS", 2)],
    );
    assert_eq!(scan.partitions.len(), 1);
    assert_eq!(scan.partitions[""].files, 2);
    assert_eq!(scan.table_marker(), Some(2));
}

// Reading 100,000 partitions must not need a second.
#[test]
fn a_hundred_thousand_partitions_are_sketched() {
    let shape = shape(Layout::Hive);
    let mut scan = Scan::default();
    for partition in 0..100_000 {
        let file = UpFile {
            path: Arc::from(format!("dt={partition}/part-0.parquet")),
            size: 1,
            mtime_ms: 1,
            token: Arc::from("t"),
        };
        scan.absorb(file, &shape);
    }
    scan.finish();
    assert_eq!(scan.partitions.len(), 100_000);
    assert!(
        scan.partitions
            .values()
            .all(|sketch| sketch.refusal.is_none())
    );
    assert_eq!(scan.manifest_of("dt=1").map(|(at, _)| at.to_string()), None);
    scan.manifests.insert(
        Arc::from(""),
        UpFile {
            path: Arc::from("_manifest.json"),
            size: 1,
            mtime_ms: 1,
            token: Arc::from("t"),
        },
    );
    assert_eq!(scan.manifest_of("dt=1").unwrap().0.as_ref(), "");
}
