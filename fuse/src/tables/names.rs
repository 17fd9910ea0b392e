//! Which version a name names: from memory, from the catalog, or from the last answer on disk.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use terrace_cache::store::StoreError;
use terrace_catalog::{Selector, VersionRef};

use super::catalog::TableVersion;
use super::reach::is_down;
use super::tree::Inner;
use crate::namespace::FsError;

/// What a name named when it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The slot of name and version; `None`: there is no such version.
    pub(super) slot: Option<u32>,
    /// By the mount's clock.
    until: Duration,
}

impl Inner {
    /// What memory says about a name, while it may be believed.
    pub(super) fn remembered(&self, selector: &Selector) -> Option<Option<u32>> {
        let now = self.clock.now();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.get(selector).filter(|known| now < known.until)?;
        Some(known.slot)
    }

    /// The slot of a name and the version it names now.
    ///
    /// Errors: the catalog does not answer, and never did about this name; or it refuses.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        selector: &Selector,
    ) -> Result<Option<u32>, FsError> {
        if let Some(slot) = self.remembered(selector) {
            return Ok(slot);
        }
        let (inner, asked) = (Arc::clone(self), selector.clone());
        let ask = move || async move { inner.ask(asked).await };
        self.asking.join(selector.clone(), ask).await
    }

    async fn ask(&self, selector: Selector) -> Result<Option<u32>, FsError> {
        let asked_at = self.clock.now();
        let last = self.slots.now(&selector);
        let patience = last.is_some().then_some(self.config.patience);
        let question = self.tables.resolve(&selector);
        let slot = match self.reach.ask(patience, question).await {
            Ok(Some(version)) => {
                check(&selector, &version)?;
                let slots = self.slots.point(vec![(selector.clone(), version)])?;
                slots.first().copied()
            }
            Ok(None) => {
                self.slots.gone(&selector)?;
                None
            }
            Err(error) => self.last_answer(last, error)?,
        };
        self.remember(selector, slot, asked_at);
        Ok(slot)
    }

    /// The last answer in place of an error that says that there is none now.
    pub(super) fn last_answer<T>(&self, last: Option<T>, error: StoreError) -> Result<T, FsError> {
        match last {
            Some(last) if is_down(&error) => {
                self.reach.used_older();
                Ok(last)
            }
            _ => Err(error.into()),
        }
    }

    /// Keeps an answer for the daemon's half of the time to live.
    pub(super) fn remember(&self, selector: Selector, slot: Option<u32>, asked_at: Duration) {
        let pinned = matches!(selector.version(), VersionRef::Number(_)) && slot.is_some();
        let ttl = if pinned {
            self.config.pinned_ttl
        } else {
            self.config.name_ttl / 2
        };
        let until = asked_at + ttl;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(selector, Known { slot, until });
    }
}

/// Refuses an answer about something else than was asked.
fn check(selector: &Selector, version: &TableVersion) -> Result<(), FsError> {
    let number = match selector.version() {
        VersionRef::Number(number) => *number,
        VersionRef::Latest | VersionRef::Tag(_) | VersionRef::Day { .. } => version.number,
    };
    if version.dataset == *selector.dataset() && version.number == number && number > 0 {
        return Ok(());
    }
    let (dataset, got) = (&version.dataset, version.number);
    Err(FsError::Local(format!(
        "the catalog answered {dataset}@v{got} when asked for {selector}"
    )))
}
