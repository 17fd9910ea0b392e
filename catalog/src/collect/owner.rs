//! Whose a vault is: a collector takes nothing from a vault of another catalog.
//!
//! ```text
//! catalog/id            a named file beside the manifests: 32 hexadecimal digits, drawn once, in the database
//! VAULT/.terrace-vault  the same text, written by the first catalog that collects there
//! ```
//!
//! The id lies with the mirror files, so a database that is restored from them is still the same catalog.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;

use super::CollectError;
use crate::blobs::{BlobError, BlobName};
use crate::ledger::{Ledger, LedgerError};
use crate::upstream::read_small;
use crate::vault::{Vault, Vaults};

/// Name of the file in a vault.
pub(super) const MARKER: &str = ".terrace-vault";
/// Name of the file beside the manifests.
const ID: &str = "catalog/id";
/// Most bytes of either.
const MAX: u64 = 256;

/// Errors with `Foreign` when a vault belongs to another catalog. Takes one that is nobody's, unless
/// nothing is to change.
pub(super) async fn check(
    ledger: &Ledger,
    vaults: &Vaults,
    dry_run: bool,
) -> Result<(), CollectError> {
    let own = catalog_id(ledger).await?;
    for vault in vaults.iter() {
        match owner_of(vault).await? {
            Some(owner) if owner == own => {}
            Some(_) => {
                let text = format!(
                    "{} belongs to another catalog; give each catalog a place of its own",
                    vault.url()
                );
                return Err(CollectError::Foreign(text));
            }
            None if dry_run => {}
            None => {
                let text = Bytes::from(own.clone());
                let content = stream::once(async move { Ok(text) }).boxed();
                vault.put(MARKER, content).await?;
            }
        }
    }
    Ok(())
}

async fn owner_of(vault: &Arc<dyn Vault>) -> Result<Option<String>, CollectError> {
    let file = match vault.head(MARKER).await {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = read_small(vault.as_ref(), &file, MAX).await?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The id of this catalog; drawn when there is none.
async fn catalog_id(ledger: &Ledger) -> Result<String, CollectError> {
    let name: BlobName = ID.parse().map_err(LedgerError::Blob)?;
    match ledger.blobs().get_named(&name).await {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(BlobError::NotFound(_)) => {
            // Of several catalogs that draw one at a time, all believe the first.
            let id = format!("{:032x}", rand::random::<u128>());
            let text = ledger.agree("catalog-id", Bytes::from(id)).await?;
            ledger.blobs().put_named(&name, text.clone()).await?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        Err(error) => Err(error.into()),
    }
}
