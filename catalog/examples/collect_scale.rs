//! Garbage collection at the size it is built for: a version of 10 million files in a vault, and garbage.
//!
//! ```text
//! cargo run -p terrace-catalog --example collect_scale [-- --partitions N --files N --dir DIR]
//! ```
//!
//! `--files` is of each partition. The vault is made up while it is listed, so what is measured is the
//! collector over RocksDB and a directory of blobs, and no store: how long a dry run and a run take, and the
//! most memory of the process that does nothing else. Ends with 1 when something needed is taken, something
//! that is not needed stays, or more than a bounded memory was used. `DIR` is kept for a second run.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use terrace_catalog::collect::{Collected, Collection, Collector};
use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::manifest::Header;
use terrace_catalog::upstream::{Listed, UpFile, Upstream, UpstreamError, UpstreamErrorKind};
use terrace_catalog::vault::{Content, Vault, Vaults};
use tokio::sync::mpsc;

#[path = "support/scale.rs"]
mod scale;

use scale::{Failure, commit, cpu_time, files_of, manifest_of, open, partition_path, peak_memory};

const TABLE: &str = "lake.large";
const VAULT: &str = "mem://cold";
/// A place that was named in 2023.
const PLACE: &str = "0000000000000001/018bcfe56800-00000000000000ab";
/// What else lies in each partition.
const GARBAGE: &str = "left-by-a-crash.parquet";
/// Memory that a collection may take, whatever the number of files.
const MOST_MEMORY_MIB: u64 = 256;

#[derive(Clone, Copy)]
struct Sizes {
    partitions: usize,
    files: usize,
}

/// The vault: every file of the version, and one in each partition that none names.
#[derive(Debug)]
struct Made {
    partitions: usize,
    files: usize,
    removed: AtomicU64,
    wrong: AtomicU64,
}

fn missing(path: &str) -> UpstreamError {
    UpstreamError::new(UpstreamErrorKind::NotFound, path)
}

fn up(path: String, size: u64) -> UpFile {
    UpFile {
        path: path.into(),
        size,
        mtime_ms: 1_700_000_000_000,
        token: "t".into(),
    }
}

#[async_trait]
impl Upstream for Made {
    fn url(&self) -> &str {
        VAULT
    }

    fn list(&self, _: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        stream::empty().boxed()
    }

    fn walk(&self, _: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        let files = self.files;
        let all = (0..self.partitions).flat_map(move |number| {
            let partition = partition_path(number);
            let garbage = up(format!("{PLACE}/{partition}/{GARBAGE}"), 100);
            let own = files_of(&partition, files);
            own.map(|file| up(format!("{PLACE}/{}", file.path), file.size))
                .chain([garbage])
        });
        stream::iter(all.map(Ok)).boxed()
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        Err(missing(path))
    }

    async fn read(&self, file: &UpFile, _: Range<u64>) -> Result<Bytes, UpstreamError> {
        Err(missing(&file.path))
    }
}

#[async_trait]
impl Vault for Made {
    async fn put(&self, path: &str, _: Content<'_>) -> Result<UpFile, UpstreamError> {
        Ok(up(path.to_owned(), 32))
    }

    async fn link(&self, _: &UpFile, _: &str) -> Result<Option<UpFile>, UpstreamError> {
        Ok(None)
    }

    async fn remove(&self, file: &UpFile) -> Result<(), UpstreamError> {
        let counter = match file.path.ends_with(GARBAGE) {
            true => &self.removed,
            false => &self.wrong,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, default| value(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let sizes = Sizes {
        partitions: number("--partitions", 100_000),
        files: number("--files", 100),
    };
    let temporary = std::env::temp_dir().join(format!("collect-scale-{}", std::process::id()));
    let directory = value("--dir").map_or(temporary.clone(), PathBuf::from);
    let done = tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| match value("--collect") {
            Some(directory) => runtime.block_on(collect(Path::new(&directory), sizes)),
            None => runtime.block_on(measure(&directory, sizes)),
        });
    if directory == temporary {
        // What stays is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("collect_scale: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the version, then measures in a process that does nothing else.
async fn measure(directory: &Path, sizes: Sizes) -> Result<(), Failure> {
    let ledger = open(directory).await?;
    let name = TABLE.parse()?;
    if ledger.dataset(&name).await.is_err() {
        let began = Instant::now();
        let descriptor = Descriptor::new(Kind::Dataset, name.clone(), "s3://lake/large");
        ledger.create(descriptor).await?;
        let header = Header {
            location: format!("{VAULT}/{PLACE}").into(),
            format: "parquet".into(),
            ..Header::default()
        };
        let manifest = manifest_of(&ledger, header, sizes.partitions, sizes.files).await?;
        ledger
            .commit(commit(&name, None, manifest, "collect_scale"))
            .await?;
        println!("made the version in {:.1?}", began.elapsed());
    }
    drop(ledger);
    let status = Command::new(std::env::current_exe()?)
        .args(["--partitions", &sizes.partitions.to_string()])
        .args(["--files", &sizes.files.to_string(), "--collect"])
        .arg(directory)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err("the collection failed".into()),
    }
}

/// A dry run and a run, timed.
async fn collect(directory: &Path, sizes: Sizes) -> Result<(), Failure> {
    let ledger = open(directory).await?;
    let vault = Arc::new(Made {
        partitions: sizes.partitions,
        files: sizes.files,
        removed: AtomicU64::default(),
        wrong: AtomicU64::default(),
    });
    let vaults = Vaults::new(vec![Arc::<Made>::clone(&vault) as Arc<dyn Vault>]);
    let collector = Collector::new(ledger, vaults, directory.to_owned());
    for dry_run in [true, false] {
        let (began, cpu) = (Instant::now(), cpu_time()?);
        let done = run(&collector, dry_run).await?;
        let (elapsed, cpu) = (began.elapsed(), cpu_time()? - cpu);
        println!(
            "{}: {} marked, {} files and {} blobs looked at, {} taken in {:.1} s, processor {:.1} s, \
             peak memory of the process {} MiB",
            if dry_run { "dry run" } else { "run" },
            done.marked,
            done.files,
            done.blobs,
            done.taken,
            elapsed.as_secs_f64(),
            cpu.as_secs_f64(),
            peak_memory()? / 1024,
        );
        if done.taken != sizes.partitions as u64 {
            return Err(format!("{} things are garbage", sizes.partitions).into());
        }
    }
    let (removed, wrong) = (&vault.removed, &vault.wrong);
    let counts = (
        removed.load(Ordering::Relaxed),
        wrong.load(Ordering::Relaxed),
    );
    if counts != (sizes.partitions as u64, 0) {
        return Err(format!(
            "removed {} of the garbage and {} others",
            counts.0, counts.1
        )
        .into());
    }
    let memory = peak_memory()? / 1024;
    match memory <= MOST_MEMORY_MIB {
        true => Ok(()),
        false => Err(format!("{memory} MiB; at most {MOST_MEMORY_MIB}").into()),
    }
}

async fn run(collector: &Collector, dry_run: bool) -> Result<Collected, Failure> {
    let (sender, mut items) = mpsc::channel(256);
    let wanted = Collection {
        grace: Duration::from_secs(3600),
        dry_run,
    };
    let run = async {
        let done = collector.run(wanted, &sender).await;
        drop(sender);
        done
    };
    let taken = async { while items.recv().await.is_some() {} };
    let (done, ()) = tokio::join!(run, taken);
    Ok(done?)
}
