//! Lists and searches of datasets.
//!
//! A list is a scan of the names. A search looks at every name, description and label: these are kept
//! in memory, filled by one scan and kept up to date by reading, before each search, the events since
//! the last one. So a search finds what was created before it began, whichever replica created it.
//! Memory: the name and at most [`TEXT`] bytes of text for each dataset.
//!
//! Lock order: the one lock is held for looking and for applying events, never across a wait. Two
//! searches that read the same events apply them once: whoever comes second sees that they are applied.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use memchr::memmem::Finder;

use super::dataset::{Dataset, kind_of};
use super::event::EventKind;
use super::key::Table;
use super::record::{NameRecord, decode};
use super::{DatasetId, Ledger, LedgerError};
use crate::descriptor::Kind;
use crate::kv::{KeyRange, KvError, Txn, TxnOutcome};
use crate::name::DatasetName;

/// Bytes of description and labels that a search looks at.
const TEXT: usize = 512;
/// Events that are read at once.
const EVENTS: usize = 1024;

/// Which datasets are asked for: those for which everything holds that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this text in name, description or labels, in any case.
    pub text: String,
}

/// What a search knows of a dataset.
#[derive(Debug)]
struct Entry {
    id: DatasetId,
    kind: Kind,
    /// Name and text in lower case, with a line break between: one look finds either.
    text: Box<str>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<DatasetName, Entry>,
    /// Up to which event; None: not filled yet.
    sequence: Option<u64>,
}

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Search {
    state: RwLock<State>,
}

impl Entry {
    fn new(name: &DatasetName, id: DatasetId, kind: Kind, text: &str) -> Self {
        let mut places = (0..=text.len().min(TEXT)).rev();
        let end = places.find(|at| text.is_char_boundary(*at));
        Self {
            id,
            kind,
            text: format!("{name}\n{}", &text[..end.unwrap_or(0)]).into(),
        }
    }
}

impl Search {
    fn sequence(&self) -> Option<u64> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.sequence
    }

    fn fill(&self, names: BTreeMap<DatasetName, Entry>, sequence: u64) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.sequence.is_none_or(|known| known < sequence) {
            *state = State {
                names,
                sequence: Some(sequence),
            };
        }
    }

    /// Applies events that follow `before`, unless somebody has done so.
    fn apply(&self, before: u64, events: Vec<super::Event>) {
        let Some(last) = events.last().map(|event| event.sequence) else {
            return;
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.sequence != Some(before) {
            return;
        }
        for event in events {
            match event.what {
                EventKind::DatasetCreated { kind, text }
                | EventKind::DatasetUpdated { kind, text } => {
                    let entry = Entry::new(&event.dataset, event.id, kind, &text);
                    state.names.insert(event.dataset, entry);
                }
                EventKind::DatasetRemoved => {
                    state.names.remove(&event.dataset);
                }
                _ => {}
            }
        }
        state.sequence = Some(last);
    }

    fn find(&self, query: &Query, after: Option<&DatasetName>, limit: usize) -> Vec<DatasetId> {
        let text = query.text.to_lowercase();
        let wanted = Finder::new(text.as_bytes());
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = state
            .names
            .range::<DatasetName, _>((from, Bound::Unbounded));
        let matching = range.filter(|(name, entry)| {
            let namespace = query.namespace.as_deref();
            query.kind.is_none_or(|kind| entry.kind == kind)
                && namespace.is_none_or(|namespace| name.namespace() == namespace)
                && wanted.find(entry.text.as_bytes()).is_some()
        });
        matching.take(limit).map(|(_, entry)| entry.id).collect()
    }
}

impl Ledger {
    /// The first `limit` datasets (at most 1024) behind the name `after` that a query asks for, in the
    /// order of their names. Fewer than `limit`: there are no more.
    pub async fn datasets(
        &self,
        query: &Query,
        after: Option<&DatasetName>,
        limit: usize,
    ) -> Result<Vec<Dataset>, LedgerError> {
        let limit = Self::page(limit);
        if query.text.is_empty() && query.kind.is_none() {
            let mut found: Vec<Dataset> = Vec::new();
            let mut after = after.cloned();
            // A dataset may go away between the two reads, and a short page would look like the end.
            loop {
                let namespace = query.namespace.as_deref();
                let wanted = limit - found.len();
                let names = self.names(namespace, after.as_ref(), wanted).await?;
                let ids: Vec<DatasetId> = names.iter().map(|(_, id, _)| *id).collect();
                found.extend(self.by_ids(&ids).await?);
                if names.len() < wanted || found.len() == limit {
                    return Ok(found);
                }
                after = names.into_iter().next_back().map(|(name, _, _)| name);
            }
        }
        self.refresh_search().await?;
        // Some milliseconds of looking: not on a thread that others wait for.
        let (search, query, after) = (Arc::clone(&self.search), query.clone(), after.cloned());
        let find = move || search.find(&query, after.as_ref(), limit);
        let found = tokio::task::spawn_blocking(find).await;
        let ids = found.map_err(|error| KvError::Unavailable(error.to_string()))?;
        self.by_ids(&ids).await
    }

    /// Brings the index up to every event that was committed before this call.
    async fn refresh_search(&self) -> Result<(), LedgerError> {
        loop {
            let Some(before) = self.search.sequence() else {
                self.fill_search().await?;
                continue;
            };
            let events = match self.events(before, EVENTS).await {
                Err(LedgerError::Trimmed(_)) => {
                    self.fill_search().await?;
                    continue;
                }
                events => events?,
            };
            let complete = events.len() < EVENTS;
            self.search.apply(before, events);
            if complete {
                return Ok(());
            }
        }
    }

    /// Fills the index from the names.
    async fn fill_search(&self) -> Result<(), LedgerError> {
        // An empty transaction has a place in the order of all of them: what was before is in the
        // scan below, what comes after is in an event behind it.
        let TxnOutcome::Committed { revision } = self.kv.txn(Txn::new()).await? else {
            return Err(LedgerError::Damaged("a conflict without a compare".into()));
        };
        let prefix = self.keys.table(Table::Name);
        let mut range = KeyRange::prefix(&prefix);
        let mut names = BTreeMap::new();
        let page = Self::page(usize::MAX);
        loop {
            let found = self.kv.scan(range.clone(), page).await?;
            for (key, stored) in &found {
                let record: NameRecord = decode(&stored.value)?;
                let text = std::str::from_utf8(&key[prefix.len()..]).ok();
                if let Some(name) = text.and_then(|text| text.parse::<DatasetName>().ok()) {
                    let kind = kind_of(&record.kind);
                    let entry = Entry::new(&name, DatasetId(record.id), kind, &record.text);
                    names.insert(name, entry);
                }
            }
            match found.last() {
                Some((last, _)) if found.len() == page => range = range.after(last),
                _ => break,
            }
        }
        self.search.fill(names, revision);
        Ok(())
    }
}
