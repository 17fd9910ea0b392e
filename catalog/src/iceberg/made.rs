//! The bytes of the files that a version has in a warehouse.
//!
//! ```text
//! WAREHOUSE.metadata.json   the version alone as a table     WAREHOUSE.snap.avro   its list of manifests
//! WAREHOUSE.m-0.avro        the first of them, and so on
//! ```
//!
//! They are made when they are asked for and not kept: whoever reads them (a mount) keeps them. Which
//! files stand in which manifest is remembered for the versions that were asked for last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::columns::{Columns, give};
use super::cut::{Cuts, cuts};
use super::data::{self, Source};
use super::judge::Judge;
use super::list;
use super::metadata::{LIST, METADATA};
use super::table::{Refused, Table, check, check_served};
use super::warehouse::{Place, Warehouse};
use crate::blobs::BlobId;
use crate::ledger::{Ledger, Version};
use crate::manifest::Manifest;

/// Versions whose cuts are remembered: some 100 bytes for each 4096 files.
const REMEMBERED: usize = 16;

/// Cuts of the versions that were asked for last.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<VecDeque<(BlobId, Arc<Cuts>)>>);

impl Remembered {
    async fn cuts(
        &self,
        id: &BlobId,
        manifest: &Manifest,
        judge: &Judge,
    ) -> Result<Arc<Cuts>, Refused> {
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let found = Arc::new(cuts(manifest, judge).await?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.truncate(REMEMBERED - 1);
        known.push_front((*id, Arc::clone(&found)));
        Ok(found)
    }

    fn known(&self, id: &BlobId) -> Option<Arc<Cuts>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(own, _)| own == id);
        found.map(|(_, cuts)| Arc::clone(cuts))
    }
}

/// The bytes of a file of a version; none when there is no file of that name. `catalog`: see [`Place`].
pub(crate) async fn made(
    ledger: &Ledger,
    remembered: &Remembered,
    version: &Version,
    file: &str,
    catalog: &str,
) -> Result<Option<Bytes>, Refused> {
    let Some((token, name)) = file.split_once('.') else {
        return Ok(None);
    };
    let Ok(warehouse) = token.parse::<Warehouse>() else {
        return Ok(None);
    };
    check_served(ledger, version).await?;
    let place = Place {
        warehouse,
        catalog: catalog.to_owned(),
    };
    if name == METADATA {
        let table = Table::pinned(ledger, version.clone(), place).await?;
        let text = format!("{:#}\n", table.metadata());
        return Ok(Some(text.into()));
    }
    let wanted = match name {
        LIST => None,
        name => match list::manifest_place(name) {
            Some(at) => Some(at),
            None => return Ok(None),
        },
    };
    let manifest = Manifest::open(ledger.blobs(), &version.manifest).await?;
    let header = manifest.header();
    check(version, header)?;
    let ids = ledger.column_ids(&version.dataset, |ids| give(ids, header));
    let columns = Columns::new(&ids.await?, header);
    let judge = Judge::new(header);
    let cuts = remembered
        .cuts(&version.manifest, &manifest, &judge)
        .await?;
    let source = Source {
        manifest: &manifest,
        judge: &judge,
        columns: &columns,
        name: &version.dataset,
        number: version.number,
        place: &place,
    };
    let Some(at) = wanted else {
        let written = list::write(&source, &cuts, version.parent).await?;
        return Ok(Some(written.into()));
    };
    let Some(cut) = cuts.cuts.get(at) else {
        return Ok(None);
    };
    let written = data::write(&source, cut).await?;
    Ok(Some(written.bytes.into()))
}
