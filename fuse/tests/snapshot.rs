//! The snapshot name space: against a reference model, against damage, and against its golden file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use support::{list, page, runtime, version};
use terrace_cache::{Token, Version};
use terrace_fuse::namespace::{FsError, Ino, Kind, Namespace};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::{
    BuildError, Builder, Built, Entry, EntryKind, HeaderError, Snapshot, SnapshotError, Surplus,
};

/// What a test puts into a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    File(u64),
    Link(Vec<u8>),
    Directory(i64),
}

type Items = BTreeMap<String, (Option<u16>, Item)>;

fn build<'a>(
    items: impl IntoIterator<Item = (&'a str, &'a (Option<u16>, Item))>,
    surplus: Surplus,
    path: &Path,
) -> Result<Built, BuildError> {
    let mut builder = Builder::new("s3://bucket", "data/set", surplus);
    for (path, (mode, item)) in items {
        let file;
        let kind = match item {
            Item::File(number) => {
                file = version(*number);
                EntryKind::File(&file)
            }
            Item::Link(target) => EntryKind::Symlink(target, 5),
            Item::Directory(mtime) => EntryKind::Directory(*mtime),
        };
        builder.push(&Entry {
            path,
            mode: *mode,
            kind,
        })?;
    }
    builder.finish(path)
}

fn refs(items: &Items) -> impl DoubleEndedIterator<Item = (&str, &(Option<u16>, Item))> {
    items.iter().map(|(path, item)| (path.as_str(), item))
}

fn open(path: &Path) -> Snapshot {
    Snapshot::open(path, Ownership::default()).unwrap()
}

fn items() -> impl Strategy<Value = Items> {
    let segment = prop::sample::select(vec!["a", "b", "a-", "a.b", "a0", "\u{e9}"]);
    let item = prop_oneof![
        4 => (1_u64..9).prop_map(Item::File),
        1 => prop::collection::vec(1_u8..255, 1..20).prop_map(Item::Link),
        1 => (-5_i64..5).prop_map(Item::Directory),
    ];
    let mode = prop::option::of(0_u16..0o10000);
    let paths = prop::collection::vec(segment, 1..5).prop_map(|path| path.join("/"));
    prop::collection::btree_map(paths, (mode, item), 0..40).prop_map(|mut items: Items| {
        // A path is either a directory or not.
        let paths: Vec<_> = items.keys().cloned().collect();
        items.retain(|path, (_, item)| {
            let inner = format!("{path}/");
            matches!(item, Item::Directory(_))
                || !paths.iter().any(|other| other.starts_with(&inner))
        });
        items
    })
}

/// Reference: every path with its kind, directories included.
fn model(items: &Items) -> BTreeMap<String, Kind> {
    let mut paths = BTreeMap::new();
    for (path, (_, item)) in items {
        for (slash, _) in path.match_indices('/') {
            paths.insert(path[..slash].to_owned(), Kind::Directory);
        }
        let kind = match item {
            Item::File(_) => Kind::File,
            Item::Link(_) => Kind::Symlink,
            Item::Directory(_) => Kind::Directory,
        };
        paths.insert(path.clone(), kind);
    }
    paths
}

/// Asks a snapshot everything there is to ask; whatever it is, it answers.
fn ask_everything(snapshot: &Snapshot) {
    runtime().block_on(async {
        for number in (0..snapshot.entries() + 3).chain([u64::MAX, 1 << 32]) {
            let ino = Ino(number);
            drop((
                snapshot.attr(ino),
                snapshot.object(ino),
                snapshot.link_target(ino),
            ));
            drop((
                snapshot.attributes(ino),
                snapshot.node(ino),
                snapshot.path(ino),
            ));
            drop((
                snapshot.lookup(ino, b"a").await,
                snapshot.lookup(ino, &[b'x'; 300]).await,
            ));
            drop((
                page(snapshot, ino, 0, 50).await,
                page(snapshot, ino, u64::MAX, 3).await,
            ));
        }
        let _ = (snapshot.verify(), snapshot.totals(), snapshot.digest());
    });
}

/// Puts the checksums right again after a change, as the format text says.
fn reseal(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let sections = word(bytes, 16) * 32 + word(bytes, 40) + word(bytes, 48) + word(bytes, 56);
    let table = 4096 + sections as usize;
    let sums: Vec<u8> = bytes[4096..table]
        .chunks(16384)
        .flat_map(|page| crc32c::crc32c(page).to_le_bytes())
        .collect();
    bytes[table..].copy_from_slice(&sums);
    let sum = crc32c::crc32c(&sums).to_le_bytes();
    bytes[64..68].copy_from_slice(&sum);
    let sum = crc32c::crc32c(&bytes[..4092]).to_le_bytes();
    bytes[4092..4096].copy_from_slice(&sum);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Broken: a mount shows another tree than the one that was recorded.
    #[test]
    fn a_snapshot_is_the_set_it_was_built_from(items in items(), limit in 1_usize..5) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let built = build(refs(&items), Surplus::Refuse, &path).unwrap();
        let snapshot = open(&path);
        let expected = model(&items);
        assert_eq!(snapshot.entries(), expected.len() as u64 + 1);
        assert_eq!((snapshot.digest(), snapshot.entries()), (built.digest, built.entries));
        snapshot.verify().unwrap();
        runtime().block_on(async {
            let mut found = BTreeMap::new();
            let mut waiting = vec![(String::new(), Ino::ROOT)];
            while let Some((parent, ino)) = waiting.pop() {
                let entries = list(&snapshot, ino, limit).await.unwrap();
                assert!(entries.is_sorted_by(|a, b| a.name < b.name));
                let directories = entries.iter().filter(|entry| entry.attr.kind == Kind::Directory);
                assert_eq!(snapshot.attr(ino).unwrap().nlink as usize, 2 + directories.count());
                for entry in entries {
                    let name = String::from_utf8(entry.name.clone()).unwrap();
                    let path = if parent.is_empty() { name } else { format!("{parent}/{name}") };
                    let attr = snapshot.try_lookup(ino, &entry.name).unwrap().unwrap();
                    assert_eq!(attr, entry.attr);
                    assert_eq!(snapshot.attr(attr.ino).unwrap(), attr);
                    assert_eq!(snapshot.path(attr.ino).unwrap(), path.as_bytes());
                    assert_eq!(snapshot.node(attr.ino).unwrap().parent, ino);
                    if attr.kind == Kind::Directory {
                        waiting.push((path.clone(), attr.ino));
                    }
                    let missing = [entry.name.as_slice(), b"!"].concat();
                    assert!(matches!(snapshot.lookup(ino, &missing).await, Err(FsError::NotFound)));
                    found.insert(path, attr);
                }
            }
            let kinds: BTreeMap<_, _> = found.iter().map(|(path, attr)| (path.clone(), attr.kind)).collect();
            assert_eq!(kinds, expected);
            for (path, (mode, item)) in &items {
                let attr = &found[path];
                if let Some(mode) = mode { assert_eq!(attr.mode, *mode) }
                match item {
                    Item::File(number) => {
                        let object = snapshot.object(attr.ino).unwrap();
                        assert_eq!(object.version, version(*number));
                        assert_eq!(*object.key, *format!("data/set/{path}"));
                        assert_eq!((attr.size, attr.mtime_ns), (object.size(), object.version.mtime_ns));
                    }
                    Item::Link(target) => assert_eq!(snapshot.link_target(attr.ino).unwrap(), *target),
                    Item::Directory(mtime) => assert_eq!(attr.mtime_ns, *mtime),
                }
            }
        });
        // Order of the input does not matter: equal sets are equal files.
        let again = build(refs(&items).rev(), Surplus::Refuse, &directory.path().join("t")).unwrap();
        assert_eq!(again, built);
    }

    /// Broken: a damaged file takes the worker and all its mounts down.
    #[test]
    fn damage_is_an_error_and_never_a_panic(
        items in items(), place: prop::sample::Index, byte: u8, resealed: bool, cut: prop::sample::Index, short: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        build(refs(&items), Surplus::Refuse, &path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut bytes = good.clone();
        let place = if resealed { 4096 + place.index(bytes.len() - 4096 - 4) } else { place.index(bytes.len()) };
        bytes[place] ^= byte;
        if resealed { reseal(&mut bytes) }
        if short { bytes.truncate(cut.index(bytes.len())) }
        let changed = bytes != good;
        match Snapshot::from_bytes(bytes, Ownership::default()) {
            Ok(snapshot) => {
                ask_everything(&snapshot);
                assert!(resealed || !changed || snapshot.verify().is_err());
            }
            Err(_) => assert!(changed),
        }
    }

    /// Broken: a file that is no snapshot at all takes the worker down.
    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..9000), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() > 5000 {
            bytes[..16].copy_from_slice(b"TERRSNAP\x01\0\0\0\0\0\0\0");
        }
        assert!(Snapshot::from_bytes(bytes, Ownership::default()).is_err());
    }
}

fn example() -> Items {
    [
        ("README", (Some(0o600), Item::File(1))),
        ("empty", (None, Item::Directory(7))),
        ("latest", (None, Item::Link(b"train/part-1".to_vec()))),
        ("train/part-0", (None, Item::File(2))),
        ("train/part-1", (None, Item::File(3))),
        ("train/sub/x", (None, Item::File(4))),
    ]
    .map(|(path, item)| (path.to_owned(), item))
    .into()
}

/// Broken: snapshots that users keep can no longer be mounted, or get another digest.
#[test]
fn format_1_is_as_it_always_was() {
    let golden = include_bytes!("golden/snapshot-1.bin");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    build(refs(&example()), Surplus::Refuse, &path).unwrap();
    assert!(std::fs::read(&path).unwrap() == golden, "format 1 changed");
    let snapshot = Snapshot::from_bytes(golden.to_vec(), Ownership::default()).unwrap();
    assert_eq!(
        (snapshot.store(), snapshot.prefix()),
        ("s3://bucket", "data/set")
    );
    assert_eq!(snapshot.totals(), (100, 9));
    let mut other = golden.to_vec();
    other[8] = 2;
    let error = Snapshot::from_bytes(other, Ownership::default()).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Header(HeaderError::Format(2))),
        "{error}"
    );
}

/// Broken: a bad set is mounted as something nobody recorded.
#[test]
fn hostile_sets_are_refused_with_the_path_that_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("s");
    let file = (None, Item::File(1));
    let check =
        |paths: &[&str], surplus| build(paths.iter().map(|path| (*path, &file)), surplus, &target);
    let long = "x".repeat(256);
    for path in ["", "/a", "a/", "a//b", "a/../b", ".", "n\0l", &long] {
        let error = check(&[path], Surplus::Hide).unwrap_err();
        assert!(
            matches!(&error, BuildError::Path { path: told, .. } if told == path),
            "{error}"
        );
    }
    let error = check(&["d/e/x", "b", "d/e/x"], Surplus::Refuse).unwrap_err();
    assert!(
        matches!(&error, BuildError::Duplicate(path) if path == "d/e/x"),
        "{error}"
    );
    let error = check(&["d/e/x/y", "d/e/x"], Surplus::Refuse).unwrap_err();
    assert!(
        matches!(&error, BuildError::Conflict(path) if path == "d/e/x"),
        "{error}"
    );
    assert!(!target.exists(), "a refused set leaves no file");
    let built = check(&["d/e/x/y", "d/e/x", "d/e/z"], Surplus::Hide).unwrap();
    assert_eq!((built.entries, built.files, built.shadowed), (6, 2, 1));
    for link in [&b""[..], b"n\0l", &[b'x'; 5000]] {
        let link = (None, Item::Link(link.to_vec()));
        let error = build([("l", &link)], Surplus::Refuse, &target).unwrap_err();
        assert!(matches!(error, BuildError::Value(_)));
    }
    let directory = (None, Item::Directory(1));
    let error = build(
        [("d", &directory), ("d", &directory)],
        Surplus::Refuse,
        &target,
    );
    assert!(matches!(error, Err(BuildError::Duplicate(_))));
}

/// Broken: a damaged page deep in a big file is believed, or keeps the rest from being read.
#[test]
fn damage_is_found_when_the_page_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let items: Items = (0..5000)
        .map(|n| (format!("f{n:05}"), (None, Item::File(n))))
        .collect();
    build(refs(&items), Surplus::Refuse, &path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // Row 4000: size of the file.
    bytes[4096 + 4000 * 32 + 9] ^= 1;
    let snapshot = Snapshot::from_bytes(bytes, Ownership::default()).unwrap();
    runtime().block_on(async {
        assert!(snapshot.attr(Ino(10)).is_ok());
        for _ in 0..2 {
            assert!(matches!(snapshot.attr(Ino(4001)), Err(FsError::Local(_))));
        }
        assert!(matches!(snapshot.verify(), Err(SnapshotError::Page(7))));
        assert!(matches!(
            list(&snapshot, Ino::ROOT, 9).await,
            Err(FsError::Local(_))
        ));
        assert_eq!(
            list(&snapshot, Ino(5), 1).await.unwrap_err().to_string(),
            "not a directory"
        );
    });
}

/// Broken: versions of HDFS files and of directories come back as something else.
#[test]
fn versions_of_every_store_survive() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let tokens = [
        Token::Hdfs { file_id: 77 },
        Token::File {
            device: 5,
            inode: u64::MAX,
        },
        Token::ETag {
            etag: "W/\"x\"".into(),
            version_id: Some("3/L4".into()),
        },
    ];
    let mut builder = Builder::new("hdfs://ns", "", Surplus::Refuse);
    for (number, token) in tokens.iter().enumerate() {
        let version = Version {
            token: token.clone(),
            size: 1 << 50,
            mtime_ns: -7,
        };
        let path = format!("f{number}");
        builder
            .push(&Entry {
                path: &path,
                mode: None,
                kind: EntryKind::File(&version),
            })
            .unwrap();
    }
    builder.finish(&path).unwrap();
    let snapshot = open(&path);
    for (number, token) in tokens.into_iter().enumerate() {
        let object = snapshot.object(Ino(number as u64 + 2)).unwrap();
        assert_eq!(
            object.version,
            Version {
                token,
                size: 1 << 50,
                mtime_ns: -7
            }
        );
        assert_eq!(*object.key, *format!("f{number}"));
    }
}

/// Broken: an empty prefix cannot be mounted.
#[test]
fn an_empty_snapshot_has_a_root() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    build([], Surplus::Refuse, &path).unwrap();
    let snapshot = open(&path);
    assert_eq!(snapshot.entries(), 1);
    let attr = snapshot.attr(Ino::ROOT).unwrap();
    assert_eq!(
        (attr.kind, attr.mode, attr.nlink, attr.mtime_ns),
        (Kind::Directory, 0o555, 2, 0)
    );
    runtime().block_on(async {
        assert!(list(&snapshot, Ino::ROOT, 9).await.unwrap().is_empty());
        assert!(matches!(
            snapshot.lookup(Ino::ROOT, b"a").await,
            Err(FsError::NotFound)
        ));
    });
}
