//! What a namespace of many tables costs: listing it, looking its tables up, and opening the slot file
//! again after `kill -9`, without a kernel and with a catalog that answers at once.
//!
//! `cargo run -p terrace-fuse --example tables_scale -- 100000`
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use terrace_cache::store::{StoreError, StoreErrorKind};
use terrace_catalog::Selector;
use terrace_fuse::live::{Opening, SystemClock};
use terrace_fuse::namespace::{DirEntry, DirSink, FsError, Ino, Namespace};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::Snapshot;
use terrace_fuse::tables::{
    ManifestId, Report, TableTree, TableVersion, Tables, TreeConfig, TreeParts,
};

/// `ns.t0000000` and so on, all at version 3.
#[derive(Debug)]
struct Many(usize);

fn version(number: usize) -> TableVersion {
    let mut manifest = [0; 32];
    manifest[..8].copy_from_slice(&number.to_le_bytes());
    TableVersion {
        dataset: format!("ns.t{number:07}")
            .parse()
            .expect("a name by construction"),
        number: 3,
        manifest: ManifestId(manifest),
        committed_ms: 1_700_000_000_000,
    }
}

fn none() -> StoreError {
    StoreError {
        kind: StoreErrorKind::Invalid,
        operation: "ask",
        target: "nothing".to_owned(),
        reason: "not part of the measurement".to_owned(),
    }
}

#[async_trait]
impl Tables for Many {
    async fn namespaces(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec!["ns".to_owned()])
    }

    async fn tables(&self, _: &str) -> Result<Vec<TableVersion>, StoreError> {
        Ok((0..self.0).map(version).collect())
    }

    async fn resolve(&self, selector: &Selector) -> Result<Option<TableVersion>, StoreError> {
        let number = selector.dataset().table()[1..].parse();
        Ok(number.ok().map(version))
    }

    async fn fetch(&self, _: &TableVersion) -> Result<(), StoreError> {
        Err(none())
    }

    async fn report(&self, _: &TableVersion, _: Report) -> Result<Vec<u8>, StoreError> {
        Err(none())
    }

    fn file(&self, _: &ManifestId) -> PathBuf {
        PathBuf::from("/nonexistent")
    }

    fn announce(&self, _: &ManifestId, _: &Snapshot) {}
}

/// An error of any kind, for `main`.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Default)]
struct Page(Vec<DirEntry>);

impl DirSink for Page {
    fn push(&mut self, entry: DirEntry) -> bool {
        if self.0.len() == 128 {
            return false;
        }
        self.0.push(entry);
        true
    }
}

async fn list(tree: &TableTree, directory: Ino) -> Result<usize, FsError> {
    let (mut after, mut found) = (0, 0);
    loop {
        let mut page = Page::default();
        tree.read_directory(directory, after, &mut page).await?;
        let Some(last) = page.0.last() else {
            return Ok(found);
        };
        after = last.next;
        found += page.0.len();
    }
}

fn open(directory: &std::path::Path, tables: usize, opening: Opening) -> Outcome<TableTree> {
    Ok(TableTree::open(TreeParts {
        tables: Arc::new(Many(tables)),
        slots: &directory.join("slots"),
        opening,
        config: TreeConfig {
            name_ttl: Duration::from_secs(3600),
            ..TreeConfig::default()
        },
        ownership: Ownership::default(),
        clock: Arc::new(SystemClock::new()),
    })?)
}

fn main() -> Outcome<()> {
    let tables: usize = std::env::args()
        .nth(1)
        .map_or(Ok(100_000), |text| text.parse())?;
    let directory = std::env::temp_dir().join(format!("tables-scale-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let measured = runtime.block_on(measure(&directory, tables));
    std::fs::remove_dir_all(&directory)?;
    measured
}

async fn measure(directory: &std::path::Path, tables: usize) -> Outcome<()> {
    let tree = open(directory, tables, Opening::Mount)?;
    let namespace = tree.lookup(Ino::ROOT, b"ns").await?.ino;
    for pass in ["first listing", "listing again"] {
        let began = Instant::now();
        let found = list(&tree, namespace).await?;
        println!("{pass}: {found} tables in {:?}", began.elapsed());
    }
    let began = Instant::now();
    for number in 0..tables {
        // Memory holds the last names; the others are asked for again.
        let name = format!("t{number:07}");
        tree.lookup(namespace, name.as_bytes()).await?;
    }
    println!(
        "look-ups, asked: {:?} each",
        began.elapsed() / u32::try_from(tables)?
    );
    let began = Instant::now();
    let last = format!("t{:07}", tables - 1);
    for _ in 0..tables {
        tree.try_lookup(namespace, last.as_bytes());
    }
    println!(
        "look-ups, in memory: {:?} each",
        began.elapsed() / u32::try_from(tables)?
    );
    let bytes = std::fs::metadata(directory.join("slots"))?.len();
    drop(tree);
    let began = Instant::now();
    let tree = open(directory, tables, Opening::TakeOver)?;
    let status = tree.status();
    println!(
        "opened again: {} slots, {bytes} bytes, in {:?}",
        status.slots,
        began.elapsed()
    );
    Ok(())
}
