//! Opening: lock, index, the table in memory, the policy's order, the sweep.
//!
//! The index is read once, by two threads (records are sorted by digest, so each takes half of the
//! key space); then one builds the table while the other tells the policy. No data file is touched: whether a file is what its record says is found out when
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
use super::record::{Head, Marks, Pins, Stage, Trust};
use super::shared::{Parts, Shared};
use super::stats::add;
use super::sys::now_seconds;
use super::table::{Entry, Table};
use crate::identity::{DatasetKey, Digest, DigestMap};
use crate::policy::{Policy, Resident};

/// Most objects that room is made for before the first record is read.
const ROOM_MAX: usize = 1 << 24;

/// What one pass over a part of the index found.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// Number of the dataset of each entry.
    datasets: Vec<u32>,
    names: Vec<DatasetKey>,
    numbers: HashMap<String, u32>,
    /// Filled by an earlier process that did not come to sync them.
    orphans: Vec<Digest>,
    damaged: Vec<Digest>,
}

impl Found {
    /// Room for about `objects`; what is never written takes no memory.
    fn with_room(objects: usize) -> Self {
        Self {
            entries: Vec::with_capacity(objects),
            datasets: Vec::with_capacity(objects),
            ..Self::default()
        }
    }

    fn visit(&mut self, trust: &Trust, digest: Digest, record: Option<Head<'_>>, marks: Marks) {
        let Some(record) = record else {
            self.damaged.push(digest);
            return;
        };
        let mut entry = Entry::new(digest, record.charged);
        entry.set_present(record.present);
        entry.complete = record.stage == Stage::Complete;
        entry.used_at = marks.used_at;
        entry.verified_at = marks.verified_at;
        if record.stage == Stage::Filled && trust.believes(record.epoch) {
            self.orphans.push(digest);
        }
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

    /// Takes what a pass over another part found.
    fn append(&mut self, mut other: Self) {
        self.entries.append(&mut other.entries);
        let numbers: Vec<u32> = other
            .names
            .iter()
            .map(|name| self.number(&name.0))
            .collect();
        let renumbered = other.datasets.iter().map(|old| numbers[*old as usize]);
        self.datasets.extend(renumbered);
        self.orphans.append(&mut other.orphans);
        self.damaged.append(&mut other.damaged);
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
    let mut found = read_index(&index, &trust)?;
    // Only the number of starts changes from one process of a boot to the next, and nothing but the
    // page cache has to remember it: incarnations of a boot that lost it are skipped one by one.
    let sync = last.is_none_or(|last| {
        Trust {
            starts: trust.starts,
            ..last
        } != trust
    });
    index.apply(&[Change::Trust(trust)], sync)?;
    let pins = index.pins()?.into_iter().collect();
    let orphans = std::mem::take(&mut found.orphans);
    let catalogue = build(found, pins, policy.as_mut());
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
        orphans,
    });
    Ok((Arc::new(shared), threads, sweep))
}

fn read_index(index: &Index, trust: &Trust) -> Result<Found, HotError> {
    let objects = index.estimated_objects().min(ROOM_MAX);
    let read = |first, last, room| {
        let mut found = Found::with_room(room);
        index.scan(first, last, |digest, record, marks| {
            found.visit(trust, digest, record, marks)
        })?;
        Ok::<_, HotError>(found)
    };
    let (low, high) = std::thread::scope(|scope| {
        let high = scope.spawn(|| read(128, 255, objects / 2));
        let low = read(0, 127, objects);
        (low, high.join())
    });
    let mut found = low?;
    match high {
        Ok(high) => found.append(high?),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    let damaged: Vec<Change> = found.damaged.drain(..).map(Change::Remove).collect();
    if !damaged.is_empty() {
        tracing::warn!(count = damaged.len(), "damaged index records are dropped");
        index.apply(&damaged, false)?;
    }
    Ok(found)
}

/// The table, while the policy learns what is there.
fn build(found: Found, pins: DigestMap<Pins>, policy: &mut dyn Policy) -> Catalogue {
    let Found {
        entries,
        datasets,
        names,
        ..
    } = found;
    let slots = std::thread::scope(|scope| {
        let slots = scope.spawn(|| Table::slots(&entries));
        tell_policy(&entries, &datasets, &names, policy);
        slots.join()
    });
    match slots {
        Ok(slots) => Catalogue::new(Table::with_slots(entries, slots), pins),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Hands everything to the policy, least recently used first.
fn tell_policy(entries: &[Entry], datasets: &[u32], names: &[DatasetKey], policy: &mut dyn Policy) {
    // Both numbers in one word sort several times faster than a pair.
    let numbered = entries.iter().enumerate();
    let mut order: Vec<u64> = numbered
        .map(|(index, entry)| u64::from(entry.used_at) << 32 | index as u64)
        .collect();
    order.sort_unstable();
    let mut residents = order.iter().map(|word| {
        let index = (word & u64::from(u32::MAX)) as usize;
        let entry = &entries[index];
        Resident {
            dataset: datasets[index] as usize,
            digest: entry.digest,
            size: entry.charged(),
        }
    });
    policy.restored(names, &mut residents);
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
    /// Unlinks files that no record names, left behind by a process that was killed, and reads the
    /// owners of the others again. Files of this process are let alone: their records may be on
    /// their way.
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
        if let Err(error) = self.mend_absent() {
            self.report(Some(&error));
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
            if let Some(place) = parsed.filter(|place| known.contains(place)) {
                if name.len() == directory::DATA_NAME {
                    self.mend_owners(&place.0, &entry)?;
                }
                continue;
            }
            if parsed.is_some_and(|(_, incarnation)| self.is_own(incarnation)) {
                continue;
            }
            directory::remove(&entry.path())?;
            add(&self.counters.swept_files, 1);
        }
        Ok(())
    }
}
