//! The suites: what is read, how, and in which state of the caches.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::data::Sample;
use super::drop_caches;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// Random reads in one run: enough for a second at SSD latency.
const RANDOM_READS: u32 = 20_000;
const HOT_RANDOM_READS: u32 = 400_000;
/// Data-loader threads of the small-file suites.
const THREADS: usize = 4;

/// One way to read a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// 1 MiB reads of a large file that is in the page cache.
    SeqHot,
    /// 1 MiB reads of a large file after the page cache was dropped.
    SeqWarm,
    /// Touching each page of a mapping of a large file after the page cache was dropped.
    MmapWarm,
    /// 4 KiB O_DIRECT reads at random places of a large file.
    Direct4k,
    /// 4 KiB reads at random places of a large file that is in the page cache.
    Rand4kHot,
    /// Whole small files in shuffled order, 4 threads, in the page cache.
    SmallHot,
    /// The same after the page cache was dropped.
    SmallWarm,
    /// Listing and stat of the whole tree, repeated.
    ListHot,
}

/// Every suite, in the order of the report.
pub(crate) const SUITES: [Suite; 8] = [
    Suite::SeqHot,
    Suite::SeqWarm,
    Suite::MmapWarm,
    Suite::Direct4k,
    Suite::Rand4kHot,
    Suite::SmallHot,
    Suite::SmallWarm,
    Suite::ListHot,
];

impl Suite {
    /// Name on the command line and in the report.
    pub(crate) fn name(self) -> String {
        match self {
            Self::SeqHot => "seq-hot",
            Self::SeqWarm => "seq-warm",
            Self::MmapWarm => "mmap-warm",
            Self::Direct4k => "direct-4k",
            Self::Rand4kHot => "rand-4k-hot",
            Self::SmallHot => "small-hot",
            Self::SmallWarm => "small-warm",
            Self::ListHot => "list-hot",
        }
        .to_owned()
    }

    /// Unit of the rate that [`Suite::run`] returns.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::SeqHot | Self::SeqWarm | Self::MmapWarm => "MiB/s",
            Self::Direct4k | Self::Rand4kHot => "reads/s",
            Self::SmallHot | Self::SmallWarm => "files/s",
            Self::ListHot => "entries/s",
        }
    }

    /// Whether the sample has what this suite reads; otherwise why not.
    pub(crate) fn applies(self, sample: &Sample) -> Result<(), String> {
        let root = nix::unistd::geteuid().is_root();
        match self {
            Self::SeqWarm | Self::MmapWarm | Self::SmallWarm if !root => {
                Err("dropping the page cache needs root".to_owned())
            }
            Self::SmallHot | Self::SmallWarm if sample.small.len() < 100 => {
                Err("needs at least 100 files of 1 MiB or less".to_owned())
            }
            Self::SeqHot | Self::SeqWarm | Self::MmapWarm | Self::Direct4k | Self::Rand4kHot
                if sample.large.is_none() =>
            {
                Err("needs a file of at least 64 MiB".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Runs once and returns a rate in [`Suite::unit`].
    pub(crate) fn run(self, sample: &Sample) -> Result<f64> {
        if matches!(self, Self::SeqWarm | Self::MmapWarm | Self::SmallWarm) {
            drop_caches()?;
        }
        match (self, &sample.large) {
            (Self::SeqHot | Self::SeqWarm, Some((path, size))) => sequential(path, *size),
            (Self::MmapWarm, Some((path, size))) => mapped(path, *size),
            (Self::Direct4k, Some((path, size))) => {
                random(path, *size, libc_o_direct(), RANDOM_READS)
            }
            (Self::Rand4kHot, Some((path, size))) => random(path, *size, 0, HOT_RANDOM_READS),
            (Self::SmallHot | Self::SmallWarm, _) => small(sample),
            _ => list(sample),
        }
    }
}

fn libc_o_direct() -> i32 {
    nix::fcntl::OFlag::O_DIRECT.bits()
}

fn sequential(path: &Path, size: u64) -> Result<f64> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut buffer = vec![0_u8; MIB];
    let start = Instant::now();
    let mut at = 0;
    while at < size {
        let n = file
            .read_at(&mut buffer, at)
            .with_context(|| format!("read {}", path.display()))?;
        if n == 0 {
            break;
        }
        at += n as u64;
    }
    Ok(at as f64 / MIB as f64 / start.elapsed().as_secs_f64())
}

fn mapped(path: &Path, size: u64) -> Result<f64> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let start = Instant::now();
    // SAFETY: the file is only read, and whoever benchmarks a directory does not truncate it
    // meanwhile; a truncation would end this process with SIGBUS and harm nothing else.
    let map =
        unsafe { memmap2::Mmap::map(&file) }.with_context(|| format!("map {}", path.display()))?;
    map.advise(memmap2::Advice::Sequential).ok();
    // Every word is read, as a model loader would; the sum keeps the reads alive.
    let sum = map.as_chunks::<8>().0.iter().fold(0_u64, |sum, word| {
        sum.wrapping_add(u64::from_le_bytes(*word))
    });
    std::hint::black_box(sum);
    Ok(size as f64 / MIB as f64 / start.elapsed().as_secs_f64())
}

fn random(path: &Path, size: u64, flags: i32, reads: u32) -> Result<f64> {
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    // O_DIRECT wants an aligned buffer: take the aligned page inside two.
    let mut space = vec![0_u8; 2 * PAGE];
    let skip = space.as_ptr().align_offset(PAGE);
    let buffer = &mut space[skip..skip + PAGE];
    let pages = size / PAGE as u64;
    let mut rng = StdRng::seed_from_u64(7);
    let start = Instant::now();
    for _ in 0..reads {
        let at = rng.random_range(0..pages) * PAGE as u64;
        file.read_exact_at(buffer, at)
            .with_context(|| format!("read {}", path.display()))?;
    }
    Ok(f64::from(reads) / start.elapsed().as_secs_f64())
}

fn small(sample: &Sample) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| read_small(sample, &next)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("a reader died"))?
        })
    })?;
    Ok(sample.small.len() as f64 / start.elapsed().as_secs_f64())
}

fn read_small(sample: &Sample, next: &AtomicUsize) -> Result<()> {
    let mut buffer = Vec::with_capacity(MIB);
    while let Some(path) = sample.small.get(next.fetch_add(1, Ordering::Relaxed)) {
        buffer.clear();
        File::open(path)
            .and_then(|mut file| file.read_to_end(&mut buffer))
            .with_context(|| format!("read {}", path.display()))?;
    }
    Ok(())
}

fn list(sample: &Sample) -> Result<f64> {
    let start = Instant::now();
    let mut entries = 0_u64;
    let mut open = vec![sample.root.clone()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            entries += 1;
            let meta = entry
                .metadata()
                .with_context(|| format!("stat in {}", dir.display()))?;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(entries as f64 / start.elapsed().as_secs_f64())
}
