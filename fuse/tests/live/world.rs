//! What the tests of the live name space share: a store in memory, a clock by hand, and what its keys
//! should look like as a tree.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use terrace_fuse::live::{LiveConfig, LiveParts, LivePrefix, Opening};
use terrace_fuse::namespace::{FsError, Ino, Kind, Namespace};
use terrace_fuse::ownership::Ownership;

use crate::support::{FakeLister, FakeStore, HandClock, list};

pub(crate) struct World {
    pub(crate) store: Arc<FakeStore>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: LiveConfig,
}

impl World {
    pub(crate) fn new(prefix: &str, keys: impl IntoIterator<Item = String>) -> Self {
        Self {
            store: FakeStore::new(prefix, keys),
            clock: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
            config: LiveConfig::default(),
        }
    }

    pub(crate) fn keys(keys: &[&str]) -> Self {
        Self::new("", keys.iter().map(|key| (*key).to_owned()))
    }

    pub(crate) fn open(&self, opening: Opening) -> LivePrefix {
        self.open_at(self.directory.path(), opening).unwrap()
    }

    pub(crate) fn open_at(
        &self,
        table: &Path,
        opening: Opening,
    ) -> Result<LivePrefix, terrace_fuse::live::TableError> {
        LivePrefix::open(LiveParts {
            lister: Arc::new(FakeLister(Arc::clone(&self.store))),
            prefix: &self.store.prefix,
            table,
            opening,
            config: self.config,
            ownership: Ownership::default(),
            clock: Arc::clone(&self.clock) as _,
        })
    }

    pub(crate) fn mount(&self) -> LivePrefix {
        self.open(Opening::Mount)
    }

    pub(crate) fn requests(&self) -> (u64, u64) {
        let (heads, lists) = (&self.store.heads, &self.store.lists);
        (
            heads.swap(0, Ordering::Relaxed),
            lists.swap(0, Ordering::Relaxed),
        )
    }
}

/// Reference: path -> kind, from keys alone.
pub(crate) fn model(prefix: &str, keys: &[String]) -> BTreeMap<String, Kind> {
    let mut paths = BTreeMap::new();
    for key in keys {
        let path = match prefix {
            "" => Some(key.as_str()),
            prefix => key
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('/')),
        };
        let Some(path) = path else { continue };
        let mut done = String::new();
        let segments: Vec<_> = path.split('/').collect();
        for (place, segment) in segments.iter().enumerate() {
            if segment.is_empty() || *segment == "." || *segment == ".." || segment.len() > 255 {
                break;
            }
            let slash = if done.is_empty() { "" } else { "/" };
            done = format!("{done}{slash}{segment}");
            if place + 1 < segments.len() {
                paths.insert(done.clone(), Kind::Directory);
            } else {
                paths.entry(done.clone()).or_insert(Kind::File);
            }
        }
    }
    paths
}

/// Everything below a directory by listings: path -> kind.
pub(crate) async fn tree(names: &LivePrefix, limit: usize) -> BTreeMap<String, (Kind, Ino)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![(String::new(), Ino::ROOT)];
    while let Some((path, ino)) = waiting.pop() {
        for entry in list(names, ino, limit).await.unwrap() {
            let name = String::from_utf8(entry.name).unwrap();
            let slash = if path.is_empty() { "" } else { "/" };
            let child = format!("{path}{slash}{name}");
            if entry.attr.kind == Kind::Directory {
                waiting.push((child.clone(), entry.attr.ino));
            }
            let twice = found.insert(child.clone(), (entry.attr.kind, entry.attr.ino));
            assert!(twice.is_none(), "{child} is listed twice");
        }
    }
    found
}

pub(crate) async fn walk(
    names: &LivePrefix,
    path: &str,
) -> Result<terrace_fuse::namespace::Attr, FsError> {
    let mut ino = Ino::ROOT;
    for segment in path.split('/') {
        ino = names.lookup(ino, segment.as_bytes()).await?.ino;
    }
    names.attr(ino)
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "a-", "a.b", "a0", "\u{e9}"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["", ".", ".."]).prop_map(str::to_owned),
    ]
}

pub(crate) fn keys() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(prop::collection::vec(segment(), 1..5), 0..30)
        .prop_map(|set| {
            set.into_iter()
                .map(|key| key.join("/"))
                .filter(|key| !key.is_empty())
        })
        .prop_map(Iterator::collect)
}
