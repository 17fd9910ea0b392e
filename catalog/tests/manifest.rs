//! Manifests over a directory of blobs: canonical, shared, complete, and never a panic.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory.rs"]
mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use memory::MemoryBlobs;
use proptest::prelude::*;
use terrace_catalog::blobs::{BlobError, BlobId, Blobs, DirectoryBlobs};
use terrace_catalog::manifest::{
    Checksum, DirectoryEntry, FileChange, FileEntry, Header, Manifest, ManifestEdit, ManifestError,
    PartitionChange,
};

fn file(path: &str, size: u64) -> FileEntry {
    FileEntry {
        path: path.into(),
        size,
        mtime_ms: 1_763_600_000_000,
        token: format!("etag-{size}").into(),
        rows: Some(size / 10),
        checksum: None,
    }
}

fn header() -> Header {
    Header {
        location: "s3://lake/ads/clicks".into(),
        format: "parquet".into(),
        schema: Some("{\"fields\":[]}".into()),
        columns: vec![("dt".into(), "string".into())],
        notes: Vec::new(),
    }
}

fn store() -> (tempfile::TempDir, Arc<dyn Blobs>) {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Arc::new(DirectoryBlobs::open(directory.path()).unwrap());
    (directory, blobs)
}

async fn blob_ids(blobs: &Arc<dyn Blobs>) -> Vec<BlobId> {
    blobs
        .list()
        .map(|listed| listed.unwrap().id)
        .collect()
        .await
}

/// A table: partition -> file name -> size.
type Table = BTreeMap<String, BTreeMap<String, u64>>;

async fn build(blobs: &Arc<dyn Blobs>, table: &Table) -> BlobId {
    let mut edit = ManifestEdit::new(blobs, header());
    for (partition, files) in table {
        put(&mut edit, partition, files).await;
    }
    edit.finish().await.unwrap()
}

async fn put(edit: &mut ManifestEdit, partition: &str, files: &BTreeMap<String, u64>) {
    let files = files
        .iter()
        .map(|(name, size)| file(&format!("{partition}/{name}"), *size));
    let value = partition.split_once('=').map(|(_, value)| value.into());
    edit.put_partition(partition, vec![("dt".into(), value)], files)
        .await
        .unwrap();
}

async fn all_files(manifest: &Manifest, prefix: &str, page: usize) -> Vec<FileEntry> {
    let mut all: Vec<FileEntry> = Vec::new();
    loop {
        let after = all.last().map(|file| Arc::clone(&file.path));
        let files = manifest
            .files(prefix, after.as_deref(), page)
            .await
            .unwrap();
        let end = files.len() < page;
        all.extend(files);
        if end {
            return all;
        }
    }
}

fn expected(table: &Table) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = table
        .iter()
        .flat_map(|(partition, files)| {
            files
                .iter()
                .map(move |(name, size)| (format!("{partition}/{name}"), *size))
        })
        .collect();
    all.sort();
    all
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

fn table() -> impl Strategy<Value = Table> {
    let files = prop::collection::btree_map("[a-c./]{1,3}x", 0u64..1000, 0..6);
    prop::collection::btree_map("dt=[0-9a-c.-]{1,3}", files, 0..40).prop_map(|table| {
        let clean = |name: &String| !name.split('/').any(|part| matches!(part, "" | "." | ".."));
        table
            .into_iter()
            .map(|(partition, files)| {
                let files = files.into_iter().filter(|(name, _)| clean(name)).collect();
                (partition, files)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    // Two digests for one content would make a new version out of nothing at every reconcile.
    #[test]
    fn an_edit_gives_the_digest_of_a_fresh_build(before in table(), after in table()) {
        runtime().block_on(async {
            let blobs: Arc<dyn Blobs> = MemoryBlobs::shared();
            let old = Manifest::open(&blobs, &build(&blobs, &before).await).await.unwrap();
            let mut edit = ManifestEdit::from(&old);
            for (partition, files) in &after {
                if before.get(partition) != Some(files) {
                    put(&mut edit, partition, files).await;
                }
            }
            for partition in before.keys().filter(|partition| !after.contains_key(*partition)) {
                edit.remove_partition(partition);
            }
            let edited = edit.finish().await.unwrap();
            prop_assert_eq!(edited, build(&blobs, &after).await);

            let new = Manifest::open(&blobs, &edited).await.unwrap();
            let found: Vec<(String, u64)> = all_files(&new, "", 3).await
                .iter().map(|file| (file.path.to_string(), file.size)).collect();
            prop_assert_eq!(&found, &expected(&after));
            for (path, size) in &found {
                prop_assert_eq!(new.file(path).await.unwrap().unwrap().size, *size);
            }
            let totals = new.totals();
            prop_assert_eq!(totals.partitions, after.len() as u64);
            prop_assert_eq!(totals.files, found.len() as u64);
            prop_assert_eq!(totals.bytes, found.iter().map(|(_, size)| size).sum::<u64>());

            // And the difference is what changed, page by page.
            let mut changed = Vec::new();
            loop {
                let last = changed.last().map(|change: &PartitionChange| change.path().to_owned());
                let page = new.diff(&old, last.as_deref(), 3).await.unwrap();
                let end = page.len() < 3;
                changed.extend(page);
                if end { break; }
            }
            let mut names: Vec<String> = before.keys().chain(after.keys())
                .filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
            names.sort_by_key(|name| format!("{name}/"));
            names.dedup();
            let paths: Vec<String> = changed.iter().map(|change| change.path().to_owned()).collect();
            prop_assert_eq!(paths, names);
            Ok(())
        })?;
    }

    // A directory listing that loses or repeats a name loses files of a training run.
    #[test]
    fn directories_show_each_name_once(table in table(), page in 1usize..4) {
        runtime().block_on(async {
            let blobs: Arc<dyn Blobs> = MemoryBlobs::shared();
            let manifest = Manifest::open(&blobs, &build(&blobs, &table).await).await.unwrap();
            let mut queue = vec![String::new()];
            let mut files = Vec::new();
            while let Some(directory) = queue.pop() {
                let mut names: Vec<DirectoryEntry> = Vec::new();
                loop {
                    let found = manifest.directory(&directory, names.last(), page).await.unwrap();
                    let end = found.len() < page;
                    names.extend(found);
                    if end { break; }
                }
                for name in names {
                    match name {
                        DirectoryEntry::File(file) => files.push((file.path.to_string(), file.size)),
                        DirectoryEntry::Directory(name) if directory.is_empty() => queue.push(name.to_string()),
                        DirectoryEntry::Directory(name) => queue.push(format!("{directory}/{name}")),
                    }
                }
            }
            files.sort();
            prop_assert_eq!(files, expected(&table));
            Ok(())
        })?;
    }
}

// A table whose every change rewrites the table cannot be registered within seconds.
#[tokio::test]
async fn adding_a_partition_writes_a_few_blocks() {
    let (_directory, blobs) = store();
    let mut edit = ManifestEdit::new(&blobs, header());
    let same = edit.store_files("", [file("a", 1)]).await.unwrap();
    for number in 0..20_000 {
        let path = format!("dt={number:06}");
        edit.set_partition(&path, Vec::new(), BTreeMap::new(), same)
            .unwrap();
    }
    let old = edit.finish().await.unwrap();
    let before = blob_ids(&blobs).await.len();
    let old = Manifest::open(&blobs, &old).await.unwrap();
    let mut edit = ManifestEdit::from(&old);
    edit.set_partition("dt=010000x", Vec::new(), BTreeMap::new(), same)
        .unwrap();
    let new = Manifest::open(&blobs, &edit.finish().await.unwrap())
        .await
        .unwrap();
    let written = blob_ids(&blobs).await.len() - before;
    assert!(written <= 6, "{written} blobs for one partition");
    assert_eq!(new.totals().partitions, 20_001);
    let changed = new.diff(&old, None, 10).await.unwrap();
    assert!(
        matches!(&changed[..], [PartitionChange::Added(added)] if &*added.path == "dt=010000x")
    );
}

// A flat folder of a million images is one partition: one more image must not list them all again.
#[tokio::test]
async fn a_long_list_is_patched() {
    let (_directory, blobs) = store();
    let mut edit = ManifestEdit::new(&blobs, header());
    let names = (0..20_000).map(|number| file(&format!("img/{number:08}.jpg"), number));
    edit.put_partition("", Vec::new(), names).await.unwrap();
    let old = Manifest::open(&blobs, &edit.finish().await.unwrap())
        .await
        .unwrap();
    let before = blob_ids(&blobs).await.len();
    let partition = old.partition("").await.unwrap().unwrap();
    let mut edit = ManifestEdit::from(&old);
    let mut added = file("img/00010000b.jpg", 7);
    added.checksum = Some(Checksum::Crc32c(0xdead_beef));
    let changes = [
        (Arc::clone(&added.path), Some(added.clone())),
        ("img/00000003.jpg".into(), None),
        ("img/not-there.jpg".into(), None),
    ];
    let files = edit.patch_files(&partition, changes).await.unwrap();
    edit.set_partition("", Vec::new(), BTreeMap::new(), files)
        .unwrap();
    let new = Manifest::open(&blobs, &edit.finish().await.unwrap())
        .await
        .unwrap();
    assert_eq!(new.totals().files, 20_000);
    assert!(blob_ids(&blobs).await.len() - before <= 8);
    assert_eq!(
        new.file("img/00010000b.jpg").await.unwrap(),
        Some(added.clone())
    );
    assert_eq!(new.file("img/00000003.jpg").await.unwrap(), None);
    let patched = new.partition("").await.unwrap().unwrap();
    let changed = new
        .diff_files(&partition, &patched, None, 10)
        .await
        .unwrap();
    assert_eq!(changed.len(), 2);
    assert!(matches!(&changed[0], FileChange::Removed(gone) if gone.size == 3));
    assert_eq!(changed[1], FileChange::Added(added));
    let shown = new.directory("", None, 10).await.unwrap();
    assert_eq!(shown, [DirectoryEntry::Directory("img".into())]);
}

// A path in two partitions would be two files; a path that climbs would be somebody else's.
#[tokio::test]
async fn hostile_paths_are_refused() {
    let (_directory, blobs) = store();
    for bad in ["", "/a", "a//b", "../x", "a/../b", "a/./b", "a\0b", "a/"] {
        let edit = ManifestEdit::new(&blobs, header());
        let stored = edit.store_files("", [file(bad, 1)]).await;
        assert!(matches!(stored, Err(ManifestError::Path(_))), "{bad:?}");
    }
    let mut edit = ManifestEdit::new(&blobs, header());
    let twice = [file("p/a", 1), file("p/a", 2)];
    assert!(matches!(
        edit.store_files("p", twice).await,
        Err(ManifestError::Order(_))
    ));
    assert!(edit.store_files("p", [file("q/a", 1)]).await.is_err());
    for path in ["x=1", "x=1/y=2"] {
        let files = [file(&format!("{path}/a"), 1)];
        edit.put_partition(path, Vec::new(), files).await.unwrap();
    }
    assert!(matches!(
        edit.finish().await,
        Err(ManifestError::Nested(..))
    ));
    let long = format!("{}/{}", "n".repeat(300), "%3A__HIVE_DEFAULT_PARTITION__");
    let mut edit = ManifestEdit::new(&blobs, header());
    edit.put_partition("", Vec::new(), [file(&long, 1)])
        .await
        .unwrap();
    let manifest = Manifest::open(&blobs, &edit.finish().await.unwrap())
        .await
        .unwrap();
    assert!(manifest.file(&long).await.unwrap().is_some());
}

// The digest is the version's name for ever: if the encoding drifts, every version becomes another one.
#[tokio::test]
async fn the_encoding_is_the_golden_one() {
    let (_directory, blobs) = store();
    let mut edit = ManifestEdit::new(&blobs, header());
    let mut one = file("dt=2026-11-20/part-0.parquet", 4096);
    one.checksum = Some(Checksum::Sha256([7; 32]));
    let mut two = file("dt=2026-11-20/part-1.parquet", 1);
    two.rows = None;
    two.mtime_ms = -5;
    let files = edit.store_files("dt=2026-11-20", [one, two]).await.unwrap();
    let notes = BTreeMap::from([("schema".into(), "a1".into())]);
    let values = vec![("dt".into(), Some("2026-11-20".into()))];
    edit.set_partition("dt=2026-11-20", values, notes, files)
        .unwrap();
    let rest = [file("dt=__HIVE_DEFAULT_PARTITION__/x", 9)];
    let default = "dt=__HIVE_DEFAULT_PARTITION__";
    edit.put_partition(default, vec![("dt".into(), None)], rest)
        .await
        .unwrap();
    let id = edit.finish().await.unwrap();
    let manifest = Manifest::open(&blobs, &id).await.unwrap();
    let mut text = String::new();
    let lists: Vec<BlobId> = manifest
        .partitions(None, 10)
        .await
        .unwrap()
        .iter()
        .map(|p| p.list)
        .collect();
    let mut others: Vec<BlobId> = blob_ids(&blobs).await;
    others.retain(|other| *other != id && !lists.contains(other));
    others.sort();
    for (what, ids) in [
        ("root", vec![id]),
        ("files", lists),
        ("other blocks", others),
    ] {
        for id in ids {
            let bytes = blobs.get(&id).await.unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{what} {id}\n{hex}\n");
        }
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifest-1.txt");
    assert_eq!(
        std::fs::read_to_string(golden).unwrap_or_default(),
        text,
        "{text}"
    );
}

// A disk that lies must cost a version, not the process: damage is an error and names what is damaged.
#[tokio::test]
async fn damage_is_told_from_truth() {
    let (directory, blobs) = store();
    let table = Table::from([(
        "dt=1".into(),
        BTreeMap::from([("a".into(), 1), ("b".into(), 2)]),
    )]);
    let id = build(&blobs, &table).await;
    for victim in blob_ids(&blobs).await {
        let name = victim.to_string();
        let path = directory.path().join("blobs").join(&name[..2]).join(&name);
        let good = std::fs::read(&path).unwrap();
        for bad in [&good[..good.len() / 2], &[]] {
            std::fs::write(&path, bad).unwrap();
            let read = async {
                let manifest = Manifest::open(&blobs, &id).await?;
                manifest.files("", None, 10).await
            };
            let unused = matches!(&read.await, Ok(files) if files.len() == 2);
            let error = blobs.get(&victim).await.unwrap_err();
            assert!(matches!(error, BlobError::Corrupt(found) if found == victim));
            // The empty tree that a build begins with is read by nobody afterwards.
            assert!(
                !unused || good.len() == 6,
                "damage of {victim} was not seen"
            );
        }
        std::fs::write(&path, good).unwrap();
    }
    assert_eq!(Manifest::open(&blobs, &id).await.unwrap().totals().files, 2);
}
