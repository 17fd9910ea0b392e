//! The base directory: a directory of a shared file system that has other things in it, too. What is
//! ours lies in `.terrace`; where spaces go is made with the first of them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::SpaceError;
use super::name::SpaceKind;
use crate::scratch::ScratchError;
use crate::scratch::tree::make_directory;

/// The file that says whose directory it is.
const MARKER: &str = "terrace-spaces";

/// Its text: the format that this code writes, and the only one that it reads.
const TEXT: &str = "terrace-spaces 1\n";

/// Directories below `.terrace`.
const INSIDE: [&str; 5] = ["ids", "making", "trash", "records", "held"];

/// Where everything lies that is not a space.
pub(super) fn private(base: &Path) -> PathBuf {
    base.join(".terrace")
}

fn refused(base: &Path, why: impl Into<String>) -> SpaceError {
    SpaceError::Base {
        base: base.to_owned(),
        why: why.into(),
    }
}

/// The base directory as a path without links, which holds spaces already.
pub(super) fn find(base: &Path) -> Result<PathBuf, SpaceError> {
    let base = resolve(base)?;
    check(&base)?;
    Ok(base)
}

/// As [`find`], and makes what belongs inside.
pub(super) fn adopt(base: &Path) -> Result<PathBuf, SpaceError> {
    let base = resolve(base)?;
    fill(&base)?;
    Ok(base)
}

/// Whether a directory holds spaces already. The path is used as it is.
fn check(base: &Path) -> Result<(), SpaceError> {
    let marker = private(base).join(MARKER);
    match fs::read_to_string(&marker) {
        Ok(text) if text == TEXT => Ok(()),
        Ok(_) => Err(refused(
            base,
            "its spaces are of another version of terrace",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(refused(
            base,
            "it has no volumes yet; make one with terrace volume create",
        )),
        Err(error) => Err(ScratchError::io("read", &marker)(error).into()),
    }
}

/// Makes what belongs inside of a base directory. The path is used as it is.
pub(super) fn fill(base: &Path) -> Result<(), SpaceError> {
    let inner = private(base);
    ensure(&inner, 0o700)?;
    if fs::metadata(&inner).is_ok_and(|found| found.uid() != nix::unistd::geteuid().as_raw()) {
        return Err(refused(base, ".terrace in it belongs to another user"));
    }
    for name in INSIDE {
        ensure(&inner.join(name), 0o700)?;
    }
    let marker = inner.join(MARKER);
    if !marker.exists() {
        let new = inner.join(format!("{MARKER}.{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let written = options.open(&new).and_then(|mut file| {
            file.write_all(TEXT.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &marker)
        });
        written.map_err(ScratchError::io("write", &marker))?;
    }
    check(base)
}

/// The directory of a kind of spaces; made when absent. Everybody may pass through it, nobody may list
/// it.
pub(super) fn directory_of(base: &Path, kind: SpaceKind) -> Result<PathBuf, SpaceError> {
    let at = base.join(kind.directory());
    ensure(&at, 0o711)?;
    Ok(at)
}

fn resolve(base: &Path) -> Result<PathBuf, SpaceError> {
    let real = base
        .canonicalize()
        .map_err(|error| refused(base, format!("{error}; mount it or make it first")))?;
    if !real.is_dir() {
        return Err(refused(base, "it is no directory"));
    }
    Ok(real)
}

/// A directory that is there, or is made; never a link to one.
fn ensure(at: &Path, mode: u32) -> Result<(), SpaceError> {
    match fs::symlink_metadata(at) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(refused(at, "it is no directory; move it away")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match make_directory(at, mode) {
            // Another node begins at the same time.
            Err(ScratchError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            made => Ok(made?),
        },
        Err(error) => Err(ScratchError::io("look at", at)(error).into()),
    }
}
