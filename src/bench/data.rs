//! The files a benchmark reads: found in the directory, never made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Files from this size on are read sequentially and at random.
pub(crate) const LARGE_BYTES: u64 = 64 << 20;
/// Files up to this size are read whole, in shuffled order.
pub(crate) const SMALL_BYTES: u64 = 1 << 20;
/// So many small files at most are read in one run.
const SMALL_FILES_MAX: usize = 20_000;

/// What a directory offers to the suites.
#[derive(Debug)]
pub(crate) struct Sample {
    /// The directory.
    pub(crate) root: PathBuf,
    /// Relative path to size of every regular file.
    pub(crate) files: BTreeMap<PathBuf, u64>,
    /// Number of directories and files.
    pub(crate) entries: u64,
    /// The largest file of at least [`LARGE_BYTES`].
    pub(crate) large: Option<(PathBuf, u64)>,
    /// Small files in an order shuffled with a fixed seed.
    pub(crate) small: Vec<PathBuf>,
}

impl Sample {
    /// Walks `root`. Errors: an unreadable directory, or no file at all.
    pub(crate) fn collect(root: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut entries = 0;
        let mut open = vec![PathBuf::new()];
        while let Some(dir) = open.pop() {
            let path = root.join(&dir);
            let list = fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
            for entry in list {
                let entry = entry.with_context(|| format!("list {}", path.display()))?;
                let relative = dir.join(entry.file_name());
                let kind = entry.file_type().context("read an entry's type")?;
                entries += 1;
                if kind.is_dir() {
                    open.push(relative);
                } else if kind.is_file() {
                    let size = entry.metadata().context("stat an entry")?.len();
                    files.insert(relative, size);
                }
            }
        }
        if files.is_empty() {
            bail!(
                "{} holds no file; name a directory with data",
                root.display()
            );
        }
        Ok(Self::of(root, files, entries))
    }

    fn of(root: &Path, files: BTreeMap<PathBuf, u64>, entries: u64) -> Self {
        let large = files
            .iter()
            .filter(|(_, size)| **size >= LARGE_BYTES)
            .max_by_key(|(_, size)| **size)
            .map(|(path, size)| (root.join(path), *size));
        let mut small: Vec<_> = files
            .iter()
            .filter(|(_, size)| (1..=SMALL_BYTES).contains(*size))
            .collect();
        small.shuffle(&mut StdRng::seed_from_u64(1));
        small.truncate(SMALL_FILES_MAX);
        let small = small.into_iter().map(|(path, _)| root.join(path)).collect();
        Self {
            root: root.to_owned(),
            entries,
            large,
            small,
            files,
        }
    }

    /// Fails when the other directory does not hold the same names and sizes.
    pub(crate) fn same_files(&self, other: &Self) -> Result<()> {
        if let Some((path, size)) = self
            .files
            .iter()
            .find(|(p, s)| other.files.get(*p) != Some(s))
        {
            bail!(
                "{} ({size} bytes) is not the same in both; copy the tree first: cp -a {}/. {}",
                path.display(),
                self.root.display(),
                other.root.display()
            );
        }
        if let Some(path) = other
            .files
            .keys()
            .find(|path| !self.files.contains_key(*path))
        {
            bail!("{} is only in {}", path.display(), other.root.display());
        }
        Ok(())
    }
}
