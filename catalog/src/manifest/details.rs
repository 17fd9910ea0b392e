//! What the files of a partition say about themselves, beside the list of files: a tree of its own, so that
//! who lists or reads files never loads it.
//!
//! ```text
//! note "details" of a partition   64 hexadecimal digits of the tree's root, a space, a text of the owner's
//! tree                            key    path below the partition's directory
//!                                 value  bytes of the owner's, at most MAX_TEXT
//! ```
//!
//! Added to the format without a new number: who does not know the note takes it for a text. An older catalog
//! that collects does not know the tree either and takes it away, so a tree that is gone says nothing, and is
//! no damage.

use std::sync::Arc;

use bytes::Bytes;

use super::block::Sums;
use super::edit::key_in;
use super::entry::{MAX_TEXT, Partition};
use super::tree::{Builder, Kind, Writer};
use super::walk::Walk;
use super::{Manifest, ManifestError};
use crate::blobs::{BlobError, BlobId, Blobs};

/// Name of the note.
const NOTE: &str = "details";
/// Digits of a root.
const DIGITS: usize = 64;

/// About 256 files to a block.
const DETAILS: Kind = Kind {
    mean: 256,
    sums: |_| Ok(Sums::ZERO),
};

/// Stores the details of one partition's files as they come. Dropped, it leaves blobs that nothing names.
#[derive(Debug)]
pub(crate) struct DetailsWriter<'a> {
    partition: String,
    writer: Writer<'a>,
    builder: Builder,
}

impl<'a> DetailsWriter<'a> {
    pub(crate) fn new(blobs: &'a Arc<dyn Blobs>, partition: &str) -> Self {
        Self {
            partition: partition.to_owned(),
            writer: Writer::new(blobs),
            builder: Builder::new(DETAILS),
        }
    }

    /// Adds a file's; files come in the order of their paths. Errors with `Order`, `Path` and `TooLong`.
    pub(crate) async fn push(&mut self, path: &str, value: Vec<u8>) -> Result<(), ManifestError> {
        if value.len() > MAX_TEXT {
            return Err(ManifestError::TooLong("what a file says", value.len()));
        }
        let key = key_in(&self.partition, path)?;
        let entry = (key, Bytes::from(value));
        self.builder.push(&mut self.writer, entry).await
    }

    /// The note of the partition; what it names is durable. `text` is the owner's.
    pub(crate) async fn finish(
        mut self,
        text: &str,
    ) -> Result<(Arc<str>, Arc<str>), ManifestError> {
        let root = self.builder.finish(&mut self.writer).await?;
        self.writer.finish().await?;
        let text = format!("{} {text}", root.id);
        if text.len() > MAX_TEXT {
            return Err(ManifestError::TooLong("a note", text.len()));
        }
        Ok((NOTE.into(), text.into()))
    }
}

impl Partition {
    /// Root of its files' details, and the owner's text, when it has any.
    pub(crate) fn details(&self) -> Option<(BlobId, &str)> {
        let note = self.notes.iter().find(|(name, _)| &**name == NOTE);
        let (digits, rest) = note?.1.split_at_checked(DIGITS)?;
        Some((digits.parse().ok()?, rest.strip_prefix(' ')?))
    }
}

impl Manifest {
    /// Details of the files of a partition behind `after`, up to `last`, by whole path and in order.
    /// Nothing where there are none.
    pub(crate) async fn details_of(
        &self,
        partition: &Partition,
        after: Option<&str>,
        last: &str,
    ) -> Result<Vec<(Arc<str>, Bytes)>, ManifestError> {
        let Some((root, _)) = partition.details() else {
            return Ok(Vec::new());
        };
        match self.details(partition, &root, after, last).await {
            Err(ManifestError::Blob(BlobError::NotFound(_))) => Ok(Vec::new()),
            found => found,
        }
    }

    async fn details(
        &self,
        partition: &Partition,
        root: &BlobId,
        after: Option<&str>,
        last: &str,
    ) -> Result<Vec<(Arc<str>, Bytes)>, ManifestError> {
        let directory = Partition::key_of(&partition.path);
        let below = |path: &str| path.strip_prefix(directory.as_str()).map(str::to_owned);
        let from = after.and_then(below).map_or_else(Vec::new, |after| {
            let mut from = after.into_bytes();
            // The first key behind it.
            from.push(0);
            from
        });
        let mut walk = Walk::begin(&self.blocks, root, &from).await?;
        let mut found = Vec::new();
        while let Some((key, value)) = walk.next().await? {
            let path = [directory.as_bytes(), &key].concat();
            if *path > *last.as_bytes() {
                break;
            }
            let path = String::from_utf8(path);
            let path = path.map_err(|_| ManifestError::Damaged("a path is not UTF-8".into()))?;
            found.push((path.into(), value));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::blobs::DirectoryBlobs;
    use crate::manifest::{FileEntry, Header, ManifestEdit, Reached};

    fn store() -> (tempfile::TempDir, Arc<dyn Blobs>) {
        let directory = tempfile::tempdir().unwrap();
        let blobs = DirectoryBlobs::open(directory.path()).unwrap();
        (directory, Arc::new(blobs))
    }

    fn path(at: usize) -> String {
        format!("dt=1/part-{at:05}")
    }

    /// A manifest of one partition, whose files say their number.
    async fn manifest(blobs: &Arc<dyn Blobs>, files: usize) -> Manifest {
        let mut edit = ManifestEdit::new(blobs, Header::default());
        let entry = |at| FileEntry {
            path: path(at).into(),
            size: 1,
            mtime_ms: 1,
            token: "t".into(),
            rows: None,
            checksum: None,
        };
        let stored = edit.store_files("dt=1", (0..files).map(entry)).await;
        let mut writer = DetailsWriter::new(blobs, "dt=1");
        for at in 0..files {
            let value = at.to_string().into_bytes();
            writer.push(&path(at), value).await.unwrap();
        }
        let notes = BTreeMap::from([writer.finish("an owner's text").await.unwrap()]);
        edit.set_partition("dt=1", Vec::new(), notes, stored.unwrap())
            .unwrap();
        Manifest::open(blobs, &edit.finish().await.unwrap())
            .await
            .unwrap()
    }

    async fn partition(manifest: &Manifest) -> Partition {
        manifest.partition("dt=1").await.unwrap().unwrap()
    }

    #[derive(Default)]
    struct Seen(Vec<BlobId>);

    impl Reached for Seen {
        fn blob(&mut self, id: &BlobId) -> bool {
            let is_new = !self.0.contains(id);
            self.0.push(*id);
            is_new
        }

        fn wants_files(&self) -> bool {
            false
        }

        fn file(&mut self, _path: &str) {}
    }

    // Details of another file are bounds that hide rows; those that a collector does not know, it takes.
    #[tokio::test]
    async fn each_file_has_its_own_and_all_are_reached() {
        let (directory, blobs) = store();
        let manifest = manifest(&blobs, 5000).await;
        let partition = partition(&manifest).await;
        let (root, text) = partition.details().unwrap();
        assert_eq!(text, "an owner's text");
        let (mut after, mut count) = (None, 0);
        for last in [0, 1, 1000, 2023, 4999] {
            let last_path = path(last);
            let found = manifest.details_of(&partition, after.as_deref(), &last_path);
            for (own, value) in found.await.unwrap() {
                assert_eq!(
                    (&*own, &value[..]),
                    (&*path(count), count.to_string().as_bytes())
                );
                count += 1;
            }
            assert_eq!(count, last + 1);
            after = Some(last_path);
        }
        let mut seen = Seen::default();
        manifest.reach(&mut seen).await.unwrap();
        assert!(seen.0.contains(&root));
        // Nothing that was stored is left over, but the empty tree that an edit begins with.
        let stored = std::fs::read_dir(directory.path().join("blobs")).unwrap();
        let stored: usize = stored
            .map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap().count())
            .sum();
        seen.0.sort();
        seen.0.dedup();
        assert_eq!(seen.0.len() + 1, stored);
    }

    // A catalog of before this tree was known collects it: what plans with it goes without, and no version is
    // taken for damaged.
    #[tokio::test]
    async fn a_tree_that_is_gone_says_nothing() {
        let (_directory, blobs) = store();
        let manifest = manifest(&blobs, 3).await;
        let partition = partition(&manifest).await;
        let (root, _) = partition.details().unwrap();
        blobs.delete(&root).await.unwrap();
        let found = manifest.details_of(&partition, None, &path(9)).await;
        assert!(found.unwrap().is_empty());
        manifest.reach(&mut Seen::default()).await.unwrap();
    }

    // The bytes lie in stores for ever; the note is what older catalogs carry from version to version.
    #[tokio::test]
    async fn the_encoding_is_the_golden_one() {
        let (_directory, blobs) = store();
        let manifest = manifest(&blobs, 2).await;
        let (root, _) = partition(&manifest).await.details().unwrap();
        let hex: String = blobs
            .get(&root)
            .await
            .unwrap()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let text = format!("manifest {}\nroot {root}\n{hex}\n", manifest.id());
        assert_eq!(include_str!("../../tests/golden/details-1.txt"), text);
    }
}
