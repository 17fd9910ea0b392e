//! Sweeping: what is listed, old enough and not marked, is taken away.
//!
//! Listings stream and are judged a page at a time, so memory does not grow with them.

use std::sync::Arc;

use futures::StreamExt;

use super::mark::{blob_key, file_key};
use super::marks::Marked;
use super::{CollectError, ItemKind, Run};
use crate::blobs::BlobName;
use crate::upstream::UpFile;
use crate::vault::{Place, Vault};

/// Things that are judged together: one wait for a thread each.
const PAGE: usize = 512;

/// Which of these keys are not marked.
async fn unmarked<T: Send + 'static>(
    marked: &Arc<Marked>,
    page: Vec<(u128, T)>,
) -> Result<Vec<T>, CollectError> {
    let marked = Arc::clone(marked);
    let judge = move || {
        let mut found = Vec::new();
        for (key, thing) in page {
            if !marked.has(key)? {
                found.push(thing);
            }
        }
        Ok::<_, std::io::Error>(found)
    };
    let disk = |reason: String| CollectError::Disk {
        directory: "the scratch directory".to_owned(),
        reason,
    };
    let judged = tokio::task::spawn_blocking(judge).await;
    let judged = judged.map_err(|error| disk(error.to_string()))?;
    judged.map_err(|error| disk(error.to_string()))
}

impl Run<'_> {
    /// Mirror files of datasets, each replaced by one that is durable.
    pub(super) async fn sweep_mirrors(
        &mut self,
        replaced: Vec<BlobName>,
    ) -> Result<(), CollectError> {
        for name in replaced {
            if !self.wanted.dry_run {
                self.ledger.blobs().delete_named(&name).await?;
            }
            self.take(ItemKind::Mirror, name.to_string(), 0).await?;
        }
        Ok(())
    }

    pub(super) async fn sweep_blobs(&mut self, marked: &Arc<Marked>) -> Result<(), CollectError> {
        let mut listing = self.ledger.blobs().list().chunks(PAGE);
        while let Some(listed) = listing.next().await {
            let mut page = Vec::with_capacity(listed.len());
            for blob in listed {
                let blob = blob?;
                self.done.blobs += 1;
                page.push((blob_key(&blob.id), blob));
            }
            for blob in unmarked(marked, page).await? {
                let old = blob.age >= self.wanted.grace;
                let taken = match (old, self.wanted.dry_run) {
                    (false, _) => false,
                    (true, true) => true,
                    (true, false) => {
                        let blobs = self.ledger.blobs();
                        blobs.collect(&blob.id, self.wanted.grace).await?
                    }
                };
                match taken {
                    true => {
                        let name = blob.id.to_string();
                        self.take(ItemKind::Blob, name, blob.size).await?;
                    }
                    false => self.done.young += 1,
                }
            }
        }
        Ok(())
    }

    pub(super) async fn sweep_vault(
        &mut self,
        vault: &Arc<dyn Vault>,
        marked: &Arc<Marked>,
    ) -> Result<(), CollectError> {
        let url = vault.url().to_owned();
        let mut listing = vault.walk("").chunks(PAGE);
        while let Some(listed) = listing.next().await {
            let mut page = Vec::with_capacity(listed.len());
            for file in listed {
                let file = match file {
                    // A vault that nothing was ever written to.
                    Err(error) if error.is_not_found() => return Ok(()),
                    file => file?,
                };
                match Place::of_path(&file.path) {
                    Some((place, _)) => {
                        self.done.files += 1;
                        page.push((file_key(&url, &file.path), (place, file)));
                    }
                    None if &*file.path == super::owner::MARKER => {}
                    None => self.done.foreign += 1,
                }
            }
            for (place, file) in unmarked(marked, page).await? {
                if !self.is_garbage(&place, &file) {
                    self.done.young += 1;
                    continue;
                }
                if !self.wanted.dry_run {
                    vault.remove(&file).await?;
                }
                let name = format!("{url}/{}", file.path);
                self.take(ItemKind::File, name, file.size).await?;
            }
        }
        Ok(())
    }

    /// Whether an unmarked file is old enough, in a place that may be judged.
    fn is_garbage(&self, place: &Place, file: &UpFile) -> bool {
        let limit = self.begun_ms.saturating_sub(self.grace_ms());
        !self.protected.contains(place) && place.named_ms <= limit && file.mtime_ms <= limit
    }
}
