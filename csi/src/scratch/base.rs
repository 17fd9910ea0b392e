//! The base directory: where it may be, what it holds, and when it is refused.
//!
//! ```text
//! <base>/               0711
//!   terrace-scratch     "terrace-scratch 1 <kind of limits>\n": this is ours, and how it began
//!   LOCK                locks between processes (locks.rs)
//!   ids/<number>        numbers and their owners (ids.rs)
//!   records/            what was promised: volumes and snapshots (records.rs)
//!   node/               what this node has staged and published
//!   volumes/<hash>      volumes; hash of the volume's id
//!   snapshots/<hash>    snapshots, where the file system can
//!   making/<hash>       being made: no limit holds yet, nobody has it
//!   trash/<hash>        being removed
//! ```
//!
//! A base directory that lies on the wrong file system fills the node's root disk, or hides volumes
//! behind a disk that came later. So it is used only below a mount that is really there, it is made
//! only when its file system is the expected one, and a directory that holds something else is not
//! taken over.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::backend::QuotaKind;
use super::error::ScratchError;
use super::tree::{make_directory, set_mode};
use crate::mounts::{MountEntry, mount_of, mount_table};

/// The file that says whose directory it is.
const MARKER: &str = "terrace-scratch";

/// Directories of a base directory; nobody but the driver enters them.
const INSIDE: [&str; 7] = [
    "ids",
    "node",
    "volumes",
    "snapshots",
    "making",
    "trash",
    "records",
];

/// Where the base directory is expected to lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// A mount at this path, and no other one below. `None`: any mount but `/`.
    pub mount: Option<PathBuf>,
    /// The node's root file system will do.
    pub root: bool,
}

/// Finds the file system for a base directory and makes the directory when it is absent.
pub(super) fn prepare(base: &Path, expected: &Expected) -> Result<MountEntry, ScratchError> {
    let refused = |why: String| ScratchError::Base {
        base: base.to_owned(),
        why,
    };
    if !base.is_absolute() {
        return Err(refused("write an absolute path".to_owned()));
    }
    let (above, absent) = nearest(base)?;
    let entries = mount_table()?;
    let entry = mount_of(&entries, &above);
    let entry = entry.ok_or_else(|| refused("no mount is above it".to_owned()))?;
    match &expected.mount {
        Some(mount) if entry.target != *mount => {
            let found = entry.target.display();
            return Err(refused(format!(
                "it lies on the mount {found} and not on {}; mount the disk first",
                mount.display()
            )));
        }
        None if entry.target == Path::new("/") && !expected.root => {
            return Err(refused(
                "it lies on the root file system; mount a disk above it, or allow the root \
                 file system with --scratch-on-root"
                    .to_owned(),
            ));
        }
        _ => {}
    }
    let mut so_far = above;
    for name in absent {
        so_far.push(name);
        make_directory(&so_far, 0o711)?;
    }
    Ok(entry.clone())
}

/// Checks that the directory is ours, or empty, and makes what belongs inside.
pub(super) fn adopt(base: &Path, kind: QuotaKind) -> Result<(), ScratchError> {
    let refused = |why: String| ScratchError::Base {
        base: base.to_owned(),
        why,
    };
    let marker = base.join(MARKER);
    let text = format!("terrace-scratch 1 {kind}\n");
    match fs::read_to_string(&marker) {
        Ok(found) if found == text => {}
        Ok(found) => {
            return Err(refused(format!(
                "it began as {:?} and is opened as {:?}; use another directory for another kind \
                 of limits",
                found.trim(),
                text.trim()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            begin(base, &marker, &text, &refused)?;
        }
        Err(error) => return Err(ScratchError::io("read", &marker)(error)),
    }
    for name in INSIDE {
        let directory = base.join(name);
        match fs::symlink_metadata(&directory) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(refused(format!("{name} in it is no directory"))),
            Err(_) => match make_directory(&directory, 0o700) {
                // Another process of the driver begins at the same time.
                Err(ScratchError::Io { source, .. })
                    if source.kind() == io::ErrorKind::AlreadyExists => {}
                done => done?,
            },
        }
    }
    Ok(())
}

/// Marks an empty directory as ours.
fn begin(
    base: &Path,
    marker: &Path,
    text: &str,
    refused: &dyn Fn(String) -> ScratchError,
) -> Result<(), ScratchError> {
    for entry in fs::read_dir(base).map_err(ScratchError::io("list", base))? {
        let name = entry.map_err(ScratchError::io("list", base))?.file_name();
        let name = name.to_string_lossy().into_owned();
        // The first is made by mkfs; the other is a marker that another process writes just now.
        if name != "lost+found" && !name.starts_with(MARKER) {
            return Err(refused(format!(
                "{name:?} in it is not ours; use an empty directory"
            )));
        }
    }
    set_mode(base, 0o711)?;
    let new = base.join(format!("{MARKER}.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let written = options.open(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(ScratchError::io("write", &new))?;
    fs::rename(&new, marker).map_err(ScratchError::io("rename", &new))?;
    let synced = fs::File::open(base).and_then(|directory| directory.sync_all());
    synced.map_err(ScratchError::io("sync", base))
}

/// The part of a path that exists, and the names that do not. A link anywhere in it is refused.
fn nearest(base: &Path) -> Result<(PathBuf, Vec<std::ffi::OsString>), ScratchError> {
    let mut absent = Vec::new();
    let mut above = base.to_owned();
    loop {
        match fs::symlink_metadata(&above) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                absent.extend(above.file_name().map(ToOwned::to_owned));
                if !above.pop() {
                    break;
                }
            }
            Err(error) => return Err(ScratchError::io("look at", &above)(error)),
        }
    }
    let real = above
        .canonicalize()
        .map_err(ScratchError::io("resolve", &above))?;
    if real != above {
        return Err(ScratchError::Base {
            base: base.to_owned(),
            why: format!(
                "it leads through a link to {}; write that path",
                real.display()
            ),
        });
    }
    absent.reverse();
    Ok((above, absent))
}
