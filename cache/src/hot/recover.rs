//! Opening: lock, index, the table in memory, the policy's order, the sweep.
//!
//! The index is read once, by two threads (records are sorted by digest, so each takes half of the
//! key space). No data file is touched: whether a file is what its record says is found out when
//! the object is opened.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::catalogue::Catalogue;
use super::config::HotConfig;
use super::directory::{self, Directory};
use super::error::HotError;
use super::index::{Change, Index};
use super::pool::{Pool, PoolThreads};
use super::record::{Head, Marks, Trust};
use super::shared::{Parts, Shared};
use super::stats::add;
use super::sys::now_seconds;
use super::table::{Entry, Table};
use crate::identity::{DatasetKey, Digest};
use crate::policy::Policy;

/// What one pass over a part of the index found.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// Number of the dataset of each entry.
    datasets: Vec<u32>,
    names: Vec<DatasetKey>,
    numbers: HashMap<String, u32>,
    damaged: Vec<Digest>,
}

impl Found {
    fn visit(&mut self, digest: Digest, record: Option<Head<'_>>, marks: Marks) {
        let Some(record) = record else {
            self.damaged.push(digest);
            return;
        };
        let mut entry = Entry::new(digest, record.charged);
        entry.set_present(record.present);
        entry.complete = record.complete;
        entry.used_at = marks.used_at;
        entry.verified_at = marks.verified_at;
        let number = self.number(record.dataset);
        self.entries.push(entry);
        self.datasets.push(number);
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(DatasetKey(name.into()));
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

/// Opens the directory. The sweep is due when the second value says so.
pub(super) fn open(
    config: HotConfig,
    mut policy: Box<dyn Policy>,
) -> Result<(Arc<Shared>, PoolThreads, bool), HotError> {
    let directory = Directory::open(&config.directory)?;
    let (index, set_aside) = Index::open(&directory.index())?;
    let boot = match config.boot_id {
        Some(boot) => boot,
        None => boot_id(&directory)?,
    };
    let last = index.trust()?;
    let trust = Trust::at_start(last, boot, now_seconds());
    let catalogue = read_index(&index, policy.as_mut())?;
    index.apply(&[Change::Trust(trust)], true)?;
    let (pool, threads) = Pool::start("hot-io", config.io_threads)
        .map_err(|e| HotError::io("start threads", &directory.root, &e))?;
    let sweep = set_aside || last.is_some_and(|last| !last.clean);
    let shared = Shared::new(Parts {
        config,
        directory,
        index,
        trust,
        pool,
        catalogue,
        policy,
    });
    Ok((Arc::new(shared), threads, sweep))
}

fn read_index(index: &Index, policy: &mut dyn Policy) -> Result<Catalogue, HotError> {
    let read = |first, last| {
        let mut found = Found::default();
        index.scan(first, last, |digest, record, marks| {
            found.visit(digest, record, marks)
        })?;
        Ok::<_, HotError>(found)
    };
    let (low, high) = std::thread::scope(|scope| {
        let low = scope.spawn(|| read(0, 127));
        let high = read(128, 255);
        (low.join(), high)
    });
    let mut found = match low {
        Ok(low) => [low?, high?],
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let damaged: Vec<Change> = found
        .iter_mut()
        .flat_map(|part| part.damaged.drain(..))
        .map(Change::Remove)
        .collect();
    if !damaged.is_empty() {
        tracing::warn!(count = damaged.len(), "damaged index records are dropped");
        index.apply(&damaged, false)?;
    }
    tell_policy(&found, policy);
    let [low, high] = found;
    let mut entries = low.entries;
    entries.extend(high.entries);
    let pins = index.pins()?.into_iter().collect();
    Ok(Catalogue::new(Table::new(entries), pins))
}

/// Hands everything to the policy, least recently used first.
fn tell_policy(found: &[Found; 2], policy: &mut dyn Policy) {
    let mut order: Vec<(u32, u32, u8)> = Vec::new();
    for (part, found) in found.iter().enumerate() {
        let entries = found.entries.iter().enumerate();
        order.extend(entries.map(|(index, entry)| (entry.used_at, index as u32, part as u8)));
    }
    order.sort_unstable();
    for (_, index, part) in order {
        let part = &found[usize::from(part)];
        let entry = &part.entries[index as usize];
        let dataset = &part.names[part.datasets[index as usize] as usize];
        policy.inserted(dataset, entry.digest, entry.charged());
    }
}

fn boot_id(directory: &Directory) -> Result<[u8; 16], HotError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| HotError::io("read boot id", path.as_ref(), &e))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .map(u128::to_be_bytes)
        .map_err(|e| HotError::corrupt("read boot id", &directory.root, e.to_string()))
}

impl Shared {
    /// Unlinks files that no record names, left behind by a process that was killed. Files of this
    /// process are let alone: their records may be on their way.
    pub(super) fn sweep(&self) {
        for shard in 0..=255u8 {
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            if let Err(error) = self.sweep_shard(shard) {
                self.report(Some(&error));
                return;
            }
        }
    }

    fn sweep_shard(&self, shard: u8) -> Result<(), HotError> {
        let mut known: HashSet<(Digest, u64)> = HashSet::new();
        self.index.scan(shard, shard, |digest, record, _| {
            if let Some(record) = record {
                known.insert((digest, record.incarnation));
            }
        })?;
        let path = self.directory.shard(shard);
        let fail = |e: &std::io::Error| HotError::io("sweep", &path, e);
        for entry in std::fs::read_dir(&path).map_err(|e| fail(&e))? {
            let entry = entry.map_err(|e| fail(&e))?;
            let name = entry.file_name();
            let parsed = name.to_str().and_then(directory::parse_name);
            if parsed.is_some_and(|(digest, incarnation)| {
                known.contains(&(digest, incarnation)) || self.is_own(incarnation)
            }) {
                continue;
            }
            directory::remove(&entry.path())?;
            add(&self.counters.swept_files, 1);
        }
        Ok(())
    }
}
