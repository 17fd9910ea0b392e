//! Copies of images.
//!
//! ```text
//! file system with reflinks   sync what is mounted -> FICLONE: the image of one moment, as after a loss of power
//! other file systems          the data of an image that nobody has mounted, byte for byte; holes stay holes
//! either                      -> allocated in full where blocks are its own -> mounted once, which ends the journal
//! ```
//! A frozen file system would also be of one moment, but stays frozen, with every program that writes, when the
//! driver dies before it thaws it: so an image that is mounted is copied by reference or not at all.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek, syncfs};

use super::{Image, mount_of_image};
use crate::scratch::backend::{Backend, Limit};
use crate::scratch::copy::clone_into;
use crate::scratch::error::ScratchError;
use crate::scratch::tree::make_directory;

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

impl Image {
    /// Makes `at` as a copy of the image that lies in `from`.
    pub(super) fn copy_image(
        &self,
        from: &Path,
        at: &Path,
        limit: Limit,
    ) -> Result<(), ScratchError> {
        make_directory(at, 0o700)?;
        let (from, image) = (from.join("image"), at.join("image"));
        let source = File::open(&from).map_err(ScratchError::io("open", &from))?;
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let made = options.open(&image);
        let target = made.map_err(ScratchError::io("make", &image))?;
        if self.reflinks {
            if let Some(entry) = mount_of_image(&from)? {
                let top = File::open(&entry.target);
                let synced = top.and_then(|top| Ok(syncfs(&top)?));
                synced.map_err(ScratchError::io("sync", &entry.target))?;
            }
            clone_into(&source, &target).map_err(ScratchError::io("share the blocks of", &from))?;
        } else {
            copy_data(&source, &target).map_err(ScratchError::io("copy", &from))?;
        }
        let length = source
            .metadata()
            .map_err(ScratchError::io("look at", &from))?;
        drop((source, target));
        // Blocks of holes: those that are shared stay so.
        Self::allocate(&image, length.size())?;
        self.mounted(at, |_| Ok(()))?;
        match limit.bytes > length.size() {
            true => self.resize(at, 0, limit),
            false => Ok(()),
        }
    }
}

/// Copies what a file has, and leaves its holes; the target is empty.
fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.size();
    target.set_len(length)?;
    let mut piece = vec![0; PIECE];
    let seek = |at: u64, whence| -> io::Result<Option<u64>> {
        let at = i64::try_from(at).map_err(io::Error::other)?;
        match lseek(source, at, whence) {
            Ok(found) => u64::try_from(found).map(Some).map_err(io::Error::other),
            // Nothing but a hole to the end.
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    };
    let mut at = 0;
    while let Some(data) = seek(at, Whence::SeekData)? {
        let end = seek(data, Whence::SeekHole)?.unwrap_or(length);
        at = data;
        while at < end {
            let most = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            let read = source.read_at(&mut piece[..most], at)?;
            if read == 0 {
                return Ok(());
            }
            target.write_all_at(&piece[..read], at)?;
            at += read as u64;
        }
    }
    Ok(())
}
