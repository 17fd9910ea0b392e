//! Retiring: versions that descriptors do not keep.
//!
//! ```text
//! this run     surplus -> marked                  an item `retired`; it can be saved for a day
//! a later run  surplus, marked, the day is over -> its record goes    an item `version`
//!              and with it, in the same run, what only it named       items `blob` and `file`
//! ```
//!
//! Each is told to the audit log, as what people remove is.

use super::{CollectError, Item, ItemKind, Run};
use crate::descriptor::Kind;
use crate::ledger::{Dataset, LedgerError, Next, Purpose, Version};

/// Names that are read at a time.
const PAGE: usize = 256;

/// Most versions that one run marks or removes: the next one goes on.
const AT_ONCE: usize = 10_000;

impl Run<'_> {
    /// Takes each step that is due.
    pub(super) async fn retire(&mut self) -> Result<(), CollectError> {
        let (mut after, mut left) = (None, AT_ONCE);
        loop {
            let page = self.ledger.names(None, after.as_ref(), PAGE).await?;
            let Some((last, ..)) = page.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            let datasets = page.iter().filter(|(.., kind)| *kind == Kind::Dataset);
            let ids: Vec<_> = datasets.map(|(_, id, _)| *id).collect();
            for dataset in self.ledger.by_ids(&ids).await? {
                left -= self.retire_of(&dataset, left).await?;
            }
            if page.len() < PAGE || left == 0 {
                return Ok(());
            }
        }
    }

    /// The same for one dataset; how many steps were taken.
    async fn retire_of(&mut self, dataset: &Dataset, most: usize) -> Result<usize, CollectError> {
        let found = match self.ledger.surplus(dataset, self.begun_ms, most).await {
            // Removed while it was looked at.
            Err(LedgerError::NoDataset(_) | LedgerError::NoVersion(..)) => return Ok(0),
            found => found?,
        };
        let count = found.len();
        for (version, next) in found {
            self.step(&version, next).await?;
        }
        Ok(count)
    }

    async fn step(&mut self, version: &Version, next: Next) -> Result<(), CollectError> {
        let on = format!("{}@v{}", version.dataset, version.number);
        if !self.wanted.dry_run {
            let (what, done) = match next {
                Next::Begin => {
                    let begun = self
                        .ledger
                        .begin_version_removal(version, Purpose::Ordinary);
                    ("mark a version for removal", begun.await.map(drop))
                }
                Next::Finish => {
                    let finished = self
                        .ledger
                        .finish_version_removal(version, Purpose::Ordinary);
                    ("remove a version", finished.await)
                }
            };
            match done {
                Ok(()) => {
                    tracing::info!(target: "audit", who = "versions.keep", what, on, result = "ok");
                }
                // Somebody needs it by now, or was faster.
                Err(
                    error @ (LedgerError::Refused(_)
                    | LedgerError::NoDataset(_)
                    | LedgerError::NoVersion(..)
                    | LedgerError::Removing(_)
                    | LedgerError::Busy(_)),
                ) => {
                    tracing::debug!(%error, on, "a version is not retired");
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        match next {
            Next::Finish => {
                self.gone.insert((version.id, version.number));
                self.take(ItemKind::Version, on, 0).await
            }
            Next::Begin => {
                self.done.retired += 1;
                let item = Item {
                    kind: ItemKind::Retired,
                    name: on,
                    bytes: 0,
                };
                self.items.send(item).await.map_err(|_| CollectError::Gone)
            }
        }
    }
}
