//! The files of a directory that is saved: listed, named, and read with their digests.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use terrace_catalog::DatasetName;
use terrace_catalog::saves::check_saved_path;
use terrace_catalog::upstream::{UpstreamError, UpstreamErrorKind};
use tokio::io::AsyncReadExt;

/// Bytes read from a file at a time.
const PIECE: usize = 4 << 20;

/// A file of the directory.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) path: String,
    pub(super) full: PathBuf,
    pub(super) size: u64,
    pub(super) mtime_ns: i128,
}

/// Every regular file below a directory; links to files count as files. Refuses what cannot be saved.
pub(super) fn list(directory: &Path) -> Result<Vec<Local>> {
    let mut files = Vec::new();
    let mut left = vec![(directory.to_owned(), String::new())];
    while let Some((full, above)) = left.pop() {
        let what = || format!("list {}", full.display());
        for entry in std::fs::read_dir(&full).with_context(what)? {
            let entry = entry.with_context(what)?;
            let full = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                bail!("{} cannot be saved: its name is not UTF-8", full.display());
            };
            let path = format!("{above}{name}");
            check_saved_path(&path).map_err(anyhow::Error::msg)?;
            let what = || format!("look at {}", full.display());
            let metadata = std::fs::metadata(&full).with_context(what)?;
            if metadata.is_dir() {
                if entry.file_type().with_context(what)?.is_symlink() {
                    bail!(
                        "{} is a link to a directory; save its target",
                        full.display()
                    );
                }
                left.push((full, format!("{path}/")));
                continue;
            }
            if !metadata.is_file() {
                bail!("{} is no file and no directory", full.display());
            }
            let seconds = i128::from(metadata.mtime()) * 1_000_000_000;
            files.push(Local {
                path,
                full,
                size: metadata.len(),
                mtime_ns: seconds + i128::from(metadata.mtime_nsec()),
            });
        }
    }
    if files.is_empty() {
        bail!("there are no files in {}", directory.display());
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// Names a save by what is saved: see the module text.
pub(super) fn id_of(model: &DatasetName, files: &[Local]) -> String {
    let mut hash = Sha256::new();
    hash.update(model.as_str());
    for file in files {
        let line = format!("\0{}\0{}\0{}", file.path, file.size, file.mtime_ns);
        hash.update((line.len() as u64).to_le_bytes());
        hash.update(line);
    }
    hex(&hash.finalize()[..16])
}

/// An error of the local disk, on its way through a writer.
pub(super) fn local(error: std::io::Error) -> UpstreamError {
    UpstreamError::new(UpstreamErrorKind::Changed, error.to_string())
}

/// The bytes of a local file in order, with their digest.
pub(super) struct Pieces {
    file: tokio::fs::File,
    left: u64,
    pub(super) hash: Arc<Mutex<Sha256>>,
    bar: ProgressBar,
}

impl Pieces {
    pub(super) async fn open(file: &Local, bar: ProgressBar) -> std::io::Result<Self> {
        Ok(Self {
            file: tokio::fs::File::open(&file.full).await?,
            left: file.size,
            hash: Arc::default(),
            bar,
        })
    }

    /// The next bytes; none at the end. Errors when the file is shorter than it was.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let length = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; length];
        self.file.read_exact(&mut piece).await?;
        self.left -= length as u64;
        self.hash
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .update(&piece);
        self.bar.inc(length as u64);
        Ok(Some(piece.into()))
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
