//! `.iceberg/` in a version's directory: what SQL engines read beside the files of a version.
//!
//! ```text
//! WAREHOUSE.metadata.json  WAREHOUSE.snap.avro  WAREHOUSE.m-0.avro ..    made by the catalog on request
//! ```
//!
//! The names are the catalog's business; here they are asked for, found or not, and never listed. The
//! bytes of a file never change, so its digest is a part of what its inode number means: a catalog that
//! answers otherwise later is an error of that read, not other bytes. What was asked for last stays in
//! memory, because who looks a file up reads it next; the tiers keep it from then on.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use terrace_cache::store::StoreError;

use super::catalog::TableVersion;
use super::lookup::{Got, Miss, Need};
use super::place::Place;
use super::slot::{Slot, SqlFile};
use super::tree::Inner;
use crate::live::bounded::Bounded;
use crate::names::check_segment;
use crate::namespace::{Attr, FsError};

/// Name of the directory.
pub(super) const NAME: &str = ".iceberg";

/// Files whose slots are remembered by their names.
const NAMES: usize = 4096;

/// Files whose bytes are remembered: some megabytes.
const BYTES: usize = 8;

/// What was asked for last. The two locks are taken one after the other, never together.
#[derive(Debug)]
pub(super) struct SqlFiles {
    slots: Mutex<Bounded<(TableVersion, Arc<str>), u32>>,
    bytes: Mutex<Bounded<[u8; 32], Bytes>>,
}

impl Default for SqlFiles {
    fn default() -> Self {
        Self {
            slots: Mutex::new(Bounded::new(NAMES)),
            bytes: Mutex::new(Bounded::new(BYTES)),
        }
    }
}

impl SqlFiles {
    fn slot(&self, version: &TableVersion, name: &str) -> Option<u32> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(&(version.clone(), name.into())).copied()
    }

    fn bytes(&self, digest: &[u8; 32]) -> Option<Bytes> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.get(digest).cloned()
    }

    fn keep(&self, digest: [u8; 32], kept: Bytes) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.insert(digest, kept);
    }
}

impl Inner {
    /// A name in the directory.
    pub(super) fn in_sql(
        &self,
        version: &TableVersion,
        name: &[u8],
        got: Option<&Got>,
    ) -> Result<Attr, Miss> {
        let text = std::str::from_utf8(name).map_err(|_| FsError::NotFound)?;
        let slot = match got {
            Some(Got::Sql(slot)) => slot.ok_or(FsError::NotFound)?,
            _ => {
                let need = || Miss::Need(Need::Sql(version.clone(), text.to_owned()));
                self.sql.slot(version, text).ok_or_else(need)?
            }
        };
        let (place, slot) = self.at(Place::of(slot).ino())?;
        Ok(self.attr(place, slot.as_deref())?)
    }

    /// The slot of a file, asked of the catalog now; none when there is no such file.
    pub(super) async fn sql_file(
        &self,
        version: TableVersion,
        name: &str,
    ) -> Result<Option<u32>, FsError> {
        if check_segment(name.as_bytes()).is_err() {
            return Ok(None);
        }
        let question = self.tables.sql_file(&version, name);
        let Some(bytes) = self.reach.ask(None, question).await? else {
            return Ok(None);
        };
        let file = SqlFile {
            name: name.into(),
            size: bytes.len() as u64,
            digest: Sha256::digest(&bytes).into(),
            version,
        };
        let key = (file.version.clone(), Arc::clone(&file.name));
        self.sql.keep(file.digest, bytes);
        let numbers = self.slots.put(&[Slot::Sql(file)])?;
        let slot = *numbers.first().ok_or(FsError::Stale)?;
        let mut slots = self
            .sql
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        slots.insert(key, slot);
        Ok(Some(slot))
    }

    /// The bytes of a file that this mount has shown; none when it has shown none of that digest, or
    /// the catalog makes another one by now.
    pub(super) async fn sql_bytes(&self, digest: &[u8; 32]) -> Result<Option<Bytes>, StoreError> {
        if let Some(bytes) = self.sql.bytes(digest) {
            return Ok(Some(bytes));
        }
        let Some(slot) = self.slots.sql(digest) else {
            return Ok(None);
        };
        let Slot::Sql(file) = &*slot else {
            return Ok(None);
        };
        let bytes = self.tables.sql_file(&file.version, &file.name).await?;
        let same = |bytes: &Bytes| <[u8; 32]>::from(Sha256::digest(bytes)) == *digest;
        let bytes = bytes.filter(same);
        if let Some(bytes) = &bytes {
            self.sql.keep(*digest, bytes.clone());
        }
        Ok(bytes)
    }
}
