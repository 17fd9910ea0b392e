//! What nodes have open is held in the ledger, so that nobody removes it under its readers.
//!
//! The holder is `mount:` and the node's name. A hold is a lease: it is renewed by the node's reports
//! every [`RENEW_MS`], released when the node says that nothing reads the version any more, and ends by
//! itself when the node is silent for [`LEASE`]. After a restart of the catalog, what it held before is
//! held on by the first reports, or ends with its lease.

use std::time::Duration;

use super::name::NodeName;
use super::presence::{Due, Presence};
use crate::ledger::{Holder, Ledger, LedgerError};
use crate::name::DatasetName;
use crate::{Selector, VersionRef};

/// A node that is silent for so long holds nothing: longer than any repair of a catalog or a network
/// that somebody is called for.
const LEASE: Duration = Duration::from_secs(6 * 3600);
/// A hold is renewed so often: each renewal is a durable write.
const RENEW_MS: i64 = 3_600_000;
/// Most holds written and released for one report; the next one goes on.
const AT_ONCE: usize = 32;

/// See the module text.
pub(super) async fn renew(
    ledger: &Ledger,
    presence: &Presence,
    node: &NodeName,
    now_ms: i64,
) -> Result<(), LedgerError> {
    let due = presence.due(node, now_ms - RENEW_MS, AT_ONCE);
    if due == Due::default() {
        return Ok(());
    }
    let holder: Holder = format!("mount:{node}")
        .parse()
        .map_err(|error: crate::NameError| LedgerError::Refused(error.to_string()))?;
    for version in &due.hold {
        hold(ledger, version, &holder).await?;
    }
    for (dataset, number) in &due.release {
        let selector = Selector::new(dataset.clone(), VersionRef::Number(*number));
        match ledger.resolve(&selector).await {
            Ok(version) => ledger.release(&version, &holder).await?,
            Err(LedgerError::NoDataset(_) | LedgerError::NoVersion(..)) => {}
            Err(error) => return Err(error),
        }
    }
    presence.done(node, &due, now_ms);
    Ok(())
}

async fn hold(
    ledger: &Ledger,
    (dataset, number): &(DatasetName, u64),
    holder: &Holder,
) -> Result<(), LedgerError> {
    let selector = Selector::new(dataset.clone(), VersionRef::Number(*number));
    let held = async {
        let version = ledger.resolve(&selector).await?;
        ledger.hold(&version, holder, Some(LEASE), "open").await
    };
    match held.await {
        Err(
            error @ (LedgerError::NoDataset(_)
            | LedgerError::NoVersion(..)
            | LedgerError::Removing(_)),
        ) => {
            tracing::debug!(%error, %holder, %selector, "an open version is not held");
            Ok(())
        }
        other => other,
    }
}
