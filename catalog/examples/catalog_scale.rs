//! The catalog at the size it is built for: 100,000 datasets, one of them with 100,000 partitions and
//! 10 million files, on RocksDB and a directory.
//!
//! ```text
//! cargo run -p terrace-catalog --example catalog_scale [-- --datasets N --partitions N
//!     --files N --dir DIR]
//! ```
//!
//! Prints what registering one more partition takes in time and memory (in a process of its own, as a
//! catalog that has just started), and how long resolving, listing and searching take. Ends with 1 when
//! a bar is missed. `DIR` is kept for a second run; without it a temporary directory is removed.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::ledger::{Ledger, Query};
use terrace_catalog::manifest::{Header, Manifest, ManifestEdit};
use terrace_catalog::{DatasetName, Selector};

#[path = "support/scale.rs"]
mod scale;

use scale::{Failure, PARALLEL, commit, cpu_time, files_of, manifest_of, open, peak_memory};

const TABLE: &str = "lake.large";
/// Calls that are timed one by one.
const SAMPLES: usize = 5000;

struct Sizes {
    datasets: usize,
    partitions: usize,
    files: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, default| value(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let sizes = Sizes {
        datasets: number("--datasets", 100_000),
        partitions: number("--partitions", 100_000),
        files: number("--files", 100),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Err(error.into())),
    };
    if let Some(directory) = value("--register") {
        let done = runtime.block_on(register(Path::new(&directory), sizes.files));
        return report(&done.map(|()| true));
    }
    let temporary = std::env::temp_dir().join(format!("catalog-scale-{}", std::process::id()));
    let directory = value("--dir").map_or(temporary.clone(), PathBuf::from);
    let done = runtime.block_on(run(&directory, &sizes));
    if directory == temporary {
        // What stays is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    report(&done)
}

fn report(done: &Result<bool, Failure>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("a bar was missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("catalog_scale: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(directory: &Path, sizes: &Sizes) -> Result<bool, Failure> {
    let ledger = open(directory).await?;
    let name: DatasetName = TABLE.parse()?;
    if ledger.dataset(&name).await.is_err() {
        create(&ledger, sizes).await?;
        fill(&ledger, &name, sizes).await?;
    }
    let large = ledger.resolve(&TABLE.parse()?).await?;
    println!(
        "{TABLE}@v{}: {} partitions, {} files",
        large.number, large.totals.partitions, large.totals.files
    );
    let mut good = time_reads(&ledger, sizes).await?;
    drop(ledger);
    good &= time_register(directory, sizes)?;
    Ok(good)
}

/// Creates the datasets.
async fn create(ledger: &Ledger, sizes: &Sizes) -> Result<(), Failure> {
    let began = Instant::now();
    futures::stream::iter(0..sizes.datasets)
        .map(|number| async move {
            let name = dataset_name(number).parse()?;
            let mut descriptor = Descriptor::new(Kind::Dataset, name, "s3://lake/table");
            descriptor.description = format!("Table {number} of the synthetic warehouse");
            ledger.create(descriptor).await?;
            Ok::<(), Failure>(())
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    println!(
        "created {} datasets in {:.1?}",
        sizes.datasets,
        began.elapsed()
    );
    Ok(())
}

fn dataset_name(number: usize) -> String {
    format!("ns{:03}.table_{number:06}", number % 500)
}

/// Commits the first version of the large table.
async fn fill(ledger: &Ledger, name: &DatasetName, sizes: &Sizes) -> Result<(), Failure> {
    let began = Instant::now();
    let descriptor = Descriptor::new(Kind::Dataset, name.clone(), "s3://lake/large");
    ledger.create(descriptor).await?;
    let header = Header {
        location: "s3://lake/large".into(),
        format: "parquet".into(),
        ..Header::default()
    };
    let manifest = manifest_of(ledger, header, sizes.partitions, sizes.files).await?;
    ledger
        .commit(commit(name, None, manifest, "catalog_scale"))
        .await?;
    println!(
        "stored {} partitions with {} files each in {:.1?}",
        sizes.partitions,
        sizes.files,
        began.elapsed()
    );
    Ok(())
}

/// Adds a partition to the large table, as a catalog that has just started: time and peak memory.
async fn register(directory: &Path, files: usize) -> Result<(), Failure> {
    let ledger = open(directory).await?;
    let name: DatasetName = TABLE.parse()?;
    let cpu = cpu_time()?;
    let began = Instant::now();
    let head = ledger.resolve(&TABLE.parse()?).await?;
    let previous = Manifest::open(ledger.blobs(), &head.manifest).await?;
    let mut edit = ManifestEdit::from(&previous);
    let path = format!("dt=00500/hour=24.{}", head.number);
    edit.put_partition(&path, Vec::new(), files_of(&path, files))
        .await?;
    let manifest = edit.finish().await?;
    ledger
        .commit(commit(&name, Some(head.number), manifest, "catalog_scale"))
        .await?;
    let (elapsed, cpu) = (began.elapsed(), cpu_time()? - cpu);
    println!(
        "{} {} {}",
        elapsed.as_micros(),
        cpu.as_micros(),
        peak_memory()?
    );
    Ok(())
}

fn time_register(directory: &Path, sizes: &Sizes) -> Result<bool, Failure> {
    let mut times = Vec::new();
    let (mut cpu, mut memory) = (0, 0);
    for _ in 0..10 {
        let child = Command::new(std::env::current_exe()?)
            .args(["--files", &sizes.files.to_string(), "--register"])
            .arg(directory)
            .output()?;
        let text = String::from_utf8(child.stdout)?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next().ok_or("the child said nothing");
        times.push(Duration::from_micros(next()??));
        cpu = cpu.max(next()??);
        memory = memory.max(next()??);
    }
    times.sort();
    let slowest = times[times.len() - 1];
    println!(
        "register one partition of {} files: median {:.1?}, slowest of 10 {slowest:.1?}, processor \
         at most {:.1} ms, peak memory of the process {:.1} MiB",
        sizes.files,
        times[times.len() / 2],
        cpu as f64 / 1000.0,
        memory as f64 / 1024.0
    );
    Ok(slowest < Duration::from_secs(1) && memory < 100 << 10)
}

async fn time_reads(ledger: &Ledger, sizes: &Sizes) -> Result<bool, Failure> {
    // One version each, so that there is something to resolve.
    let empty = ManifestEdit::new(ledger.blobs(), Header::default())
        .finish()
        .await?;
    let step = (sizes.datasets / 1000).max(1);
    let some: Vec<usize> = (0..sizes.datasets).step_by(step).collect();
    for number in &some {
        let selector: Selector = dataset_name(*number).parse()?;
        // Unless a run before this one has.
        if ledger.resolve(&selector).await.is_err() {
            ledger
                .commit(commit(selector.dataset(), None, empty, "catalog_scale"))
                .await?;
        }
    }
    let mut resolve = Vec::with_capacity(SAMPLES);
    let cpu = cpu_time()?;
    for sample in 0..SAMPLES {
        let number = some[sample.wrapping_mul(7919) % some.len()];
        let text = dataset_name(number);
        let selector: Selector = if sample % 2 == 0 { text } else { text + "@v1" }.parse()?;
        let began = Instant::now();
        ledger.resolve(&selector).await?;
        resolve.push(began.elapsed());
    }
    let resolve = (resolve, cpu_time()? - cpu);
    let mut list = Vec::new();
    let cpu = cpu_time()?;
    for sample in 0..SAMPLES / 10 {
        let after = dataset_name(sample.wrapping_mul(7919) % sizes.datasets).parse()?;
        let began = Instant::now();
        ledger
            .datasets(&Query::default(), Some(&after), 100)
            .await?;
        list.push(began.elapsed());
    }
    let list = (list, cpu_time()? - cpu);
    let began = Instant::now();
    let nothing = Query {
        text: "no such text".into(),
        ..Query::default()
    };
    ledger.datasets(&nothing, None, 100).await?;
    println!(
        "first search, which reads every name: {:.1?}",
        began.elapsed()
    );
    let mut search = Vec::new();
    let cpu = cpu_time()?;
    for sample in 0..SAMPLES / 10 {
        // From "found at once" to "looked at every one".
        let text = match sample % 3 {
            0 => "synthetic".into(),
            1 => format!("{:04}", sample.wrapping_mul(7919) % 10_000),
            _ => format!("nothing {sample}"),
        };
        let query = Query {
            text,
            ..Query::default()
        };
        let began = Instant::now();
        ledger.datasets(&query, None, 100).await?;
        search.push(began.elapsed());
    }
    let search = (search, cpu_time()? - cpu);
    let good = [
        judge("resolve", resolve, Duration::from_millis(5)),
        judge("list page of 100", list, Duration::from_millis(50)),
        judge("search page of 100", search, Duration::from_millis(50)),
    ];
    Ok(good.iter().all(|good| *good))
}

/// Prints times and whether the bar is met. The processor's time says what the calls cost when the
/// machine is busy with something else.
fn judge(what: &str, (mut times, cpu): (Vec<Duration>, Duration), bar: Duration) -> bool {
    times.sort();
    let cpu = cpu / u32::try_from(times.len()).unwrap_or(u32::MAX);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let p99 = at(99);
    println!(
        "{what}: median {:.2?}, p99 {p99:.2?} (bar {bar:?}), processor {cpu:.2?} each",
        at(50)
    );
    p99 < bar
}
