//! What lies in the directory is not what it should be.

use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::Duration;

use terrace_cache::units::Span;

use crate::support::{MIB, Node, Pattern, config, eventually, files, object, path};

fn flip(path: &Path, offset: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

fn replace(path: &Path, make: impl FnOnce(&Path)) {
    std::fs::remove_file(path).unwrap();
    make(path);
}

// Without this, damage of the shared copy would reach every node of the cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_copies_are_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let victim = object("victim", 3 * MIB + 100);
    let other = object("other", 3 * MIB + 100);
    let (data, sum) = (
        path(dir.path(), &victim, ""),
        path(dir.path(), &victim, ".sum"),
    );
    type Harm<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let harms: Vec<Harm<'_>> = vec![
        ("bit", Box::new(|| flip(&data, 2 * MIB))),
        ("last bit", Box::new(|| flip(&data, 3 * MIB + 99))),
        ("sums", Box::new(|| flip(&sum, 30))),
        (
            "truncated",
            Box::new(|| {
                std::fs::File::options()
                    .write(true)
                    .open(&data)
                    .unwrap()
                    .set_len(MIB)
                    .unwrap()
            }),
        ),
        (
            "extended",
            Box::new(|| {
                std::fs::File::options()
                    .write(true)
                    .open(&data)
                    .unwrap()
                    .set_len(5 * MIB)
                    .unwrap()
            }),
        ),
        (
            "empty sums",
            Box::new(|| replace(&sum, |path| std::fs::write(path, b"").unwrap())),
        ),
        (
            "swapped",
            Box::new(|| drop(std::fs::copy(path(dir.path(), &other, ""), &data).unwrap())),
        ),
        (
            "swapped with sums",
            Box::new(|| {
                std::fs::copy(path(dir.path(), &other, ""), &data).unwrap();
                std::fs::copy(path(dir.path(), &other, ".sum"), &sum).unwrap();
            }),
        ),
        (
            "link",
            Box::new(|| replace(&data, |path| symlink("/dev/zero", path).unwrap())),
        ),
        (
            "directory",
            Box::new(|| replace(&data, |path| std::fs::create_dir(path).unwrap())),
        ),
        (
            "pipe",
            Box::new(|| {
                replace(&data, |path| {
                    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
                })
            }),
        ),
        (
            "sums are a pipe",
            Box::new(|| {
                replace(&sum, |path| {
                    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
                })
            }),
        ),
    ];
    let filler = Node::start(config(dir.path()), Pattern::default()).await;
    filler.check(&other).await;
    for (name, harm) in harms {
        filler.check(&victim).await;
        filler.settle().await;
        harm();
        // A fresh daemon finds the damage; the one that had the file open does, too; the next
        // one fills anew.
        let settings = || config(dir.path());
        let finder = Node::start(settings(), Pattern::default()).await;
        let mender = Node::start(settings(), Pattern::default()).await;
        for node in [&finder, &filler, &mender] {
            node.check(&victim).await;
            node.settle().await;
        }
        let fresh = Node::start(config(dir.path()), Pattern::default()).await;
        fresh.check(&victim).await;
        assert_eq!((name, fresh.served()), (name, 0), "the copy was made good");
    }
    let kept = std::fs::read_dir(dir.path().join("quarantine"))
        .unwrap()
        .count();
    assert!((8..=16).contains(&kept), "{kept}");
}

// Without this, a copy damaged after it was opened would be served by whoever has it open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_under_an_open_copy_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let object = object("open", 8 * MIB);
    let node = Node::start(config(dir.path()), Pattern::default()).await;
    node.check(&object).await;
    node.settle().await;
    flip(&path(dir.path(), &object, ""), 6 * MIB + 1);
    node.check(&object).await;
    assert_eq!(node.stats().quarantined, 1);
    node.check(&object).await;
    node.settle().await;
    assert_eq!(node.stats().fills, 2);
}

// Without this, a crash at any moment would block an object for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_torn_leases_are_taken_over() {
    for torn in [&b""[..], b"TRCLEAS\n\x01\0\0\0garbage"] {
        let dir = tempfile::tempdir().unwrap();
        let object = object("held", 2 * MIB);
        let ttl = Span(Duration::from_millis(300));
        let settings = terrace_cache::warm::WarmConfig {
            lease_ttl: ttl,
            ..config(dir.path())
        };
        let node = Node::start(settings, Pattern::default()).await;
        std::fs::write(path(dir.path(), &object, ".lease"), torn).unwrap();
        node.check(&object).await;
        node.settle().await;
        let stats = node.stats();
        assert_eq!(
            (stats.leases_broken, stats.fills, stats.cold_bytes),
            (1, 1, 0)
        );
        assert_eq!(node.served(), object.size());
    }
}

// Without this, crashed fills would eat the shared file system, or a sweep would eat foreign files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn left_over_parts_are_swept_and_foreign_files_kept() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Span(Duration::from_millis(100));
    let settings = terrace_cache::warm::WarmConfig {
        sweep,
        ..config(dir.path())
    };
    let node = Node::start(settings, Pattern::default()).await;
    let object = object("torn", 2 * MIB);
    let part = path(dir.path(), &object, &format!(".{}.part", "ab".repeat(16)));
    let foreign = part.with_file_name("README.part");
    std::fs::write(&part, [0; 1000]).unwrap();
    std::fs::write(&foreign, b"mine").unwrap();
    eventually("the part is swept", || !part.exists()).await;
    node.check(&object).await;
    node.settle().await;
    assert_eq!(node.stats().swept, 1);
    assert_eq!(files(dir.path(), ".part"), [foreign]);
}
