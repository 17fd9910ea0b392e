//! Spaces that begin as a copy of another one: snapshots of volumes of Kubernetes, and volumes made from either.
//!
//! ```text
//! create   making/<hash>, limit -> copied tree, owner and mode too -> list of objects (held.rs) -> as any other
//! ```
//! A kill leaves what was being made, which the next call or a removal takes away: a space appears whole.
//!
//! Lock order: the source's, then the new one's, both tried and never waited for; then the shared byte of the
//! lists.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::error::SpaceError;
use super::held::Held;
use super::name::SpaceName;
use super::record::{Enforcer, SpaceRecord};
use super::store::{NewSpace, Spaces};
use crate::contents::Contents;
use crate::scratch::ScratchError;
use crate::scratch::copy::{Tree, copy_tree, reflinks};

/// What a space is a copy of.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The spaces that it is one of.
    pub spaces: &'a Spaces,
    /// Its name.
    pub name: &'a SpaceName,
    /// How refusals name the directory of these spaces.
    pub shown: &'a Path,
    /// Where the contents of its files are.
    pub contents: &'a dyn Contents,
}

impl Spaces {
    /// Whether files here can share blocks, so that copies are possible. Tries it.
    pub fn copies(&self) -> Result<bool, SpaceError> {
        Ok(reflinks(&self.base)?)
    }

    /// As [`Spaces::create`], of a space that has what another one has now. The other one cannot be deleted
    /// meanwhile; it may be written, see `scratch/copy.rs`.
    ///
    /// Errors: those of `create`; `NotFound` and `Exchanged` for the origin, `Collecting`, what the copy of a
    /// tree is refused for.
    pub fn create_copy(
        &self,
        asked: &NewSpace,
        origin: Origin<'_>,
    ) -> Result<SpaceRecord, SpaceError> {
        let source = origin.spaces;
        let _held = source.hold(origin.name, &Self::id(origin.name))?;
        let record = source.space(origin.name)?;
        let from = open(source, &record)?;
        // The objects of a copy are listed where those look who collect the objects of its origin.
        let is_beside = same_directory(&self.base, &source.base)?;
        self.create_filled(asked, &|id, making| {
            let mut list = Held::begin(&self.base, id)?;
            copy_tree(Tree {
                from: from.as_fd(),
                to: making.as_fd(),
                shown: &origin.shown.join(record.name.to_string()),
                contents: origin.contents,
                named: &mut |key| match is_beside {
                    true => list.add(key),
                    false => Err(elsewhere(origin.shown)),
                },
            })?;
            Ok(list.finish()?)
        })
    }

    /// Whether the file system keeps the limit of a space.
    ///
    /// Errors: `NotFound`.
    pub fn is_kept_below(&self, name: &SpaceName) -> Result<bool, SpaceError> {
        Ok(self.space(name)?.enforcer != Enforcer::Daemon)
    }
}

fn same_directory(one: &Path, other: &Path) -> Result<bool, ScratchError> {
    let number = |at: &Path| -> Result<_, ScratchError> {
        let found = std::fs::metadata(at).map_err(ScratchError::io("look at", at))?;
        Ok((found.dev(), found.ino()))
    };
    Ok(number(one)? == number(other)?)
}

fn elsewhere(base: &Path) -> ScratchError {
    ScratchError::Unsupported {
        what: "a copy into another directory of volumes",
        base: base.to_owned(),
        why: "contents of its files are in the cold store; copy it within the same directory, or bring them back \
              first (terrace volume recall)"
            .to_owned(),
    }
}

/// The directory of a space, open, and the one that was made for it.
fn open(spaces: &Spaces, record: &SpaceRecord) -> Result<File, SpaceError> {
    let at = spaces.path(&record.name);
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
    let file = options.open(&at).map_err(ScratchError::io("open", &at))?;
    let found = file.metadata().map_err(ScratchError::io("look at", &at))?;
    if found.ino() == record.inode {
        return Ok(file);
    }
    spaces.check(record, &at)?;
    // It was exchanged and put back between two looks.
    Err(SpaceError::Busy(record.name.clone()))
}
