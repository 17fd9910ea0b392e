//! Hard links that hold their objects and keep their fingerprints, also over a crash.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::support::*;
use terrace_cache::Digest;
use terrace_cache::hot::{HotConfig, HotError, HotTier, Link, LinkAttributes, Linked, Linker};

const SMALL: u64 = 100_000;

/// What linked files shall look like, owned by whoever owns `tree`.
fn attributes(tree: &Path) -> LinkAttributes {
    let own = tree.metadata().unwrap();
    LinkAttributes {
        mode: 0o444,
        owner: (own.uid(), own.gid()),
        mtime_ns: 1_600_000_000_123_456_789,
    }
}

/// Looks up objects and links them.
fn link_all(linker: &Linker, tree: &File, links: &[Link<'_>]) -> Result<Vec<Linked>, HotError> {
    let digests: Vec<_> = links.iter().map(|link| link.digest).collect();
    let found = linker.find(&digests, NonZeroUsize::MIN)?;
    linker.link_all(tree.as_fd(), links.iter().copied().zip(found))
}

/// Looks up an object and removes a link of it.
fn unlink(linker: &Linker, tree: &File, digest: &Digest, name: &str) {
    let found = linker.find(&[*digest], NonZeroUsize::MIN).unwrap()[0];
    let removed = linker.unlink(digest, tree.as_fd(), name.as_ref(), found);
    removed.unwrap();
}

// Without this, a materialized tree would lose its files to eviction, or spoil the fingerprints.
#[tokio::test]
async fn links_hold_their_objects_and_keep_them_trusted() {
    let directory = directory("link");
    let config = config(directory.path());
    let tree = directory.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let tree_fd = std::fs::File::open(&tree).unwrap();
    let attributes = attributes(&tree);
    let tier = open(&config);
    let object = filled(&tier, 1, SMALL).await;
    let linker = tier.linker();
    let one = |name: &'static str| Link {
        digest: digest(1, SMALL),
        name: name.as_ref(),
        attributes,
    };
    let link = |tier: &HotTier, name: &'static str| {
        let linker = tier.linker();
        let result = link_all(&linker, &tree_fd, &[one(name)]);
        linker.finish().unwrap();
        result.map(|linked| linked[0])
    };
    assert_eq!(link(&tier, "early").unwrap(), Linked::Incomplete);
    tier.sync().unwrap();
    let backing = object.backing().unwrap().unwrap();
    for name in ["a", "b"] {
        let linked = link_all(&linker, &tree_fd, &[one(name)]);
        assert_eq!(linked.unwrap(), [Linked::Yes]);
    }
    linker.finish().unwrap();
    assert!(backing.check(), "our own link is not a change");
    assert!(link(&tier, "a").is_err(), "the name exists");
    assert_eq!(
        std::fs::read(tree.join("b")).unwrap(),
        content(1, 0, SMALL as usize)
    );
    let seen = tree.join("a").metadata().unwrap();
    assert_eq!(
        (seen.mode() & 0o777, seen.mtime(), seen.nlink()),
        (0o444, 1_600_000_000, 3)
    );
    drop((object, backing));
    assert!(!tier.evict(&digest(1, SMALL)).unwrap(), "held by two links");
    drop(tier);

    let tier = open(&config);
    assert!(tier.object(&id(1, SMALL), &dataset()).unwrap().is_filled());
    assert_eq!(tier.stats().verified_blocks, 0);
    let linker = tier.linker();
    unlink(&linker, &tree_fd, &digest(1, SMALL), "a");
    linker.finish().unwrap();
    assert!(!tier.evict(&digest(1, SMALL)).unwrap(), "held by one link");
    let linker = tier.linker();
    unlink(&linker, &tree_fd, &digest(1, SMALL), "b");
    linker.finish().unwrap();
    assert!(tier.object(&id(1, SMALL), &dataset()).unwrap().is_filled());

    flip_bit(&data_file(&config, &digest(1, SMALL)), 9);
    assert_eq!(link(&tier, "c").unwrap(), Linked::Unverified);
    assert!(tier.evict(&digest(1, SMALL)).unwrap(), "nobody holds it");
}

// Without this, a pin of a linked object, or a check of its bytes after a link, would leave a
// fingerprint behind that its file does not have, so that every start reads all of it again.
#[tokio::test]
async fn what_links_moved_is_kept_until_the_record_says_it() {
    let directory = directory("times");
    let config = config(directory.path());
    let tree = directory.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let tree_fd = File::open(&tree).unwrap();
    let digest = digest(1, SMALL);
    let link = |name: &'static str| Link {
        digest,
        name: name.as_ref(),
        attributes: attributes(&tree),
    };
    let verified = |tier: &HotTier| {
        let object = tier.object(&id(1, SMALL), &dataset()).unwrap();
        (object.is_filled(), tier.stats().verified_blocks)
    };
    let tier = open(&config);
    drop(filled(&tier, 1, SMALL).await);
    tier.sync().unwrap();
    let linker = tier.linker();
    let made = link_all(&linker, &tree_fd, &[link("a")]).unwrap();
    linker.finish().unwrap();
    // Noted in the index by now; a pin is written over it.
    tier.pin_all(vec![digest], true).await.unwrap();
    tier.pin_all(vec![digest], false).await.unwrap();
    drop(tier);
    let tier = open(&config);
    assert_eq!((made, verified(&tier)), (vec![Linked::Yes], (true, 0)));
    let linker = tier.linker();
    let again = link_all(&linker, &tree_fd, &[link("b")]).unwrap();
    linker.finish().unwrap();
    assert_eq!((again, verified(&tier)), (vec![Linked::Yes], (true, 0)));
    drop(tier);

    // A name by somebody else moves the ctime behind the tier's back: the bytes prove themselves once.
    std::fs::hard_link(tree.join("a"), tree.join("foreign")).unwrap();
    let tier = open(&config);
    let object = tier.object(&id(1, SMALL), &dataset()).unwrap();
    assert!(!object.is_filled());
    assert!(object.verify().await.unwrap());
    tier.sync().unwrap();
    drop((object, tier));
    let tier = open(&config);
    assert_eq!(
        verified(&tier),
        (true, 0),
        "the record says what was verified"
    );
    drop(tier);

    // When the last link goes, the record has to say what the file is like now.
    for name in ["a", "b", "foreign"] {
        let tier = open(&config);
        let linker = tier.linker();
        unlink(&linker, &tree_fd, &digest, name);
        linker.finish().unwrap();
        assert_eq!(verified(&tier), (true, 0), "{name}");
        drop(tier);
        assert_eq!(verified(&open(&config)), (true, 0), "after {name}");
    }
    assert!(open(&config).evict(&digest).unwrap(), "nobody holds it");
}

/// A tier as a killed process leaves it: `made` is a copy of all its files, links included, taken
/// while it runs.
fn crashed_copy(from: &Path, to: &Path) -> HotConfig {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(status.unwrap().success());
    config(to)
}

// Without this, a process that is killed between a link and its record would leave an object that
// is evicted under its tree, or one that can never be evicted.
#[tokio::test]
async fn owners_are_read_again_after_a_crash() {
    let directory = directory("owners");
    let first = directory.path().join("first");
    std::fs::create_dir(&first).unwrap();
    let config = HotConfig {
        // Nothing is written but what this test asks for.
        sync_interval: Duration::from_secs(3600),
        checkpoint_interval: Duration::from_secs(3600),
        ..config(&first)
    };
    let tree = first.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let tree_fd = std::fs::File::open(&tree).unwrap();
    let tier = open(&config);
    for seed in [1, 2] {
        drop(filled(&tier, seed, SMALL).await);
    }
    tier.sync().unwrap();
    let linker = tier.linker();
    let links = [(1, "a"), (1, "b"), (2, "c"), (3, "d")].map(|(seed, name)| Link {
        digest: digest(seed, SMALL),
        name: name.as_ref(),
        attributes: attributes(&tree),
    });
    assert_eq!(
        link_all(&linker, &tree_fd, &links).unwrap(),
        [Linked::Yes, Linked::Yes, Linked::Yes, Linked::Incomplete]
    );
    let second = directory.path().join("second");
    let unrecorded = crashed_copy(&first, &second);
    linker.finish().unwrap();
    assert_eq!(tier.usage().pinned, 2);
    let third = directory.path().join("third");
    let recorded = crashed_copy(&first, &third);
    std::fs::remove_file(third.join("tree/c")).unwrap();
    drop(tier);

    let tier = open(&unrecorded);
    wait_until("the sweep sets what is held", || tier.usage().pinned == 2);
    assert!(!tier.evict(&digest(1, SMALL)).unwrap(), "a and b hold it");
    drop(tier);
    let tier = open(&unrecorded);
    assert_eq!(tier.usage().pinned, 2, "written down");
    drop(tier);

    let tier = open(&recorded);
    wait_until("the sweep sets what is held", || tier.usage().pinned == 1);
    assert!(tier.evict(&digest(2, SMALL)).unwrap(), "c is gone");
    assert!(!tier.evict(&digest(1, SMALL)).unwrap());
}
