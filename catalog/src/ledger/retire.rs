//! Removing versions, in the two steps of `remove.rs`; marking one whose files have changed.
//!
//! A version that something needs is refused at both steps: the latest, a tagged, a held one, and a
//! model's unless the caller says that it is one. Between the steps nobody can begin to need it,
//! because tags and holds are written in transactions that have seen the version unmarked.

use super::event::EventKind;
use super::record::{RefRecord, VersionRecord, encode, stored};
use super::remove::Purpose;
use super::resolve::VersionPage;
use super::surplus::is_day;
use super::version::{Version, VersionState};
use super::{Key, Ledger, LedgerError, RETRIES};
use crate::kv::{Txn, TxnOutcome, Versioned};

impl Ledger {
    /// First step for a version; when it may be finished: milliseconds since 1970. Errors with
    /// `Refused` for the latest, a tagged and a held one.
    pub async fn begin_version_removal(
        &self,
        version: &Version,
        purpose: Purpose,
    ) -> Result<i64, LedgerError> {
        let not_before_ms = self.removal_time();
        let what = EventKind::VersionRemoving {
            version: version.number,
            not_before_ms,
        };
        let state = VersionState::Removing { not_before_ms };
        for attempt in 0..RETRIES {
            let (now, read) = self.reread(version).await?;
            if let VersionState::Removing { not_before_ms } = now.state {
                return Ok(not_before_ms);
            }
            self.refuse_needed(&now, purpose).await?;
            if self.set_state(&now, &read, state.clone(), &what).await? {
                return Ok(not_before_ms);
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(version.dataset.to_string()))
    }

    /// Takes the first step back.
    pub async fn keep_version(&self, version: &Version) -> Result<(), LedgerError> {
        let what = EventKind::VersionKept {
            version: version.number,
        };
        for attempt in 0..RETRIES {
            let (now, read) = self.reread(version).await?;
            if !matches!(now.state, VersionState::Removing { .. }) {
                return Ok(());
            }
            if self
                .set_state(&now, &read, VersionState::Committed, &what)
                .await?
            {
                return Ok(());
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(version.dataset.to_string()))
    }

    /// Notes that files of a version are not what they were.
    pub async fn mark_degraded(&self, version: &Version, reason: &str) -> Result<(), LedgerError> {
        let reason: String = reason.chars().take(1024).collect();
        let what = EventKind::VersionDegraded {
            version: version.number,
            reason: reason.clone(),
        };
        for attempt in 0..RETRIES {
            let (now, read) = self.reread(version).await?;
            if now.state != VersionState::Committed {
                return Ok(());
            }
            let state = VersionState::Degraded {
                since_ms: self.now(),
                reason: reason.clone(),
            };
            if self.set_state(&now, &read, state, &what).await? {
                return Ok(());
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(version.dataset.to_string()))
    }

    /// Second step for a version. Errors with `Refused` before its time, and while it is needed.
    pub async fn finish_version_removal(
        &self,
        version: &Version,
        purpose: Purpose,
    ) -> Result<(), LedgerError> {
        let (now, read) = self.reread(version).await?;
        let VersionState::Removing { not_before_ms } = now.state else {
            let text = format!("{}@v{} is not being removed", now.dataset, now.number);
            return Err(LedgerError::Refused(text));
        };
        self.refuse_early(&format!("{}@v{}", now.dataset, now.number), not_before_ms)?;
        self.refuse_needed(&now, purpose).await?;
        let (id, number) = (now.id, now.number);
        let key = self.keys.version(id, number);
        let what = EventKind::VersionRemoved { version: number };
        let (event_key, event) = self.event(&now.dataset, id, &what)?;
        let mut txn = Txn::new()
            .unchanged(key.clone(), Some(&read))
            .delete(key)
            .put(self.keys.pending(id, number), Key::new())
            .append(event_key, event);
        if let Some(batch) = &now.batch {
            txn = txn.delete(self.keys.batch(id, batch.as_str()));
        }
        txn = self.move_day(txn, &now).await?;
        match self.kv.txn(txn).await? {
            TxnOutcome::Committed { .. } => {
                self.mirror_soon(id, number).await;
                Ok(())
            }
            TxnOutcome::Conflict { .. } => Err(LedgerError::Busy(now.dataset.to_string())),
        }
    }

    /// Lets the day's name mean the version of that day that is newest without this one.
    async fn move_day(&self, txn: Txn, version: &Version) -> Result<Txn, LedgerError> {
        let key = self.keys.reference(version.id, &version.day);
        let read = self.kv.get(&key).await?;
        let Some(day) = stored::<RefRecord>(read.as_ref())? else {
            return Ok(txn);
        };
        if day.version != version.number {
            return Ok(txn);
        }
        let mut before: Option<Version> = None;
        let mut page = VersionPage::new(self, &version.dataset, version.id);
        while let Some(other) = page.next().await? {
            if other.number >= version.number {
                break;
            }
            if other.day == version.day {
                before = Some(other);
            }
        }
        let txn = txn.unchanged(key.clone(), read.as_ref());
        Ok(match before {
            None => txn.delete(key),
            Some(before) => {
                let record = RefRecord {
                    version: before.number,
                    manifest: before.manifest.to_string(),
                    at_ms: before.created_ms,
                    sequences: None,
                    sequence_high: None,
                    table: None,
                };
                txn.put(key, encode(&record)?)
            }
        })
    }

    /// The version as it is now, and its record as it was read.
    async fn reread(&self, version: &Version) -> Result<(Version, Versioned), LedgerError> {
        let read = self
            .kv
            .get(&self.keys.version(version.id, version.number))
            .await?;
        let record: Option<VersionRecord> = stored(read.as_ref())?;
        let (Some(read), Some(record)) = (read, record) else {
            let text = format!("v{}", version.number);
            return Err(LedgerError::NoVersion(version.dataset.clone(), text));
        };
        let now = Version::from_record(&version.dataset, version.id, record)?;
        Ok((now, read))
    }

    async fn set_state(
        &self,
        version: &Version,
        read: &Versioned,
        state: VersionState,
        what: &EventKind,
    ) -> Result<bool, LedgerError> {
        let (id, number) = (version.id, version.number);
        let key = self.keys.version(id, number);
        let changed = Version {
            state,
            ..version.clone()
        };
        let (event_key, event) = self.event(&version.dataset, id, what)?;
        let txn = Txn::new()
            .unchanged(key.clone(), Some(read))
            .put(key, encode(&changed.to_record())?)
            .put(self.keys.pending(id, number), Key::new())
            .append(event_key, event);
        let done = matches!(self.kv.txn(txn).await?, TxnOutcome::Committed { .. });
        if done {
            self.mirror_soon(id, number).await;
        }
        Ok(done)
    }

    /// Refuses to remove a version that something needs.
    async fn refuse_needed(&self, version: &Version, purpose: Purpose) -> Result<(), LedgerError> {
        let name = format!("{}@v{}", version.dataset, version.number);
        let dataset = self.by_id(version.id).await?;
        let dataset = dataset.ok_or_else(|| LedgerError::NoDataset(version.dataset.to_string()))?;
        purpose.check(&dataset)?;
        for (reference, record) in self.references(version.id).await? {
            if record.version == version.number && !is_day(&reference) {
                let text = format!("{name} is {reference}");
                return Err(LedgerError::Refused(text));
            }
        }
        match self.holds(version, 1).await?.first() {
            Some(hold) => Err(LedgerError::Refused(format!(
                "{name} is held by {}",
                hold.holder
            ))),
            None => Ok(()),
        }
    }
}
