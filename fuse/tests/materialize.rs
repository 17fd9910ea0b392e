//! Trees of hard links over a real hot tier: what is in them, what crashes leave, what remove does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use terrace_cache::fill::{Cache, CacheConfig};
use terrace_cache::hot::{HotConfig, HotTier};
use terrace_cache::policy::Lru;
use terrace_cache::store::{StoreError, StoreErrorKind};
use terrace_cache::{ByteStream, DatasetKey, ObjectId, Source, Token, Version};
use terrace_fuse::materialize::{
    MaterializeError, MaterializeOptions, Objects, Progress, Report, materialize, neighbour, remove,
};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::{Builder, Entry, EntryKind, Snapshot, Surplus};

/// Bytes that follow from the key; fails for objects whose number is below `broken`.
#[derive(Debug, Default)]
struct Made {
    reads: AtomicU64,
    broken: AtomicU64,
}

fn content(object: &ObjectId) -> Vec<u8> {
    let seed = object.key.bytes().fold(7_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    (0..object.size())
        .map(|at| (seed.wrapping_add(at) % 251) as u8)
        .collect()
}

#[async_trait]
impl Source for Made {
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if (object.version.mtime_ns as u64) < self.broken.load(Ordering::Relaxed) {
            let (kind, operation) = (StoreErrorKind::Unreachable, "read range");
            let (target, reason) = (object.to_string(), "as the test wants it".to_owned());
            return Err(StoreError {
                kind,
                operation,
                target,
                reason,
            });
        }
        let bytes = content(object)[range.start as usize..range.end as usize].to_vec();
        Ok(futures::stream::iter([Ok(Bytes::from(bytes))]).boxed())
    }
}

struct World {
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    made: Arc<Made>,
    hot: Option<HotTier>,
}

fn ownership() -> Ownership {
    let (uid, gid) = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    Ownership {
        uid,
        gid,
        ..Ownership::default()
    }
}

impl World {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let mut world = Self {
            directory: tempfile::tempdir().unwrap(),
            runtime: builder.worker_threads(2).enable_all().build().unwrap(),
            made: Arc::default(),
            hot: None,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let config = HotConfig {
            limit_bytes: 1 << 30,
            min_free_bytes: 0,
            min_free_inodes: 0,
            sync_interval: Duration::from_millis(10),
            scrub_bytes_per_second: 0,
            ..HotConfig::new(self.directory.path().join("hot"))
        };
        self.hot = None;
        self.hot = Some(HotTier::open(config, Box::new(Lru::new())).unwrap());
    }

    fn hot(&self) -> &HotTier {
        self.hot.as_ref().unwrap()
    }

    fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    fn try_build(&self, snapshot: &Arc<Snapshot>, tree: &Path) -> Result<Report, MaterializeError> {
        let runtime = self.runtime.handle().clone();
        let cache = Cache::new(CacheConfig::default(), self.hot().clone(), runtime);
        let (source, dataset) = (Arc::clone(&self.made) as _, DatasetKey("d".into()));
        let objects = Objects {
            cache: cache.clone(),
            source,
            dataset,
        };
        self.runtime.block_on(async {
            let last = std::sync::Mutex::new(Progress::default());
            let progress = |now| *last.lock().unwrap() = now;
            let options = MaterializeOptions::default();
            let built = materialize(snapshot, &objects, tree, &options, &progress).await;
            if built.as_ref().is_ok_and(|report| !report.unchanged) {
                let last = *last.lock().unwrap();
                assert_eq!(
                    (last.filled, last.linked),
                    (last.files, last.entries),
                    "{last:?}"
                );
            }
            cache.shutdown().await;
            built
        })
    }

    fn build(&self, snapshot: &Arc<Snapshot>) -> Report {
        self.try_build(snapshot, &self.tree()).unwrap()
    }
}

fn push(builder: &mut Builder, path: &str, mode: Option<u16>, kind: EntryKind<'_>) {
    builder.push(&Entry { path, mode, kind }).unwrap();
}

fn version(number: u64, size: u64, mtime_ns: i64) -> Version {
    let etag = format!("\"{number:032x}\"").into();
    Version {
        token: Token::ETag {
            etag,
            version_id: None,
        },
        size,
        mtime_ns,
    }
}

/// A snapshot of `files` in directories of ten, with the odd ones a data set has.
fn snapshot(files: u64, first: i64) -> Arc<Snapshot> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let mut builder = Builder::new("s3://bucket", "p", Surplus::Refuse);
    for number in 0..files {
        let path = format!("class{}/file-{number:05}", number / 10);
        let version = version(number, 100 + number, first + number as i64);
        push(&mut builder, &path, None, EntryKind::File(&version));
    }
    let big = version(900_000, (1 << 20) + 17, 5_000_000_000 + first);
    push(
        &mut builder,
        "deep/er/big",
        Some(0o640),
        EntryKind::File(&big),
    );
    push(
        &mut builder,
        "deep/empty-file",
        None,
        EntryKind::File(&version(900_001, 0, first)),
    );
    push(
        &mut builder,
        "deep/link",
        None,
        EntryKind::Symlink(b"er/big", -1_500_000_000),
    );
    push(
        &mut builder,
        "deep/outside",
        None,
        EntryKind::Symlink(b"/etc/passwd", 3),
    );
    push(
        &mut builder,
        "empty",
        Some(0o750),
        EntryKind::Directory(1_700_000_000_000_000_000),
    );
    builder.finish(&path).unwrap();
    Arc::new(Snapshot::open(&path, ownership()).unwrap())
}

/// Compares a tree with its snapshot: kinds, bytes, modes, times.
fn check(snapshot: &Snapshot, tree: &Path) {
    use terrace_fuse::namespace::{Ino, Kind, Namespace as _};
    let mut expected = 0;
    for number in 1..=snapshot.entries() {
        let attr = snapshot.attr(Ino(number)).unwrap();
        let path = String::from_utf8(snapshot.path(Ino(number)).unwrap()).unwrap();
        let found = tree.join(&path);
        let meta = found.symlink_metadata().unwrap();
        expected += 1;
        let mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        assert_eq!(mtime, attr.mtime_ns, "{path}");
        match attr.kind {
            Kind::Directory => assert!(meta.is_dir(), "{path}"),
            Kind::File => {
                assert!(meta.is_file() && meta.len() == attr.size, "{path}");
                let object = snapshot.object(Ino(number)).unwrap();
                assert!(fs::read(&found).unwrap() == content(&object), "{path}");
            }
            Kind::Symlink => {
                let target = snapshot.link_target(Ino(number)).unwrap();
                assert_eq!(
                    fs::read_link(&found)
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                    target
                );
                continue;
            }
        }
        assert_eq!(
            meta.permissions().mode() & 0o7777,
            u32::from(attr.mode),
            "{path}"
        );
    }
    let count = walk(tree);
    assert_eq!(count, expected);
}

fn walk(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    1 + entries
        .map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path())
            } else {
                1
            }
        })
        .sum::<u64>()
}

/// Broken: a tree differs from its snapshot, or costs the bytes twice.
#[test]
fn a_tree_is_its_snapshot_in_links() {
    let world = World::new();
    let snapshot = snapshot(300, 1_000);
    let report = world.build(&snapshot);
    assert_eq!(
        (report.linked, report.copied, report.symlinks),
        (301, 1, 2),
        "{report:?}"
    );
    assert_eq!(report.directories, 34);
    check(&snapshot, &world.tree());
    let links = fs::metadata(world.tree().join("deep/er/big"))
        .unwrap()
        .nlink();
    assert_eq!(links, 2);
    // Again: nothing to do, nothing fetched.
    let reads = world.made.reads.load(Ordering::Relaxed);
    assert!(world.build(&snapshot).unchanged);
    assert_eq!(world.made.reads.load(Ordering::Relaxed), reads);
    // The objects stay as long as the tree does, also in the next process.
    let mut world = world;
    world.open();
    let object = |number| {
        use terrace_fuse::namespace::{Ino, Kind, Namespace as _};
        let file = |ino: &Ino| snapshot.attr(*ino).unwrap().kind == Kind::File;
        let mut files = (1..=snapshot.entries()).map(Ino).filter(file);
        snapshot
            .object(files.nth(number).unwrap())
            .unwrap()
            .digest()
    };
    assert!(!world.hot().evict(&object(5)).unwrap());
    remove(world.hot(), &world.tree()).unwrap();
    assert!(!world.tree().exists() && !neighbour(&world.tree()).exists());
    assert!(world.hot().evict(&object(5)).unwrap());
    let error = remove(world.hot(), &world.tree()).unwrap_err();
    assert!(matches!(error, MaterializeError::NotATree(_)), "{error}");
}

/// Broken: a second tree changes what the first one shows, or the hot tier stops trusting its files.
#[test]
fn trees_of_other_times_get_copies_and_leave_the_first_alone() {
    let mut world = World::new();
    let (first, second) = (snapshot(20, 1_000), snapshot(20, 2_000));
    let same = world.directory.path().join("same");
    world.build(&first);
    let report = world.try_build(&first, &same).unwrap();
    assert_eq!((report.linked, report.copied), (21, 1));
    let other = world.directory.path().join("other");
    let report = world.try_build(&second, &other).unwrap();
    assert_eq!((report.linked, report.copied), (0, 22), "{report:?}");
    for (snapshot, tree) in [(&first, &world.tree()), (&first, &same), (&second, &other)] {
        check(snapshot, tree);
    }
    // A clean restart believes every file without reading it: our links did not look like damage.
    let reads = world.made.reads.load(Ordering::Relaxed);
    world.open();
    let again = world.directory.path().join("again");
    world.try_build(&first, &again).unwrap();
    assert_eq!(world.made.reads.load(Ordering::Relaxed), reads);
    for tree in [&other, &same, &world.tree()] {
        remove(world.hot(), tree).unwrap();
    }
    check(&first, &again);
    assert_eq!(fs::metadata(again.join("deep/er/big")).unwrap().nlink(), 2);
}

/// Broken: a build that died leaves half a tree that looks whole, or one that is never cleaned up.
#[test]
fn what_a_crash_leaves_is_recognised_and_cleared() {
    let world = World::new();
    let snapshot = snapshot(100, 1_000);
    let (tree, home) = (world.tree(), neighbour(&world.tree()));
    // The store goes away in the middle: no tree, and what was begun is there.
    world.made.broken.store(1_050, Ordering::Relaxed);
    let error = world.try_build(&snapshot, &tree).unwrap_err();
    assert!(matches!(error, MaterializeError::Fetch { .. }), "{error}");
    assert!(!tree.exists() && home.join("tree").is_dir());
    world.made.broken.store(0, Ordering::Relaxed);
    world.build(&snapshot);
    check(&snapshot, &tree);
    // Died after "complete", before the rename: the tree is only moved.
    fs::rename(&tree, home.join("tree")).unwrap();
    assert!(world.build(&snapshot).unchanged);
    check(&snapshot, &tree);
    // Died while building, with the tree full of links.
    let journal = fs::read_to_string(home.join("journal")).unwrap();
    fs::rename(&tree, home.join("tree")).unwrap();
    fs::write(
        home.join("journal"),
        journal.replace("complete", "building"),
    )
    .unwrap();
    assert!(!world.build(&snapshot).unchanged);
    check(&snapshot, &tree);
    // Died while removing, before and after the rename.
    let journal = fs::read_to_string(home.join("journal")).unwrap();
    fs::write(
        home.join("journal"),
        journal.replace("complete", "removing"),
    )
    .unwrap();
    remove(world.hot(), &tree).unwrap();
    assert!(!tree.exists() && !home.exists());
    world.build(&snapshot);
    let journal = fs::read_to_string(home.join("journal")).unwrap();
    fs::write(
        home.join("journal"),
        journal.replace("complete", "removing"),
    )
    .unwrap();
    fs::rename(&tree, home.join("tree")).unwrap();
    fs::remove_dir_all(home.join("tree/class3")).unwrap();
    world.build(&snapshot);
    check(&snapshot, &tree);
    // Somebody deleted the tree by hand: its objects are let go, and it can be built again.
    fs::remove_dir_all(&tree).unwrap();
    assert!(!world.build(&snapshot).unchanged);
    check(&snapshot, &tree);
    remove(world.hot(), &tree).unwrap();
    assert_eq!(world.hot().usage().pinned, 0);
}

/// Broken: `remove` deletes what is not ours, or follows a link out of the tree.
#[test]
fn only_our_trees_are_removed() {
    let world = World::new();
    let snapshot = snapshot(10, 1_000);
    let outside = world.directory.path().join("precious");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("data"), b"x").unwrap();
    for tree in [&outside, &world.directory.path().join("missing")] {
        let error = remove(world.hot(), tree).unwrap_err();
        assert!(matches!(error, MaterializeError::NotATree(_)), "{error}");
    }
    let error = world.try_build(&snapshot, &outside).unwrap_err();
    assert!(matches!(error, MaterializeError::InTheWay(_)), "{error}");
    assert!(!neighbour(&outside).exists());
    // Another directory at the place of the tree.
    world.build(&snapshot);
    let aside = world.directory.path().join("aside");
    fs::rename(world.tree(), &aside).unwrap();
    fs::rename(&outside, world.tree()).unwrap();
    let error = remove(world.hot(), &world.tree()).unwrap_err();
    assert!(matches!(error, MaterializeError::InTheWay(_)), "{error}");
    fs::rename(world.tree(), &outside).unwrap();
    // A symbolic link at the place of the tree, and one inside it.
    symlink(&outside, world.tree()).unwrap();
    assert!(matches!(
        remove(world.hot(), &world.tree()),
        Err(MaterializeError::InTheWay(_))
    ));
    fs::remove_file(world.tree()).unwrap();
    fs::rename(&aside, world.tree()).unwrap();
    fs::set_permissions(world.tree(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir_all(world.tree().join("class0")).unwrap();
    symlink(&outside, world.tree().join("class0")).unwrap();
    remove(world.hot(), &world.tree()).unwrap();
    assert!(!world.tree().exists());
    assert_eq!(fs::read(outside.join("data")).unwrap(), b"x");
    // An empty directory is a place; another snapshot there is not replaced.
    fs::create_dir(world.tree()).unwrap();
    world.build(&snapshot);
    let other = self::snapshot(11, 1_000);
    let error = world.try_build(&other, &world.tree()).unwrap_err();
    assert!(
        matches!(error, MaterializeError::OtherSnapshot(_)),
        "{error}"
    );
    check(&snapshot, &world.tree());
}

/// Broken: a tree on another disk fails late or without a word about why.
#[test]
fn a_tree_on_another_file_system_is_refused() {
    let test = "a_tree_on_another_file_system_is_refused";
    let world = World::new();
    let memory = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let Some(other) = device(memory).filter(|_| device(memory) != device(world.directory.path()))
    else {
        println!("SKIP {test}: no second file system at {}", memory.display());
        return;
    };
    let directory = tempfile::tempdir_in(memory).unwrap();
    let tree = directory.path().join("tree");
    let error = world.try_build(&snapshot(3_000, 1_000), &tree).unwrap_err();
    assert!(
        matches!(error, MaterializeError::OtherFileSystem(_)),
        "{error} (device {other})"
    );
    assert!(
        world.made.reads.load(Ordering::Relaxed) < 100,
        "most was not even fetched"
    );
    remove(world.hot(), &tree).unwrap();
    assert!(!neighbour(&tree).exists());
}
