//! A directory as a store: real files, links that try to leave, writers that interfere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use store_common::{content, credentials, quick, read, read_error};
use terrace_cache::Source as _;
use terrace_cache::store::{ListEntry, ObjectMeta, Store, StoreErrorKind as Kind, StoreUrl};

const SIZE: usize = 5 << 20;

struct World {
    dir: tempfile::TempDir,
    store: Store,
    prefix: String,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let url: StoreUrl = format!("file://{}", root.display()).parse().unwrap();
        let store = Store::open(&url, &quick(), &credentials(&[]))
            .await
            .unwrap();
        let prefix = url.prefix().to_string();
        Self { dir, store, prefix }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn write(&self, name: &str, bytes: &Bytes) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn names(&self, dir: &str) -> Vec<String> {
        let entries: Vec<ListEntry> = self.store.list(dir).try_collect().await.unwrap();
        let mut names: Vec<String> = entries
            .into_iter()
            .map(|entry| match entry {
                ListEntry::Object(meta) => meta.key.to_string(),
                ListEntry::Directory(dir) => format!("{dir}/"),
            })
            .map(|key| {
                key.strip_prefix(&format!("{}/", self.prefix))
                    .unwrap()
                    .to_string()
            })
            .collect();
        names.sort();
        names
    }
}

// Without it a directory could not be read, or a range would be off.
#[tokio::test]
async fn files_are_read_by_ranges() {
    let world = World::new().await;
    let bytes = content(1, SIZE);
    world.write("a/b.bin", &bytes);
    world.write("empty", &Bytes::new());
    let meta = world.store.head(&world.key("a/b.bin")).await.unwrap();
    assert_eq!(meta.version.size, SIZE as u64);
    let object = world.store.object(&meta);
    let size = SIZE as u64;
    for range in [
        0..size,
        0..1,
        size - 1..size,
        1_048_575..1_048_577,
        3..4_000_003,
    ] {
        let got = read(&world.store, &object, range.clone()).await.unwrap();
        assert!(
            got == bytes[range.start as usize..range.end as usize],
            "{range:?}"
        );
    }
    assert_eq!(
        world
            .store
            .head(&world.key("empty"))
            .await
            .unwrap()
            .version
            .size,
        0
    );
    for (name, kind) in [
        ("a", Kind::NotFound),
        ("none", Kind::NotFound),
        ("a/b.bin/c", Kind::NotFound),
        ("a/../a/b.bin", Kind::Invalid),
        ("a//b.bin", Kind::Invalid),
    ] {
        let error = world.store.head(&world.key(name)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{name}: {error}");
    }
    assert_eq!(world.store.stats().requests_of("read"), 5);
}

// Without it a file written or replaced during a read would give bytes of two versions.
#[tokio::test]
async fn an_overwritten_file_is_changed_and_never_mixed() {
    type Overwrite = fn(&Path, &Bytes);
    let in_place: Overwrite = |path, bytes| std::fs::write(path, bytes).unwrap();
    let rename_over: Overwrite = |path, bytes| {
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(temporary, path).unwrap();
    };
    let recreate: Overwrite = |path, bytes| {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let append: Overwrite = |path, _| {
        use std::io::Write as _;
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    };
    for overwrite in [in_place, rename_over, recreate, append] {
        let world = World::new().await;
        let (old, new) = (content(1, SIZE), content(2, SIZE));
        world.write("f", &old);
        let object = world
            .store
            .object(&world.store.head(&world.key("f")).await.unwrap());
        let mut stream = world.store.read(&object, 0..SIZE as u64).await.unwrap();
        let mut got = stream.next().await.unwrap().unwrap().to_vec();
        overwrite(&world.path("f"), &new);
        let mut end = None;
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => got.extend_from_slice(&piece),
                Err(error) => end = Some(error.kind),
            }
        }
        // An open file that was replaced may still be read to its end: it is the old version.
        assert!(old.starts_with(&got), "mixed versions");
        assert!(
            end == Some(Kind::Changed) || got.len() == SIZE,
            "{end:?} {}",
            got.len()
        );
        let kind = read_error(&world.store, &object, 0..10, &old).await;
        assert_eq!(kind, Kind::Changed);
        let fresh = world
            .store
            .object(&world.store.head(&world.key("f")).await.unwrap());
        assert_ne!(fresh.digest(), object.digest());
        assert!(read(&world.store, &fresh, 0..fresh.size()).await.is_ok());
    }
}

// Without it a deleted file would read as empty, or as missing to the handle that has it open.
#[tokio::test]
async fn a_deleted_file_is_changed_for_its_readers() {
    let world = World::new().await;
    world.write("f", &content(1, SIZE));
    let object = world
        .store
        .object(&world.store.head(&world.key("f")).await.unwrap());
    std::fs::remove_file(world.path("f")).unwrap();
    let kind = read_error(&world.store, &object, 0..10, &content(1, SIZE)).await;
    assert_eq!(kind, Kind::Changed);
    assert_eq!(
        world.store.head(&world.key("f")).await.unwrap_err().kind,
        Kind::NotFound
    );
}

// Without it a link in a tenant's directory would open any file of the node.
#[tokio::test]
async fn nothing_outside_the_directory_can_be_reached() {
    let world = World::new().await;
    std::fs::write(world.dir.path().join("secret"), "secret").unwrap();
    world.write("inside", &content(1, 10));
    world.write("d/x", &content(1, 10));
    symlink("../secret", world.path("relative")).unwrap();
    symlink(world.dir.path().join("secret"), world.path("absolute")).unwrap();
    symlink("/etc", world.path("etc")).unwrap();
    symlink("..", world.path("up")).unwrap();
    symlink("/proc/self/root", world.path("magic")).unwrap();
    symlink("nowhere", world.path("dangling")).unwrap();
    symlink("inside", world.path("good")).unwrap();
    symlink("d", world.path("linked")).unwrap();
    symlink(".", world.path("d/loop")).unwrap();
    for name in [
        "relative",
        "absolute",
        "etc/hostname",
        "up/secret",
        "magic/etc/hostname",
    ] {
        let error = world.store.head(&world.key(name)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permission, "{name}: {error}");
    }
    let outside = world.prefix.rsplit_once('/').unwrap().0;
    let error = world
        .store
        .head(&format!("{outside}/secret"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Permission);
    assert_eq!(
        world
            .store
            .head(&world.key("good"))
            .await
            .unwrap()
            .version
            .size,
        10
    );
    let names = world.names(&world.prefix).await;
    assert_eq!(names, ["d/", "good", "inside", "linked/"]);
    assert_eq!(world.names(&world.key("d")).await, ["d/loop/", "d/x"]);
    // A walk ends although a link leads back up.
    let all: Vec<ObjectMeta> = world.store.walk(&world.prefix).try_collect().await.unwrap();
    assert_eq!(all.len(), 3, "{all:?}");
}

// Without it a big directory would lose entries between pages, and odd names would be mangled.
#[tokio::test]
async fn big_directories_and_odd_names_are_listed() {
    use std::os::unix::ffi::OsStrExt as _;
    let world = World::new().await;
    for number in 0..2500 {
        world.write(&format!("big/f{number:04}"), &Bytes::new());
    }
    assert_eq!(world.names(&world.key("big")).await.len(), 2500);
    for name in [
        "with space",
        "percent%20",
        "plus+",
        "ünï",
        "new\nline",
        "back\\slash",
    ] {
        world.write(&format!("odd/{name}"), &content(1, 5));
    }
    std::fs::write(
        world
            .path("odd")
            .join(std::ffi::OsStr::from_bytes(b"\xff\xfe")),
        "x",
    )
    .unwrap();
    nix::unistd::mkfifo(&world.path("odd/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let names = world.names(&world.key("odd")).await;
    assert_eq!(names.len(), 6, "{names:?}");
    for name in &names {
        let object = world
            .store
            .object(&world.store.head(&world.key(name)).await.unwrap());
        assert_eq!(
            read(&world.store, &object, 0..5).await.unwrap(),
            content(1, 5)
        );
    }
    assert_eq!(world.store.stats().hidden_keys, 1);
    // A pipe is not an object, and asking for it does not wait for its writer.
    let pipe = world.store.head(&world.key("odd/pipe")).await.unwrap_err();
    assert_eq!(pipe.kind, Kind::NotFound);
    let missing = world
        .store
        .list(&world.key("none"))
        .try_next()
        .await
        .unwrap_err();
    assert_eq!(missing.kind, Kind::NotFound);
}

// Without it a missing or unreadable directory would mount as an empty one.
#[tokio::test]
async fn a_directory_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    for name in ["none", "file"] {
        let url: StoreUrl = format!("file://{}/{name}", dir.path().display())
            .parse()
            .unwrap();
        let error = Store::open(&url, &quick(), &credentials(&[]))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::NotFound, "{error}");
    }
}
