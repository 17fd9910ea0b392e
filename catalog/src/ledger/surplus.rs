//! Versions that a dataset's descriptor does not keep (`versions: {keep, keepFor}`).
//!
//! ```text
//! the newest `keep` that are not being removed      stay
//! younger than `keepFor`                            stay
//! the latest, tagged, held                          stay, whatever their age
//! everything of a model, or without `keep`          stays
//! the rest                                          is surplus
//! ```
//!
//! Only said here; whoever acts on it takes the two steps of `remove.rs`, which ask again.

use std::collections::{BTreeSet, VecDeque};

use super::dataset::{Dataset, DatasetState};
use super::resolve::VersionPage;
use super::version::{Version, VersionState};
use super::{Ledger, LedgerError};
use crate::descriptor::Kind;

/// What becomes of a version that is surplus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is to be marked.
    Begin,
    /// It is marked, and the delay is over.
    Finish,
}

impl Ledger {
    /// The versions of a dataset that are surplus and have a step to take at `now_ms`, the oldest first,
    /// at most `most`.
    pub(crate) async fn surplus(
        &self,
        dataset: &Dataset,
        now_ms: i64,
        most: usize,
    ) -> Result<Vec<(Version, Next)>, LedgerError> {
        let kept = &dataset.descriptor.versions;
        let (Some(keep), Kind::Dataset) = (kept.keep, dataset.kind()) else {
            return Ok(Vec::new());
        };
        if dataset.state != DatasetState::Active {
            return Ok(Vec::new());
        }
        let keep_ms = kept.keep_for.map_or(0, |span| {
            i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
        });
        let needed = self.needed(dataset).await?;
        // Versions come in the order of their numbers: those that may be among the newest wait here.
        let mut newest: VecDeque<(u64, bool)> = VecDeque::new();
        let (mut staying, mut numbers) = (0, Vec::new());
        let mut page = VersionPage::new(self, dataset.name(), dataset.id);
        while let Some(version) = page.next().await? {
            let goes = matches!(version.state, VersionState::Removing { .. });
            newest.push_back((version.number, goes));
            staying += u64::from(!goes);
            // One that is being removed is surplus as soon as enough others are newer.
            while let Some((number, goes)) = newest.front().copied()
                && staying >= keep.saturating_add(u64::from(!goes))
            {
                newest.pop_front();
                staying -= u64::from(!goes);
                numbers.push(number);
            }
        }
        let mut found = Vec::new();
        for number in numbers
            .into_iter()
            .filter(|number| !needed.contains(number))
        {
            if found.len() >= most {
                break;
            }
            let version = self.version(dataset, number).await?;
            // Those behind it are younger still.
            if now_ms.saturating_sub(version.created_ms) < keep_ms {
                break;
            }
            match version.state {
                VersionState::Removing { not_before_ms } if not_before_ms > now_ms => {}
                VersionState::Removing { .. } => found.push((version, Next::Finish)),
                VersionState::Committed | VersionState::Degraded { .. } => {
                    found.push((version, Next::Begin));
                }
            }
        }
        Ok(found)
    }

    /// Numbers of versions that something needs: the latest, tagged and held ones.
    async fn needed(&self, dataset: &Dataset) -> Result<BTreeSet<u64>, LedgerError> {
        let references = self.references(dataset.id).await?;
        let named = references.into_iter().filter(|(name, _)| !is_day(name));
        let mut needed: BTreeSet<u64> = named.map(|(_, record)| record.version).collect();
        needed.extend(self.held_versions(dataset.name()).await?);
        Ok(needed)
    }
}

/// Whether a reference is a day's name and not a tag.
pub(super) fn is_day(reference: &str) -> bool {
    reference.starts_with(|c: char| c.is_ascii_digit())
}
