//! A catalog that a test writes: tables, heads, tags, file lists, and when it does not answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use terrace_cache::store::{StoreError, StoreErrorKind};
use terrace_catalog::{Selector, VersionRef};
use terrace_fuse::live::{Clock, Opening};
use terrace_fuse::namespace::{Attr, FsError, Ino, Namespace as _};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::{Builder, Entry, EntryKind, Snapshot, Surplus};
use terrace_fuse::tables::{
    ManifestId, Report, SlotsError, TableTree, TableVersion, Tables, TreeConfig, TreeParts,
};

use crate::support::{HandClock, list, version};

/// How a question is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Answers,
    /// Every question fails like this.
    Fails(StoreErrorKind),
    /// No question is ever answered.
    Hangs,
}

#[derive(Debug, Default)]
struct Content {
    /// Selector without `@latest` -> version.
    names: BTreeMap<String, TableVersion>,
    namespaces: BTreeSet<String>,
    /// Paths of files; the number of a file is that of its version.
    files: HashMap<ManifestId, (Vec<String>, u64)>,
    mood: Mood,
    report: String,
}

/// The catalog.
#[derive(Debug)]
pub(crate) struct Script {
    content: Mutex<Content>,
    directory: PathBuf,
    pub(crate) asked: AtomicU64,
    pub(crate) fetched: AtomicU64,
    pub(crate) announced: AtomicU64,
}

impl Script {
    fn new(directory: &Path) -> Arc<Self> {
        Arc::new(Self {
            content: Mutex::default(),
            directory: directory.to_owned(),
            asked: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            announced: AtomicU64::new(0),
        })
    }

    /// Commits a version with these files as the newest one of its day.
    pub(crate) fn commit(&self, dataset: &str, number: u64, files: &[&str]) -> TableVersion {
        let mut manifest = [0; 32];
        manifest[0] = number as u8;
        for (at, byte) in dataset.bytes().chain(files.concat().bytes()).enumerate() {
            manifest[1 + at % 31] = manifest[1 + at % 31].wrapping_mul(31).wrapping_add(byte);
        }
        let committed = TableVersion {
            dataset: dataset.parse().unwrap(),
            number,
            manifest: ManifestId(manifest),
            committed_ms: 1_700_000_000_000 + number as i64 * 1000,
        };
        let mut content = self.content.lock().unwrap();
        content
            .namespaces
            .insert(committed.dataset.namespace().to_owned());
        let files = files.iter().map(|path| (*path).to_owned()).collect();
        content.files.insert(committed.manifest, (files, number));
        for name in [dataset.to_owned(), format!("{dataset}@v{number}")] {
            content.names.insert(name, committed.clone());
        }
        committed
    }

    /// Lets a name (`ads.clicks@prod`) name a version from now on.
    pub(crate) fn name(&self, name: &str, version: &TableVersion) {
        self.content
            .lock()
            .unwrap()
            .names
            .insert(name.to_owned(), version.clone());
    }

    /// Lets a name name nothing.
    pub(crate) fn remove(&self, name: &str) {
        self.content.lock().unwrap().names.remove(name);
    }

    /// Adds a namespace by any text.
    pub(crate) fn namespace(&self, name: &str) {
        self.content
            .lock()
            .unwrap()
            .namespaces
            .insert(name.to_owned());
    }

    pub(crate) fn report_is(&self, text: &str) {
        text.clone_into(&mut self.content.lock().unwrap().report);
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.content.lock().unwrap().mood = mood;
    }

    pub(crate) fn questions(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    async fn answer<T>(&self, answer: impl FnOnce(&Content) -> T) -> Result<T, StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mood = self.content.lock().unwrap().mood;
        match mood {
            Mood::Answers => Ok(answer(&self.content.lock().unwrap())),
            Mood::Hangs => std::future::pending().await,
            Mood::Fails(kind) => Err(StoreError {
                kind,
                operation: "ask",
                target: "the catalog".to_owned(),
                reason: "as the test wants it".to_owned(),
            }),
        }
    }
}

#[async_trait]
impl Tables for Script {
    async fn namespaces(&self) -> Result<Vec<String>, StoreError> {
        let all = |content: &Content| content.namespaces.iter().rev().cloned().collect();
        self.answer(all).await
    }

    async fn tables(&self, namespace: &str) -> Result<Vec<TableVersion>, StoreError> {
        let own = format!("{namespace}.");
        let heads = |content: &Content| {
            let heads = content.names.iter().rev();
            let heads = heads.filter(|(name, _)| name.starts_with(&own) && !name.contains('@'));
            heads.map(|(_, version)| version.clone()).collect()
        };
        self.answer(heads).await
    }

    async fn resolve(&self, selector: &Selector) -> Result<Option<TableVersion>, StoreError> {
        assert_ne!(
            selector.to_string(),
            format!("{}@latest", selector.dataset())
        );
        assert!(!matches!(
            selector.version(),
            VersionRef::Day { year: 0, .. }
        ));
        let name = selector.to_string();
        self.answer(|content| content.names.get(&name).cloned())
            .await
    }

    async fn fetch(&self, version: &TableVersion) -> Result<(), StoreError> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let files = self.answer(|content| content.files[&version.manifest].clone());
        let (paths, number) = files.await?;
        let prefix = format!("warehouse/{}", version.dataset);
        let mut builder = Builder::new("s3://bucket", &prefix, Surplus::Hide);
        for path in &paths {
            let kind = EntryKind::File(&crate::support::version(number));
            let mode = None;
            builder.push(&Entry { path, mode, kind }).unwrap();
        }
        builder.finish(&self.file(&version.manifest)).unwrap();
        Ok(())
    }

    async fn report(&self, _: &TableVersion, report: Report) -> Result<Vec<u8>, StoreError> {
        let text = |content: &Content| format!("{report:?} {}", content.report).into_bytes();
        self.answer(text).await
    }

    async fn sql_file(&self, _: &TableVersion, name: &str) -> Result<Option<Bytes>, StoreError> {
        let text = |content: &Content| Bytes::from(content.report.clone());
        let text = self.answer(text).await?;
        Ok(name.ends_with(".avro").then_some(text))
    }

    fn file(&self, manifest: &ManifestId) -> PathBuf {
        self.directory.join(manifest.hex())
    }

    fn announce(&self, manifest: &ManifestId, snapshot: &Snapshot) {
        assert!(self.file(manifest).exists());
        assert_eq!(snapshot.store(), "s3://bucket");
        self.announced.fetch_add(1, Ordering::Relaxed);
    }
}

/// A runtime that runs tasks on the calling thread, with timers.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// A catalog, a clock and a directory; trees are opened over them.
pub(crate) struct World {
    pub(crate) script: Arc<Script>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: TreeConfig,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            script: Script::new(directory.path()),
            clock: Arc::default(),
            directory,
            config: TreeConfig {
                patience: Duration::from_millis(50),
                listing_patience: Duration::from_millis(50),
                ..TreeConfig::default()
            },
        }
    }

    pub(crate) fn open(&self, opening: Opening) -> Result<TableTree, SlotsError> {
        TableTree::open(TreeParts {
            tables: Arc::clone(&self.script) as _,
            slots: &self.directory.path().join("slots"),
            opening,
            config: self.config,
            ownership: Ownership::default(),
            clock: Arc::clone(&self.clock) as _,
        })
    }

    pub(crate) fn mount(&self) -> TableTree {
        self.open(Opening::Mount).unwrap()
    }

    /// A tree as the next worker opens it after `kill -9`.
    pub(crate) fn take_over(&self) -> TableTree {
        self.open(Opening::TakeOver).unwrap()
    }

    /// Lets every answer about a name grow old.
    pub(crate) fn wait(&self) {
        self.clock.advance(Duration::from_secs(120));
        assert!(self.clock.now() > Duration::ZERO);
    }
}

/// Walks to a path as the kernel does.
pub(crate) async fn walk(tree: &TableTree, path: &str) -> Result<Attr, FsError> {
    let mut attr = tree.attr(Ino::ROOT)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        attr = match tree.try_lookup(attr.ino, name.as_bytes()) {
            Some(known) => known?,
            None => tree.lookup(attr.ino, name.as_bytes()).await?,
        };
        // What was found can be asked for, and is the same.
        assert_eq!(tree.attr(attr.ino)?, attr);
    }
    Ok(attr)
}

/// Names in a directory, in the order of the listing.
pub(crate) async fn names(tree: &TableTree, path: &str) -> Vec<String> {
    let directory = walk(tree, path).await.unwrap().ino;
    let entries = list(tree, directory, 2).await.unwrap();
    let names = entries
        .into_iter()
        .map(|entry| String::from_utf8(entry.name).unwrap());
    names.collect()
}

/// Number of the version that the file at a path has.
pub(crate) async fn number_of(tree: &TableTree, path: &str) -> u64 {
    let ino = walk(tree, path).await.unwrap().ino;
    let object = tree.object(ino).unwrap();
    (1..)
        .find(|number| object.version == version(*number))
        .unwrap()
}
