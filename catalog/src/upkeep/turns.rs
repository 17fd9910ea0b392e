//! Whose turn it is to do a piece of work, and when: a lease in the catalog's database.
//!
//! ```text
//! "up/" name    TurnRecord { at_ms, ended, holder, until_ms }    JSON
//!
//! due      at_ms + every          when the last turn ended well, or there was none
//!          at_ms + RETRY          when it did not, or its holder is gone
//! take     due, and nobody's or until_ms is over  -> holder = this catalog, at_ms = now, until_ms = now + LEASE
//! renew    every third of LEASE, by compare; a holder that is told so, or cannot, stops at once
//! ```
//!
//! The first catalog that looks notes the time, so that the first turn comes one interval later. Catalogs
//! compare their own clocks: one that is wrong by less than [`LEASE`] takes no turn that another one has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::kv::{Kv, KvError, Txn, TxnOutcome, Versioned};

/// A holder that is silent for so long is gone.
pub(super) const LEASE: Duration = Duration::from_secs(300);
/// A turn that did not end well is taken again after this, or after its interval if that is shorter.
const RETRY: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TurnRecord {
    /// When the last turn began, or the first look was.
    at_ms: i64,
    /// Whether it ended well.
    ended: bool,
    /// Who has the turn.
    holder: Option<String>,
    /// Until when, unless it is renewed.
    until_ms: i64,
}

/// See the module text.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    kv: Arc<dyn Kv>,
    holder: String,
}

impl Turns {
    /// For one catalog.
    pub(super) fn new(kv: Arc<dyn Kv>) -> Self {
        Self {
            kv,
            holder: format!("{:016x}", rand::random::<u64>()),
        }
    }

    /// Takes the turn if it is due and nobody has it. Of several catalogs one gets it.
    pub(super) async fn take(
        &self,
        name: &str,
        every: Duration,
        now_ms: i64,
    ) -> Result<bool, KvError> {
        let (record, read) = self.read(name).await?;
        let Some(record) = record else {
            let first = TurnRecord {
                at_ms: now_ms,
                ended: true,
                holder: None,
                until_ms: 0,
            };
            self.write(name, &first, read.as_ref()).await?;
            return Ok(false);
        };
        let pause = if record.ended {
            every
        } else {
            RETRY.min(every)
        };
        let is_due = now_ms.saturating_sub(record.at_ms) >= millis(pause);
        let is_free = record.holder.is_none() || record.until_ms <= now_ms;
        if !is_due || !is_free {
            return Ok(false);
        }
        let own = TurnRecord {
            at_ms: now_ms,
            ended: false,
            holder: Some(self.holder.clone()),
            until_ms: now_ms.saturating_add(millis(LEASE)),
        };
        self.write(name, &own, read.as_ref()).await
    }

    /// Keeps the turn. `false`: it is another's by now.
    pub(super) async fn renew(&self, name: &str, now_ms: i64) -> Result<bool, KvError> {
        let (record, read) = self.read(name).await?;
        let Some(record) = record.filter(|record| self.is_own(record)) else {
            return Ok(false);
        };
        let kept = TurnRecord {
            until_ms: now_ms.saturating_add(millis(LEASE)),
            ..record
        };
        self.write(name, &kept, read.as_ref()).await
    }

    /// Gives the turn back. One that is another's by now stays so.
    pub(super) async fn end(&self, name: &str, well: bool) -> Result<(), KvError> {
        let (record, read) = self.read(name).await?;
        if let Some(record) = record.filter(|record| self.is_own(record)) {
            let over = TurnRecord {
                ended: well,
                holder: None,
                ..record
            };
            self.write(name, &over, read.as_ref()).await?;
        }
        Ok(())
    }

    fn is_own(&self, record: &TurnRecord) -> bool {
        record.holder.as_ref() == Some(&self.holder)
    }

    async fn read(&self, name: &str) -> Result<(Option<TurnRecord>, Option<Versioned>), KvError> {
        let read = self.kv.get(&key(name)).await?;
        let record = read.as_ref().map(|read| {
            let record = serde_json::from_slice(&read.value);
            record.map_err(|error| KvError::Corrupt(format!("the turn of {name}: {error}")))
        });
        Ok((record.transpose()?, read))
    }

    async fn write(
        &self,
        name: &str,
        record: &TurnRecord,
        read: Option<&Versioned>,
    ) -> Result<bool, KvError> {
        let value = serde_json::to_vec(record).map_err(|e| KvError::Corrupt(e.to_string()))?;
        let key = key(name);
        let txn = Txn::new()
            .unchanged(key.clone(), read)
            .put(key, value.into());
        let done = self.kv.txn(txn).await?;
        Ok(matches!(done, TxnOutcome::Committed { .. }))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn key(name: &str) -> Bytes {
    [b"up/", name.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::kv::rocks::RocksKv;

    const DAY: Duration = Duration::from_secs(86_400);
    const DAY_MS: i64 = 86_400_000;

    fn two() -> (Turns, Turns, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let kv: Arc<dyn Kv> = Arc::new(RocksKv::open(&directory.path().join("kv")).unwrap());
        (Turns::new(Arc::clone(&kv)), Turns::new(kv), directory)
    }

    // Two catalogs that both work read every file of the store twice, each time.
    #[tokio::test]
    async fn one_of_several_has_the_turn() {
        let (one, two, _directory) = two();
        let take = async |who: &Turns, now_ms| who.take("gc", DAY, now_ms).await.unwrap();
        assert!(!take(&one, 5).await, "the first look only notes the time");
        assert!(!take(&one, DAY_MS).await);
        assert!(take(&one, DAY_MS + 5).await);
        assert!(!take(&two, DAY_MS + 6).await);
        assert!(one.renew("gc", DAY_MS + 200_000).await.unwrap());
        assert!(!take(&two, DAY_MS + 400_000).await, "it is renewed");
        one.end("gc", true).await.unwrap();
        assert!(!take(&two, 2 * DAY_MS).await);
        assert!(take(&two, 2 * DAY_MS + 5).await);
        // What one does not have it cannot keep, and does not end.
        assert!(!one.renew("gc", 2 * DAY_MS + 6).await.unwrap());
        one.end("gc", true).await.unwrap();
        assert!(two.renew("gc", 2 * DAY_MS + 7).await.unwrap());
        // Another piece of work has turns of its own.
        assert!(!one.take("scrub", DAY, 9).await.unwrap());
        assert!(one.take("scrub", DAY, 9 + DAY_MS).await.unwrap());
    }

    // A catalog that is killed at work would keep the turn for ever, and what failed would wait a day.
    #[tokio::test]
    async fn a_turn_that_ended_badly_is_taken_again() {
        let (one, two, _directory) = two();
        let take = async |who: &Turns, now_ms| who.take("gc", DAY, now_ms).await.unwrap();
        take(&one, 0).await;
        assert!(take(&one, DAY_MS).await);
        let (lease, retry) = (millis(LEASE), millis(RETRY));
        assert!(!take(&two, DAY_MS + lease).await, "not at once");
        assert!(take(&two, DAY_MS + retry).await, "the holder is gone");
        two.end("gc", false).await.unwrap();
        assert!(!take(&one, DAY_MS + 2 * retry - 1).await);
        assert!(take(&one, DAY_MS + 2 * retry).await);
    }
}
