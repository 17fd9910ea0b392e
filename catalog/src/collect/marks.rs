//! A set of many keys in little memory: sorted runs on disk, merged into one, searched through a small
//! index. Exact, but for two keys with the same first 128 bits of SHA-256.
//!
//! ```text
//! add      RUN keys in memory -> sorted, without doubles -> a run on disk
//! finish   runs merged -> one file of keys (16 bytes each, little-endian, in order) and every 256th in memory
//! has      index -> one page of 4 KiB -> binary search
//! ```
//!
//! Ten million keys are 160 MB on disk, 16 MB in memory while adding (one run) and 0.6 MB while
//! searching. A Bloom filter would be smaller and keep some garbage by chance; a run that is asked what
//! it would do must do exactly that. Files have no name once they are open: a crash leaves nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Keys of one run.
const RUN: usize = 1 << 20;
/// Keys of one page.
const PAGE: usize = 256;
/// Bytes of a key.
const KEY: usize = 16;

/// A set that is being made.
#[derive(Debug)]
pub struct Marks {
    directory: PathBuf,
    keys: Vec<u128>,
    runs: Vec<File>,
    run: usize,
    /// The first error of a disk: `finish` tells it.
    failed: Option<std::io::Error>,
}

/// A set that is made.
#[derive(Debug)]
pub struct Marked {
    file: File,
    /// The first key of each page.
    index: Vec<u128>,
    count: usize,
}

impl Marks {
    /// Runs are kept in this directory while it lives.
    pub fn new(directory: &Path) -> Self {
        Self::with_run(directory, RUN)
    }

    fn with_run(directory: &Path, run: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            keys: Vec::new(),
            runs: Vec::new(),
            run,
            failed: None,
        }
    }

    /// Adds a key. An error is told by [`Marks::finish`].
    pub fn add(&mut self, key: u128) {
        self.keys.push(key);
        if self.keys.len() >= self.run
            && self.failed.is_none()
            && let Err(error) = self.spill()
        {
            self.failed = Some(error);
        }
    }

    fn spill(&mut self) -> std::io::Result<()> {
        self.keys.sort_unstable();
        self.keys.dedup();
        let mut out = BufWriter::new(unnamed(&self.directory)?);
        for key in self.keys.drain(..) {
            out.write_all(&key.to_le_bytes())?;
        }
        let mut file = out.into_inner().map_err(|error| error.into_error())?;
        file.seek(SeekFrom::Start(0))?;
        self.runs.push(file);
        Ok(())
    }

    /// Merges the runs. Blocks.
    pub fn finish(mut self) -> std::io::Result<Marked> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.spill()?;
        let mut readers: Vec<BufReader<File>> = self.runs.drain(..).map(BufReader::new).collect();
        let mut heap = BinaryHeap::new();
        for (at, reader) in readers.iter_mut().enumerate() {
            heap.extend(next(reader)?.map(|key| Reverse((key, at))));
        }
        let mut out = BufWriter::new(unnamed(&self.directory)?);
        let (mut index, mut count, mut last) = (Vec::new(), 0, None);
        while let Some(Reverse((key, at))) = heap.pop() {
            heap.extend(next(&mut readers[at])?.map(|key| Reverse((key, at))));
            if last == Some(key) {
                continue;
            }
            if count % PAGE == 0 {
                index.push(key);
            }
            out.write_all(&key.to_le_bytes())?;
            count += 1;
            last = Some(key);
        }
        let file = out.into_inner().map_err(|error| error.into_error())?;
        Ok(Marked { file, index, count })
    }
}

impl Marked {
    /// Number of keys.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether a key was added. Blocks for a page.
    pub fn has(&self, key: u128) -> std::io::Result<bool> {
        let Some(page) = self
            .index
            .partition_point(|first| *first <= key)
            .checked_sub(1)
        else {
            return Ok(false);
        };
        let from = page * PAGE;
        let length = (self.count - from).min(PAGE);
        let mut bytes = [0; PAGE * KEY];
        let bytes = &mut bytes[..length * KEY];
        self.file.read_exact_at(bytes, (from * KEY) as u64)?;
        let keys = bytes.as_chunks::<KEY>().0;
        Ok(keys
            .binary_search_by_key(&key, |bytes| u128::from_le_bytes(*bytes))
            .is_ok())
    }
}

fn next(reader: &mut BufReader<File>) -> std::io::Result<Option<u128>> {
    let mut bytes = [0; KEY];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u128::from_le_bytes(bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that goes with its descriptor.
fn unnamed(directory: &Path) -> std::io::Result<File> {
    let path = directory.join(format!("marks-{:032x}", rand::random::<u128>()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // A key that is added and not found is a live file that is taken away.
        #[test]
        fn the_set_has_what_was_added(keys in prop::collection::vec(0u128..3000, 0..2000)) {
            let directory = tempfile::tempdir().unwrap();
            let mut marks = Marks::with_run(directory.path(), 100);
            keys.iter().for_each(|key| marks.add(*key));
            let marked = marks.finish().unwrap();
            let expected: BTreeSet<u128> = keys.into_iter().collect();
            prop_assert_eq!(marked.count(), expected.len());
            for key in 0..3001 {
                prop_assert_eq!(marked.has(key).unwrap(), expected.contains(&key));
            }
            prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }

    // Without it a full disk would leave out marks, and the sweep would take what they stand for.
    #[test]
    fn a_lost_run_is_an_error() {
        let mut marks = Marks::with_run(Path::new("/nonexistent"), 10);
        (0..30).for_each(|key| marks.add(key));
        assert!(marks.finish().is_err());
    }
}
