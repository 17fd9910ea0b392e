//! Which files of a version stand in which of its manifests.
//!
//! ```text
//! partitions in order      p1: 3000 files      p2: 3000 files      p3: left out      p4: 9000 files
//! manifests of 4096        [3000        1096] [1904                                  2192] [4096] ..
//! ```
//!
//! A pass over the partitions decides it, without their files, but for partitions of more files than
//! one manifest takes: there the paths at which manifests begin are read too.

use std::sync::Arc;

use super::judge::{Judge, LeftOut, PAGE};
use crate::manifest::{Manifest, ManifestError, Partition};

/// Files of one manifest: about a megabyte, which is read in one piece.
pub(super) const FILES: u64 = 4096;

/// Where one manifest begins, and how much it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// The partition before its first one.
    pub(super) after: Option<Arc<str>>,
    /// The file before its first one, when that is not the first of its partition.
    pub(super) file_after: Option<Arc<str>>,
    /// Its files.
    pub(super) files: u64,
}

/// All manifests of a version.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    pub(super) cuts: Vec<Cut>,
    pub(super) left_out: LeftOut,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) rows: u64,
}

/// Decides about all manifests of a version.
pub(super) async fn cuts(manifest: &Manifest, judge: &Judge) -> Result<Cuts, ManifestError> {
    let mut all = Cuts::default();
    let mut after: Option<Arc<str>> = None;
    loop {
        let page = manifest.partitions(after.as_deref(), PAGE).await?;
        for partition in &page {
            match judge.values(partition) {
                Ok(_) => all.add(manifest, partition, after.as_ref()).await?,
                Err(why) => all.left_out.add(partition, why),
            }
            after = Some(Arc::clone(&partition.path));
        }
        if page.len() < PAGE {
            return Ok(all);
        }
    }
}

impl Cuts {
    async fn add(
        &mut self,
        manifest: &Manifest,
        partition: &Partition,
        after: Option<&Arc<str>>,
    ) -> Result<(), ManifestError> {
        self.files += partition.files;
        self.bytes += partition.bytes;
        self.rows += partition.rows.unwrap_or(0);
        let mut left = partition.files;
        let mut file_after: Option<Arc<str>> = None;
        while left > 0 {
            let full = self.cuts.last().is_none_or(|cut| cut.files == FILES);
            if full {
                self.cuts.push(Cut {
                    after: after.map(Arc::clone),
                    file_after: file_after.clone(),
                    files: 0,
                });
            }
            let Some(cut) = self.cuts.last_mut() else {
                return Ok(());
            };
            let taken = left.min(FILES - cut.files);
            cut.files += taken;
            left -= taken;
            if left > 0 {
                file_after = nth(manifest, partition, file_after.as_deref(), taken).await?;
            }
        }
        Ok(())
    }
}

/// The path of the `count`th file behind `after`.
async fn nth(
    manifest: &Manifest,
    partition: &Partition,
    after: Option<&str>,
    count: u64,
) -> Result<Option<Arc<str>>, ManifestError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let files = manifest.files_of(partition, after, count).await?;
    Ok(files.last().map(|file| Arc::clone(&file.path)))
}
