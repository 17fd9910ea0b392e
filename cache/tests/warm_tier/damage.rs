//! What lies in the directory is not what it should be.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use terrace_cache::units::Span;

use crate::bits::flip_bit;
use crate::support::{MIB, Node, Pattern, config, eventually, files, leave, object, path};

fn replace(path: &Path, make: impl FnOnce(&Path)) {
    std::fs::remove_file(path).unwrap();
    make(path);
}

/// Ways to spoil a copy (data, sums) while another whole one (data, sums) lies beside it.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Bit(u64),
    BitInSums,
    Length(u64),
    EmptySums,
    OtherData,
    OtherCopy,
    Link,
    Directory,
    Pipe,
    PipeForSums,
}

const HARMS: [Harm; 12] = [
    Harm::Bit(2 * MIB),
    Harm::Bit(3 * MIB + 99),
    Harm::BitInSums,
    Harm::Length(MIB),
    Harm::Length(5 * MIB),
    Harm::EmptySums,
    Harm::OtherData,
    Harm::OtherCopy,
    Harm::Link,
    Harm::Directory,
    Harm::Pipe,
    Harm::PipeForSums,
];

impl Harm {
    fn apply(self, copy: [&Path; 2], other: [&Path; 2]) {
        let [data, sum] = copy;
        let pipe = |path: &Path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        };
        let overwrite = |from: &Path, to: &Path| {
            std::fs::copy(from, to).unwrap();
        };
        match self {
            Self::Bit(offset) => flip_bit(data, offset),
            Self::BitInSums => flip_bit(sum, 30),
            Self::Length(length) => {
                let file = std::fs::File::options().write(true).open(data).unwrap();
                file.set_len(length).unwrap();
            }
            Self::EmptySums => std::fs::write(sum, b"").unwrap(),
            Self::OtherData => overwrite(other[0], data),
            Self::OtherCopy => {
                overwrite(other[0], data);
                overwrite(other[1], sum);
            }
            Self::Link => replace(data, |path| symlink("/dev/zero", path).unwrap()),
            Self::Directory => replace(data, |path| std::fs::create_dir(path).unwrap()),
            Self::Pipe => replace(data, pipe),
            Self::PipeForSums => replace(sum, pipe),
        }
    }
}

// Without this, damage of the shared copy would reach every node of the cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_copies_are_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let victim = object("victim", 3 * MIB + 100);
    let other = object("other", 3 * MIB + 100);
    let at = |object, suffix| path(dir.path(), object, suffix);
    let copy = [at(&victim, ""), at(&victim, ".sum")];
    let beside = [at(&other, ""), at(&other, ".sum")];
    let start = || Node::start(config(dir.path()), Pattern::default());
    let filler = start();
    filler.check(&other).await;
    for harm in HARMS {
        filler.check(&victim).await;
        filler.settle().await;
        harm.apply([&copy[0], &copy[1]], [&beside[0], &beside[1]]);
        // A fresh daemon finds the damage; the one that had the file open does, too; the next
        // one fills anew.
        let (finder, mender) = (start(), start());
        for node in [&finder, &filler, &mender] {
            node.check(&victim).await;
            node.settle().await;
        }
        let fresh = start();
        fresh.check(&victim).await;
        assert_eq!(fresh.served(), 0, "{harm:?}: the copy was made good");
    }
    let kept = std::fs::read_dir(dir.path().join("quarantine")).unwrap();
    assert!((8..=16).contains(&kept.count()));
}

// Without this, a copy damaged after it was opened would be served by whoever has it open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_under_an_open_copy_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let object = object("open", 8 * MIB);
    let node = Node::start(config(dir.path()), Pattern::default());
    node.check(&object).await;
    node.settle().await;
    flip_bit(&path(dir.path(), &object, ""), 6 * MIB + 1);
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
        let node = Node::start(settings, Pattern::default());
        leave(&path(dir.path(), &object, ".lease"), torn);
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
    let node = Node::start(settings, Pattern::default());
    let object = object("torn", 2 * MIB);
    let part = path(dir.path(), &object, &format!(".{}.part", "ab".repeat(16)));
    let foreign = part.with_file_name("README.part");
    leave(&part, &[0; 1000]);
    leave(&foreign, b"mine");
    eventually("the part is swept", || !part.exists()).await;
    node.check(&object).await;
    node.settle().await;
    assert_eq!(node.stats().swept, 1);
    assert_eq!(files(dir.path(), ".part"), [foreign]);
}
