//! Copying the files of a managed table to the catalog's own place; see `managed.rs`.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use sha2::{Digest as _, Sha256};

use super::super::check::full;
use super::super::head::files_of;
use super::super::publish::{Plan, PublishError, Target};
use super::super::table::Published;
use super::{AT_ONCE, Kept, Rest, entry_of, give_up, put_again, renew, set_storage, upstream_file};
use crate::digest::{Pace, Sum, digest_of};
use crate::ledger::{Dataset, Save};
use crate::manifest::{Checksum, FileEntry, Header, Manifest, ManifestEdit};
use crate::saves::LEASE;
use crate::upstream::{UpFile, Upstream, UpstreamError, UpstreamErrorKind};
use crate::vault::{Place, Vault, content};

/// Copies under way.
pub(super) struct Copies<'a> {
    target: &'a Target<'a>,
    published: &'a Published,
    vault: &'a Arc<dyn Vault>,
    save: Save,
    /// The place is that of the version before.
    stays: bool,
}

impl<'a> Copies<'a> {
    /// Decides where: the place of the version before, unless a path would get other bytes there.
    pub(super) async fn begin(
        target: &'a Target<'a>,
        published: &'a Published,
        plan: &Plan,
    ) -> Result<Self, PublishError> {
        let dataset = target.ledger.dataset(&target.descriptor.name).await?;
        let header = published.manifest.as_ref().map(Manifest::header);
        let home = header.and_then(|header| target.vaults.holder(&header.location));
        let place: Option<Place> = home.and_then(|(_, path)| path.parse().ok());
        let none = || PublishError::Unreachable("there is no place for copies".to_owned());
        let vault = match home {
            Some((vault, _)) if place.is_some() => vault,
            _ => target.vaults.find(None).ok_or_else(none)?,
        };
        let mut copies = Self {
            target,
            published,
            vault,
            save: begin_save(target, &dataset, vault, place.as_ref()).await?,
            stays: place.is_some(),
        };
        let conflicts = match copies.stays {
            true => copies.conflicts(plan).await,
            false => Ok(false),
        };
        if !matches!(conflicts, Ok(false)) {
            give_up(target, Some(&copies.save)).await;
        }
        if conflicts? {
            copies.save = begin_save(target, &dataset, vault, None).await?;
            copies.stays = false;
        }
        Ok(copies)
    }

    /// The save under which all of it happens.
    pub(super) fn save(&self) -> &Save {
        &self.save
    }

    /// Whether a path of the plan has other bytes in the place already.
    async fn conflicts(&self, plan: &Plan) -> Result<bool, PublishError> {
        for file in plan.ready.iter().flat_map(|ready| &ready.files) {
            let path = self.path(&file.path);
            match self.vault.head(&path).await {
                Err(error) if error.is_not_found() => continue,
                Ok(there) if there.size != file.size => return Ok(true),
                Ok(there) => {
                    let own = digest_of(self.vault.as_ref(), &there, &Pace::new(0), |_| {}).await?;
                    if own != self.sum_of(file).await? {
                        return Ok(true);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    async fn sum_of(&self, file: &UpFile) -> Result<Sum, UpstreamError> {
        let file = full(self.target.directory, file);
        digest_of(self.target.upstream, &file, &Pace::new(0), |_| {}).await
    }

    pub(super) async fn run(
        self,
        plan: &Plan,
        edit: &mut ManifestEdit,
    ) -> Result<Kept, PublishError> {
        let mut lists = Vec::with_capacity(plan.ready.len());
        for ready in &plan.ready {
            let files = ready.files.iter().map(|file| {
                let from = full(self.target.directory, file);
                self.copy(file, self.target.upstream, from).boxed()
            });
            let files: Vec<BoxFuture<'_, _>> = files.collect();
            lists.push(stream::iter(files).buffered(AT_ONCE).try_collect().await?);
            renew(self.target, &self.save).await?;
        }
        if let (Some(manifest), false) = (&self.published.manifest, self.stays) {
            let mut rest = Rest::of(plan);
            while let Some(partition) = rest.next(manifest).await? {
                let files = files_of(manifest, &partition).await?;
                let files = self.carry(manifest.header(), files).await?;
                put_again(edit, &partition, files).await?;
                renew(self.target, &self.save).await?;
            }
        }
        set_storage(edit.header_mut(), &self.save.location(), "copied");
        Ok(Kept {
            lists,
            save: Some(self.save),
        })
    }

    /// Copies one file, reads the copy back, and compares.
    async fn copy(
        &self,
        file: &UpFile,
        source: &dyn Upstream,
        from: UpFile,
    ) -> Result<FileEntry, UpstreamError> {
        let path = self.path(&file.path);
        let hash = Mutex::new(Sha256::new());
        let lock = || hash.lock().unwrap_or_else(PoisonError::into_inner);
        let there = match self.stays {
            // `conflicts` has seen that it is what it should be.
            true => match self.vault.head(&path).await {
                Err(error) if error.is_not_found() => None,
                there => Some(there?),
            },
            false => None,
        };
        let (copy, expected): (UpFile, Option<Sum>) = match there {
            Some(there) => (there, None),
            None => {
                let bytes = content(source, from, |bytes| lock().update(bytes));
                let copy = self.vault.put(&path, bytes).await?;
                let sum = lock().clone().finalize().into();
                (copy, Some(sum))
            }
        };
        let sum = digest_of(self.vault.as_ref(), &copy, &Pace::new(0), |_| {}).await?;
        if expected.is_some_and(|expected| expected != sum) {
            let text = format!("{}: its copy has other bytes", file.path);
            return Err(UpstreamError::new(UpstreamErrorKind::Corrupt, text));
        }
        Ok(FileEntry {
            token: copy.token,
            checksum: Some(Checksum::Sha256(sum)),
            ..entry_of(file)
        })
    }

    /// Brings files of the version before to the new place.
    async fn carry(
        &self,
        header: &Header,
        files: Vec<FileEntry>,
    ) -> Result<Vec<FileEntry>, PublishError> {
        let home = self.target.vaults.holder(&header.location);
        let one = |entry: FileEntry| async move {
            let file = UpFile {
                path: Arc::clone(&entry.path),
                size: entry.size,
                mtime_ms: entry.mtime_ms,
                token: Arc::clone(&entry.token),
            };
            let Some((old, above)) = home else {
                let from = upstream_file(self.target, &entry);
                let copied = self.copy(&file, self.target.upstream, from).await?;
                let rows = entry.rows;
                return Ok::<_, UpstreamError>(FileEntry { rows, ..copied });
            };
            let from = UpFile {
                path: format!("{above}/{}", entry.path).into(),
                ..file.clone()
            };
            if old.url() == self.vault.url()
                && let Some(linked) = self.vault.link(&from, &self.path(&entry.path)).await?
            {
                let token = linked.token;
                return Ok(FileEntry { token, ..entry });
            }
            let copied = self.copy(&file, old.as_ref(), from).await?;
            let rows = entry.rows;
            Ok(FileEntry { rows, ..copied })
        };
        let all: Vec<BoxFuture<'_, _>> = files.into_iter().map(|file| one(file).boxed()).collect();
        Ok(stream::iter(all).buffered(AT_ONCE).try_collect().await?)
    }

    fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.save.place)
    }
}

/// A save for copies, in a place that is there or a new one.
async fn begin_save(
    target: &Target<'_>,
    dataset: &Dataset,
    vault: &Arc<dyn Vault>,
    place: Option<&Place>,
) -> Result<Save, PublishError> {
    let id = format!("copy:{:032x}", rand::random::<u128>()).parse();
    let id = id.map_err(|error: crate::NameError| PublishError::Unreachable(error.to_string()))?;
    let ledger = target.ledger;
    Ok(ledger
        .begin_save_at(dataset, &id, vault.url(), place, LEASE)
        .await?)
}
