//! Holds: why a version must stay, and for whom.
//!
//! A hold is written in a transaction that has seen the version alive, so a removal that has marked
//! the version afterwards sees every hold there will ever be (invariant 3 of `ledger`). A hold with an
//! end is a lease: its holder renews it by holding again, and a holder that is gone holds nothing for
//! ever.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::key::{Table, last_number};
use super::record::{
    DatasetRecord, DatasetStateRecord, HoldRecord, VersionRecord, VersionStateRecord, decode,
    encode, stored,
};
use super::version::Version;
use super::{Key, Ledger, LedgerError, RETRIES};
use crate::kv::{KeyRange, Txn, TxnOutcome};
use crate::name::{DatasetName, NameError, shortened};

/// Most bytes of a note.
const MAX_NOTE: usize = 1024;

/// Who holds a version: `kind:name`.
///
/// ```text
/// kind = mount | pin | model | receipt | job
/// name = 1 to 200 of letters, digits and ._:/@-
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder(Arc<str>);

impl Holder {
    /// The holder's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Holder {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@-".contains(&byte);
        let good = text.split_once(':').is_some_and(|(kind, name)| {
            matches!(kind, "mount" | "pin" | "model" | "receipt" | "job")
                && (1..=200).contains(&name.len())
                && name.bytes().all(inner)
        });
        if good {
            Ok(Self(Arc::from(text)))
        } else {
            Err(NameError::Holder(shortened(text)))
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A reason for a version to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who holds it.
    pub holder: Holder,
    /// Since when: milliseconds since 1970.
    pub since_ms: i64,
    /// Until when; None: until it is released.
    pub until_ms: Option<i64>,
    /// For people.
    pub note: String,
}

impl Ledger {
    /// Holds a version, or renews the hold. `lease`: it ends by itself unless it is renewed. Errors
    /// with `NoVersion`, and with `Removing` when the version is being removed.
    pub async fn hold(
        &self,
        version: &Version,
        holder: &Holder,
        lease: Option<Duration>,
        note: &str,
    ) -> Result<(), LedgerError> {
        if note.len() > MAX_NOTE {
            return Err(LedgerError::Refused(format!(
                "a note of more than {MAX_NOTE} bytes"
            )));
        }
        let key = self.keys.hold(version.id, version.number, holder.as_str());
        for attempt in 0..RETRIES {
            let now = self.now();
            let version_key = self.keys.version(version.id, version.number);
            let dataset_key = self.keys.dataset(version.id);
            let keys = [version_key.clone(), key.clone(), dataset_key.clone()];
            let found = self.kv.get_many(&keys).await?;
            let before: Option<HoldRecord> = stored(found[1].as_ref())?;
            let alive = |hold: &HoldRecord| hold.until_ms.is_none_or(|until| until > now);
            // A hold that has not ended is renewed whatever is planned: a removal waits for it.
            if before.as_ref().is_none_or(|before| !alive(before)) {
                self.check_alive(version, stored(found[0].as_ref())?)?;
                let dataset: Option<DatasetRecord> = stored(found[2].as_ref())?;
                if dataset.is_none_or(|dataset| dataset.state != DatasetStateRecord::Active) {
                    return Err(LedgerError::Removing(version.dataset.to_string()));
                }
            }
            if found[0].is_none() {
                let number = format!("v{}", version.number);
                return Err(LedgerError::NoVersion(version.dataset.clone(), number));
            }
            let millis = |lease: Duration| i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
            let record = HoldRecord {
                since_ms: before.map_or(now, |before| before.since_ms),
                until_ms: lease.map(|lease| now.saturating_add(millis(lease))),
                note: note.to_owned(),
            };
            let txn = Txn::new()
                .unchanged(version_key, found[0].as_ref())
                .unchanged(key.clone(), found[1].as_ref())
                .unchanged(dataset_key, found[2].as_ref())
                .put(key.clone(), encode(&record)?);
            if let TxnOutcome::Committed { .. } = self.kv.txn(txn).await? {
                return Ok(());
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(version.dataset.to_string()))
    }

    /// Refuses what must not be built on a version that is not there or on its way out.
    pub(super) fn check_alive(
        &self,
        version: &Version,
        record: Option<VersionRecord>,
    ) -> Result<(), LedgerError> {
        let selector = || format!("v{}", version.number);
        match record.map(|record| record.state) {
            None => Err(LedgerError::NoVersion(version.dataset.clone(), selector())),
            Some(VersionStateRecord::Removing { .. }) => Err(LedgerError::Removing(format!(
                "{}@{}",
                version.dataset,
                selector()
            ))),
            Some(VersionStateRecord::Committed | VersionStateRecord::Degraded { .. }) => Ok(()),
        }
    }

    /// Ends a hold; no error when there is none.
    pub async fn release(&self, version: &Version, holder: &Holder) -> Result<(), LedgerError> {
        let key = self.keys.hold(version.id, version.number, holder.as_str());
        self.kv.txn(Txn::new().delete(key)).await?;
        Ok(())
    }

    /// The holds of a version that have not ended, in the order of the holders; at most `limit`, at
    /// most 1024.
    pub async fn holds(&self, version: &Version, limit: usize) -> Result<Vec<Hold>, LedgerError> {
        let (holds, _) = self.holds_and_ended(version, limit).await?;
        Ok(holds)
    }

    /// Holds, and the keys of those that have ended.
    pub(super) async fn holds_and_ended(
        &self,
        version: &Version,
        limit: usize,
    ) -> Result<(Vec<Hold>, Vec<Key>), LedgerError> {
        let prefix = self.keys.holds(version.id, version.number);
        let mut range = KeyRange::prefix(&prefix);
        let (mut holds, mut ended) = (Vec::new(), Vec::new());
        let now = self.now();
        let page = Self::page(limit);
        loop {
            let found = self.kv.scan(range.clone(), page).await?;
            for (key, stored) in &found {
                let record: HoldRecord = decode(&stored.value)?;
                if record.until_ms.is_some_and(|until| until <= now) {
                    ended.push(key.clone());
                    continue;
                }
                let damaged = || LedgerError::Damaged("a holder is none".into());
                let text = std::str::from_utf8(&key[prefix.len()..]).map_err(|_| damaged())?;
                holds.push(Hold {
                    holder: text.parse().map_err(|_| damaged())?,
                    since_ms: record.since_ms,
                    until_ms: record.until_ms,
                    note: record.note,
                });
            }
            match found.last() {
                Some((last, _)) if found.len() == page && holds.len() < page => {
                    range = range.after(last);
                }
                _ => break,
            }
        }
        holds.truncate(page);
        Ok((holds, ended))
    }

    /// Every version of a dataset's that somebody holds, by number: roots of garbage collection.
    pub async fn held_versions(&self, name: &DatasetName) -> Result<Vec<u64>, LedgerError> {
        let id = self.id_of_name(name).await?;
        let prefix = self.keys.of(Table::Hold, id);
        let mut range = KeyRange::prefix(&prefix);
        let (mut held, now) = (Vec::new(), self.now());
        loop {
            let found = self.kv.scan(range.clone(), Self::page(usize::MAX)).await?;
            for (key, stored) in &found {
                let record: HoldRecord = decode(&stored.value)?;
                let number = key.get(..prefix.len() + 8).and_then(last_number);
                if record.until_ms.is_none_or(|until| until > now) {
                    held.extend(number);
                }
            }
            held.dedup();
            match found.last() {
                Some((last, _)) if found.len() == Self::page(usize::MAX) => {
                    range = range.after(last);
                }
                _ => return Ok(held),
            }
        }
    }
}
