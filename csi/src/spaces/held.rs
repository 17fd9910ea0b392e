//! Objects of cold stores that copies name, so that nobody takes them for orphans of the source.
//!
//! ```text
//! <base>/.terrace/held/LOCK      a copy under way holds one byte shared, a collection exclusively
//! <base>/.terrace/held/<hash>    of one copy, for as long as there is something of it; hash of its id
//!
//! file = "terrace-held 1\n" (key "\n")* "end " COUNT "\n"
//! ```
//! A copy has the stubs of its source, and with them the source's objects. Who collects the objects of a volume
//! looks at the records of that volume's tree only; so what a copy names is listed beside all of them. The list
//! is what the copy named when it was made: it may keep an object longer than necessary, never shorter. It is
//! whole before the copy is, and goes after the last file of the copy. Collections never run while a copy is
//! made: what was marked before would be missing in a list that comes later.
//!
//! The byte is the one that openers and movers of files lock, far behind any contents (`i64::MAX - 1`).

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::base::private;
use super::error::SpaceError;
use crate::VolumeId;
use crate::scratch::ScratchError;
use crate::scratch::locks::{Guard, share};

/// First line of a list.
const HEAD: &str = "terrace-held 1\n";

/// The byte that is locked.
const BYTE: i64 = i64::MAX - 1;

/// Where the lists of a base directory are.
pub fn held_directory(base: &Path) -> PathBuf {
    private(base).join("held")
}

/// The list of one copy, while it is written. Without a key there is none.
#[derive(Debug)]
pub(super) struct Held {
    at: PathBuf,
    file: Option<BufWriter<File>>,
    count: u64,
    _alone: Guard,
}

impl Held {
    /// Begins a list, and keeps collections away until it is dropped.
    ///
    /// Errors: `Collecting`.
    pub(super) fn begin(base: &Path, id: &VolumeId) -> Result<Self, SpaceError> {
        let directory = held_directory(base);
        let alone = share(&directory.join("LOCK"), BYTE)?;
        Ok(Self {
            at: directory.join(id.hash()),
            file: None,
            count: 0,
            _alone: alone.ok_or(SpaceError::Collecting)?,
        })
    }

    /// Adds an object.
    pub(super) fn add(&mut self, key: &str) -> Result<(), ScratchError> {
        self.write(key).map_err(ScratchError::io("write", &self.at))
    }

    fn write(&mut self, key: &str) -> std::io::Result<()> {
        if key.contains('\n') {
            return Err(ErrorKind::InvalidData.into());
        }
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).write(true).mode(0o600);
            let mut file = BufWriter::new(options.open(new_name(&self.at))?);
            file.write_all(HEAD.as_bytes())?;
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            writeln!(file, "{key}")?;
        }
        self.count += 1;
        Ok(())
    }

    /// Makes the list count. Durable when it returns.
    pub(super) fn finish(&mut self) -> Result<(), ScratchError> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        let written = writeln!(file, "end {}", self.count).and_then(|()| {
            let file = file.into_inner()?;
            file.sync_all()?;
            fs::rename(new_name(&self.at), &self.at)?;
            File::open(self.at.parent().unwrap_or(Path::new("/")))?.sync_all()
        });
        written.map_err(ScratchError::io("write", &self.at))
    }
}

/// Removes the list of a copy whose files are gone.
pub(super) fn forget(base: &Path, id: &VolumeId) -> Result<(), ScratchError> {
    let at = held_directory(base).join(id.hash());
    for path in [new_name(&at), at] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(ScratchError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn new_name(at: &Path) -> PathBuf {
    at.with_extension("new")
}
