//! What a collector must not take: what versions name, in the database and in the mirror files.
//!
//! Both are asked on purpose. A version that only a mirror file tells of is one that a lost or restored
//! database does not know (yet): `rebuild` will want what it names. Every version with a record is a
//! root, also one that is being removed: it can still be kept. Tags, days and holds name versions that
//! have a record (invariants 3 and 4 of `ledger`), so they add nothing.

use std::collections::HashSet;

use bytes::Bytes;
use futures::StreamExt;

use super::key::{Keys, Table, id_of, is_ledger_key, last_number};
use super::mirror::is_dataset_file;
use super::record::{DatasetMirror, RefRecord, VersionMirror, VersionRecord, decode};
use super::{DatasetId, Ledger, LedgerError, Tenant};
use crate::blobs::{BlobId, BlobName};
use crate::kv::KeyRange;

/// Records that are read in one page.
const PAGE: usize = 256;

/// Something whose blobs must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// A manifest, with its files.
    Manifest(BlobId),
    /// A map of source sequences.
    Map(BlobId),
}

/// A page of roots, and where the next one begins.
#[derive(Debug, Default)]
pub(crate) struct RootPage {
    pub(crate) roots: Vec<Root>,
    pub(crate) next: Option<KeyRange>,
}

/// What mirror files say beyond the database.
#[derive(Debug, Default)]
pub(crate) struct MirrorRoots {
    pub(crate) roots: Vec<Root>,
    /// Versions that the database does not know.
    pub(crate) unknown_versions: u64,
    /// Mirror files that cannot be read: what they name is not known.
    pub(crate) damaged: Vec<BlobName>,
    /// Files of datasets that a newer one has replaced.
    pub(crate) replaced: Vec<BlobName>,
}

impl Ledger {
    /// The first versions of all tenants, from which [`Ledger::roots_page`] goes on.
    pub(crate) fn first_versions() -> KeyRange {
        KeyRange::prefix(&Keys::everyone(Table::Version))
    }

    /// The first references of all tenants: heads have maps of their own.
    pub(crate) fn first_references() -> KeyRange {
        KeyRange::prefix(&Keys::everyone(Table::Ref))
    }

    /// What the next versions or references name; without those of versions that are taken for removed.
    pub(crate) async fn roots_page(
        &self,
        range: KeyRange,
        gone: &HashSet<(DatasetId, u64)>,
    ) -> Result<RootPage, LedgerError> {
        let versions = range.start().first() == Some(&(Table::Version as u8));
        let found = self.kv.scan(range.clone(), PAGE).await?;
        let mut roots = Vec::with_capacity(found.len());
        for (key, stored) in found.iter().filter(|(key, _)| is_ledger_key(key)) {
            let map = if versions {
                if id_of(key)
                    .zip(last_number(key))
                    .is_some_and(|version| gone.contains(&version))
                {
                    continue;
                }
                let record: VersionRecord = decode(&stored.value)?;
                roots.push(Root::Manifest(record.manifest.parse()?));
                record.sequences
            } else {
                decode::<RefRecord>(&stored.value)?.sequences
            };
            roots.extend(map.map(|map| map.parse().map(Root::Map)).transpose()?);
        }
        let next = match found.last() {
            Some((last, _)) if found.len() == PAGE => Some(range.after(last)),
            _ => None,
        };
        Ok(RootPage { roots, next })
    }

    /// What mirror files of versions say that the database does not know.
    pub(crate) async fn mirror_roots(&self) -> Result<MirrorRoots, LedgerError> {
        let mut found = MirrorRoots::default();
        let mut files = self.blobs.list_named("datasets");
        let mut newest: std::collections::HashMap<DatasetId, BlobName> = Default::default();
        let mut page = Vec::with_capacity(PAGE);
        while let Some(name) = files.next().await {
            let name = name?;
            if is_dataset_file(&name) {
                let Some((_, id, _)) = parts(&name) else {
                    continue;
                };
                // Names of one dataset sort by revision.
                let replaced = match newest.get_mut(&id) {
                    Some(newer) if *newer >= name => Some(name),
                    Some(older) => Some(std::mem::replace(older, name)),
                    None => {
                        newest.insert(id, name);
                        None
                    }
                };
                found.replaced.extend(replaced);
                continue;
            }
            page.push(name);
            if page.len() == PAGE {
                self.mirror_page(std::mem::take(&mut page), &mut found)
                    .await?;
            }
        }
        self.mirror_page(page, &mut found).await?;
        let newest: Vec<BlobName> = newest.into_values().collect();
        for names in newest.chunks(PAGE) {
            self.dataset_page(names, &mut found).await?;
        }
        Ok(found)
    }

    async fn mirror_page(
        &self,
        names: Vec<BlobName>,
        found: &mut MirrorRoots,
    ) -> Result<(), LedgerError> {
        let named = names.into_iter().filter_map(|name| {
            let (tenant, id, number) = parts(&name)?;
            Some((Keys { tenant }.version(id, number), name))
        });
        let (keys, names): (Vec<Bytes>, Vec<BlobName>) = named.unzip();
        for (name, record) in names.into_iter().zip(self.kv.get_many(&keys).await?) {
            if record.is_some() {
                continue;
            }
            match self.read_mirror::<VersionMirror>(&name).await? {
                None => {}
                Some(Ok(mirror)) => {
                    found.unknown_versions += 1;
                    found
                        .roots
                        .push(Root::Manifest(mirror.version.manifest.parse()?));
                    let map = mirror.version.sequences.map(|map| map.parse());
                    found.roots.extend(map.transpose()?.map(Root::Map));
                }
                Some(Err(())) => found.damaged.push(name),
            }
        }
        Ok(())
    }

    /// Heads of datasets that the database does not know.
    async fn dataset_page(
        &self,
        names: &[BlobName],
        found: &mut MirrorRoots,
    ) -> Result<(), LedgerError> {
        let keys: Vec<Bytes> = names
            .iter()
            .filter_map(parts)
            .map(|(tenant, id, _)| Keys { tenant }.dataset(id))
            .collect();
        for (name, record) in names.iter().zip(self.kv.get_many(&keys).await?) {
            if record.is_some() {
                continue;
            }
            match self.read_mirror::<DatasetMirror>(name).await? {
                None => {}
                Some(Ok(mirror)) => {
                    let map = mirror.sequences.map(|map| map.parse());
                    found.roots.extend(map.transpose()?.map(Root::Map));
                }
                Some(Err(())) => found.damaged.push(name.clone()),
            }
        }
        Ok(())
    }

    /// A mirror file; none when it was removed meanwhile, an error inside when it cannot be read.
    async fn read_mirror<T: super::record::Record>(
        &self,
        name: &BlobName,
    ) -> Result<Option<Result<T, ()>>, LedgerError> {
        match self.blobs.get_named(name).await {
            Ok(bytes) => Ok(Some(decode::<T>(&bytes).map_err(drop))),
            Err(crate::blobs::BlobError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Tenant, dataset and number (of a version, or a revision) in the name of a mirror file.
fn parts(name: &BlobName) -> Option<(Tenant, DatasetId, u64)> {
    let mut segments = name.as_str().split('/').skip(1);
    let tenant = u32::from_str_radix(segments.next()?, 16).ok()?;
    let id = u64::from_str_radix(segments.next()?, 16).ok()?;
    let file = segments.next()?.strip_suffix(".json")?;
    let (_, number) = file.rsplit_once('-')?;
    Some((Tenant(tenant), DatasetId(id), number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A mirror file that is not recognized is a version whose blobs are taken away.
    #[test]
    fn names_of_mirror_files_are_read_as_they_are_written() {
        let name = "datasets/0000002a/00000000000000ff/version-00000000000000000012.json";
        let found = parts(&name.parse().unwrap()).unwrap();
        assert_eq!(found, (Tenant(42), DatasetId(255), 12));
        assert_eq!(parts(&"datasets/x/y/z.json".parse().unwrap()), None);
        let key = Keys { tenant: Tenant(42) }.version(DatasetId(255), 12);
        assert_eq!(
            (id_of(&key), last_number(&key)),
            (Some(DatasetId(255)), Some(12))
        );
    }
}
