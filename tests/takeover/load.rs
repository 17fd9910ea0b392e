//! Clients that list, stat, open, read and map all the time, and files that describe themselves.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::numbers::{Numbers, mix};
use crate::world::wait_for;

/// Small files, in two directories.
const SMALL_FILES: u64 = 160;

/// Length of small files.
const SMALL: u64 = 100_000;

/// Big files, in the root.
const BIG_FILES: u64 = 24;

/// Length of big files; all of them are more than the hot tiers of the tests hold.
pub(crate) const BIG: u64 = 4 << 20;

const CLIENTS: u64 = 8;

/// An operation that begins so long after a kill may have waited because of it.
const AFTER: Duration = Duration::from_millis(50);

/// Operations shorter than this are not remembered.
const SLOW: Duration = Duration::from_millis(5);

/// One file of the data set.
#[derive(Clone, Copy, Debug)]
struct Made {
    number: u64,
    size: u64,
}

impl Made {
    fn of(number: u64) -> Self {
        let size = if number < SMALL_FILES { SMALL } else { BIG };
        Self { number, size }
    }

    fn path(self) -> PathBuf {
        match self.number.checked_sub(SMALL_FILES) {
            Some(big) => format!("big{big}").into(),
            None => format!("d{}/s{}", self.number % 2, self.number).into(),
        }
    }

    /// The bytes from `offset` (a multiple of 8): every word tells file and place.
    fn bytes(self, offset: u64, length: u64) -> Vec<u8> {
        let end = self.size.min(offset + length);
        let mut bytes = Vec::with_capacity(usize::try_from(length + 8).unwrap());
        for word in (offset / 8)..end.div_ceil(8) {
            bytes.extend_from_slice(&mix((self.number << 40) | word).to_le_bytes());
        }
        bytes.truncate(usize::try_from(end - offset).unwrap());
        bytes
    }

    fn check(self, offset: u64, found: &[u8]) {
        let expected = self.bytes(offset, found.len() as u64);
        assert_eq!(
            found.len(),
            expected.len(),
            "short read of {self:?} at {offset}"
        );
        if found != expected {
            let at = found
                .iter()
                .zip(&expected)
                .position(|(a, b)| a != b)
                .unwrap();
            panic!("wrong byte in {self:?} at {}", offset + at as u64);
        }
    }
}

/// Writes the data set.
pub(crate) fn make_files(root: &Path) {
    for directory in ["d0", "d1"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for number in 0..SMALL_FILES + BIG_FILES {
        let made = Made::of(number);
        fs::write(root.join(made.path()), made.bytes(0, made.size)).unwrap();
    }
}

/// Reads every byte of the data set once.
pub(crate) fn check_everything(root: &Path) {
    for number in 0..SMALL_FILES + BIG_FILES {
        let made = Made::of(number);
        made.check(0, &fs::read(root.join(made.path())).unwrap());
    }
}

/// What the clients tell.
#[derive(Debug, Default)]
struct Told {
    stop: AtomicBool,
    operations: AtomicU64,
    /// Operations of the polling client that took long, as begin and end.
    slow: Mutex<Vec<(Instant, Instant)>>,
}

/// Running clients.
#[derive(Debug)]
pub(crate) struct Load {
    told: Arc<Told>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients, and one more that polls for gaps.
    pub(crate) fn start(root: &Path, seed: u64) -> Self {
        let told = Arc::new(Told::default());
        let threads = (0..=CLIENTS)
            .map(|client| {
                let (told, root) = (Arc::clone(&told), root.to_owned());
                let numbers = Numbers::new(seed.wrapping_mul(31).wrapping_add(client));
                let work = move || match client {
                    CLIENTS => poll(&told, &root, numbers),
                    _ => work(&told, &root, numbers),
                };
                std::thread::Builder::new()
                    .name(format!("client{client}"))
                    .spawn(work)
                    .unwrap()
            })
            .collect();
        Self { told, threads }
    }

    /// Fails as soon as a client has failed.
    pub(crate) fn assert_alive(&self) {
        let failed = self
            .threads
            .iter()
            .filter(|thread| thread.is_finished())
            .count();
        assert_eq!(failed, 0, "clients have failed, see above");
    }

    /// Waits until all clients together have done some more.
    pub(crate) fn wait_for_progress(&self) {
        let before = self.told.operations.load(Ordering::Relaxed);
        wait_for("operations", || {
            self.assert_alive();
            self.told.operations.load(Ordering::Relaxed) > before + 200
        });
    }

    /// For each moment the longest operation of the polling client that began before its end.
    pub(crate) fn gaps(&self, moments: &[Instant]) -> Vec<Duration> {
        let longest = self.longest(moments);
        longest.into_iter().map(length).collect()
    }

    /// What each kill cost. One operation that lasted over several kills, because the next worker
    /// was killed before it served, is one gap, of that many kills.
    pub(crate) fn costs(&self, kills: &[Instant]) -> Vec<Duration> {
        self.longest(kills)
            .chunk_by(|left, right| left.is_some() && left == right)
            .map(|kills| length(kills[0]) / u32::try_from(kills.len()).unwrap())
            .collect()
    }

    fn longest(&self, moments: &[Instant]) -> Vec<Option<(Instant, Instant)>> {
        let slow = self.told.slow.lock().unwrap();
        let longest = |moment: &Instant| {
            slow.iter()
                .filter(|(began, ended)| *began <= *moment + AFTER && ended >= moment)
                .max_by_key(|(began, ended)| *ended - *began)
                .copied()
        };
        moments.iter().map(longest).collect()
    }

    /// Stops the clients; how many operations they did. Fails if one of them failed.
    pub(crate) fn finish(self) -> u64 {
        self.told.stop.store(true, Ordering::Relaxed);
        let results: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        let failed = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(failed, 0, "clients have failed, see above");
        self.told.operations.load(Ordering::Relaxed)
    }
}

fn length(operation: Option<(Instant, Instant)>) -> Duration {
    operation.map_or(SLOW, |(began, ended)| ended - began)
}

/// One client: mostly small files, some big ones, listings, and a handle that is kept open.
fn work(told: &Told, root: &Path, mut numbers: Numbers) {
    let mut kept: Option<(Made, File)> = None;
    while !told.stop.load(Ordering::Relaxed) {
        match numbers.below(10) {
            0 => list(root, numbers.below(2)),
            1 => {
                let made = Made::of(SMALL_FILES + numbers.below(BIG_FILES));
                kept = Some((made, File::open(root.join(made.path())).unwrap()));
            }
            2..=4 => {
                if let Some((made, file)) = &kept {
                    read_some(*made, file, &mut numbers);
                }
            }
            _ => {
                let made = Made::of(numbers.below(SMALL_FILES));
                let mut file = File::open(root.join(made.path())).unwrap();
                let mut found = Vec::new();
                file.read_to_end(&mut found).unwrap();
                made.check(0, &found);
            }
        }
        told.operations.fetch_add(1, Ordering::Relaxed);
    }
}

fn read_some(made: Made, file: &File, numbers: &mut Numbers) {
    let offset = numbers.below(made.size / 8) * 8;
    let length = (1 + numbers.below(300_000)).min(made.size - offset);
    let mut found = vec![0; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut found, offset).unwrap();
    made.check(offset, &found);
}

fn list(root: &Path, directory: u64) {
    let entries = fs::read_dir(root.join(format!("d{directory}"))).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(
        names.len() as u64,
        SMALL_FILES / 2,
        "listing of d{directory}"
    );
}

/// The client that measures: every stat asks the worker (names are never believed), opens and reads
/// follow.
fn poll(told: &Told, root: &Path, mut numbers: Numbers) {
    while !told.stop.load(Ordering::Relaxed) {
        let made = Made::of(numbers.below(SMALL_FILES));
        let path = root.join(made.path());
        let began = Instant::now();
        match numbers.below(3) {
            0 => assert_eq!(fs::metadata(&path).unwrap().size(), made.size),
            1 => drop(File::open(&path).unwrap()),
            _ => {
                let mut found = [0; 4096];
                File::open(&path).unwrap().read_exact(&mut found).unwrap();
                made.check(0, &found);
            }
        }
        let ended = Instant::now();
        if ended - began > SLOW {
            told.slow.lock().unwrap().push((began, ended));
        }
        told.operations.fetch_add(1, Ordering::Relaxed);
    }
}
