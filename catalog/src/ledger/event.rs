//! What happened, in order: written by the transaction that made it happen.
//!
//! An event's sequence is the revision of its transaction, so a reader that has seen everything up to
//! a sequence never misses an earlier event (`kv`, invariant 5). Sequences grow and have gaps.

use super::key::{Table, last_number};
use super::record::{EventKindRecord, EventRecord, TrimRecord, decode, encode, stored};
use super::{DatasetId, Key, Ledger, LedgerError};
use crate::blobs::BlobId;
use crate::descriptor::Kind;
use crate::kv::{KeyRange, Txn, Watch};
use crate::name::DatasetName;
use crate::selector::TagName;

/// Something that happened to a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where in the order of all of them.
    pub sequence: u64,
    /// When: milliseconds since 1970, by the clock of whoever did it.
    pub at_ms: i64,
    /// To which dataset.
    pub dataset: DatasetName,
    /// The same, whatever the name is.
    pub id: DatasetId,
    /// What.
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The dataset is new.
    DatasetCreated {
        /// Dataset or model.
        kind: Kind,
        /// What a search looks at besides the name.
        text: String,
    },
    /// Its descriptor changed.
    DatasetUpdated {
        /// Dataset or model.
        kind: Kind,
        /// What a search looks at besides the name.
        text: String,
    },
    /// It will be removed.
    DatasetRemoving {
        /// Not before this: milliseconds since 1970.
        not_before_ms: i64,
    },
    /// It will not be removed after all.
    DatasetKept,
    /// It is gone.
    DatasetRemoved,
    /// It has a new latest version.
    VersionCommitted {
        /// The version's number.
        version: u64,
        /// Its files.
        manifest: BlobId,
    },
    /// Files of a version are not what they were.
    VersionDegraded {
        /// The version's number.
        version: u64,
        /// What was found.
        reason: String,
    },
    /// A version will be removed.
    VersionRemoving {
        /// The version's number.
        version: u64,
        /// Not before this: milliseconds since 1970.
        not_before_ms: i64,
    },
    /// A version will not be removed after all.
    VersionKept {
        /// The version's number.
        version: u64,
    },
    /// A version is gone.
    VersionRemoved {
        /// The version's number.
        version: u64,
    },
    /// A tag names another version now.
    Tagged {
        /// The tag.
        tag: TagName,
        /// The version's number.
        version: u64,
    },
    /// A tag is gone.
    Untagged {
        /// The tag.
        tag: TagName,
    },
}

impl Ledger {
    /// The first `limit` events (at most 1024) behind a sequence, 0 for all there are; in order.
    /// Errors with `Trimmed` when some behind it are not there any more.
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<Event>, LedgerError> {
        let trimmed: Option<TrimRecord> =
            stored(self.kv.get(&self.keys.table(Table::Trim)).await?.as_ref())?;
        if let Some(trimmed) = trimmed.filter(|trimmed| after != 0 && after < trimmed.up_to) {
            return Err(LedgerError::Trimmed(trimmed.up_to));
        }
        let range = KeyRange::prefix(&self.keys.table(Table::Event));
        let range = range.after(&self.keys.event(after));
        let found = self.kv.scan(range, Self::page(limit)).await?;
        found
            .iter()
            .map(|(key, stored)| {
                let damaged = || LedgerError::Damaged("an event has no sequence".into());
                let sequence = last_number(key).ok_or_else(damaged)?;
                from_record(sequence, decode(&stored.value)?)
            })
            .collect()
    }

    /// Wakes when there may be new events. Read them before the first wait, and after each.
    pub async fn watch_events(&self) -> Result<Watch, LedgerError> {
        Ok(self.kv.watch(&self.keys.table(Table::Event)).await?)
    }

    /// Removes events up to a sequence, which nobody needs any more. Returns how many.
    pub async fn trim_events(&self, up_to: u64) -> Result<u64, LedgerError> {
        let record = TrimRecord { up_to };
        let put = Txn::new().put(self.keys.table(Table::Trim), encode(&record)?);
        self.kv.txn(put).await?;
        let mut removed = 0;
        loop {
            let range = KeyRange::prefix(&self.keys.table(Table::Event));
            let mut keys: Vec<Key> = Vec::new();
            for (key, _) in self.kv.scan(range, 240).await? {
                if last_number(&key).is_some_and(|sequence| sequence <= up_to) {
                    keys.push(key);
                }
            }
            if keys.is_empty() {
                return Ok(removed);
            }
            removed += keys.len() as u64;
            self.delete_all(keys).await?;
        }
    }

    /// The key and the value of a new event, for a transaction.
    pub(super) fn event(
        &self,
        dataset: &DatasetName,
        id: DatasetId,
        what: &EventKind,
    ) -> Result<(Key, Key), LedgerError> {
        let record = EventRecord {
            at_ms: self.now(),
            dataset: id.0,
            name: dataset.to_string(),
            what: to_record(what),
        };
        Ok((self.keys.table(Table::Event), encode(&record)?))
    }
}

fn from_record(sequence: u64, record: EventRecord) -> Result<Event, LedgerError> {
    let bad = |error: crate::NameError| LedgerError::Damaged(error.to_string());
    let kind_of = |text: &str| match text {
        "model" => Kind::Model,
        _ => Kind::Dataset,
    };
    let what = match record.what {
        EventKindRecord::DatasetCreated { kind, text } => EventKind::DatasetCreated {
            kind: kind_of(&kind),
            text,
        },
        EventKindRecord::DatasetUpdated { kind, text } => EventKind::DatasetUpdated {
            kind: kind_of(&kind),
            text,
        },
        EventKindRecord::DatasetRemoving { not_before_ms } => {
            EventKind::DatasetRemoving { not_before_ms }
        }
        EventKindRecord::DatasetKept => EventKind::DatasetKept,
        EventKindRecord::DatasetRemoved => EventKind::DatasetRemoved,
        EventKindRecord::VersionCommitted { version, manifest } => EventKind::VersionCommitted {
            version,
            manifest: manifest.parse()?,
        },
        EventKindRecord::VersionDegraded { version, reason } => {
            EventKind::VersionDegraded { version, reason }
        }
        EventKindRecord::VersionRemoving {
            version,
            not_before_ms,
        } => EventKind::VersionRemoving {
            version,
            not_before_ms,
        },
        EventKindRecord::VersionKept { version } => EventKind::VersionKept { version },
        EventKindRecord::VersionRemoved { version } => EventKind::VersionRemoved { version },
        EventKindRecord::Tagged { tag, version } => EventKind::Tagged {
            tag: tag.parse().map_err(bad)?,
            version,
        },
        EventKindRecord::Untagged { tag } => EventKind::Untagged {
            tag: tag.parse().map_err(bad)?,
        },
    };
    Ok(Event {
        sequence,
        at_ms: record.at_ms,
        dataset: record.name.parse().map_err(bad)?,
        id: DatasetId(record.dataset),
        what,
    })
}

fn to_record(what: &EventKind) -> EventKindRecord {
    match what {
        EventKind::DatasetCreated { kind, text } => EventKindRecord::DatasetCreated {
            kind: kind.to_string(),
            text: text.clone(),
        },
        EventKind::DatasetUpdated { kind, text } => EventKindRecord::DatasetUpdated {
            kind: kind.to_string(),
            text: text.clone(),
        },
        EventKind::DatasetRemoving { not_before_ms } => EventKindRecord::DatasetRemoving {
            not_before_ms: *not_before_ms,
        },
        EventKind::DatasetKept => EventKindRecord::DatasetKept,
        EventKind::DatasetRemoved => EventKindRecord::DatasetRemoved,
        EventKind::VersionCommitted { version, manifest } => EventKindRecord::VersionCommitted {
            version: *version,
            manifest: manifest.to_string(),
        },
        EventKind::VersionDegraded { version, reason } => EventKindRecord::VersionDegraded {
            version: *version,
            reason: reason.clone(),
        },
        EventKind::VersionRemoving {
            version,
            not_before_ms,
        } => EventKindRecord::VersionRemoving {
            version: *version,
            not_before_ms: *not_before_ms,
        },
        EventKind::VersionKept { version } => EventKindRecord::VersionKept { version: *version },
        EventKind::VersionRemoved { version } => {
            EventKindRecord::VersionRemoved { version: *version }
        }
        EventKind::Tagged { tag, version } => EventKindRecord::Tagged {
            tag: tag.to_string(),
            version: *version,
        },
        EventKind::Untagged { tag } => EventKindRecord::Untagged {
            tag: tag.to_string(),
        },
    }
}
