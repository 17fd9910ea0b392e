//! Marking: every blob and every file that some version names.
//!
//! Versions share blocks; a block that was walked before is not walked again, as far as a bounded memory
//! of them goes. Forgetting costs time, never a mark. Lists of files are walked once for each location,
//! because the same list means other files elsewhere.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::marks::{Marked, Marks};
use super::{CollectError, Run};
use crate::blobs::{BlobError, BlobId, BlobName, Blobs};
use crate::ledger::{Ledger, LedgerError, Root};
use crate::manifest::{Manifest, ManifestError, Reached, reach_map};
use crate::vault::{Place, Vaults};

/// Blocks that are remembered as walked: 24 MB or so.
const REMEMBERED: usize = 1 << 20;

/// The key of a blob.
pub(super) fn blob_key(id: &BlobId) -> u128 {
    first(id.as_bytes())
}

/// The key of a file of a vault.
pub(super) fn file_key(vault: &str, path: &str) -> u128 {
    let mut hash = Sha256::new();
    hash.update((vault.len() as u64).to_le_bytes());
    hash.update(vault);
    hash.update(path);
    first(&hash.finalize().into())
}

fn first(digest: &[u8; 32]) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    u128::from_le_bytes(bytes)
}

/// What is told of while a manifest is walked.
struct Marker {
    marks: Marks,
    walked: HashSet<u128>,
    /// URL of the vault and path of the location in it, for files that are the catalog's.
    home: Option<(String, String)>,
}

impl Reached for Marker {
    fn blob(&mut self, id: &BlobId) -> bool {
        self.marks.add(blob_key(id));
        let walked = match &self.home {
            None => blob_key(id),
            Some((vault, path)) => blob_key(id) ^ file_key(vault, path),
        };
        if self.walked.len() >= REMEMBERED {
            self.walked.clear();
        }
        self.walked.insert(walked)
    }

    fn wants_files(&self) -> bool {
        self.home.is_some()
    }

    fn file(&mut self, path: &str) {
        if let Some((vault, home)) = &self.home {
            self.marks.add(file_key(vault, &format!("{home}/{path}")));
        }
    }
}

impl Run<'_> {
    /// Marks everything; the set, and mirror files that newer ones have replaced.
    pub(super) async fn mark(
        &mut self,
        scratch: &Path,
    ) -> Result<(Marked, Vec<BlobName>), CollectError> {
        let mut marker = Marker {
            marks: Marks::new(scratch),
            walked: HashSet::new(),
            home: None,
        };
        for first in [Ledger::first_versions(), Ledger::first_references()] {
            let mut next = Some(first);
            while let Some(range) = next {
                let page = self.ledger.roots_page(range, &self.gone).await?;
                next = page.next;
                for root in page.roots {
                    self.mark_root(root, &mut marker).await?;
                }
            }
        }
        let mirrors = self.ledger.mirror_roots().await?;
        if let Some(name) = mirrors.damaged.first() {
            let text = format!(
                "the mirror file {name} cannot be read, and the database does not know its \
                 version; nothing was taken away; restore the file or remove it"
            );
            return Err(CollectError::Damaged(text));
        }
        self.done.unknown_versions = mirrors.unknown_versions;
        for root in mirrors.roots {
            self.mark_root(root, &mut marker).await?;
        }
        let marks = marker.marks;
        let marked = tokio::task::spawn_blocking(move || marks.finish()).await;
        let disk = |reason: String| CollectError::Disk {
            directory: scratch.display().to_string(),
            reason,
        };
        let marked = marked.map_err(|error| disk(error.to_string()))?;
        let marked = marked.map_err(|error| disk(error.to_string()))?;
        self.done.marked = marked.count() as u64;
        Ok((marked, mirrors.replaced))
    }

    async fn mark_root(&mut self, root: Root, marker: &mut Marker) -> Result<(), CollectError> {
        marker.home = None;
        let blobs = self.ledger.blobs();
        let reached = match root {
            Root::Map(id) => reach_map(blobs, &id, marker).await,
            Root::Manifest(id) => {
                self.done.versions += 1;
                mark_manifest(blobs, &id, self.vaults, marker).await
            }
        };
        match reached {
            Ok(()) => Ok(()),
            // A version may go while it is marked; then its record is gone, too.
            Err(ManifestError::Blob(BlobError::NotFound(what)))
                if !self.is_named(&root).await? =>
            {
                tracing::debug!(%what, "a version was removed while it was marked");
                Ok(())
            }
            Err(ManifestError::Blob(error @ BlobError::Unavailable { .. })) => Err(error.into()),
            Err(error) => Err(CollectError::Damaged(format!(
                "{error}; what it names is not known, so nothing was taken away; run terrace \
                 catalog scrub"
            ))),
        }
    }

    /// Whether some version still names a root. Slow, and only asked when its blobs are not there.
    async fn is_named(&self, wanted: &Root) -> Result<bool, LedgerError> {
        for first in [Ledger::first_versions(), Ledger::first_references()] {
            let mut next = Some(first);
            while let Some(range) = next {
                let page = self.ledger.roots_page(range, &self.gone).await?;
                next = page.next;
                if page.roots.contains(wanted) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

async fn mark_manifest(
    blobs: &Arc<dyn Blobs>,
    id: &BlobId,
    vaults: &Vaults,
    marker: &mut Marker,
) -> Result<(), ManifestError> {
    let manifest = Manifest::open(blobs, id).await?;
    let home = vaults.holder(&manifest.header().location);
    marker.home = home.map(|(vault, path)| (vault.url().to_owned(), path.to_owned()));
    // The list that a save leaves beside its files stays with them.
    if let Some((vault, path)) = &marker.home
        && path.parse::<Place>().is_ok()
    {
        let list = format!("{path}/{}", crate::saves::LIST_NAME);
        marker.marks.add(file_key(vault, &list));
    }
    manifest.reach(marker).await
}
