//! What descriptors ask for (`warm: {tier, pin}`) starts by itself when a version is committed.
//!
//! ```text
//! "wc"   CursorRecord   the last event that was followed
//! ```
//!
//! The log of events is followed from where it was left, so a version that is committed while no
//! catalog runs, or just before one is killed, is warmed all the same. The id of such a job follows from
//! the dataset and the version: several catalogs over one database make one job. A newer version cancels
//! the job of an older one. When no node is there, nothing is to be warmed; after a start, nodes have
//! [`SETTLE`] to report first.
//!
//! The same task ends jobs that are too old and forgets those that ended long ago.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::Nodes;
use super::job::{Cause, State, Tier, Work};
use super::jobs::{JobsError, MAX_NODES};
use super::name::JobId;
use super::record::{CursorRecord, decode, encode};
use crate::descriptor::WarmTier;
use crate::kv::{KvError, Txn};
use crate::ledger::{Event, EventKind, LedgerError, system_clock};
use crate::{Selector, VersionRef};

const CURSOR: &[u8] = b"wc";

/// Events that are read at a time.
const PAGE: usize = 256;
/// Without a wake-up the events are read so often: a wake-up may get lost.
const LOOK: Duration = Duration::from_secs(5);
/// Time between two rounds of tidying.
const TIDY: Duration = Duration::from_secs(60);
/// How long nodes have to report after a start, several times what they take.
const SETTLE: Duration = Duration::from_secs(20);
/// While nodes are waited for, how often it is looked.
const LOOK_FOR_NODES: Duration = Duration::from_millis(500);

/// Why an event was not followed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Jobs(#[from] JobsError),
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// Follows the events until `stop`. One such task for each catalog.
pub async fn follow(nodes: Nodes, stop: CancellationToken) {
    let follower = Follower {
        nodes,
        began: Instant::now(),
    };
    let mut tidy = tokio::time::interval(TIDY);
    loop {
        let pause = match follower.catch_up().await {
            Ok(true) => LOOK,
            Ok(false) => LOOK_FOR_NODES,
            Err(error) => {
                tracing::warn!(%error, "what descriptors want warm is looked at again later");
                LOOK
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = follower.woken(pause) => {}
            _ = tidy.tick() => {
                let now_ms = system_clock()();
                match follower.nodes.jobs.tidy(now_ms).await {
                    Ok(0) => {}
                    Ok(failed) => tracing::warn!(failed, "warm-up jobs took too long"),
                    Err(error) => tracing::warn!(%error, "warm-up jobs are not tidied"),
                }
                if let Err(error) = follower.nodes.tidy(now_ms).await {
                    tracing::warn!(%error, "reports of nodes that are gone stay");
                }
            }
        }
    }
}

struct Follower {
    nodes: Nodes,
    began: Instant,
}

impl Follower {
    /// Returns when there may be events, at the latest after `pause`.
    async fn woken(&self, pause: Duration) {
        let watching = async {
            match self.nodes.ledger.watch_events().await {
                Ok(mut watch) => watch.changed().await.is_ok(),
                Err(_) => false,
            }
        };
        let waking = async {
            if !watching.await {
                std::future::pending::<()>().await;
            }
        };
        tokio::time::timeout(pause, waking).await.ok();
    }

    /// Follows everything there is. `false`: nodes are waited for, ask again soon.
    async fn catch_up(&self) -> Result<bool, FollowError> {
        let mut after = self.cursor().await?;
        loop {
            let events = match self.nodes.ledger.events(after, PAGE).await {
                Err(LedgerError::Trimmed(first)) => {
                    after = first;
                    self.keep(after).await?;
                    continue;
                }
                events => events?,
            };
            let Some(last) = events.last() else {
                return Ok(true);
            };
            let end = last.sequence;
            for event in &events {
                if !self.consider(event).await? {
                    self.keep(after).await?;
                    return Ok(false);
                }
                after = event.sequence;
            }
            self.keep(end).await?;
        }
    }

    /// Where the last catalog stopped; a new one begins with what happens from now on.
    async fn cursor(&self) -> Result<u64, FollowError> {
        let kv = self.nodes.jobs.kv();
        if let Some(stored) = kv.get(CURSOR).await? {
            return Ok(decode::<CursorRecord>(&stored.value)?.after);
        }
        let mut after = 0;
        loop {
            match self.nodes.ledger.events(after, PAGE).await {
                Err(LedgerError::Trimmed(first)) => after = first,
                Err(error) => return Err(error.into()),
                Ok(events) => match events.last() {
                    Some(last) => after = last.sequence,
                    None => break,
                },
            }
        }
        self.keep(after).await?;
        Ok(after)
    }

    /// Remembers the place. Another catalog may have got further; then some events are followed twice,
    /// which makes nothing twice.
    async fn keep(&self, after: u64) -> Result<(), FollowError> {
        let record = encode(&CursorRecord { after })?;
        let txn = Txn::new().put(CURSOR.into(), record);
        self.nodes.jobs.kv().txn(txn).await?;
        Ok(())
    }

    /// Makes the job that an event asks for. `false`: not yet, nodes are waited for.
    async fn consider(&self, event: &Event) -> Result<bool, FollowError> {
        let EventKind::VersionCommitted { version, .. } = event.what else {
            return Ok(true);
        };
        let dataset = match self.nodes.ledger.dataset(&event.dataset).await {
            Ok(dataset) if dataset.id == event.id => dataset,
            Ok(_) | Err(LedgerError::NoDataset(_)) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let wanted = &dataset.descriptor.warm;
        let tier = match wanted.tier {
            WarmTier::None => return Ok(true),
            WarmTier::Metadata => Tier::Metadata,
            WarmTier::Full => Tier::Hot,
        };
        let selector = Selector::new(event.dataset.clone(), VersionRef::Number(version));
        let found = match self.nodes.ledger.resolve(&selector).await {
            Ok(found) => found,
            Err(LedgerError::NoDataset(_) | LedgerError::NoVersion(..)) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let now_ms = system_clock()();
        let presence = self.nodes.presence(now_ms).await;
        let mut nodes = presence.able(&event.dataset, version, tier, now_ms);
        if nodes.is_empty() {
            if self.began.elapsed() < SETTLE {
                return Ok(false);
            }
            tracing::info!(%selector, "nothing is warmed: no node mounts this catalog");
            return Ok(true);
        }
        nodes.truncate(MAX_NODES);
        self.cancel_older(event, version, now_ms).await?;
        let work = Work {
            selector: selector.to_string(),
            dataset: event.dataset.clone(),
            version,
            tier,
            pin: wanted.pin && tier == Tier::Hot,
            bytes: if tier == Tier::Hot {
                found.totals.bytes
            } else {
                0
            },
            nodes,
            by: format!("the descriptor of {}", event.dataset),
            cause: Cause::Policy,
        };
        match self
            .nodes
            .jobs
            .create(Some(id_of(event, version)), work, now_ms)
            .await
        {
            Ok(job) => {
                let (id, nodes) = (job.id.as_str(), job.work.nodes.len());
                tracing::info!(%selector, job = id, nodes, "a new version is warmed");
            }
            // What is under way comes first; this version is warm when it is read.
            Err(error @ (JobsError::Full | JobsError::Invalid(_))) => {
                tracing::warn!(%selector, %error, "a new version is not warmed");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Nobody waits for an older version any more.
    async fn cancel_older(
        &self,
        event: &Event,
        version: u64,
        now_ms: i64,
    ) -> Result<(), FollowError> {
        for job in self.nodes.jobs.active().await? {
            let older = job.work.dataset == event.dataset && job.work.version < version;
            if older && job.work.cause == Cause::Policy {
                let (ended, _) = self.nodes.jobs.cancel(&job.id, now_ms).await?;
                let state = ended
                    .ended
                    .map_or("active", |(state, _): (State, i64)| state.as_str());
                tracing::info!(
                    job = job.id.as_str(),
                    state,
                    "an older version is warmed no more"
                );
            }
        }
        Ok(())
    }
}

/// The same in every catalog over one database.
fn id_of(event: &Event, version: u64) -> JobId {
    let mut hash = Sha256::new();
    hash.update(b"warm policy");
    hash.update(event.id.0.to_be_bytes());
    hash.update(version.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut id = [0; 6];
    id.copy_from_slice(&digest[..6]);
    JobId::from_bytes(id)
}
